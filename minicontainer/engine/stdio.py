"""A container's standard streams on their way between its pipes (or terminal), the clients and the log.

One :class:`Relay` moves the bytes for a supervisor or for an `exec`. It never blocks: while a client is slower than
the container, its backlog grows to a limit, then the container's output is left in its pipe, and the container waits
as it would for a slow terminal. Exits, other clients and input go on meanwhile. Lab 10.
Man pages: poll(2), pidfd_open(2), unix(7), pty(7).
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import struct
import time

from minicontainer.engine.frames import CONTROL, STDIN, FrameReader, control, frame
from minicontainer.engine.logs import LogWriter
from minicontainer.engine.terminal import set_window_size

CHUNK = 65536
BACKLOG = 1 << 20  # bytes kept for a slow client before the container has to wait, as in moby's bytespipe
INPUT = 1 << 17  # bytes kept for a container that does not read its input
GRACE = 0.1  # seconds of silence after the end, for output that a process elsewhere may still hold open


class Client:
    """One attached client, seen from the relay.

    :ivar output: it wants the container's output.
    :ivar notify: it wants to hear when the log has grown (``logs -f``).
    :ivar owner: it is the one the container was started for (``run`` in the foreground).
    """

    def __init__(self, connection: socket.socket, *, output: bool = False, owner: bool = False) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.output = output
        self.notify = False
        self.owner = owner
        self.reader = FrameReader()
        self.backlog = bytearray()
        self.gone = False

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, keep the rest."""
        if self.gone:
            return
        if self.backlog:
            self.backlog += data
            return
        sent = self._write(data)
        if sent < len(data):
            self.backlog += memoryview(data)[sent:]

    def flush(self) -> None:
        """Send what was kept, as far as the socket takes it."""
        while self.backlog and not self.gone:
            with memoryview(self.backlog) as view:
                sent = self._write(view[: 4 * CHUNK])
            if not sent:
                return
            del self.backlog[:sent]

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return self.connection.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE, ECONNRESET: it left; what it asked for goes on without it
            self.gone = True
            return 0

    def receive(self) -> list[tuple[int, bytes]]:
        """The frames that have arrived; a client that left or talks nonsense is marked gone."""
        try:
            data = self.connection.recv(CHUNK)
            if data:
                return self.reader.feed(data)
        except BlockingIOError:
            return []
        except (OSError, ValueError):
            pass  # reset by the peer, or not our protocol: either way it is no client any more
        self.gone = True
        return []


class Relay:
    """Moves bytes between one process and its clients until the process ends and its output is drained.

    :param sources: descriptors to read the process's output from -> STDOUT or STDERR.
    :param sink: descriptor of its input (pipe or terminal), None where it has none.
    :param console: descriptor of the terminal's master side, None without one.
    :param log: where output is recorded, if anywhere.
    :param listener: a listening socket for further clients.
    :param stdin_once: close the input when the owner leaves.
    """

    def __init__(
        self,
        *,
        sources: dict[int, int],
        sink: int | None,
        console: int | None = None,
        log: LogWriter | None = None,
        listener: socket.socket | None = None,
        stdin_once: bool = False,
    ) -> None:
        self.sources = dict(sources)
        self.sink = sink
        self.console = console
        self.log = log
        self.listener = listener
        self.stdin_once = stdin_once
        self.clients: list[Client] = []
        self.input = bytearray()
        self.input_ends = False
        self.pidfd = -1
        for descriptor in (*self.sources, sink):
            if descriptor is not None:
                os.set_blocking(descriptor, False)

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self, pid: int, pidfd: int) -> int:
        """Relay until the child `pid` has ended and its output is read; returns its exit status."""
        status: int | None = None
        deadline = 0.0
        self.pidfd = pidfd
        while status is None or self.sources:
            wanted = self._interest(ended=status is not None)
            if status is None:
                wanted[pidfd] = select.POLLIN
                ready = _poll(wanted, None)
            else:
                ready = _poll(wanted, deadline - time.monotonic())
            output = [descriptor for descriptor in self.sources if ready.get(descriptor, 0) & ~select.POLLOUT]
            if pidfd in ready and status is None:
                status = reap(pid)
                deadline = time.monotonic() + GRACE
            elif output:
                deadline = time.monotonic() + GRACE
            elif status is not None and time.monotonic() >= deadline:
                break
            for descriptor in output:
                self._read_output(descriptor)
            self._serve(ready)
        for descriptor in list(self.sources):
            self._close_source(descriptor)
        self._close_sink()
        if self.log is not None:
            self.log.flush()
        return status

    def _interest(self, *, ended: bool) -> dict[int, int]:
        """What to wait for: descriptors whose readiness we could use now, and the events that matter."""
        wanted: dict[int, int] = {}
        # After the end the pipes hold at most what fits into them: that is taken, however slow the clients are.
        if ended or not any(client.output and len(client.backlog) > BACKLOG for client in self.clients):
            wanted.update(dict.fromkeys(self.sources, select.POLLIN))
        if self.sink is not None and self.input:
            wanted[self.sink] = wanted.get(self.sink, 0) | select.POLLOUT
        if self.listener is not None:
            wanted[self.listener.fileno()] = select.POLLIN
        accepting = select.POLLIN if len(self.input) < INPUT else 0
        for client in self.clients:
            wanted[client.connection.fileno()] = accepting | (select.POLLOUT if client.backlog else 0)
        return wanted

    def _serve(self, ready: dict[int, int]) -> None:
        """Everything but the output: input for the process, clients that come, talk, read and leave."""
        if self.sink is not None and self.sink in ready and self.input:
            self._write_input()
        if self.listener is not None and self.listener.fileno() in ready:
            self._accept(self.listener)
        for client in list(self.clients):
            if client.connection.fileno() in ready:
                client.flush()
                for kind, data in client.receive():
                    self._handle(client, kind, data)
            if client.gone:
                self._drop(client)

    # -- output ---------------------------------------------------------------------------------------------------

    def _read_output(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: nobody has the terminal's other side open any more
                raise
            data = b""
        kind = self.sources[descriptor]
        if not data:
            self._close_source(descriptor)
            return
        if self.log is not None:
            self.log.write(kind, data)
        packet = b""
        for client in self.clients:
            if client.output:
                packet = packet or frame(kind, data)
                client.send(packet)
            elif client.notify and not client.backlog:  # one that has not heard the last word needs no other
                client.send(control(log=1))

    def _close_source(self, descriptor: int) -> None:
        del self.sources[descriptor]
        if descriptor != self.console:
            os.close(descriptor)

    # -- input ----------------------------------------------------------------------------------------------------

    def _write_input(self) -> None:
        if self.sink is None:
            self.input.clear()
            return
        try:
            while self.input:
                with memoryview(self.input) as view:
                    written = os.write(self.sink, view[:CHUNK])
                del self.input[:written]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self.input.clear()  # nobody reads it any more
            self._close_sink()
            return
        if self.input_ends:
            self._close_sink()

    def _end_input(self) -> None:
        """The client has no more input: end of file, which a terminal is told by its own character (^D)."""
        if self.console is not None:
            self.input += b"\x04"
        else:
            self.input_ends = True
        self._write_input()

    def _close_sink(self) -> None:
        if self.sink is not None and self.sink != self.console:
            os.close(self.sink)
        self.sink = None

    # -- clients --------------------------------------------------------------------------------------------------

    def add(self, client: Client) -> None:
        """Serve one more client."""
        self.clients.append(client)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        _, user, _ = struct.unpack("iII", credentials)
        if user not in (0, os.geteuid()):
            connection.close()
            return
        self.add(Client(connection))

    def _handle(self, client: Client, kind: int, data: bytes) -> None:
        if kind == STDIN:
            if self.sink is not None and not self.input_ends:
                self.input += data
                self._write_input()
            return
        if kind != CONTROL:
            return
        try:
            message = json.loads(data)
            if "attach" in message:
                client.output = bool(message["attach"].get("output"))
                client.notify = bool(message["attach"].get("notify"))
                client.owner = bool(message["attach"].get("owner"))
                if client.notify:  # for what was written before we knew that it wants to hear of it
                    client.send(control(log=1))
            if "signal" in message and self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, message["signal"])
            if "eof" in message:
                self._end_input()
            if "resize" in message and self.console is not None:
                rows, columns = message["resize"]
                set_window_size(self.console, rows, columns)
        except ProcessLookupError:
            return  # it has just ended; the client will hear of that
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            client.gone = True

    def _drop(self, client: Client) -> None:
        self.clients.remove(client)
        client.connection.close()
        if client.owner and self.stdin_once and self.console is None:
            self._end_input()

    def finish(self, packet: bytes) -> None:
        """Send a last control frame to every client and stay until each has taken all it was owed, or left."""
        for client in self.clients:
            client.send(packet)
        poller = select.poll()
        waiting = {}
        for client in self.clients:
            if client.backlog and not client.gone:
                waiting[client.connection.fileno()] = client
                poller.register(client.connection, select.POLLOUT)
        while waiting:
            for descriptor, _ in poller.poll():
                client = waiting[descriptor]
                client.flush()
                if client.gone or not client.backlog:
                    poller.unregister(descriptor)
                    del waiting[descriptor]
        for client in self.clients:
            client.connection.close()
        self.clients.clear()


def _poll(wanted: dict[int, int], seconds: float | None) -> dict[int, int]:
    poller = select.poll()
    for descriptor, events in wanted.items():
        poller.register(descriptor, events)
    return dict(poller.poll(None if seconds is None else max(0, seconds * 1000)))


def reap(pid: int) -> int:
    """Collect the ended child `pid`: 0 to 255, its exit code or 128 plus the signal's number (lab 01's step)."""
    from minicontainer.runtime import steps

    _, wait_status = os.waitpid(pid, 0)
    status: int = steps.get("exit_status")(wait_status)
    return status
