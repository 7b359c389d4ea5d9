"""Signals: how the command line hears them, before and after the container lives.

While a container is being made, Ctrl-C (and TERM and HUP, which would otherwise end us without a word) waits for the
few milliseconds until there is a whole container to take back, and interrupts only what takes longer. Once the
container runs, signals are not ours any more: they go on to it. Man pages: signal(7), pid_namespaces(7), proc(5).
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FORWARDED = (*ENDING, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
PATIENCE = 0.5  # seconds that a step may take before a signal interrupts it
INSISTENCE = 3  # so many signals, and the process ends at once


class Stopped(KeyboardInterrupt):
    """A signal asked us to end; like KeyboardInterrupt it passes every ``except Exception``."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class _Handlers:
    """Base: puts handlers in place for a ``with`` block, and the former ones back."""

    def __init__(self) -> None:
        self._former: dict[int, Any] = {}

    def _install(self, number: int, handler: Any) -> None:
        """A signal that is ignored stays so: nohup(1), and ``&`` in a script, ask for just that."""
        former = signal.getsignal(number)
        if former is not signal.SIG_IGN:
            self._former[number] = former
            signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)


class Interruptible(_Handlers):
    """For the block, INT, TERM and HUP are remembered until :meth:`check`, which raises :class:`Stopped`.

    An exception out of nowhere could strike between any two instructions, also between making a thing and noting that
    it was made. So it comes only to steps that take longer than `PATIENCE`: unpacking an image, waiting for a lock.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._pending = 0

    def __enter__(self) -> Interruptible:
        for number in ENDING:
            self._install(number, self._remember)
        self._install(signal.SIGALRM, self._interrupt)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._pending = number
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        elif self._count > INSISTENCE:
            os._exit(128 + number)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.check()

    def take(self) -> int:
        """The signal that came, 0 for none; it is then dealt with."""
        number, self._pending = self._pending, 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        return number

    def check(self) -> None:
        """A good moment to be interrupted.

        :raises Stopped: a signal has come.
        """
        number = self.take()
        if number:
            raise Stopped(number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().__exit__(kind, error, trace)


class Handed(_Handlers):
    """For the block, signals are handed on at once, even while we wait for a slow reader of our output.

    :param hand_on: called, between two instructions of whatever is going on, with the number of each signal...
    :param numbers: ... of these.
    :param noted: signals that are only noted: `descriptor` becomes readable, and :meth:`take` tells which came.
    """

    def __init__(
        self, hand_on: Callable[[int], None], numbers: tuple[int, ...], noted: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.hand_on = hand_on
        self._numbers = numbers
        self._noted = noted
        self.descriptor, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Handed:
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._noted:
            self._install(number, _nothing)
        for number in self._numbers:
            self._install(number, lambda number, frame: self.hand_on(number))
        return self

    def take(self) -> set[int]:
        """The noted signals since the last call."""
        try:
            return set(os.read(self.descriptor, 512)) & set(self._noted)
        except BlockingIOError:
            return set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.descriptor)
        os.close(self._writer)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Python's own handler below this one has already written the number to the wakeup descriptor."""


def has_no_effect(pid: int, number: int) -> bool:
    """Whether the kernel would drop the signal, sent to the first process of a PID namespace (man 7 pid_namespaces).

    A process with PID 1 gets only signals that it catches; the default action, which would end any other process,
    does not apply to it. That is why Ctrl-C does nothing to ``docker run busybox sleep 100``.
    """
    masks = {}
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith((b"SigIgn:", b"SigCgt:")):
                    masks[line[:6]] = int(line.split()[1], 16)
    except (OSError, ValueError):
        return False  # gone, or not ours to see: then the signal itself shows what it does
    bit = 1 << (number - 1)
    return len(masks) == 2 and not any(mask & bit for mask in masks.values())
