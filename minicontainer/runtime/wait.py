"""How a process ended, as a shell and Docker report it. Lab 01. Man pages: wait(2), waitid(2), bash(1) EXIT STATUS."""

from __future__ import annotations

import os


def exit_status(wait_status: int) -> int:
    """One number for how a process ended: its exit code, or 128 plus the number of the signal that killed it.

    >>> exit_status(3 << 8), exit_status(9)
    (3, 137)
    """
    if os.WIFSIGNALED(wait_status):
        return 128 + os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)
