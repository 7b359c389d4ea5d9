"""The wire between a container's two halves: short JSON messages, and errors that come home as data.

The child's end is close-on-exec. So the parent knows how a start went without guessing: an error arrives as a message,
and the end of the stream after "start" means that execve(2) succeeded. Labs 01 and 02. Man pages: socketpair(2),
unix(7), execve(2).
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

from minicontainer.errors import MinicontainerError, StepError
from minicontainer.linux.hints import describe, explain

_LARGEST = 192 * 1024  # below the default socket buffer, so that one message is one packet


class Channel:
    """One end of a socket pair that carries one JSON object, and perhaps a descriptor, per packet."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, close-on-exec like every descriptor that Python makes."""
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Send one message, with an open file beside it when asked (SCM_RIGHTS, man 7 unix)."""
        data = json.dumps(message).encode()
        if len(data) > _LARGEST:
            data = json.dumps({key: _shorten(value) for key, value in message.items()}).encode()
        extra = []
        if descriptor is not None:
            extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self.socket.sendmsg([data], extra)

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any] | None, int | None]:
        """The next message and its descriptor; (None, None) at the end of the stream.

        :param timeout: seconds to wait.
        :raises TimeoutError: when nothing came in time.
        """
        self.socket.settimeout(timeout)
        space = socket.CMSG_LEN(array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self.socket.recvmsg(_LARGEST + 1024, space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return None, None
        descriptor = None
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptor = array.array("i", payload[:4])[0]
        return (json.loads(data) if data else None), descriptor

    def close(self) -> None:
        """Close this end; the other one sees the end of the stream."""
        self.socket.close()


def _shorten(value: Any) -> Any:
    """Keep a long text's beginning and end, so that a learner who prints megabytes still gets an answer."""
    if isinstance(value, str) and len(value) > 30_000:
        return value[:15_000] + "\n[… shortened …]\n" + value[-15_000:]
    return value


def step_error(step: str, error: BaseException, *, exit_code: int | None = None) -> StepError:
    """The exception `error`, met in `step`, as a :class:`StepError` that says what, why and what to do."""
    if isinstance(error, StepError):
        return error
    if isinstance(error, MinicontainerError):
        return StepError(error.message, step=step, hint=error.hint, exit_code=error.exit_code)
    if isinstance(error, OSError):
        number = error.errno or 0
        call = getattr(error, "syscall", "")
        path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        return StepError(
            f"{step}: {describe(error)}",
            step=step,
            syscall=call,
            errno=number,
            path=path,
            hint=explain(call, number),
            exit_code=exit_code,
        )
    return StepError(f"{step}: {type(error).__name__}: {error}", step=step, exit_code=exit_code)


def report(channel: Channel, step: str, error: BaseException) -> int:
    """Send `error` home; returns the exit status for the child."""
    problem = step_error(step, error)
    try:
        channel.send({"error": problem.to_dict()})
    except OSError:
        return 1  # nobody is listening: the parent died
    return problem.exit_code
