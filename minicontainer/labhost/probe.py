"""Probes: try what a container needs, each in a throw-away process, and report what the kernel said.

`python -m minicontainer.labhost.probe` prints the results as JSON; the doctor starts it as a process of its own,
since its own caller may be a Jupyter kernel, whose threads forbid it to fork and change namespaces. An ordinary user's
probes run as root of a fresh user namespace, as the lab host does. Man pages: namespaces(7), cgroups(7).
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial

from minicontainer import paths
from minicontainer.errors import MinicontainerError
from minicontainer.linux import hints, interface, mount, namespace, path
from minicontainer.linux.namespace import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

TIME_LIMIT = 10.0  # seconds for one probe


def enter(flags: int) -> None:
    """Move this process into new namespaces; an ordinary user also into a new user namespace, as its root."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and not flags & CLONE_NEWUSER:
        namespace.unshare(flags)
    else:
        namespace.unshare(flags | CLONE_NEWUSER)
        for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    if flags & CLONE_NEWNS:
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)


def user_namespace(directory: str) -> str:
    """A user namespace, and in it the power to mount: AppArmor may grant the one without the other."""
    enter(CLONE_NEWUSER | CLONE_NEWNS)
    mount.mount("tmpfs", directory, "tmpfs")
    return "with the power to mount inside"


def subordinate_ids(_: str) -> str:
    """Ids beside one's own, for images with files of several owners."""
    from minicontainer.labhost import idmap

    if os.geteuid() == 0:
        return "root needs none"
    maps = idmap.choose()
    if maps.why_single:
        raise MinicontainerError(
            "only your own id can be used inside",
            hint=f"{maps.why_single}; fine for all labs that exist so far",
        )
    return f"{maps.uids[1].count} from {maps.uids[1].outside}"


def mounting(directory: str) -> str:
    """A mount namespace, a tmpfs in it, and the calls that mount by descriptor (Linux 5.12)."""
    enter(CLONE_NEWNS)
    mount.mount("tmpfs", directory, "tmpfs")
    tree = mount.open_tree(mount.AT_FDCWD, directory, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
    mount.mount_setattr(tree, "", mount.AT_EMPTY_PATH, set=mount.MOUNT_ATTR_RDONLY)
    os.close(mount.fsopen("tmpfs"))
    os.close(path.openat2(mount.AT_FDCWD, "/", os.O_PATH, 0, path.RESOLVE_NO_SYMLINKS))
    return "mount, open_tree, mount_setattr, fsopen, openat2"


def process_namespaces(_: str) -> str:
    """Own process ids with an own /proc, host name and IPC objects."""
    enter(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC)

    def first_process() -> str:
        if os.getpid() != 1:
            raise MinicontainerError(f"the first process has PID {os.getpid()}, not 1")
        try:
            mount.mount("proc", "/proc", "proc", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC)
        except OSError as error:
            raise MinicontainerError(
                f"no own /proc: {error.strerror}",
                hint="in a container: start it with --security-opt systempaths=unconfined (Docker) or"
                " --security-opt unmask=ALL (Podman)",
            ) from error
        return "pid (with its own /proc), uts, ipc"

    return in_child(first_process)


def network_namespace(_: str) -> str:
    """A network namespace with a loopback interface that can be switched on."""
    enter(CLONE_NEWNET)
    interface.set_up("lo")
    return "with loopback"


def cgroup_namespace(_: str) -> str:
    enter(CLONE_NEWCGROUP)
    return "own view of the cgroup tree"


def terminal(directory: str) -> str:
    """An own devpts, from which a container's terminals come."""
    enter(CLONE_NEWNS)
    mount.mount("devpts", directory, "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
    os.close(os.open(f"{directory}/ptmx", os.O_RDWR | os.O_NOCTTY))
    return "own pseudo-terminals"


def overlay(directory: str) -> str:
    """An overlay on the disk where containers will live: a file of the lower layer deleted through it."""
    from minicontainer.runtime.overlay import stack

    enter(CLONE_NEWNS)
    for name in ("lower/d", "upper", "work", "merged"):
        os.makedirs(f"{directory}/{name}")
    open(f"{directory}/lower/d/file", "w").close()
    merged = f"{directory}/merged"
    stack([f"{directory}/lower"], f"{directory}/upper", f"{directory}/work", merged)
    os.unlink(f"{merged}/d/file")
    os.rmdir(f"{merged}/d")
    os.mkdir(f"{merged}/d")  # an opaque directory: needs extended attributes on the upper file system
    left = os.listdir(f"{merged}/d")
    mount.umount(merged)
    if left or not os.path.exists(f"{directory}/lower/d/file"):
        raise MinicontainerError("deleting through the overlay did not hide the file of the lower layer")
    return f"upper directories on {os.path.dirname(directory)}"


def cgroups(_: str) -> str:
    """Which hierarchies there are, and whether a group of ours can be made in them."""
    from minicontainer.cgroup.hierarchy import detect

    found = detect()
    if found.version == "none":
        raise MinicontainerError("no cgroup file system is mounted", hint="mount it: see `man 7 cgroups`")
    refusal = ""
    for root in found.directories():
        group = f"{root}/minicontainer-doctor-{os.getpid()}"
        try:
            os.mkdir(group)
        except OSError as error:
            refusal = refusal or f"{error.strerror} in {root}"
        else:
            os.rmdir(group)
    controllers = " ".join(found.v1) if found.v1 else " ".join(found.v2_controllers)
    if refusal:
        raise MinicontainerError(
            f"{found.version}, but we may make no group: {refusal}",
            hint="containers run without limits; as root, or with a delegated subtree (systemd: Delegate=yes), there"
            " are some",
        )
    return f"{found.version}: {controllers or 'no controllers'}"


def busybox(_: str) -> str:
    """A static busybox, of which the base image is made."""
    program = shutil.which("busybox")
    if program is None:
        raise MinicontainerError(
            "not found: the base image is made of the host's shell instead",
            hint="Debian, Ubuntu: apt install busybox-static; Fedora: dnf install busybox",
        )
    if is_dynamic(program):
        raise MinicontainerError(
            f"{program} needs shared libraries: the base image is made of the host's shell instead",
            hint="Debian, Ubuntu: apt install busybox-static",
        )
    return f"{program}, static"


def is_dynamic(program: str) -> bool:
    """Whether an ELF executable names a dynamic loader (a PT_INTERP program header; man 5 elf)."""
    import struct

    with open(program, "rb") as file:
        header = file.read(64)
        if header[:4] != b"\x7fELF":
            raise MinicontainerError(f"{program} is not an ELF executable")
        wide, order = header[4] == 2, "<" if header[5] == 1 else ">"
        (table,) = struct.unpack_from(order + ("Q" if wide else "I"), header, 32 if wide else 28)
        size, count = struct.unpack_from(order + "HH", header, 54 if wide else 42)
        file.seek(table)
        entries = file.read(size * count)
    return any(struct.unpack_from(order + "I", entries, size * index)[0] == 3 for index in range(count))


def disk(_: str) -> str:
    """Room for images and containers."""
    place = existing(str(paths.data_root()))
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize // 2**20
    if free < 200:
        raise MinicontainerError(
            f"only {free} MB free in {place}", hint="free at least 200 MB, or set MINICONTAINER_ROOT"
        )
    return f"{free} MB free in {place}"


PROBES: dict[str, Callable[[str], str]] = {
    "user namespace": user_namespace,
    "subordinate ids": subordinate_ids,
    "mount": mounting,
    "process namespaces": process_namespaces,
    "network namespace": network_namespace,
    "cgroup namespace": cgroup_namespace,
    "terminal": terminal,
    "overlay": overlay,
    "cgroups": cgroups,
    "busybox": busybox,
    "disk": disk,
}


def existing(place: str) -> str:
    """`place`, or the nearest directory above it that exists."""
    while not os.path.isdir(place):
        place = os.path.dirname(place) or "/"
    return place


def in_child(function: Callable[[], str], limit: float = TIME_LIMIT) -> str:
    """Run `function` in a forked child; return its text or raise its error, with a time limit in seconds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.write(write, json.dumps(outcome(function)).encode())
        finally:
            os._exit(0)
    os.setpgid(child, child)  # here too: whoever comes first
    os.close(write)
    text = b""
    try:
        while True:
            if not select.select([read], [], [], limit)[0]:
                raise MinicontainerError(f"no answer in {limit:g} seconds")
            part = os.read(read, 65536)
            if not part:
                break
            text += part
    finally:
        os.close(read)
        os.killpg(
            child, signal.SIGKILL
        )  # with what it started; not reaped yet, so the number is still the child's
        os.waitpid(child, 0)
    if not text:
        raise MinicontainerError("the probe died")
    result = json.loads(text)
    if not result["ok"]:
        raise MinicontainerError(result["detail"], hint=result["cure"])
    return str(result["detail"])


def outcome(function: Callable[[], str]) -> dict[str, object]:
    """What `function` returned or raised, as plain data: ok, detail, cure."""
    try:
        return {"ok": True, "detail": function(), "cure": ""}
    except MinicontainerError as error:
        return {"ok": False, "detail": str(error), "cure": error.hint}
    except OSError as error:
        call = getattr(error, "syscall", "")
        cure = restriction() if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSPC) else ""
        return {
            "ok": False,
            "detail": hints.describe(error),
            "cure": cure or hints.explain(call, error.errno or 0),
        }


def restriction() -> str:
    """The cure where a known setting of this machine keeps ordinary users from making namespaces; else ""."""
    settings = (
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    )
    for name, forbids, cure in settings:
        try:
            with open(f"/proc/sys/{name}") as file:
                if file.read().strip() == forbids:
                    return f"sudo {cure}"
        except OSError:
            continue
    with open("/proc/self/status") as status:
        if any(line.split() == ["Seccomp:", "2"] for line in status):
            return "a seccomp filter, probably a container's, forbids it: --security-opt seccomp=unconfined"
    return ""


def run_all() -> list[dict[str, object]]:
    """Make every probe; each gets an empty directory below the place where containers will live."""
    base = existing(str(paths.data_root()))
    if not os.access(base, os.W_OK):
        base = tempfile.gettempdir()
    results = []
    for name, function in PROBES.items():
        directory = tempfile.mkdtemp(prefix="minicontainer-probe-", dir=base)
        try:
            result = outcome(partial(in_child, partial(function, directory)))
        finally:
            remove_tree(directory)
        results.append({"name": name, **result})
    return results


def remove_tree(directory: str) -> None:
    """Remove a probe's directory; overlayfs leaves work/work with no permissions at all (mode 000)."""
    for current, names, _ in os.walk(directory):
        for name in names:
            os.chmod(os.path.join(current, name), 0o700)
    shutil.rmtree(directory)


if __name__ == "__main__":
    json.dump(run_all(), sys.stdout)
