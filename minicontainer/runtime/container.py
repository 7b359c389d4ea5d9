"""The parent's side: create a container from a bundle, start it, delete it.

``create`` leaves a process that has everything but the user's program: namespaces, root, identity, limits. ``start``
lets it execute that program. Between the two the network can be wired. Labs 02 and 15. OCI runtime-spec runtime.md.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from minicontainer.cgroup.devices import STANDARD, allow_devices
from minicontainer.cgroup.group import Group
from minicontainer.errors import StepError, from_dict
from minicontainer.linux.hints import explain
from minicontainer.runtime import steps
from minicontainer.runtime.birth import give_birth
from minicontainer.runtime.channel import Channel, step_error
from minicontainer.runtime.child import Gate, Init
from minicontainer.runtime.hooks import run_hooks, state_of
from minicontainer.runtime.seccomp import compiled
from minicontainer.runtime.travel import call_step

_LEARNERS_PATIENCE = 60.0  # seconds for a container some of whose steps are a learner's to become ready


class Process:
    """A process in a container that is ready and waits to become the user's program.

    :ivar pid: its PID in the caller's PID namespace.
    :ivar pidfd: a descriptor that stands for it and never for another process.
    :ivar console: master side of its terminal, or None.
    :ivar printed: what the learner's steps printed, as (step, text).
    """

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = channel
        self.console: int | None = None
        self.console_to: Channel | None = None
        self.at_hooks: Callable[[], None] | None = None
        self.printed: list[tuple[str, str]] = []

    def await_ready(self, timeout: float | None = None) -> None:
        """Wait until every step before the program is done.

        :raises StepError: what failed in there; the process is gone then.
        """
        while True:
            try:
                message, descriptor = self.channel.receive(timeout)
            except TimeoutError:
                self.abandon()
                raise StepError(
                    f"the container was not ready within {timeout:g} seconds", hint="one of your steps hangs"
                ) from None
            if message is None:
                status = self.abandon()
                raise StepError(_unexplained_end(status), hint="look at `dmesg` for a kill by the kernel")
            if "console" in message:
                self._take_console(descriptor)
            elif "hooks" in message:
                self._run_hooks()
            elif "printed" in message:
                self.printed.append((message["step"], message["printed"]))
            elif "error" in message:
                self.abandon()
                raise from_dict(message["error"])
            elif "ready" in message:
                return

    def _take_console(self, descriptor: int | None) -> None:
        """Keep the terminal's master side, or hand it on to whoever asked for it."""
        if self.console_to is None or descriptor is None:
            self.console = descriptor
            return
        self.console_to.send({"console": True}, descriptor=descriptor)
        os.close(descriptor)

    def _run_hooks(self) -> None:
        """The moment between namespaces and root change that belongs to the host's hooks."""
        try:
            if self.at_hooks is not None:
                self.at_hooks()
        except BaseException:
            self.abandon()
            raise
        self.channel.send({"go": True})

    def start(self) -> None:
        """Let the process execute its program; returns once execve(2) has succeeded.

        :raises StepError: with exit code 126 or 127 where the kernel refuses the program.
        """
        try:
            self.channel.send({"start": True})
            message, _ = self.channel.receive()
        except (BrokenPipeError, ConnectionResetError):
            message = None
        if message is not None and "error" in message:
            self.abandon()
            raise from_dict(message["error"])
        self.channel.close()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; nothing happens where the process has ended."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def abandon(self) -> int:
        """Kill and reap a process that is not going to start; returns its wait status."""
        self.kill()
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            status = 0
        self.channel.close()
        return status


def _unexplained_end(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"the container's first process was killed by signal {os.WTERMSIG(status)} before it was ready"
    return "the container's first process ended before it was ready, without saying why"


def read_config(bundle: Path | str, file: str | None = None) -> dict[str, Any]:
    """The bundle's config.json, or another `file` of it.

    :raises StepError: where there is none or it is not JSON.
    """
    path = os.path.join(bundle, file or "config.json")
    try:
        with open(path, "rb") as opened:
            config: dict[str, Any] = json.load(opened)
    except OSError as error:
        raise step_error("config", error) from error
    except ValueError as error:
        raise StepError(f"config: {path} is not valid JSON: {error}", step="config", path=path) from error
    return config


def create(
    container_id: str,
    bundle: Path | str,
    stdio: tuple[int, int, int],
    *,
    die_with_parent: bool = False,
    config: dict[str, Any] | None = None,
    gate: Gate | None = None,
    console: Channel | None = None,
    preserve: int = 0,
) -> Process:
    """Make a container of the OCI bundle and stop just before its program. Needs a process with a single thread.

    :param stdio: descriptors for standard input, output and error; unused with ``process.terminal``, where the
        master side is in :attr:`Process.console`.
    :param die_with_parent: kill the container when this process dies (for a supervisor).
    :param config: the parsed config.json, where the caller has it already.
    :param gate: what the container waits for before its program, where that is not :meth:`Process.start`.
    :param console: where to send the terminal's master side instead of :attr:`Process.console`.
    :param preserve: how many descriptors from 3 upwards the program inherits.
    :raises StepError: what failed and where; nothing is left behind then.
    """
    if config is None:
        config = read_config(bundle)
    linux = config.get("linux", {})
    rootfs = os.path.join(bundle, config["root"]["path"])
    group = Group(linux["cgroupsPath"]) if linux.get("cgroupsPath") else None
    ours, theirs = Channel.pair()
    v2: int | None = None
    tasks: list[int] = []
    try:
        restrict(theirs, group, linux.get("resources") or {})
        if group is not None:
            try:
                v2, tasks = group.open_for_child()
            except OSError as error:
                raise step_error("cgroup", error) from error
        program = seccomp_program(theirs, config)
        init = Init(config, rootfs, theirs, stdio, tasks, signal.SIGKILL if die_with_parent else 0, program)
        init.gate = gate or init.gate
        init.preserve = preserve
        init.state = state_of(container_id, bundle, config)
        pid = give_birth(ours, theirs, linux, init, v2)
    except BaseException:
        ours.close()
        theirs.close()
        if group is not None:
            group.remove()
        raise
    finally:
        for descriptor in (v2, *tasks):
            if descriptor is not None:
                os.close(descriptor)
    theirs.close()
    try:
        process = Process(pid, ours)
        process.at_hooks = partial(_runtime_hooks, config, state_of(container_id, bundle, config, pid=pid))
        process.console_to = console
        if group is not None and v2 is not None and "isolate" in steps.active():
            group.enter(pid)  # a learner's isolate cannot know the group that the child should be born in
        process.await_ready(_LEARNERS_PATIENCE if steps.active() else None)
    except BaseException as error:
        if group is not None:
            if isinstance(error, StepError) and _starved(group):
                error.hint = (
                    "the memory limit is too small to start in: raise linux.resources.memory.limit (--memory)"
                )
            group.kill()
            group.remove()
        raise
    return process


def _starved(group: Group) -> bool:
    """Whether the kernel has killed a process of the group for want of memory."""
    from minicontainer.cgroup.oom import oom_kills

    return oom_kills(group.directories) > 0


def restrict(channel: Channel, group: Group | None, resources: dict[str, Any]) -> None:
    """Make the control group and set its limits, before any process is in it.

    :raises StepError: which limit failed and why.
    """
    asked = resources.keys() - {"devices"}
    if group is None:
        if asked:
            raise StepError(
                "limit: linux.resources without linux.cgroupsPath",
                step="limit",
                hint="give the container a control group: set linux.cgroupsPath",
            )
        return
    try:
        if asked:
            from minicontainer.cgroup.limits import controllers

            group.create(controllers(resources))
            call_step(channel, "limit", group.controllers(), resources)
            made = group.directories
        else:
            made = group.create()
        rules = resources.get("devices")
        # Without any hierarchy to write to there is nothing that could hold the rules; the doctor says so beforehand.
        if rules and made:
            # The standard devices come last, whatever the configuration says: no program can do without (as runc does).
            call_step(channel, "allow_devices", group.controllers(), [*rules, *STANDARD], ours=allow_devices)
    except OSError as error:
        raise step_error("cgroup", error) from error


def _runtime_hooks(config: dict[str, Any], state: dict[str, Any]) -> None:
    """The hooks that run in the runtime's namespaces once the container's exist (OCI runtime.md, steps 3 and 4)."""
    for kind in ("prestart", "createRuntime"):
        run_hooks(kind, config, state)


def seccomp_program(channel: Channel, config: dict[str, Any]) -> bytes:
    """The filter for the container, compiled on the host's side, or nothing where the bundle asks for none."""
    profile = config.get("linux", {}).get("seccomp")
    program: bytes = call_step(channel, "compile_filter", profile, ours=compiled) if profile else b""
    return program


def delete(bundle: Path | str, *, config: dict[str, Any] | None = None) -> None:
    """Remove what :func:`create` made and the kernel does not remove by itself: the control group. Idempotent."""
    if config is None:
        config = read_config(bundle)
    path = config.get("linux", {}).get("cgroupsPath")
    if not path:
        return
    group = Group(path)
    try:
        group.remove()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        group.kill()
        try:
            group.remove()
        except OSError as stubborn:
            raise StepError(
                f"cgroup: {path} still holds processes {group.processes()}",
                step="cgroup",
                errno=stubborn.errno or 0,
                hint=explain("rmdir", stubborn.errno or 0)
                or "a process in it cannot be killed: see `ps -o stat,wchan`",
            ) from stubborn
