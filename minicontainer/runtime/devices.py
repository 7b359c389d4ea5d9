"""A small /dev: the device nodes and links every program may expect, and no others. Lab 03.

OCI runtime-spec config-linux.md "Default Devices" and "Default symbolic links"; man pages null(4), full(4), random(4),
pts(4), mknod(2).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from minicontainer.linux.mount import AT_FDCWD
from minicontainer.linux.path import make_in_root, normal, open_in_root
from minicontainer.runtime.mounts import copy_of, place

DEFAULT_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEFAULT_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


def make_devices(root: int, dev: int, extra: list[dict[str, Any]]) -> None:
    """Fill the open directory `dev`, the container's /dev, below the open root directory `root`.

    A user namespace may not make device nodes; there the host's own nodes are bind-mounted.

    :param extra: OCI ``linux.devices`` entries (path, type, major, minor, fileMode, uid, gid).
    """
    for name, major, minor in DEFAULT_DEVICES:
        _make_node(root, dev, f"/dev/{name}", name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, target in DEFAULT_LINKS:
        try:
            os.symlink(target, name, dir_fd=dev)
        except FileExistsError:
            continue  # a volume was mounted over /dev and has its own
    for device in extra:
        kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[device["type"]]
        mode = kind | device.get("fileMode", 0o666)
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        path = normal(device["path"])
        parent = make_in_root(root, os.path.dirname(path), directory=True)
        try:
            made = _make_node(root, parent, path, os.path.basename(path), mode, number)
            if made and (device.get("uid") or device.get("gid")):
                os.chown(os.path.basename(path), device.get("uid", 0), device.get("gid", 0), dir_fd=parent)
        finally:
            os.close(parent)


def _make_node(root: int, parent: int, path: str, name: str, mode: int, number: int) -> bool:
    """One device node, or a bind mount of the host's where nodes cannot be made; whether the node is our own."""
    try:
        os.mknod(name, mode, number, dir_fd=parent)
        os.chmod(name, stat.S_IMODE(mode), dir_fd=parent)  # mknod(2) applied our umask
    except FileExistsError:
        return False
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        source = _on_host(path, number)
        if source is None:
            raise
        target = make_in_root(root, path, directory=False)
        try:
            place(copy_of(AT_FDCWD, source), target)
        finally:
            os.close(target)
        return False
    return True


def _on_host(path: str, number: int) -> str | None:
    """Where the host has the device `number`: at the same path, or elsewhere in /dev; None where nowhere."""
    for candidate in (path, *(entry.path for entry in os.scandir("/dev"))):
        try:
            if os.stat(candidate).st_rdev == number:
                return candidate
        except OSError:
            continue  # a dangling link, or a directory that we may not look into
    return None


def open_console(root: int, size: dict[str, int] | None, *, on_dev_console: bool = True) -> tuple[int, int]:
    """A new pseudo-terminal from the container's own devpts, its slave side bound to /dev/console (man 4 pts).

    The slave is opened by its descriptor (TIOCGPTPEER), never by a path that somebody could swap (CVE-2025-52565).

    :param root: the open root directory; its /dev/pts is mounted.
    :param size: {"height": rows, "width": columns} or None.
    :returns: (master, slave) descriptors.
    """
    import fcntl
    import struct
    import termios

    master = open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK: unlock the slave side
    slave = fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)  # TIOCGPTPEER
    if size:
        window = struct.pack("HHHH", size.get("height", 0), size.get("width", 0), 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, window)
    if on_dev_console:
        target = make_in_root(root, "/dev/console", directory=False)
        try:
            place(copy_of(slave), target)
        finally:
            os.close(target)
    return master, slave
