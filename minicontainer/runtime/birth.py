"""How a container's first process comes into being: in new namespaces, in entered ones, with its ids mapped.

A learner's ``isolate`` takes the place of ours here, and is held to its contract: nothing runs less isolated than it
says, and one program never becomes two. Labs 02 and 06. Man pages: clone(2), setns(2), user_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

from minicontainer.errors import StepError, from_dict
from minicontainer.linux.namespace import (
    CLONE_NEWCGROUP,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_PARENT,
    FLAGS,
    clone3,
    setns,
    unshare,
)
from minicontainer.runtime import steps
from minicontainer.runtime.channel import Channel, report, step_error
from minicontainer.runtime.child import Init
from minicontainer.runtime.idmap import write_maps
from minicontainer.runtime.isolate import isolate
from minicontainer.runtime.travel import call_step


def give_birth(ours: Channel, theirs: Channel, linux: dict[str, Any], init: Init, cgroup: int | None) -> int:
    """Make the process that runs `init`; returns its PID. It is our child, whichever way it was made.

    :param linux: the OCI ``linux`` object (namespaces, id mappings, time offsets).
    :param cgroup: descriptor of the cgroup v2 directory to be born in.
    """
    flags = 0
    joined: list[tuple[int, int]] = []
    try:
        for entry in linux.get("namespaces", []):
            if entry["type"] not in FLAGS:
                raise StepError(f"isolate: {entry['type']!r} is not a kind of namespace", step="isolate")
            if entry.get("path"):
                descriptor = _open_namespace(entry["path"])
                joined.append((descriptor, FLAGS[entry["type"]]))
            else:
                flags |= FLAGS[entry["type"]]
        flags &= ~CLONE_NEWCGROUP  # the child unshares it once it is in its group
        joined.sort(
            key=lambda pair: pair[1] != CLONE_NEWUSER
        )  # the rights over the others come with that one
        timens = flags & CLONE_NEWTIME
        flags &= ~CLONE_NEWTIME
        maps = linux.get("uidMappings") or []
        init.waits_for_ids = bool(flags & CLONE_NEWUSER and maps)

        def child() -> int:
            ours.close()
            return init.run()

        if joined or timens:
            pid = _by_envoy(
                ours, theirs, joined, flags, linux.get("timeOffsets"), bool(timens), child, cgroup
            )
        elif "isolate" in steps.active():
            pid = _learners_isolate(ours, theirs, flags, child)
        else:
            pid = _ours(flags, child, cgroup)
    finally:
        for descriptor, _ in joined:
            os.close(descriptor)
    if init.waits_for_ids:
        try:
            write_maps(pid, maps, linux.get("gidMappings") or [])
            ours.send({"ids": True})
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    return pid


def _open_namespace(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise step_error("namespaces", error) from error


def _ours(flags: int, child: Callable[[], int], cgroup: int | None) -> int:
    """Our own ``isolate``, into the control group where the kernel allows that."""
    try:
        return isolate(flags, child, cgroup=cgroup)
    except OSError as error:
        if cgroup is None or error.errno not in (errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.EBADF):
            raise step_error("isolate", error) from error
    try:
        return isolate(flags, child)
    except OSError as error:
        raise step_error("isolate", error) from error


def _by_envoy(
    ours: Channel,
    theirs: Channel,
    joined: list[tuple[int, int]],
    flags: int,
    offsets: dict[str, dict[str, int]] | None,
    timens: bool,
    child: Callable[[], int],
    cgroup: int | None,
) -> int:
    """Enter the given namespaces in a process that is then thrown away, and have the child there as our own.

    Entering a PID namespace, and making a time namespace, only concern children yet to be born.
    """
    reader, writer = os.pipe()
    envoy = os.fork()
    if envoy == 0:
        step = "namespaces"
        try:
            for descriptor, flag in joined:
                setns(descriptor, flag)
            if timens:
                unshare(CLONE_NEWTIME)
                _set_offsets(offsets or {})
            step = "isolate"
            pid, _ = clone3(flags | CLONE_PARENT, exit_signal=0, cgroup=cgroup)
            if pid == 0:
                os._exit(child())
            os.write(writer, str(pid).encode())
            os._exit(0)
        except BaseException as error:
            os._exit(report(theirs, step, error))
    os.waitpid(envoy, 0)
    try:
        return born(ours, reader)
    finally:
        os.close(reader)
        os.close(writer)


def born(ours: Channel, reader: int) -> int:
    """The PID that an envoy wrote into its pipe before it ended, or the error it sent over the channel instead.

    The PID has a pipe of its own, since the child may be quicker than the envoy in speaking over the channel.

    :raises StepError: what stopped the envoy.
    """
    os.set_blocking(reader, False)
    try:
        return int(os.read(reader, 32))
    except BlockingIOError:
        message, _ = ours.receive()
    if message is not None and "error" in message:
        raise from_dict(message["error"])
    raise StepError("namespaces: the process that enters them ended without a word", step="namespaces")


def _set_offsets(offsets: dict[str, dict[str, int]]) -> None:
    """The clocks of the time namespace to be (man 7 time_namespaces): before its first process exists."""
    lines = [
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}" for clock, offset in offsets.items()
    ]
    if lines:
        with open("/proc/self/timens_offsets", "w") as file:
            file.write("\n".join(lines))


def _learners_isolate(ours: Channel, theirs: Channel, flags: int, child: Any) -> int:
    """Call a learner's ``isolate`` and hold it to its contract, in whichever process it comes back."""
    caller = os.getpid()
    before = _own_namespaces()
    outcome: Any = None
    failure: StepError | None = None
    try:
        outcome = call_step(theirs, "isolate", flags, child)
    except StepError as error:
        failure = error
    if os.getpid() != caller or _own_namespaces()["pid"] != before["pid"]:
        # The new process came back into our code instead of ending: one program must not become two.
        problem = failure or StepError(
            "your step isolate let the new process return into the caller's code",
            step="isolate",
            hint="the child must end in os._exit(child()), whatever happens",
        )
        os._exit(report(theirs, "isolate", problem))
    if failure is not None:
        raise failure
    changed = [name for name, identity in _own_namespaces().items() if identity != before[name]]
    if changed:
        raise StepError(
            f"your step isolate moved its caller into other namespaces ({', '.join(changed)})",
            step="isolate",
            hint="unshare(2) changes the calling process; clone(2) changes only the new one",
        )
    if not isinstance(outcome, int) or isinstance(outcome, bool) or outcome <= 0:
        raise StepError(
            f"your step isolate returned {outcome!r} instead of a PID",
            step="isolate",
            hint="return the PID that clone(2) gave to the parent",
        )
    _refuse_shared(outcome, flags, before)
    return outcome


def _refuse_shared(pid: int, flags: int, before: dict[str, tuple[int, int]]) -> None:
    """The process a learner made must have each namespace asked for: nothing runs less isolated than it says."""
    try:
        theirs = _own_namespaces(pid)
    except FileNotFoundError:
        return  # it has ended already; waiting for "ready" tells why
    names = {"mnt": "mount", "net": "network"}
    shared = [
        name
        for name, identity in before.items()
        if flags & FLAGS[names.get(name, name)] and theirs[name] == identity
    ]
    if shared:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise StepError(
            f"your step isolate left the new process in the host's namespaces: {', '.join(shared)}",
            step="isolate",
            hint="each bit of flags must reach clone(2)",
        )


def _own_namespaces(pid: int | str = "self") -> dict[str, tuple[int, int]]:
    found = {}
    for name in ("mnt", "pid", "uts", "ipc", "net", "user"):
        status = os.stat(f"/proc/{pid}/ns/{name}")
        found[name] = (status.st_dev, status.st_ino)
    return found
