"""A subject as the stage sees it: what it says, what it prints, how it ends, and the certainty of its end.

The stage waits for nothing without reading along: a subject whose output nobody takes would block on a full pipe. What
a subject says is a claim; what the stage reads in /proc about :attr:`Subject.pid` is a fact.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from minicontainer.course import proc
from minicontainer.course.subject import LARGEST, decode

if TYPE_CHECKING:
    from minicontainer.course.stage import Stage

TICK = 0.005
_MESSAGES = 2000  # a subject that says more than this is flooding


class NotAttempted(Exception):
    """The function raised NotImplementedError: it is the untouched stub."""


class TimedOut(Exception):
    """The function did not return in time."""


class Ended(Exception):
    """The subject's process ended before the play did."""


class Unavailable(Exception):
    """This machine lacks what the item needs."""


class Call(NamedTuple):
    """What came of one call of the learner's function, as the subject tells it.

    :ivar error: the exception's text; name, number (errno), os_error tell more; all empty where it returned.
    """

    value: Any
    error: str = ""
    name: str = ""
    number: int = 0
    os_error: bool = False

    @property
    def returned(self) -> bool:
        return not self.name

    def __str__(self) -> str:
        return repr(self.value) if self.returned else f"{self.name}: {self.error}"


class Subject:
    """The stage's handle on one subject; PIDs are those that the stage sees."""

    def __init__(self, stage: Stage, keeper: int, line: socket.socket, output: int, report: int) -> None:
        self.keeper = keeper
        self.pid = 0
        self.status: int | None = None
        self.leaks = 0
        self._stage = stage
        self._line = line
        self._output = output
        self._report = report
        self._open = {line.fileno(), output, report}
        self._messages: list[dict[str, Any]] = []
        self._reports: list[dict[str, Any]] = []
        self._pending = b""
        self._count = 0

    # -- waiting -----------------------------------------------------------------------------------------------

    def said(self, name: str, limit: float | None = None) -> dict[str, Any]:
        """The data of the next message `name` from the play."""
        return {key: decode(value) for key, value in self._next("say", name, limit)["data"].items()}

    def call(self, limit: float | None = None, *, failing: bool = False) -> Call:
        """What came of the play's next call of the learner's function.

        :param failing: an exception is what the item asks for, so that its traceback is not shown.
        :raises TimedOut: after `limit` seconds (the item's own by default).
        """
        result = self._next("call", None, limit)["call"]
        if "value" in result:
            return Call(decode(result["value"]))
        if result.get("not_attempted"):
            raise NotAttempted
        if not failing:
            self._stage.note(str(result.get("traceback", "")))
        number = result.get("number")
        return Call(
            None,
            str(result.get("error", "")),
            str(result.get("name") or "an error"),
            number if isinstance(number, int) else 0,
            bool(result.get("os_error")),
        )

    def resume(self) -> None:
        """Let the play go on after its ``link.pause()``."""
        try:
            self._line.send(b"go")
        except OSError:
            pass  # it has ended meanwhile, which the next wait reports

    def has_said(self, kind: str) -> bool:
        """Whether a message of that kind ("call", "say") has arrived and was not yet taken."""
        self.pump(0)
        return any(kind in message for message in self._messages)

    def has_said_word(self, name: str) -> bool:
        """Whether the play's message `name` has arrived and was not yet taken."""
        self.pump(0)
        return any(message.get("say") == name for message in self._messages)

    def over(self) -> bool:
        """Whether the function has returned, or the process has ended, so that nothing more will come of it."""
        return self.has_said("call") or self.status is not None

    def wait(self, limit: float | None = None) -> int:
        """Wait until the subject has ended; its wait status.

        :raises TimedOut: when it has not in time.
        """
        deadline = self._deadline(limit)
        while self.status is None:
            if time.monotonic() > deadline:
                raise TimedOut(self._stage.late)
            self.pump(TICK)
        return self.status

    def _deadline(self, limit: float | None) -> float:
        return time.monotonic() + (self._stage.limit if limit is None else limit * self._stage.scale)

    def find(self, number: int) -> proc.Process | None:
        """The process that has PID `number` in the subject's PID namespace."""
        keeper = proc.process(self.keeper)
        if keeper is None:
            return None
        depth = len(keeper.numbers) - 1
        for each in proc.descendants(self.keeper):
            if len(each.numbers) > depth and each.numbers[depth] == number:
                return each
        return None

    def inside(self, process: proc.Process) -> int:
        """The PID of `process` in the subject's PID namespace."""
        keeper = proc.process(self.keeper)
        depth = 0 if keeper is None else len(keeper.numbers) - 1
        return process.numbers[depth] if depth < len(process.numbers) else process.pid

    def inside_pid(self) -> int:
        """The subject's own PID in its PID namespace."""
        process = proc.process(self.pid)
        return 0 if process is None else self.inside(process)

    # -- the wire ----------------------------------------------------------------------------------------------

    def prepared(self) -> dict[str, Any]:
        """The keeper's first words, once it has made the subject."""
        deadline = time.monotonic() + self._stage.limit
        while not self._reports and self.status is None and time.monotonic() < deadline:
            self.pump(TICK)
        return self._reports[0] if self._reports else {"broken": "the keeper did not start"}

    def pump(self, timeout: float) -> None:
        """Take in whatever has arrived: messages, output (so that nobody blocks on a full pipe), the keeper's words."""
        if not self._open:
            time.sleep(timeout)
            return
        ready, _, _ = select.select(list(self._open), [], [], timeout)
        for descriptor in ready:
            if descriptor == self._line.fileno():
                self._take_messages()
            elif descriptor == self._output:
                data = os.read(descriptor, 65536)
                self._stage.note(data.decode(errors="replace"))
                if not data:
                    self._open.discard(descriptor)
            else:
                self._take_report()

    def _take_messages(self) -> None:
        """All messages that are there, at most a hundred: who sends more is asked again, and is counted."""
        for _ in range(100):
            try:
                data = self._line.recv(LARGEST + 1024, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                self._open.discard(self._line.fileno())
                return
            self._count += 1
            if self._count > _MESSAGES:
                raise Ended("it flooded the checker with messages and was stopped")
            self._take_message(data)

    def _take_message(self, data: bytes) -> None:
        try:
            message = json.loads(data)
        except ValueError:
            return  # noise: only the play's own words count, and they are JSON
        if not isinstance(message, dict):
            return
        if "leaked" in message:
            self.leaks += 1
        elif isinstance(message.get("call"), dict) or isinstance(message.get("data"), dict):
            self._messages.append(message)

    def _take_report(self) -> None:
        data = os.read(self._report, 65536)
        if not data:
            self._open.discard(self._report)
            if self.status is None:
                self.status = signal.SIGKILL
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            report = json.loads(line)
            if "status" in report:
                self.status = report["status"]
            else:
                self._reports.append(report)

    def _next(self, kind: str, name: str | None, limit: float | None) -> dict[str, Any]:
        deadline = self._deadline(limit)
        while True:
            for message in self._messages:
                if message.get("say") == "broken":
                    raise RuntimeError(str(decode(message["data"].get("why"))))
                if kind in message and (name is None or message[kind] == name):
                    self._messages.remove(message)
                    return message
            if self.status is not None:
                self.pump(0)
                if not any(kind in message for message in self._messages):
                    raise Ended(_how_it_ended(self.status))
            if time.monotonic() > deadline:
                raise TimedOut(self._stage.late)
            self.pump(TICK)

    def close(self) -> None:
        """Kill the keeper, and with it everything that the subject may have started; nothing is left after this."""
        if self.keeper:
            # In a PID namespace the first kill is enough. Without one, the tree under the subreaper goes leaf by leaf:
            # a killed process's children become the keeper's, so the keeper goes last.
            if self._stage.fallback:
                kill_tree(self.keeper)
            try:
                os.kill(self.keeper, signal.SIGKILL)
            except ProcessLookupError:
                pass  # its maker reaps it just below
            os.waitpid(self.keeper, 0)
            self.keeper = 0
        self._line.close()
        for descriptor in (self._output, self._report):
            os.close(descriptor)
        self._open.clear()


def _how_it_ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        name = (
            signal.Signals(os.WTERMSIG(status)).name
            if os.WTERMSIG(status) in list(signal.Signals)
            else "a signal"
        )
        return f"the process was ended by {name} before the function returned"
    return f"the process ended (exit status {os.WEXITSTATUS(status)}) before the function returned"


def kill_tree(top: int) -> None:
    """Stop and kill every descendant of `top`, until none is left; for machines without namespaces."""
    for _ in range(1000):
        left = [each for each in proc.descendants(top) if each.state not in "ZX"]
        if not left:
            return
        for each in left:
            try:
                os.kill(each.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.001)
