"""A root of its own: pivot_root and what must be hidden after it. Lab 03.

Man pages: pivot_root(2), mount_namespaces(7). The masked and read-only paths are the OCI runtime-spec's
``linux.maskedPaths`` and ``linux.readonlyPaths``.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.linux.mount import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    mount_setattr,
    pivot_root,
    umount,
)
from minicontainer.runtime.mounts import copy_of, new_filesystem, place


def enter_root(rootfs: str) -> None:
    """Make the mount point `rootfs` the root of this mount namespace and let the old root go.

    The old root is stacked on the same place ("." twice) and detached from there, so that no directory for it is
    needed in the new root (man 2 pivot_root, NOTES).

    :raises SyscallError: EINVAL where `rootfs` is not a mount point or the tree is still shared.
    """
    old = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(rootfs)
        pivot_root(".", ".")
        os.fchdir(old)
        umount(".", MNT_DETACH)
        os.chdir("/")
    finally:
        os.close(old)


def mask(masked: list[str], read_only: list[str]) -> None:
    """Cover the files and directories in `masked` with emptiness and make the trees in `read_only` unwritable.

    Paths that do not exist are passed over. A directory is covered by one empty read-only tmpfs that all of them
    share, a file by this container's own /dev/null, which is checked to be the real one: a device node that somebody
    replaced by a link would otherwise be the thing mounted (CVE-2025-31133).
    """
    covered: str | None = None
    for path in masked:
        target = _open_existing(path)
        if target is None:
            continue
        try:
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                _cover_with_null(target)
            elif covered is None:
                place(new_filesystem("tmpfs", ["nr_blocks=1", "nr_inodes=1"], MOUNT_ATTR_RDONLY), target)
                covered = path
            else:
                place(copy_of(AT_FDCWD, covered), target)
        finally:
            os.close(target)
    for path in read_only:
        target = _open_existing(path)
        if target is None:
            continue
        try:
            tree = copy_of(target, recursive=True)
            mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set=MOUNT_ATTR_RDONLY)
            place(tree, target)
        finally:
            os.close(target)


def _cover_with_null(target: int) -> None:
    """Mount the null device over the open file `target`, once it is sure to be that device."""
    null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        device = os.fstat(null)
        if not stat.S_ISCHR(device.st_mode) or device.st_rdev != os.makedev(1, 3):
            raise OSError(errno.EINVAL, "not the null device: the image or a volume replaced it", "/dev/null")
        place(copy_of(null), target)
    finally:
        os.close(null)


def _open_existing(path: str) -> int | None:
    """An O_PATH descriptor of `path` itself (not of what a link points to), or None where there is nothing."""
    try:
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
