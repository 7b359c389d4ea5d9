"""The file system tree: mount(2) and its newer relatives that work on descriptors instead of paths.

Built on in labs 03 (mounts and pivot_root), 05 (overlay) and 09 (volumes). Man pages: mount(2), umount(2),
pivot_root(2), mount_namespaces(7); open_tree, move_mount, mount_setattr, fsopen (man pages of Linux 6.x).
"""

from __future__ import annotations

import ctypes
import os

from minicontainer.linux.libc import fail, function, syscall

# mount(2) flags, <sys/mount.h>
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_I_VERSION = 0x800000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

# umount2(2) flags
MNT_FORCE = 0x1
MNT_DETACH = 0x2
MNT_EXPIRE = 0x4
UMOUNT_NOFOLLOW = 0x8

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_SYMLINKS = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

# mount_setattr(2) attributes
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

_mount = function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)


def mount(
    source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None
) -> None:
    """Attach a file system, or change a mount, at `target` (man 2 mount).

    :raises SyscallError: with `target` as its path; EPERM without CAP_SYS_ADMIN over the mount namespace, EINVAL for
        a combination the kernel does not know, ENODEV for an unknown file system type.
    """
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, fstype, data)]
    if _mount(arguments[0], arguments[1], arguments[2], flags, arguments[3]) != 0:
        raise fail("mount", target)


def umount(target: str, flags: int = 0) -> None:
    """Take the topmost mount off `target` (man 2 umount2).

    :raises SyscallError: EBUSY while it is in use (unless MNT_DETACH), EINVAL where nothing is mounted.
    """
    if _umount2(os.fsencode(target), flags) != 0:
        raise fail("umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of this mount namespace and hang the old root at `put_old` (man 2 pivot_root).

    :raises SyscallError: EINVAL where `new_root` is not a mount point, or its parent or the current root is shared;
        EBUSY where it is the current root.
    """
    syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old), path=new_root)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """A descriptor for the mount or directory at `path`; with OPEN_TREE_CLONE for a detached copy of it."""
    return syscall("open_tree", dirfd, os.fsencode(path), flags, path=path)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """Attach the mount behind `from_fd` at the place behind `to_fd`, with no path to be raced in between."""
    syscall("move_mount", from_fd, os.fsencode(from_path), to_fd, os.fsencode(to_path), flags, path=to_path)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int,
    *,
    set: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change a mount's attributes, with AT_RECURSIVE of the whole tree below it (man 2 mount_setattr, Linux 5.12)."""
    attributes = _MountAttr(set, clear, propagation, userns_fd)
    size = ctypes.sizeof(attributes)
    syscall("mount_setattr", dirfd, os.fsencode(path), flags, attributes, size, path=path)


def fsopen(fstype: str) -> int:
    """Begin a new file system of type `fstype` that no path leads to yet; returns its configuration descriptor."""
    return syscall("fsopen", os.fsencode(fstype), FSOPEN_CLOEXEC, path=fstype)


def fsconfig(descriptor: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set one option of, or create, the file system that fsopen began."""
    encoded_key = None if key is None else os.fsencode(key)
    encoded_value = None if value is None else os.fsencode(value)
    syscall("fsconfig", descriptor, command, encoded_key, encoded_value, 0, path=key)


def fsmount(descriptor: int, attributes: int = 0) -> int:
    """A detached mount of the configured file system, to be placed by :func:`move_mount`."""
    return syscall("fsmount", descriptor, FSMOUNT_CLOEXEC, attributes)
