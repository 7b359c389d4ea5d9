"""Mounting into a root that may be hostile: every target is a descriptor resolved inside the root, never a path.

An image may hold ``/proc -> /host/etc``; resolved with RESOLVE_IN_ROOT, the link leads to a place inside the image.
A file system is first made where no path leads to it (fsopen, open_tree) and then placed on the descriptor.
Labs 03 and 09. Man pages: fsopen, open_tree, move_mount, mount_setattr(2), openat2(2); OCI runtime-spec config.md
"Mounts" and "Linux mount options".
"""

from __future__ import annotations

import errno
import os
from typing import Any

from minicontainer.cgroup.hierarchy import CONTAINER_CONTROLLERS, detect
from minicontainer.errors import StepError
from minicontainer.linux.mount import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MS_NOATIME,
    MS_NODIRATIME,
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_UNBINDABLE,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    fsconfig,
    fsmount,
    fsopen,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
)
from minicontainer.linux.path import is_directory, make_in_root, normal, open_in_root

Mount = dict[str, Any]

# Options that are attributes of the mount: (bits to set, bits to clear).
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
    "relatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "norelatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME),
    "atime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    "nostrictatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
}
_PROPAGATION = {"private": MS_PRIVATE, "shared": MS_SHARED, "slave": MS_SLAVE, "unbindable": MS_UNBINDABLE}
# Flags of the file system itself; with fsopen they are options without a value.
_SUPERBLOCK_FLAGS = frozenset({"sync", "async", "dirsync", "lazytime", "mand", "silent", "iversion"})
_IGNORED = frozenset({"defaults", "nolazytime", "nomand", "loud", "noiversion", "async"})


def known_options() -> list[str]:
    """Every mount option that has a meaning here, sorted; others are handed to the file system."""
    plain = [*_ATTRIBUTES, *_PROPAGATION]
    return sorted({*plain, *("r" + name for name in plain), *_IGNORED, "bind", "rbind", "tmpcopyup"})


class Options:
    """Mount options sorted by what they are about.

    :ivar set, clear: mount attributes of this mount; ``recursive_set`` and ``recursive_clear`` of the tree below it.
    :ivar propagation: list of (type, whole tree?).
    :ivar bind, recursive: whether it is a bind mount, and of the whole tree.
    :ivar data: what is left: options of the file system.
    """

    def __init__(self, options: list[str]) -> None:
        self.set = self.clear = self.recursive_set = self.recursive_clear = 0
        self.propagation: list[tuple[int, bool]] = []
        self.bind = self.recursive = self.copy_up = False
        self.data: list[str] = []
        for option in options:
            self._sort(option)

    def _sort(self, option: str) -> None:
        if option in ("bind", "rbind"):
            self.bind, self.recursive = True, option == "rbind"
        elif option in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option]
            self.set, self.clear = self.set & ~off | on, self.clear & ~on | off
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option[1:]]
            self.recursive_set |= on
            self.recursive_clear |= off
        elif option in _PROPAGATION:
            self.propagation.append((_PROPAGATION[option], False))
        elif option[:1] == "r" and option[1:] in _PROPAGATION:
            self.propagation.append((_PROPAGATION[option[1:]], True))
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option not in _IGNORED:
            self.data.append(option)


def mount_in_root(rootfs: str, entry: Mount) -> None:
    """Mount one entry of the OCI ``mounts`` list below the directory `rootfs`.

    A missing target is made (a file for a bind of a file, else a directory), with every part resolved inside `rootfs`.

    :raises SyscallError: with the path that the kernel refused.
    :raises StepError: where the destination lies on /proc without being /proc itself (CVE-2019-19921).
    """
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount_below(root, entry)
    finally:
        os.close(root)


def mount_below(root: int, entry: Mount) -> None:
    """As :func:`mount_in_root`, with the root as an open directory."""
    destination: str = normal(entry["destination"])
    kind: str = entry.get("type", "none")
    options = Options(entry.get("options", []))
    source: str = entry.get("source", kind)
    if kind == "cgroup":
        _mount_cgroups(root, destination, options)
        return
    if options.bind or kind in ("bind", "none") and "source" in entry:
        _mount_bind(root, destination, source, options)
        return
    target = make_in_root(root, destination, directory=True)
    try:
        if kind != "proc":
            _refuse_proc(root, target)
        if options.recursive_set or options.propagation:
            tree = new_filesystem(kind, options.data, options.set, source)
            _finish(tree, options)
            place(tree, target)
        else:
            mount_on(target, kind, options.data, options.set, source)
    except OSError as error:
        # The person knows the path in the container, not our descriptor's name for it.
        error.filename = destination if kind_is_known(error) else f"{destination} (type {kind})"
        raise
    finally:
        os.close(target)


def kind_is_known(error: OSError) -> bool:
    """Whether a mount failed for another reason than a file system type that the kernel does not have."""
    return error.errno != errno.ENODEV


def _mount_bind(root: int, destination: str, source: str, options: Options) -> None:
    """Show the host's file or directory `source` at `destination`."""
    tree = copy_of(AT_FDCWD, source, recursive=options.recursive)
    try:
        target = make_in_root(root, destination, directory=is_directory(tree))
    except BaseException:
        os.close(tree)
        raise
    try:
        _refuse_proc(root, target)
        if options.set or options.clear:
            mount_setattr(tree, "", AT_EMPTY_PATH, set=options.set, clear=options.clear)
        _finish(tree, options)
        place(tree, target)  # closes it; before that, the end of this process does
    finally:
        os.close(target)


def _finish(tree: int, options: Options) -> None:
    """Recursive attributes and propagation of a mount that is not placed yet."""
    if options.recursive_set or options.recursive_clear:
        flags = AT_EMPTY_PATH | AT_RECURSIVE
        mount_setattr(tree, "", flags, set=options.recursive_set, clear=options.recursive_clear)
    for kind, recursive in options.propagation:
        mount_setattr(tree, "", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), propagation=kind)


# What runc, too, lets a container cover inside /proc: files that lxcfs provides.
_PROC_ALLOWED = frozenset(
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)


def _refuse_proc(root: int, target: int) -> None:
    """No volume over /proc: its files are where the runtime itself writes (CVE-2019-16884, CVE-2019-19921).

    What counts is where the target really is, after all links of the image have been followed.
    """
    below = os.readlink(f"/proc/self/fd/{root}").rstrip("/")
    path = os.readlink(f"/proc/self/fd/{target}").removeprefix(below)
    if (path == "/proc" or path.startswith("/proc/")) and path not in _PROC_ALLOWED:
        raise StepError(
            f"mount: {path} is inside /proc and cannot be covered",
            step="mount",
            path=path,
            hint="choose another path in the container for this volume",
        )


def _mount_cgroups(root: int, destination: str, options: Options) -> None:
    """The container's control groups: one cgroup2 mount, or on v1 a tmpfs with a mount for each hierarchy.

    In a cgroup namespace of its own a new mount shows the container's group as the root. Without one it would show the
    whole machine's tree, so the container's own directories are bound instead.
    """
    hierarchies = detect()
    attributes = options.set
    groups = own_groups()
    if not hierarchies.v1:
        target = make_in_root(root, destination, directory=True)
        _mount_cgroup(target, hierarchies.v2 or "", groups.get("", "/"), ["cgroup2"], attributes)
        return
    outer = [*_words(attributes & ~MOUNT_ATTR_RDONLY), "mode=755", "size=64k"]
    mount_below(root, {"destination": destination, "type": "tmpfs", "source": "cgroup", "options": outer})
    together: dict[str, list[str]] = {}
    for controller in CONTAINER_CONTROLLERS:
        if controller in hierarchies.v1:
            together.setdefault(hierarchies.v1[controller], []).append(controller)
    top = open_in_root(
        root, destination, os.O_PATH
    )  # the tmpfs just made: nobody else can have put links into it
    try:
        for directory, names in together.items():
            name = ",".join(names)
            os.mkdir(name, 0o755, dir_fd=top)
            target = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
            _mount_cgroup(target, directory, groups.get(names[0], "/"), names, attributes)
        if attributes & MOUNT_ATTR_RDONLY:
            mount_setattr(top, "", AT_EMPTY_PATH, set=MOUNT_ATTR_RDONLY)
    finally:
        os.close(top)


def _mount_cgroup(target: int, hierarchy: str, group: str, controllers: list[str], attributes: int) -> None:
    """One hierarchy on `target`, which is closed: a new mount where our group is its root, else a bind of our group."""
    try:
        if group == "/" or not hierarchy:
            kind = "cgroup2" if controllers == ["cgroup2"] else "cgroup"
            names = [] if kind == "cgroup2" else controllers
            mount_on(target, kind if hierarchy else "tmpfs", names, attributes, "cgroup")
        else:
            tree = copy_of(AT_FDCWD, hierarchy + group)
            mount_setattr(tree, "", AT_EMPTY_PATH, set=attributes)
            place(tree, target)
    finally:
        os.close(target)


def own_groups() -> dict[str, str]:
    """This process's group by v1 controller, and by "" on v2, as its cgroup namespace shows it (man 7 cgroups)."""
    found = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            for name in names.split(","):
                found[name] = path
    return found


def _words(attributes: int) -> list[str]:
    """Mount attributes as option words again."""
    names = ("ro", "nosuid", "nodev", "noexec")
    return [name for name in names if attributes & _ATTRIBUTES[name][0]]


# MOUNT_ATTR_* bits beside the MS_* bits that mean the same; the lowest four are equal.
_SAME_AS_FLAG = (
    (MOUNT_ATTR_NOATIME, MS_NOATIME),
    (MOUNT_ATTR_STRICTATIME, MS_STRICTATIME),
    (MOUNT_ATTR_NODIRATIME, MS_NODIRATIME),
    (MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW),
)


def mount_on(target: int, kind: str, options: list[str], attributes: int, source: str) -> None:
    """A new file system of type `kind` on the open directory `target`, by the one call that mount(2) is.

    The descriptor's name in /proc is a magic link to just that directory. Cheaper than :func:`new_filesystem`, which
    takes five calls; without its finer errors.
    """
    flags = attributes & 0xF
    for attribute, flag in _SAME_AS_FLAG:
        if attributes & attribute:
            flags |= flag
    mount(source, f"/proc/self/fd/{target}", kind, flags, ",".join(options))


def new_filesystem(kind: str, options: list[str], attributes: int = 0, source: str | None = None) -> int:
    """A detached mount of a new file system of type `kind`; returns its descriptor.

    :param options: the file system's own, as words or ``key=value``.
    :param attributes: MOUNT_ATTR_* bits.
    :raises SyscallError: ENODEV for an unknown type, EINVAL for an option it does not take.
    """
    context = fsopen(kind)
    try:
        if source:
            fsconfig(context, FSCONFIG_SET_STRING, "source", source)
        for option in options:
            key, separator, value = option.partition("=")
            if separator:
                fsconfig(context, FSCONFIG_SET_STRING, key, value)
            elif key:
                fsconfig(context, FSCONFIG_SET_FLAG, key)
        fsconfig(context, FSCONFIG_CMD_CREATE)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def copy_of(dirfd: int, path: str = "", *, recursive: bool = False) -> int:
    """A detached copy of the mount (or part of one) at `path`, or behind `dirfd` where `path` is empty.

    :raises SyscallError: ENOENT where the source does not exist.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return open_tree(dirfd, path, flags if path else flags | AT_EMPTY_PATH)


def place(tree: int, target: int) -> None:
    """Attach the detached mount behind `tree` on the file or directory behind `target`, and close `tree`."""
    try:
        move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            error.strerror = "a directory cannot be mounted on a file, nor a file on a directory"
        raise
    finally:
        os.close(tree)
