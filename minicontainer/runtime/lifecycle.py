"""The OCI lifecycle for other people's engines: create, start, kill and delete as separate commands.

Docker's shim and Podman's conmon call these one process at a time; between two of them only the state directory and the
kernel remember anything. The created process loses its maker at once and belongs to the caller's subreaper, which
waits for it. Lab 15. OCI runtime-spec runtime.md "Lifecycle"; what the clients ask for was observed from them.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Any

from minicontainer.errors import ContainerNotFound, MinicontainerError, NotRunning
from minicontainer.paths import write_whole
from minicontainer.runtime import container
from minicontainer.runtime.channel import Channel
from minicontainer.runtime.execute import execute
from minicontainer.runtime.hooks import run_hooks, state_of
from minicontainer.runtime.state import StartGate, State

_KILL_PATIENCE = 10.0  # seconds for the kernel to take a killed container apart


def create(
    root: str,
    container_id: str,
    bundle: str,
    *,
    pid_file: str | None = None,
    console_socket: str | None = None,
    preserve: int = 0,
    config_file: str | None = None,
    groups: bool = True,
) -> State:
    """Make the container and leave it waiting for :func:`start`; nothing is left behind by a failure.

    :param preserve: how many descriptors from 3 upwards the program inherits.
    :param config_file: instead of the bundle's config.json.
    :param groups: whether the container gets control groups.
    :raises MinicontainerError: where the id is taken.
    :raises StepError: where a step fails.
    """
    config = container.read_config(bundle, config_file)
    linux = config.setdefault("linux", {})
    if not groups:
        linux.pop("cgroupsPath", None)
    elif not linux.get("cgroupsPath"):
        linux["cgroupsPath"] = f"/{container_id}"
    fds = os.environ.get("LISTEN_FDS", "")
    if fds.isdigit() and int(fds):  # descriptors handed over by systemd or its like: sd_listen_fds(3)
        preserve += int(fds)
        config.setdefault("process", {}).setdefault("env", []).extend([f"LISTEN_FDS={fds}", "LISTEN_PID=1"])
    terminal = bool(config.get("process", {}).get("terminal"))
    if terminal != bool(console_socket):
        raise MinicontainerError(
            "the terminal needs a console socket"
            if terminal
            else "there is no terminal for the console socket",
            hint="process.terminal and --console-socket go together",
            exit_code=1,
        )
    state = State(root, container_id)
    state.claim(config)
    process: container.Process | None = None
    try:
        gate = StartGate(state.directory)
        console = connect_console(console_socket) if console_socket else None
        process = container.create(
            container_id, bundle, (0, 1, 2), config=config, gate=gate, console=console, preserve=preserve
        )
        gate.socket.close()
        state.record(bundle, process.pid)
        if pid_file:
            write_pid(pid_file, process.pid)
    except BaseException:
        if process is not None:
            process.abandon()
            container.delete(bundle, config=config)
        state.forget()
        raise
    return state


def connect_console(path: str) -> Channel:
    """A channel to whoever wants the terminal's master side.

    :raises MinicontainerError: where nobody listens there.
    """
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.connect(path)
    except OSError as error:
        raise MinicontainerError(f"console socket {path}: {error.strerror}", exit_code=1) from error
    return Channel(end)


def write_pid(path: str, pid: int) -> None:
    """The file that tells the caller which process to wait for."""
    from pathlib import Path

    write_whole(Path(path), str(pid), 0o644)


def start(state: State) -> None:
    """Let the created container execute its program; poststart hooks run then.

    :raises MinicontainerError: where it is not in the state "created".
    :raises StepError: where the kernel refuses the program, or a hook fails.
    """
    if state.status != "created":
        raise MinicontainerError(
            f"cannot start container {state.id} that is {state.status}: only a created one", exit_code=1
        )
    pid = state.pid
    channel = state.connect()
    state.started()
    channel.send({"start": True})
    message, _ = channel.receive()
    channel.close()
    if message is not None and "error" in message:
        _await_end(pid)
        from minicontainer.errors import from_dict

        raise from_dict(message["error"])
    try:
        run_hooks("poststart", state.config, state.public())
    except MinicontainerError:
        signal_all(state, signal.SIGKILL)
        raise


def signal_one(state: State, number: int, *, everything: bool = False) -> None:
    """Send a signal to the container's first process, or to every process in its control group.

    :raises NotRunning: where it has ended.
    """
    if everything:
        signal_all(state, number)
        return
    pid = state.pid
    if not pid:
        raise NotRunning(f"container {state.id} is not running")
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise NotRunning(f"container {state.id} is not running") from None
    try:
        if (
            state.pid == pid
        ):  # looked at again: now the descriptor and the recorded start time are one process
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise NotRunning(f"container {state.id} is not running") from None
    finally:
        os.close(pidfd)


def signal_all(state: State, number: int) -> None:
    """Send a signal to every process of the container."""
    group = state.group
    if number == signal.SIGKILL and group is not None and group.processes():
        group.kill()
        return
    for pid in group.processes() if group is not None else []:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def delete(root: str, container_id: str, *, force: bool = False) -> None:
    """Remove a stopped container, or with `force` any; an unknown one is no error then.

    :raises ContainerNotFound: unless forced.
    :raises MinicontainerError: while it runs, unless forced.
    """
    try:
        state = State.load(root, container_id)
    except ContainerNotFound:
        if not force:
            raise
        _delete_half_made(State(root, container_id))
        return
    status = state.status
    if status not in ("stopped", "created") and not force:
        raise MinicontainerError(
            f"cannot delete container {container_id} that is not stopped: {status}",
            hint="kill it first, or use --force",
            exit_code=1,
        )
    pid = state.pid
    if pid:
        group = state.group
        if group is not None and status == "paused":
            group.kill()
            group.freeze(False)
        try:
            signal_one(state, signal.SIGKILL)
        except NotRunning:
            pass  # it ended by itself just now, which is what was wanted
        _await_end(pid)
    container.delete(state.data["bundle"], config=state.config)
    stopped = state_of(state.id, state.data["bundle"], state.config, status="stopped")
    state.forget()
    try:
        run_hooks("poststop", state.config, stopped)
    except MinicontainerError as error:
        os.write(2, f"warning: {error}\n".encode())  # the specification: a warning, the rest goes on


def _delete_half_made(state: State) -> None:
    """What a create that was killed half-way has left: its directory, and perhaps a group with processes in it."""
    if not os.path.isdir(state.directory):
        return
    try:
        config = container.read_config(state.directory)
    except MinicontainerError:
        config = {}  # killed before it was written: nothing else can have been made
    container.delete(state.directory, config=config)
    state.forget()


def _await_end(pid: int) -> None:
    """Wait until process `pid` is gone, reaping it where it is ours."""
    deadline = time.monotonic() + _KILL_PATIENCE
    while time.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return
        except ChildProcessError:
            from minicontainer.linux.process import start_time

            if start_time(pid) is None:
                return
        time.sleep(0.002)
    raise MinicontainerError(f"process {pid} does not end", hint="see `ps -o stat,wchan`", exit_code=1)


def exec_process(
    state: State, process: dict[str, Any], *, console_socket: str | None = None, pid_file: str | None = None
) -> container.Process:
    """Start one more process in a running container; the caller waits for it, or goes and leaves it to its own parent.

    :raises NotRunning: where the container is not running.
    """
    status = state.status
    if status != "running":
        raise NotRunning(f"cannot exec in container {state.id} that is {status}")
    console = connect_console(console_socket) if console_socket else None
    started = execute(
        state.pid, state.data["bundle"], process, (0, 1, 2), config=state.config, console=console
    )
    started.start()
    if pid_file:
        write_pid(pid_file, started.pid)
    return started
