"""What can be done to a container while it lives: pause, measure, look at its processes, change its limits, its name.

Lab 04. Man page: cgroups(7); the kernel's cgroup-v2.rst "cgroup.freeze". Docker's words: moby daemon/pause.go,
unpause.go, stats.go, top_unix.go, update.go, rename.go.
"""

from __future__ import annotations

import os

from minicontainer.cgroup.group import Group
from minicontainer.engine import names, record
from minicontainer.engine.frozen import Frozen
from minicontainer.errors import MinicontainerError, NotRunning, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cgroup.stats import Usage
    from minicontainer.engine.engine import Engine


def group_of(directory: str) -> Group:
    """The control group of the container that runs from this bundle."""
    from minicontainer.runtime.container import read_config

    return Group(read_config(directory)["linux"]["cgroupsPath"])


def pause(directory: str, wanted: bool) -> None:
    """Freeze the container's processes, or let them go on, and write it down.

    :raises NotRunning: it does not run.
    :raises MinicontainerError: it is so already, or nothing here can freeze it.
    """
    with record.changing(directory) as held:
        known = held.record
        if not known.state.running:
            raise NotRunning(f"Container {known.config.id} is not running")
        if known.state.paused == wanted:
            how = "already" if wanted else "not"
            raise MinicontainerError(f"Container {known.config.id} is {how} paused", exit_code=1)
        try:
            group_of(directory).freeze(wanted)
        except OSError as error:
            verb = "pause" if wanted else "unpause"
            hint = (
                "run as root, or in a subtree delegated to you (systemd-run --user --scope -p Delegate=yes …)"
            )
            problem = f"Cannot {verb} container {known.config.id}: {error.strerror}"
            raise MinicontainerError(problem, hint=hint, exit_code=1) from error
        held.record = known.replace(state=known.state.replace(paused=wanted))


def resume(directory: str) -> None:
    """Let a paused container meet the signal that is to end it; one that has ended needs nothing."""
    try:
        pause(directory, False)
    except (MinicontainerError, FileNotFoundError):
        return  # it went on, or ended, by itself


class Sample(Frozen):
    """A container at one moment, for `stats`.

    :ivar usage: of its control group; None where it does not run.
    :ivar received: bytes from the network, `sent` to it; the loopback device does not count.
    """

    id: str
    name: str
    usage: Usage | None
    received: int = 0
    sent: int = 0


def sample(known: record.Record, directory: str) -> Sample:
    """What a container uses now; what this machine does not count is 0."""
    from minicontainer.cgroup.stats import usage

    if not known.state.running:
        return Sample(id=known.config.id, name=known.config.name, usage=None)
    received, sent = (0, 0) if known.config.network == "host" else _network(known.state.pid)
    measured = usage(group_of(directory).controllers())
    return Sample(id=known.config.id, name=known.config.name, usage=measured, received=received, sent=sent)


def _network(pid: int) -> tuple[int, int]:
    """Bytes received and sent by the network namespace of `pid` (man 5 proc, /proc/PID/net/dev)."""
    received = sent = 0
    try:
        with open(f"/proc/{pid}/net/dev") as file:
            for line in file.readlines()[2:]:
                name, _, counters = line.partition(":")
                if name.strip() != "lo":
                    fields = counters.split()
                    received, sent = received + int(fields[0]), sent + int(fields[8])
    except OSError:
        return 0, 0  # it has just ended
    return received, sent


def processes(known: record.Record, directory: str) -> set[int]:
    """The PIDs of a container's processes, by its control group or, where it has none, by its PID namespace."""
    found = set(group_of(directory).processes())
    if found:
        return found
    mine = os.readlink(f"/proc/{known.state.pid}/ns/pid")
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == mine:
                found.add(int(entry))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


def top(known: record.Record, directory: str, arguments: list[str]) -> list[str]:
    """The lines of the host's ``ps`` about a container's processes, under their heading.

    :raises MinicontainerError: no ps, or its output has no PIDs in it.
    """
    import subprocess

    try:
        done = subprocess.run(
            ["ps", *(arguments or ["-ef"])], capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise MinicontainerError("there is no `ps` here", hint="Debian: apt install procps") from None
    if done.returncode:
        raise MinicontainerError(f"ps: {done.stderr.strip().partition(chr(10))[0]}", exit_code=1)
    heading, *lines = done.stdout.splitlines()
    columns = heading.split()
    if "PID" not in columns:
        raise MinicontainerError("Couldn't find PID field in ps output", exit_code=1)
    column, wanted = columns.index("PID"), processes(known, directory)
    return [heading, *(line for line in lines if int(line.split()[column]) in wanted)]


def update(directory: str, given: dict[str, Any]) -> list[str]:
    """Change limits: in the kernel where the container runs, and in its record; returns warnings.

    :raises UsageError: values out of range, or that contradict those that are there.
    :raises StepError: the kernel refuses one.
    """
    from minicontainer.engine import hostconfig, limits

    try:
        host = hostconfig.parse(given)
    except TypeError as error:
        raise UsageError(str(error)) from None
    with record.changing(directory) as held:
        config = held.record.config
        before = config.host
        if 0 < before.get("MemorySwap", 0) < host.get("Memory", 0) and "MemorySwap" not in host:
            raise UsageError(
                "Memory limit should be smaller than already set memoryswap limit, "
                "update the memoryswap at the same time"
            )
        after, warnings = hostconfig.settle({**before, **host})
        changed = {name: value for name, value in after.items() if name in host or before.get(name) != value}
        if host.keys() & {"Memory", "MemorySwap"}:  # the kernel wants both in an order that depends on both
            changed |= {name: after[name] for name in ("Memory", "MemorySwap") if name in after}
        asked = limits.resources(changed)
        if asked and held.record.state.running:
            from minicontainer.cgroup.limits import update as change

            change(group_of(directory), asked)
        held.record = held.record.replace(config=config.replace(host=after))
    return warnings


def rename(engine: Engine, directory: str, new: str) -> None:
    """Give a container another name.

    :raises NameConflict: it belongs to another container.
    """
    new = names.check(new)
    known_names = f"{engine.root}/names"
    with record.changing(directory) as held:
        config = held.record.config
        if new == config.name:
            problem = "Renaming a container with the same name as its current name"
            raise UsageError(problem, exit_code=1)
        names.claim(known_names, new, config.id)
        held.record = held.record.replace(config=config.replace(name=new))
    names.release(known_names, config.name, config.id)
