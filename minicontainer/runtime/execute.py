"""One more process in a running container: enter its namespaces, then become the program. Lab 10.

A process enters namespaces with setns(2) and has a child there; the child is born in the container's PID namespace, and
as a sibling (CLONE_PARENT) it belongs to the caller, who can wait for it. Man pages: setns(2), clone(2), pidfd_open(2).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from minicontainer.cgroup.group import Group
from minicontainer.errors import NotRunning
from minicontainer.linux.namespace import CLONE_NEWUSER, CLONE_PARENT, FILES, FLAGS, clone3, setns
from minicontainer.linux.process import set_dumpable, set_parent_death_signal
from minicontainer.runtime.birth import born
from minicontainer.runtime.channel import Channel, report, step_error
from minicontainer.runtime.container import Process, read_config, seccomp_program
from minicontainer.runtime.program import become_the_user
from minicontainer.runtime.program import execute as become_program
from minicontainer.runtime.session import join_keyring, reset_signals, take_stdio, take_terminal


def execute(
    container_pid: int,
    bundle: Path | str,
    process: dict[str, Any],
    stdio: tuple[int, int, int],
    *,
    die_with_parent: bool = False,
    config: dict[str, Any] | None = None,
    console: Channel | None = None,
) -> Process:
    """Make one more process in the container whose init is `container_pid`, ready to start.

    :param process: an OCI ``process`` object.
    :param console: where to send the terminal's master side instead of :attr:`Process.console`.
    :raises NotRunning: where the container has ended.
    :raises StepError: what failed in there.
    """
    if config is None:
        config = read_config(bundle)
    linux = config.get("linux", {})
    try:
        namespaces = _open_namespaces(container_pid)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotRunning("the container is not running") from error
    group = Group(linux["cgroupsPath"]) if linux.get("cgroupsPath") else None
    v2, tasks = group.open_for_child() if group is not None else (None, [])
    ours, theirs = Channel.pair()
    reader, writer = os.pipe()
    try:
        program = seccomp_program(theirs, config)
        signal_on_death = signal.SIGKILL if die_with_parent else 0
        newcomer = Newcomer(theirs, process, linux, stdio, signal_on_death, program)
        envoy = os.fork()
        if envoy == 0:
            ours.close()
            os._exit(_enter(newcomer, namespaces, v2, tasks, writer))
        theirs.close()
        os.waitpid(envoy, 0)
        made = Process(born(ours, reader), ours)
        made.console_to = console
        made.await_ready()
        return made
    except BaseException:
        ours.close()
        raise
    finally:
        for descriptor in (v2, reader, writer, *tasks, *(descriptor for descriptor, _ in namespaces)):
            if descriptor is not None:
                os.close(descriptor)


def _open_namespaces(pid: int) -> list[tuple[int, int]]:
    """Descriptors of those namespaces of `pid` that are not our own, the user namespace first.

    All are opened through one directory descriptor, so that they belong to one process even if the PID is reused.
    """
    directory = os.open(f"/proc/{pid}/ns", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found = []
    try:
        for kind in ("user", "cgroup", "ipc", "uts", "network", "pid", "time", "mount"):
            try:
                theirs = os.stat(FILES[kind], dir_fd=directory)
                own = os.stat(f"/proc/self/ns/{FILES[kind]}")
            except FileNotFoundError:
                continue  # this kernel has no such namespace
            if (theirs.st_dev, theirs.st_ino) != (own.st_dev, own.st_ino):
                descriptor = os.open(FILES[kind], os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
                found.append((descriptor, FLAGS[kind]))
    finally:
        os.close(directory)
    return found


class Newcomer:
    """The process to be, with what it needs once it is inside."""

    def __init__(
        self,
        channel: Channel,
        process: dict[str, Any],
        linux: dict[str, Any],
        stdio: tuple[int, int, int],
        parent_death_signal: int,
        program: bytes,
    ) -> None:
        self.channel = channel
        self.process = process
        self.linux = linux
        self.stdio = stdio
        self.parent_death_signal = parent_death_signal
        self.program = program

    def run(self) -> int:
        """Session, stdio or terminal, identity, program."""
        step = "session"
        channel, process = self.channel, self.process
        try:
            if self.parent_death_signal:
                set_parent_death_signal(self.parent_death_signal)
            set_dumpable(False)
            os.setsid()
            reset_signals()
            join_keyring()
            if process.get("terminal"):
                step = "terminal"
                root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                uid = process.get("user", {}).get("uid")
                take_terminal(channel, root, process.get("consoleSize"), on_dev_console=False, owner=uid)
                os.close(root)
            else:
                take_stdio(self.stdio)
            step = "user"
            program = become_the_user(channel, process, self.linux, self.program)
            step = "start"
            channel.send({"ready": True})
            message, _ = channel.receive()
            if message is None or "start" not in message:
                return 0
            step = "exec"
            return become_program(channel, program, process)
        except BaseException as error:
            return report(channel, step, step_error(step, error))


def _enter(
    newcomer: Newcomer, namespaces: list[tuple[int, int]], cgroup: int | None, tasks: list[int], pid_to: int
) -> int:
    """The envoy: enter, have the child, tell its PID, end; never traceable once inside (CVE-2016-9962)."""
    step = "setns"
    try:
        set_dumpable(False)
        for descriptor in tasks:
            os.write(descriptor, b"0")
        for descriptor, flag in namespaces:
            setns(descriptor, flag)
            if flag == CLONE_NEWUSER:
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
        step = "clone"
        try:
            pid, _ = clone3(CLONE_PARENT, exit_signal=0, cgroup=cgroup)
        except PermissionError:
            if cgroup is None:
                raise
            pid, _ = clone3(CLONE_PARENT, exit_signal=0)
        if pid == 0:
            os._exit(newcomer.run())
        os.write(pid_to, str(pid).encode())
        return 0
    except BaseException as error:  # forked: it must end here, with its reason sent home
        return report(newcomer.channel, step, error)
