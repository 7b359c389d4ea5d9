"""The stage: where a learner's function is watched. Three processes, so that nobody has to be believed.

::

    checker     the notebook's kernel, pytest, a grader: makes the inputs, judges what was seen
      stage     a child of the fork server (minicontainer.runtime.forkserver): runs the *scene*, trusted; looks at
                the subject from outside through /proc, keeps the time, and kills
        keeper  PID 1 of fresh namespaces
          subject  runs the *play*: calls the learner's function (minicontainer.course.subject)

A check gives two module-level functions: ``scene(stage, *parameters)``, which starts subjects and looks, and
``play(link, *arguments)``, which calls the function. The scene returns plain data to the checker. Where no namespaces
can be made, an item that does not need them is played by a plain forked child under a subreaper.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from minicontainer.course import proc
from minicontainer.course.subject import LARGEST, decode, keep
from minicontainer.linux import capability, namespace
from minicontainer.linux.hints import describe
from minicontainer.runtime import forkserver, travel

PRIVATE = namespace.CLONE_NEWPID | namespace.CLONE_NEWNS | namespace.CLONE_NEWUTS | namespace.CLONE_NEWIPC
_OUTPUT_KEPT = 2000
_MESSAGES = 2000  # a subject that says more than this is flooding
_TICK = 0.005


def pack(function: Callable[..., Any]) -> bytes:
    """The learner's function as bytes, with the source lines of its cell."""
    return travel.pack(function, [function])


def seconds(limit: float) -> float:
    """`limit` on this machine: MINICONTAINER_TIME_SCALE stretches all limits, for emulated or busy machines."""
    return limit * float(os.environ.get("MINICONTAINER_TIME_SCALE", "1"))


class Answer(NamedTuple):
    """What came of playing a scene; exactly one of the first four says something."""

    seen: Any = None
    stop: str = ""  # why nothing more can be learnt about this function
    lost: str = ""  # how the subject's process ended before its time
    unavailable: str = ""  # what this machine lacks
    output: str = ""


class _NotAttempted(Exception):
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
            raise _NotAttempted
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
        deadline = time.monotonic() + (limit or self._stage.limit)
        while self.status is None:
            if time.monotonic() > deadline:
                raise TimedOut(self._stage.late)
            self.pump(_TICK)
        return self.status

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
            self.pump(_TICK)
        return self._reports[0] if self._reports else {"broken": "the keeper did not start"}

    def pump(self, timeout: float) -> None:
        """Take in whatever has arrived: messages, output (so that nobody blocks on a full pipe), the keeper's words."""
        if not self._open:
            time.sleep(timeout)
            return
        ready, _, _ = select.select(list(self._open), [], [], timeout)
        for descriptor in ready:
            if descriptor == self._line.fileno():
                self._take_message()
            elif descriptor == self._output:
                data = os.read(descriptor, 65536)
                self._stage.note(data.decode(errors="replace"))
                if not data:
                    self._open.discard(descriptor)
            else:
                self._take_report()

    def _take_message(self) -> None:
        try:
            data = self._line.recv(LARGEST + 1024)
        except OSError:
            data = b""
        if not data:
            self._open.discard(self._line.fileno())
            return
        self._count += 1
        if self._count > _MESSAGES:
            raise Ended("it flooded the checker with messages and was stopped")
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
        deadline = time.monotonic() + (limit or self._stage.limit)
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
            self.pump(_TICK)

    def close(self) -> None:
        """Kill the keeper, and with it everything that the subject may have started; nothing is left after this."""
        if self.keeper:
            # In a PID namespace the first kill is enough. Without one, the tree under the subreaper goes leaf by leaf:
            # a killed process's children become the keeper's, so the keeper goes last.
            if self._stage.fallback:
                _kill_tree(self.keeper)
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


class Stage:
    """What a scene works with."""

    def __init__(self, packed: bytes, directory: str, limit: float, needs: Iterable[str]) -> None:
        self.directory = directory
        self.limit = seconds(limit)
        self.late = f"it did not return within {self.limit:g} seconds"
        self.fallback = False
        self._packed = packed
        self._needs = needs
        self._subjects: list[Subject] = []
        self._output = ""

    def start(self, play: Callable[..., None], *arguments: Any) -> Subject:
        """Start a subject that runs ``play(link, *arguments)``; it has begun when this returns."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output_read, output_write = os.pipe()
        report_read, report_write = os.pipe()
        keeper, private, user = self._clone()
        if keeper == 0:
            keep(
                theirs,
                output_write,
                report_write,
                private=private,
                user=user,
                directory=self.directory,
                packed=self._packed,
                play=play,
                arguments=arguments,
            )
        theirs.close()
        os.close(output_write)
        os.close(report_write)
        subject = Subject(self, keeper, ours, output_read, report_read)
        self._subjects.append(subject)
        prepared = subject.prepared()
        if "broken" in prepared:
            raise Unavailable(prepared["broken"])
        if not prepared.get("proc") and "proc" in self._needs:
            raise Unavailable(f"a new PID namespace cannot have a /proc of its own here ({prepared.get('why', '')})")
        subject.said("ready")
        found = subject.find(prepared["subject"]) if private else proc.process(prepared["subject"])
        if found is None:
            raise Ended("it ended before it began")
        subject.pid = found.pid
        subject.resume()
        return subject

    def _clone(self) -> tuple[int, bool, tuple[int, int] | None]:
        """Clone the keeper into namespaces of its own, with a user namespace where that takes one."""
        error: OSError | None = None
        if not self.fallback:
            for user in (None, (os.geteuid(), os.getegid())):
                try:
                    return namespace.clone(PRIVATE | (namespace.CLONE_NEWUSER if user else 0)), True, user
                except OSError as failure:
                    error = failure
            if "namespaces" in self._needs:
                raise Unavailable(f"new namespaces cannot be made ({describe(error) if error else ''})")
            self.fallback = True
        if "chroot" in self._needs and not capability.get()[0] & capability.mask(["CAP_SYS_CHROOT"]):
            raise Unavailable("chroot(2) needs root, or a user namespace, and neither can be had")
        return os.fork(), False, None

    def until(self, condition: Callable[[], Any], limit: float) -> Any:
        """Wait, `limit` seconds at most, for `condition()` to be true; its last value."""
        deadline = time.monotonic() + seconds(limit)
        while True:
            value = condition()
            if value or time.monotonic() > deadline:
                return value
            for subject in self._subjects:
                subject.pump(_TICK)

    def gate(self, name: str) -> Gate:
        """A named pipe that somebody on the subject's side will read from, and that the scene opens when it likes."""
        path = os.path.join(self.directory, name)
        os.mkfifo(path)
        os.chmod(path, 0o666)
        return Gate(self, path)

    def note(self, text: str) -> None:
        """Keep the beginning of what the learner's function printed."""
        room = _OUTPUT_KEPT - len(self._output)
        if room > 0:
            self._output += text[:room]

    @property
    def output(self) -> str:
        return self._output

    def close(self) -> None:
        """End everything that was started here."""
        for subject in self._subjects:
            try:
                subject.pump(0)
            except Ended:
                pass  # it was flooding, and is about to be killed
            subject.close()


class Gate:
    """A named pipe in the stage's directory: a reader waits at it until :meth:`open`."""

    def __init__(self, stage: Stage, path: str) -> None:
        self.path = path
        self._stage = stage

    def open(self, text: str = "go", limit: float = 2.0) -> bool:
        """Give the reader `text`; False where nobody came to read within `limit` seconds."""
        descriptor = self._stage.until(self._try_open, limit)
        if descriptor is None:
            return False
        os.write(descriptor, text.encode() + b"\n")
        os.close(descriptor)
        return True

    def _try_open(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # ENXIO: nobody reads yet
            return None


def _how_it_ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name if os.WTERMSIG(status) in list(signal.Signals) else "a signal"
        return f"the process was ended by {name} before the function returned"
    return f"the process ended (exit status {os.WEXITSTATUS(status)}) before the function returned"


def _kill_tree(top: int) -> None:
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


def perform(
    scene: Callable[..., Any],
    packed: bytes,
    parameters: list[Any],
    *,
    directory: str,
    limit: float,
    needs: list[str],
) -> dict[str, Any]:
    """Play a scene, in the stage's own process; what was seen, as the fields of an :class:`Answer`."""
    stage = Stage(packed, directory, limit, needs)
    answer: dict[str, Any] = {}
    try:
        answer["seen"] = scene(stage, *parameters)
    except _NotAttempted:
        answer["stop"] = "not attempted: the function raises NotImplementedError"
    except TimedOut as error:
        answer["stop"] = str(error)
    except Ended as error:
        answer["lost"] = str(error)
    except Unavailable as error:
        answer["unavailable"] = str(error)
    finally:
        stage.close()
    answer["output"] = stage.output
    return answer


def serve(args: dict[str, Any], fds: list[int]) -> int:
    """The stage's life, in a forked child of the fork server: read the packed function, play, answer in JSON."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):  # a check prints nothing: one line on stderr costs all points in nbgrader
        os.dup2(null, descriptor)
    with socket.socket(fileno=fds[0]) as wire, wire.makefile("rb") as reader:
        packed = reader.read(args.pop("size"))
        module, _, name = args.pop("scene").partition(":")
        try:
            scene = getattr(importlib.import_module(module), name)
            answer = perform(scene, packed, args.pop("parameters"), **args)
        except Exception as error:
            answer = {"broken": f"{type(error).__name__}: {error}"}
        wire.sendall(json.dumps(answer).encode())
    return 0


def play(
    scene: Callable[..., Any],
    packed: bytes,
    parameters: tuple[Any, ...],
    *,
    directory: str,
    limit: float,
    needs: tuple[str, ...] = (),
) -> Answer:
    """Play `scene` in a forked child of the fork server, never here.

    :param parameters: inputs for the scene, such as JSON can carry.
    :param limit: seconds for one call of the learner's function; a whole scene may take four times as long.
    :raises RuntimeError: where the stage itself failed.
    """
    ours, theirs = socket.socketpair()
    request = {
        "scene": f"{scene.__module__}:{scene.__qualname__}",
        "parameters": parameters,
        "directory": directory,
        "limit": limit,
        "needs": needs,
        "size": len(packed),
    }
    with ours:
        with theirs:
            # No steps of the learner's: unpickling them would run their code in the stage.
            pid = forkserver.shared().call(f"{__name__}:serve", request, [theirs.fileno()], functions={})
        try:
            answer = _receive(ours, packed, time.monotonic() + seconds(limit) * 4 + 5)
        finally:
            _end(pid, ours)
    if answer is None:
        return Answer(stop="the check took too long and was stopped")
    if "broken" in answer:
        raise RuntimeError(answer["broken"])
    return Answer(**answer)


def _receive(wire: socket.socket, packed: bytes, deadline: float) -> dict[str, Any] | None:
    """Send the function and wait for the stage's answer; None where it did not come by the deadline."""
    data = b""
    try:
        wire.settimeout(max(deadline - time.monotonic(), 0.01))
        wire.sendall(packed)
        while part := _part(wire, deadline):
            data += part
    except TimeoutError:
        return None
    if not data:
        return {"broken": "the stage ended without an answer"}
    answer: dict[str, Any] = json.loads(data)
    return answer


def _part(wire: socket.socket, deadline: float) -> bytes:
    wire.settimeout(max(deadline - time.monotonic(), 0.01))
    return wire.recv(1 << 20)


def _end(pid: int, wire: socket.socket) -> None:
    """Make sure that the stage and all below it are gone: the answer's end means that it is about to be."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([pidfd], [], [], 0.5)[0]:
            _kill_tree(pid)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], 5)
    except ProcessLookupError:
        pass  # it ended between the look and the kill
    finally:
        os.close(pidfd)
