"""Terminal: raw mode with a way back, and the window's size.

With ``-t`` the container has its own pseudo-terminal, whose line discipline echoes, edits lines and turns Ctrl-C into
SIGINT for the container's foreground job. The caller's terminal must therefore do none of that: it is put into raw
mode, so that every key travels as it is, and must come back whatever happens. Lab 10. Man pages: termios(3),
tty_ioctl(4).
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def size(descriptor: int) -> tuple[int, int] | None:
    """Rows and columns of a terminal, None where the descriptor is none or does not know."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


class Raw:
    """Raw mode on a terminal for the time of a ``with`` block; nothing on what is not a terminal.

    The settings are put back when the block is left, however it is left. :meth:`leave` and :meth:`enter` serve those
    who are stopped and continued in between (SIGTSTP, SIGCONT).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._saved: list | None = None

    def enter(self) -> None:
        """Switch to raw mode: no echo, no line editing, no signals from keys, no translation of bytes."""
        if not os.isatty(self._descriptor):
            return
        settings = termios.tcgetattr(self._descriptor)
        if self._saved is None:
            self._saved = [*settings[:6], list(settings[6])]
        settings[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        settings[1] &= ~termios.OPOST
        settings[2] = settings[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        settings[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        settings[6][termios.VMIN] = 1
        settings[6][termios.VTIME] = 0
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, settings)

    def leave(self) -> None:
        """Put the settings back; a terminal that has gone away needs none."""
        if self._saved is None:
            return
        try:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)
        except (OSError, termios.error):
            self._saved = None  # hung up: there is no terminal to restore any more

    def __enter__(self) -> Raw:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
