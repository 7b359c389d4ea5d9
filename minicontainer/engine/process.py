"""What a supervisor and the relay of an `exec` share: leaving their maker behind, and pipes for the program."""

from __future__ import annotations

import gc
import os

from minicontainer.engine.frames import STDERR, STDOUT
from minicontainer.linux.process import close_range


def leave(descriptors: list[int]) -> None:
    """Let go of everything the maker had open except `descriptors`: whoever reads the maker's output must see its end
    when the maker ends, and no pipe of somebody else's stays open through us."""
    gc.freeze()  # what the maker loaded is never garbage; looking through it would copy its pages
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    before = 2
    for descriptor in sorted(set(descriptors)):
        if descriptor > before + 1:
            close_range(before + 1, descriptor - 1)
        before = max(before, descriptor)
    close_range(before + 1)
    os.chdir("/")
    os.umask(0o022)


class Streams:
    """The program's three standard streams as pipes; with a terminal there are none.

    :ivar stdio: the program's ends.
    :ivar sources: our ends of its output -> STDOUT or STDERR.
    :ivar sink: our end of its input, None where it reads nothing.
    """

    def __init__(self, *, stdin_open: bool) -> None:
        self.sink: int | None = None
        if stdin_open:
            stdin, self.sink = os.pipe()
        else:
            stdin = os.open("/dev/null", os.O_RDONLY)
        output, stdout = os.pipe()
        errors, stderr = os.pipe()
        self.stdio = (stdin, stdout, stderr)
        self.sources = {output: STDOUT, errors: STDERR}

    def close_theirs(self) -> None:
        """Close the program's ends here, so that the end of its output is seen."""
        for descriptor in self.stdio:
            os.close(descriptor)
