"""One small process per container: it starts the program, keeps its output, and writes down how it ended.

It outlives whoever made it and knows nothing of a daemon. When it is killed, the kernel kills the container with it
(PR_SET_PDEATHSIG on the container's init), and the next reader of the record finds out. Lab 10.
Man pages: prctl(2), setsid(2), poll(2).
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from minicontainer.engine import bundle, record
from minicontainer.engine.frames import STDOUT, control
from minicontainer.engine.logs import LOG, LogWriter
from minicontainer.engine.options import signal_number
from minicontainer.engine.process import Streams, leave
from minicontainer.engine.removal import remove_container
from minicontainer.engine.stdio import Client, Relay
from minicontainer.engine.times import timestamp
from minicontainer.errors import MinicontainerError
from minicontainer.linux.process import set_child_subreaper, set_process_name, start_time
from minicontainer.runtime import container
from minicontainer.runtime.channel import step_error


def main(arguments: dict[str, Any], descriptors: list[int]) -> int:
    """Start and supervise one container.

    :param arguments: id, root, run_root, cgroup, and what the first client wants.
    :param descriptors: the container's lock, which we now hold, and the first client's socket.
    """
    leave(descriptors)
    # As it is for whoever asked, who need not be the one that the fork server was started by.
    os.environ["MINICONTAINER_CGROUP_PARENT"] = os.path.dirname(arguments["cgroup"])
    lock, connection = descriptors
    supervisor = Supervisor(arguments, lock)
    client = Client(socket.socket(fileno=connection), output=arguments["output"], owner=True)
    return supervisor.run(client)


class Supervisor:
    """A container's life from start to end.

    :param arguments: as for :func:`main`.
    :param lock: descriptor that holds the container's lock.
    """

    def __init__(self, arguments: dict[str, Any], lock: int) -> None:
        self.id: str = arguments["id"]
        self.root: str = arguments["root"]
        self.cgroup: str = arguments["cgroup"]
        self.size: list[int] | None = arguments["size"]
        self.stdin_once: bool = arguments["stdin"]
        self.directory = f"{self.root}/containers/{self.id}"
        self.run_directory = f"{arguments['run_root']}/containers/{self.id}"
        self.lock: int | None = lock
        self.config: dict[str, Any] = {}

    def run(self, client: Client) -> int:
        """Everything; returns this process's exit status."""
        alive = record.hold_alive(self.directory)
        set_child_subreaper()  # what the container leaves behind is ours to reap, not init's
        set_process_name("mc-supervisor")
        try:
            known = record.read(self.directory)
            relay, process = self._launch(known.config, client)
        except BaseException as error:  # whatever it was, it is written down and told to who waits for it
            self._failed(step_error("start", error), client)
            return 1
        started = known.state.replace(
            status="running",
            pid=process.pid,
            pid_started=start_time(process.pid) or 0,
            supervisor=os.getpid(),
            exit_code=0,
            error="",
            oom_killed=False,
            started_at=timestamp(),
            finished_at=record.ZERO,
        )
        problem = self._write(known.replace(state=started))
        self._unlock()
        printed = {"printed": process.printed} if process.printed else {}
        client.send(control(started=process.pid, **printed))
        stop = signal_number(known.config.stop_signal)
        signal.signal(signal.SIGTERM, lambda number, frame: process.kill(stop))
        status = relay.run(process.pid, process.pidfd)
        self._ended(known.replace(state=started), status, relay, problem)
        os.close(alive)  # from here on it may be started again, while a slow client still gets its output
        relay.finish(control(exit=status))
        return 0

    # -- start ----------------------------------------------------------------------------------------------------

    def _launch(self, config: record.Config, client: Client) -> tuple[Relay, container.Process]:
        """From the record to a program that runs."""
        self.config = bundle.write_bundle(config, self.directory, self.root, self.cgroup)
        if self.size and config.tty:
            self.config["process"]["consoleSize"] = {"height": self.size[0], "width": self.size[1]}
        listener = self._listen()
        log = LogWriter(f"{self.directory}/{LOG}")
        streams = Streams(stdin_open=config.stdin_open) if not config.tty else None
        stdio = streams.stdio if streams is not None else (0, 1, 2)
        process = container.create(self.id, self.directory, stdio, die_with_parent=True, config=self.config)
        if streams is not None:
            streams.close_theirs()
            sources, sink = streams.sources, streams.sink
        else:
            if process.console is None:
                raise MinicontainerError("the runtime made no terminal for the container")
            sources, sink = {process.console: STDOUT}, process.console
        relay = Relay(
            sources=sources,
            sink=sink,
            console=process.console,
            log=log,
            listener=listener,
            stdin_once=self.stdin_once,
        )
        relay.add(client)
        process.start()
        return relay, process

    def _listen(self) -> socket.socket:
        """The socket for further clients: a file for this user alone, in a directory for this user alone."""
        os.makedirs(self.run_directory, 0o700, exist_ok=True)
        directory = os.open(self.run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{directory}/attach.sock"  # the full path may be too long for a socket's (man 7 unix)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # the usual case: the last supervisor took its socket with it
            before = os.umask(0o177)
            listener.bind(path)
            os.umask(before)
            listener.listen(16)
            listener.setblocking(False)
        finally:
            os.close(directory)
        return listener

    def _failed(self, error: MinicontainerError, client: Client) -> None:
        """The program could not be started: as if it had not been tried, but for the reason."""
        self._clean_kernel()
        self._clean_run_directory()
        try:
            known = record.read(self.directory)
            if known.config.auto_remove:
                remove_container(self.root, known.config.id, known.config.name)
            else:
                state = known.state.replace(exit_code=error.exit_code, error=error.message)
                self._write(known.replace(state=state))
        except OSError:
            error.hint = error.hint or "the container's record cannot be written either"
        self._unlock()
        relay = Relay(sources={}, sink=None)
        relay.add(client)
        relay.finish(control(error=error.to_dict()))

    # -- end ------------------------------------------------------------------------------------------------------

    def _ended(self, known: record.Record, status: int, relay: Relay, problem: str) -> None:
        """Write down the end, then take away what the container had while it ran."""
        if relay.listener is not None:
            relay.listener.close()
            relay.listener = None
        oom_killed = status == 137 and bundle.oom_killed(self.cgroup)
        problem = self._clean_kernel() or problem or (relay.log.error if relay.log is not None else "")
        self._clean_run_directory()
        try:
            self.lock = record.acquire(self.directory)
            # Its name or its limits may have been changed while it ran.
            known = known.replace(config=record.read(self.directory).config)
        except FileNotFoundError:
            return  # removed by force while it ran
        except MinicontainerError as error:
            problem = problem or error.message
        if known.config.auto_remove:
            try:
                remove_container(self.root, self.id, known.config.name)
                self._unlock()
                return
            except OSError as error:
                problem = f"cannot be removed: {error}"
        state = known.state.replace(
            status="exited",
            pid=0,
            pid_started=0,
            exit_code=status,
            error=problem,
            oom_killed=oom_killed,
            finished_at=timestamp(),
            paused=False,
        )
        self._write(known.replace(state=state))
        self._unlock()

    def _write(self, changed: record.Record) -> str:
        """Write the record; a full disk must not take a running container down, so the problem is returned."""
        try:
            record.write(self.directory, changed)
        except MinicontainerError as error:
            return error.message
        return ""

    def _unlock(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def _clean_kernel(self) -> str:
        """Remove the control group; returns what went wrong, "" for nothing."""
        if not self.config:
            return ""
        try:
            container.delete(self.directory, config=self.config)
        except (OSError, MinicontainerError) as error:
            return str(error)
        return ""

    def _clean_run_directory(self) -> None:
        try:
            os.unlink(f"{self.run_directory}/attach.sock")
            os.rmdir(self.run_directory)
        except OSError:
            return  # already gone, or somebody else's file is in it: the next start and `gc` deal with both
