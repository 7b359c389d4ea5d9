"""The two processes that keep a private place (see :mod:`minicontainer.bench.place`): a janitor outside, PID 1 inside.

The janitor makes the namespaces and waits. The first process furnishes them, starts programs when asked and takes
their times, and ends when its socket closes; in a PID namespace everything else ends with it. The janitor then removes
the place's files and control groups: those that were made for it, and nothing else. Man pages: pid_namespaces(7),
mount_namespaces(7), posix_spawn(3).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
from typing import Any

from minicontainer.linux import interface, mount, namespace, process

LENGTH = struct.Struct("!I")


def receive(end: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One message and the descriptors that came with it; None at the end."""
    head, descriptors, _, _ = socket.recv_fds(end, LENGTH.size, 8)
    data = b""
    if len(head) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        while len(data) < length and (part := end.recv(length - len(data))):
            data += part
    return (json.loads(data) if data else None), descriptors


# -- the janitor, outside -----------------------------------------------------------------------------------------


def keep(descriptor: int, wishes: dict[str, Any]) -> None:
    """The janitor's life: make the place, wait for its end, remove what is left of it."""
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    flags = namespace.CLONE_NEWNS | namespace.CLONE_NEWPID
    if wishes["network"]:
        flags |= namespace.CLONE_NEWNET
    child = namespace.clone(flags)
    if child == 0:
        status = 1
        try:
            process.set_parent_death_signal(signal.SIGKILL)
            _furnish(wishes)
            _serve(end)
            status = 0
        except BaseException as error:
            print(f"minicontainer: the private place failed: {error!r}", file=sys.stderr)
        finally:
            os._exit(status)  # and with it everything in the PID namespace
    end.close()
    os.waitpid(child, 0)
    _clear(wishes)


def _clear(wishes: dict[str, Any]) -> None:
    _remove_groups(wishes["cgroup"])
    shutil.rmtree(wishes["directory"])
    if os.getppid() != wishes["owner"]:  # killed: nobody else will remove what the places shared
        try:
            if not any(os.path.isdir(f"/proc/{pid}") for pid in _keepers(wishes["workspace"])):
                shutil.rmtree(wishes["workspace"])
        except FileNotFoundError:
            return  # another place's janitor was quicker


def _remove_groups(name: str, patience: float = 10.0) -> None:
    """Remove the control group `name` and all below it from every mounted hierarchy, also those that we never use.

    :param patience: seconds to wait for processes that are still ending (rmdir(2) answers EBUSY until then).
    """
    with open("/proc/self/mountinfo") as file:
        lines = [line.partition(" - ") for line in file]
    roots = {before.split()[4] for before, _, after in lines if after.split()[0] in ("cgroup", "cgroup2")}
    deadline = time.monotonic() + patience
    for root in roots:
        for directory, _, _ in os.walk(f"{root}/{name}", topdown=False):
            while True:
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
                else:
                    break


def _keepers(workspace: str) -> list[int]:
    """The other janitors of this workspace that still have a place to clear away."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    text = file.read()
            except OSError:
                continue
            if b"minicontainer.bench.keeper" in text and workspace.encode() in text:
                found.append(int(name))
    return found


# -- the first process, inside ------------------------------------------------------------------------------------


def _furnish(wishes: dict[str, Any]) -> None:
    """Mounts of our own: /proc, /run, /dev/shm; the place's files stay visible wherever they are."""
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    workspace = os.open(wishes["workspace"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    plain = mount.MS_NOSUID | mount.MS_NODEV
    mount.mount("proc", "/proc", "proc", plain | mount.MS_NOEXEC)
    mount.mount("tmpfs", "/run", "tmpfs", plain, "mode=755")
    mount.mount("tmpfs", "/dev/shm", "tmpfs", plain, "mode=1777")
    if not os.path.isdir(wishes["workspace"]):  # it lay below one of the two
        os.makedirs(wishes["workspace"])
        mount.mount(f"/proc/self/fd/{workspace}", wishes["workspace"], None, mount.MS_BIND)
    os.close(workspace)
    for directory in wishes["unmounted"]:
        mount.umount(directory, mount.MNT_DETACH)
    if wishes["network"]:
        interface.set_up("lo")


def _serve(end: socket.socket) -> None:
    kept: dict[int, int] = {}  # programs that stay, and their pidfds
    end.set_inheritable(False)
    while True:
        request, descriptors = receive(end)
        if request is None:
            return
        try:
            answer = _answer(request, descriptors, kept)
        except OSError as error:
            answer = {"error": str(error)}
        for descriptor in descriptors:
            os.close(descriptor)
        _reap(kept)
        data = json.dumps(answer).encode()
        try:
            end.sendall(LENGTH.pack(len(data)) + data)
        except BrokenPipeError:
            return  # the owner went away while it was being served


def _answer(request: dict[str, Any], descriptors: list[int], kept: dict[int, int]) -> dict[str, Any]:
    if "run" in request:
        return _run(request)
    if "start" in request:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        # Moved out of the way first: one of them may be 3 while another is wanted there.
        high = [os.dup2(descriptor, 100 + at, False) for at, descriptor in enumerate(descriptors)]
        pid = _spawn(request["start"], request["env"], [null, log, log, *high])
        for descriptor in (log, null, *high):
            os.close(descriptor)
        kept[pid] = os.pidfd_open(pid)
        return {"pid": pid}
    if "stop" in request:
        pidfd = kept.pop(request["stop"], None)
        return {"in_time": pidfd is None or _end(pidfd, request["signal"], request["timeout"])}
    if "cpu" in request:
        return {"seconds": _cpu_seconds()}
    if "memory" in request:
        return {"pss": _pss()}
    return {"ready": True}


def _spawn(argv: list[str], env: dict[str, str], descriptors: list[int]) -> int:
    """posix_spawn(3) with `descriptors` as 0, 1, 2, …: its cost does not depend on our size."""
    actions: list[tuple[int, int, int]] = [
        (os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(descriptors)
    ]
    defaults = [signal.SIGPIPE, signal.SIGINT]  # Python ignores the first; a shell would give the default
    return os.posix_spawnp(argv[0], argv, env, file_actions=actions, setsigdef=defaults, setsid=True)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    # Anonymous files instead of pipes: a daemon that keeps its starter's output open must not keep us waiting.
    source, out, err = (os.memfd_create(name) for name in ("in", "out", "err"))
    try:
        os.write(source, request["input"].encode())
        os.lseek(source, 0, os.SEEK_SET)
        start = time.perf_counter()
        pid = _spawn(request["run"], request["env"], [source, out, err])
        pidfd = os.pidfd_open(pid)
        in_time = bool(select.select([pidfd], [], [], request["timeout"])[0])
        seconds = time.perf_counter() - start
        if not in_time:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        status = (128 - code if code < 0 else code) if in_time else -1
        texts = [os.pread(file, 1 << 22, 0).decode(errors="replace") for file in (out, err)]
    finally:
        for file in (source, out, err):
            os.close(file)
    return {"seconds": seconds, "status": status, "stdout": texts[0], "stderr": texts[1]}


def _end(pidfd: int, number: int, timeout: float) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, number)
        in_time = bool(select.select([pidfd], [], [], timeout)[0])
        if not in_time:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except (ProcessLookupError, ChildProcessError):
        return True  # it had ended before
    finally:
        os.close(pidfd)
    return in_time


def _reap(kept: dict[int, int]) -> None:
    """Collect orphans, which become the children of a PID namespace's first process."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in kept:
            os.close(kept.pop(pid))


def _processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _cpu_seconds() -> float:
    """The own time of each living process and that of its children that were waited for; we reap all orphans."""
    ticks = 0
    for pid in _processes():
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def _pss() -> dict[int, int]:
    found = {}
    for pid in _processes():
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                for line in file:
                    if line.startswith("Pss:"):
                        found[int(pid)] = int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
