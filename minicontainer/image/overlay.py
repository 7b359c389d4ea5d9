"""How overlayfs says "deleted here": whiteouts and opaque directories.

An archive says it with names (``.wh.NAME``, ``.wh..wh..opq``); overlayfs with a character device 0:0 in place of the
deleted entry and an attribute on a directory that hides all below it. In a user namespace overlayfs is mounted with
``userxattr`` and looks for the attribute under ``user.`` instead of ``trusted.``; the device any user may make since
Linux 5.8. Used in labs 04 and 05. Source: kernel Documentation/filesystems/overlayfs.rst, OCI image-spec layer.md.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.linux.namespace import in_user_namespace

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."  # aufs' own bookkeeping, which Docker's layers may still hold

# Attributes by which overlayfs is told things; from an archive they would be orders by a stranger.
PRIVATE = ("trusted.overlay.", "user.overlay.")


def prefix() -> str:
    """Where overlayfs looks for its attributes when this process, or one like it, mounts it."""
    return "trusted.overlay." if os.geteuid() == 0 and not in_user_namespace() else "user.overlay."


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an lstat(2) result is a whiteout in the form that every overlayfs knows."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_whiteout(name: bytes, dirfd: int) -> None:
    """Put a whiteout called `name` into the directory behind `dirfd`.

    Inside another overlay (a store on a container's own root) the device is refused with EPERM; there the form with
    attributes is made, which Linux 6.7 and newer know: an empty file marked as a whiteout, in a directory marked as
    holding such files.
    """
    try:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dirfd)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        where = prefix()
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o000, dir_fd=dirfd))
        try:
            os.setxattr(
                b"/proc/self/fd/%d/%s" % (dirfd, name), where + "whiteout", b"y", follow_symlinks=False
            )
            if not is_opaque(dirfd):
                os.setxattr(dirfd, where + "opaque", b"x")
        except OSError:
            os.unlink(name, dir_fd=dirfd)
            raise error from None


def make_opaque(dirfd: int) -> None:
    """Let the directory behind `dirfd` hide everything that lower layers have in its place."""
    os.setxattr(dirfd, prefix() + "opaque", b"y")


def is_opaque(dirfd: int) -> bool:
    """Whether the directory hides what lies below it."""
    try:
        return os.getxattr(dirfd, prefix() + "opaque") == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            return False
        raise
