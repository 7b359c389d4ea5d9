"""Attach: the caller's standard streams, terminal and signals joined to a container's.

Bytes travel over the supervisor's socket (:class:`minicontainer.engine.attach.Attachment`); this module knows the
caller's side: raw mode, the window's size, the detach keys, and what becomes of a signal. Lab 10.
Man pages: termios(3), tty_ioctl(4), pidfd_send_signal(2).
"""

from __future__ import annotations

import os
import select
import signal

from minicontainer.cli.signals import ENDING, FORWARDED, Handed, Interruptible, Stopped, has_no_effect
from minicontainer.cli.terminal import Raw, size
from minicontainer.engine.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.attach import Attachment

STDOUT, STDERR = 1, 2
DETACH = b"\x10\x11"  # Ctrl-P Ctrl-Q, as Docker's


class Target:
    """The process that signals go to, held by a descriptor, so that its number cannot come to mean another one.

    :param pid: its number, 0 for one that has ended.
    :param first: it is the first process of its PID namespace, which the kernel shields from default actions.
    :ivar ended_by: the signal that made us end it, 0 for none.
    """

    def __init__(self, pid: int, *, first: bool) -> None:
        self._pid = pid
        self._first = first
        self.ended_by = 0
        self._descriptor = -1
        if pid:
            try:
                self._descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                self._pid = 0  # it has ended already

    def send(self, number: int) -> None:
        """Pass a signal on. One that would end any other process, but not a PID 1 that does not catch it, ends it too.

        Docker drops such a signal, and Ctrl-C then does nothing at all; here the person's wish counts.
        """
        if self._descriptor < 0:
            return
        if self._first and number in (*ENDING, signal.SIGQUIT) and has_no_effect(self._pid, number):
            self.ended_by = self.ended_by or number
            number = signal.SIGKILL
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return  # it ended before; its status is on its way

    def status(self, status: int) -> int:
        """The exit status to report: that of the signal by which we ended it, if we did."""
        return 128 + self.ended_by if self.ended_by and status == 128 + signal.SIGKILL else status


class Window(Frozen):
    """What we show of a container, and what we pass on to it.

    :ivar tty: it has a terminal.
    :ivar stdin: pass our input on.
    :ivar shown: which of its streams to show.
    :ivar forward: pass signals on.
    :ivar keys: what to type to leave it alone again.
    """

    tty: bool = False
    stdin: bool = False
    shown: tuple[int, ...] = (STDOUT, STDERR)
    forward: bool = True
    keys: bytes = DETACH


def relay(attachment: Attachment, target: Target, window: Window, before: Interruptible) -> int | None:
    """Join our standard streams to a container until its program ends.

    :param before: has listened to signals until now.
    :returns: the exit status, None when the person pressed the detach keys.
    :raises Stopped: a signal came that is not to be passed on.
    :raises BrokenPipeError: nobody reads our output any more.
    """
    terminal = Raw(0 if window.stdin and window.tty else -1)
    noted = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT) if window.tty else ()

    def show(kind: int, data: bytes) -> None:
        if kind in window.shown:
            write_all(kind, data)

    def resize() -> None:
        rows_columns = size(1) or size(0)
        if rows_columns:
            attachment.resize(*rows_columns)

    def on_noted() -> None:
        numbers = signals.take()
        if signal.SIGTSTP in numbers:
            # From outside: in raw mode Ctrl-Z goes to the container. The shell gets its terminal back meanwhile.
            terminal.leave()
            os.kill(os.getpid(), signal.SIGSTOP)
        if numbers & {signal.SIGTSTP, signal.SIGCONT}:
            terminal.enter()
        if numbers:
            resize()

    handed = Handed(target.send, FORWARDED, noted) if window.forward else Handed(_stop, ENDING, noted)
    with handed as signals, terminal:
        early = before.take()
        if early:
            signals.hand_on(early)
        if window.tty:
            resize()
        return attachment.pump(
            show,
            stdin=0 if window.stdin else None,
            on_input=DetachKeys(window.keys) if window.tty else None,
            watch={signals.descriptor: on_noted},
        )


def _stop(number: int) -> None:
    raise Stopped(number)


class DetachKeys:
    """Looks for the detach keys in what is typed: returns what to send, None for "detach".

    >>> keys = DetachKeys()
    >>> keys(b"ls"), keys(b"\\x10"), keys(b"\\x10x"), keys(b"\\x10\\x11")
    (b'ls', b'', b'\\x10\\x10x', None)
    """

    def __init__(self, keys: bytes = DETACH) -> None:
        self._keys = keys
        self._held = b""

    def __call__(self, data: bytes) -> bytes | None:
        data = self._held + data
        self._held = b""
        if self._keys and self._keys in data:
            return None
        for length in range(len(self._keys) - 1, 0, -1):
            if data.endswith(self._keys[:length]):  # what it was, the next key tells
                self._held = self._keys[:length]
                return data[:-length]
        return data


def detach_keys(text: str) -> bytes:
    """The bytes of a sequence such as ``ctrl-p,ctrl-q`` or ``a,b`` (docker/cli, moby/term ascii.go).

    >>> detach_keys("ctrl-p,q")
    b'\\x10q'

    :raises ValueError: a key that there is not.
    """
    found = b""
    for key in text.split(","):
        control = key.removeprefix("ctrl-")
        if len(key) == 1 and key.isascii():
            found += key.encode()
        elif control != key and len(control) == 1 and control in "@abcdefghijklmnopqrstuvwxyz[\\]^_":
            found += bytes([ord(control.upper()) & 0x1F])
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return found


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything to one of our standard streams, however slowly it is read.

    :raises OSError: with the stream's name; BrokenPipeError when its reader is gone.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody who shares it with us made it non-blocking
            poller = select.poll()
            poller.register(descriptor, select.POLLOUT)
            poller.poll()
        except OSError as error:
            name = "/dev/stdout" if descriptor == STDOUT else "/dev/stderr"
            raise type(error)(error.errno, error.strerror, name) from None
