"""The client's end of an attachment: send input, receive output, learn how it ended.

The command line uses :meth:`Attachment.pump` with the person's terminal, the Python API with buffers. Whatever happens
to the client, the container goes on. Lab 10. Man pages: unix(7), poll(2).
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Callable, Mapping

from minicontainer.engine.frames import CONTROL, STDIN, STDOUT, FrameReader, control, frame
from minicontainer.errors import MinicontainerError, from_dict

_CHUNK = 65536

Output = Callable[[int, bytes], None]


class Attachment:
    """A connection to a container's supervisor, or to the relay of an `exec`.

    :ivar started: the PID of the program once it runs, else 0.
    :ivar status: the exit status once it has ended, else None.
    :ivar lost: the other end went without a word: it was killed, and the container with it.
    :ivar printed: what a learner's steps printed, as (step, text).
    """

    def __init__(self, connection: socket.socket, container_id: str) -> None:
        self.id = container_id
        self.started = 0
        self.status: int | None = None
        self.lost = False
        self.printed: list[tuple[str, str]] = []
        self._socket = connection
        self._reader = FrameReader()
        self._pending = bytearray()
        self._early: list[tuple[int, bytes]] = []

    def fileno(self) -> int:
        """The socket's descriptor, for poll(2)."""
        return self._socket.fileno()

    # -- sending --------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue input for the program."""
        for start in range(0, len(data), _CHUNK):
            self._queue(frame(STDIN, data[start : start + _CHUNK]))

    def close_stdin(self) -> None:
        """Say that no more input comes."""
        self._queue(control(eof="stdin"))

    def resize(self, rows: int, columns: int) -> None:
        """Tell the container's terminal its size."""
        self._queue(control(resize=[rows, columns]))

    def signal(self, number: int) -> None:
        """Send the program a signal, through its parent, who cannot mistake another process for it."""
        self._queue(control(signal=number))

    def subscribe(self, **wishes: bool) -> None:
        """Say what to send: ``output``, ``notify`` (the log has grown), ``owner`` (its input ends when we leave)."""
        self._queue(control(attach=wishes))

    def _queue(self, packet: bytes) -> None:
        self._pending += packet
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes now; the rest waits for the next call."""
        try:
            while self._pending:
                with memoryview(self._pending) as view:
                    sent = self._socket.send(view[: 4 * _CHUNK], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                del self._pending[:sent]
        except BlockingIOError:
            return
        except OSError:
            # It has ended and reads no more; its last words are still to be received.
            self._pending.clear()

    # -- receiving ------------------------------------------------------------------------------------------------

    def receive(self) -> list[tuple[int, bytes]]:
        """Wait for something to arrive; output as (1 or 2, bytes). Check :attr:`status` and :attr:`lost` afterwards.

        :raises MinicontainerError: the error that the other side reports (the program could not be started).
        """
        if self._early:
            early, self._early = self._early, []
            return early
        return self._receive()

    def _receive(self) -> list[tuple[int, bytes]]:
        try:
            data = self._socket.recv(_CHUNK)
        except ConnectionResetError:
            data = b""
        if not data:
            self.lost = self.status is None
            return []
        output = []
        for kind, payload in self._reader.feed(data):
            if kind == CONTROL:
                self._control(json.loads(payload))
            else:
                output.append((kind, payload))
        return output

    def _control(self, message: dict) -> None:
        if "printed" in message:
            self.printed += [(step, text) for step, text in message["printed"]]
        if "started" in message:
            self.started = message["started"]
        if "exit" in message:
            self.status = message["exit"]
        if "error" in message:
            raise from_dict(message["error"])

    def wait_started(self) -> None:
        """Wait until the program runs; output that comes earlier is kept for :meth:`receive`.

        :raises MinicontainerError: it could not be started.
        """
        while not self.started and self.status is None:
            self._early += self._receive()
            if self.lost:
                raise MinicontainerError(
                    "the supervisor of the container ended before the program was started",
                    hint="look for a killed process in `dmesg`; the container can be started again",
                )

    def pump(
        self,
        output: Output,
        *,
        stdin: int | None = None,
        on_input: Callable[[bytes], bytes | None] | None = None,
        watch: Mapping[int, Callable[[], None]] | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Move input and output until the program has ended; returns its exit status (137 where it was lost).

        :param output: called with (1 or 2, bytes) for each piece of output.
        :param stdin: a descriptor to read input from until its end.
        :param on_input: sees each piece of input first and returns what to send; None to detach.
        :param watch: further descriptors to wait for, and what to call when they are readable (signals, say).
        :returns: None when `on_input` asked to detach.
        :raises TimeoutError: `timeout` seconds have passed; the program goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        others = dict(watch or {})
        early, self._early = self._early, []
        for kind, data in early:  # perhaps all there will ever be: a short program may have ended already
            output(kind, data)
        while self.status is None and not self.lost:
            poller = select.poll()
            poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._pending else 0))
            if stdin is not None and len(self._pending) < _CHUNK:
                poller.register(stdin, select.POLLIN)
            for descriptor in others:
                poller.register(descriptor, select.POLLIN)
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = dict(poller.poll(None if remaining is None else remaining * 1000 + 0.5))
            if not ready and remaining is not None and time.monotonic() >= (deadline or 0):
                raise TimeoutError(f"still running after {timeout:g} seconds")
            for descriptor in ready.keys() & others.keys():
                others[descriptor]()
            if ready.get(self.fileno(), 0) & ~select.POLLOUT:
                for kind, data in self.receive():
                    output(kind, data)
            self.flush()
            if stdin is not None and stdin in ready:
                data = _read(stdin)
                if not data:
                    stdin = None
                    self.close_stdin()
                    continue
                wanted = on_input(data) if on_input is not None else data
                if wanted is None:
                    return None
                self.send(wanted)
        return 137 if self.status is None else self.status

    def collect(self, data: bytes | None = None, timeout: float | None = None) -> tuple[int, bytes, bytes]:
        """Feed `data` as the whole input, gather all output: (exit status, stdout, stderr).

        :raises TimeoutError: as :meth:`pump`.
        """
        streams = (bytearray(), bytearray())
        if data is not None:
            self.send(data)
            self.close_stdin()

        def keep(kind: int, piece: bytes) -> None:
            streams[kind != STDOUT].extend(piece)

        status = self.pump(keep, timeout=timeout)
        return (137 if status is None else status), bytes(streams[0]), bytes(streams[1])

    def close(self) -> None:
        """Leave; the container goes on."""
        self._socket.close()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _read(descriptor: int) -> bytes:
    """Some input; its end where the terminal has gone away."""
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:
        return b""


def connect(run_directory: str, container_id: str, **wishes: bool) -> Attachment | None:
    """Connect to the supervisor of a running container; None where none listens.

    :param run_directory: the container's directory below the run root.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory = os.open(run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Through the descriptor, as the path itself may be longer than the 108 bytes that fit (man 7 unix).
            connection.connect(f"/proc/self/fd/{directory}/attach.sock")
        finally:
            os.close(directory)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    attachment = Attachment(connection, container_id)
    attachment.subscribe(**wishes)
    return attachment
