"""Opening paths that somebody hostile may have prepared: openat2(2).

A container's file system may hold ``/etc -> /host/etc`` or ``../../..``. Resolved with RESOLVE_IN_ROOT, no path leads
out of the directory it starts from, whatever its symbolic links say and however they are swapped meanwhile.
Man page: openat2(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat as stat_module

from minicontainer.linux.libc import syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """open(2) with rules for how `path` is resolved; always close-on-exec (man 2 openat2, Linux 5.6).

    :raises SyscallError: ELOOP or EXDEV where a rule is broken, EAGAIN where a racing rename kept the kernel from
        deciding (:func:`open_in_root` tries again).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    text = os.fsdecode(path)
    return syscall("openat2", dirfd, os.fsencode(path), how, ctypes.sizeof(how), path=text)


def open_in_root(dirfd: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as if the directory behind `dirfd` were "/": nothing outside of it can be reached."""
    while True:
        try:
            return openat2(dirfd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise


def normal(path: str) -> str:
    """`path` as an absolute path without "//", "." and ".."; os.path.normpath(3) alone keeps a leading "//"."""
    return os.path.normpath("/" + path.lstrip("/"))


def make_in_root(root: int, path: str, *, directory: bool, mode: int = 0o755) -> int:
    """Make sure that `path` exists below the directory `root`, and return an O_PATH descriptor of it.

    Missing parts are made one by one, each below a descriptor of its parent; symbolic links are followed inside the
    root, dangling ones by making what they point to. A link swapped in meanwhile cannot lead out: every part is opened
    with RESOLVE_IN_ROOT. An existing last part is taken as it is, whatever its type.

    :raises SyscallError: ENOTDIR, ELOOP and the like where the image makes the path impossible.
    """
    try:
        return open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    ahead = [part for part in path.split("/") if part not in ("", ".")]
    behind: list[str] = []
    links = 0
    while ahead:
        part = ahead.pop(0)
        if part == "..":
            behind = behind[:-1]
            continue
        here = "/" + "/".join([*behind, part])
        try:
            descriptor = open_in_root(root, here, os.O_PATH | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            parent = open_in_root(root, "/" + "/".join(behind), os.O_PATH)
            try:
                descriptor = _make_entry(parent, part, directory or bool(ahead), mode)
            finally:
                os.close(parent)
        try:
            target = os.readlink("", dir_fd=descriptor) if _is_link(descriptor) else None
        finally:
            os.close(descriptor)
        if target is None:
            behind.append(part)
            continue
        links += 1
        if links > 40:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            behind = []
        ahead = [word for word in target.split("/") if word not in ("", ".")] + ahead
    return open_in_root(root, "/" + "/".join(behind), os.O_PATH)


def _is_link(descriptor: int) -> bool:
    return stat_module.S_ISLNK(os.fstat(descriptor).st_mode)


def _make_entry(parent: int, name: str, directory: bool, mode: int) -> int:
    """Create one directory or empty file below `parent`, never through a link, and open it with O_PATH."""
    where = os.open(f"/proc/self/fd/{parent}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            if directory:
                os.mkdir(name, mode, dir_fd=where)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=where))
        except FileExistsError:
            pass  # another mount of the same parent was quicker, or a dangling link: the open below decides
        return openat2(where, name, os.O_PATH, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(where)


def is_directory(descriptor: int) -> bool:
    """Whether the open file (or O_PATH descriptor) is a directory."""
    return stat_module.S_ISDIR(os.fstat(descriptor).st_mode)
