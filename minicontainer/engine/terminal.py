"""The size of a terminal. Man page: ioctl_tty(2)."""

from __future__ import annotations

import fcntl
import struct
import termios


def set_window_size(terminal: int, rows: int, columns: int) -> None:
    """Tell a terminal its size; the processes in its foreground get SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def window_size(terminal: int) -> tuple[int, int]:
    """Rows and columns of the terminal behind a descriptor.

    :raises OSError: ENOTTY where it is none.
    """
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns
