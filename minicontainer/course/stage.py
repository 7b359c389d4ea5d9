"""The stage: where a learner's function is watched. Four processes, so that nobody has to be believed.

::

    checker       the notebook's kernel, pytest, a grader: makes the inputs, judges what was seen
      stage       a child of the fork server: runs the *scene*; looks at the subject from outside, through /proc,
                  keeps the time, and kills
        keeper    PID 1 of fresh namespaces
          subject runs the *play*: calls the learner's function (minicontainer.course.subject)

A check gives two module-level functions: ``scene(stage, *parameters)``, which starts subjects and looks, and
``play(link, *arguments)``, which calls the function. The scene returns plain data to the checker, which alone knows
what it should be. Where no namespaces can be made, an item that does not need them is played by a plain forked child
under a subreaper. Man pages: pid_namespaces(7), proc(5), fifo(7).
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from minicontainer.course import proc
from minicontainer.course.subject import keep
from minicontainer.course.watched import TICK, Call, Ended, NotAttempted, Subject, TimedOut, Unavailable
from minicontainer.linux import capability, namespace
from minicontainer.linux.hints import describe

__all__ = ["Call", "Ended", "Gate", "Stage", "Subject", "TimedOut", "Unavailable", "serve"]

PRIVATE = namespace.CLONE_NEWPID | namespace.CLONE_NEWNS | namespace.CLONE_NEWUTS | namespace.CLONE_NEWIPC
_OUTPUT_KEPT = 2000


class Stage:
    """What a scene works with."""

    def __init__(
        self, packed: bytes, directory: str, limit: float, needs: Iterable[str], scale: float
    ) -> None:
        self.directory = directory
        self.scale = scale
        self.limit = limit * scale
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
            raise Unavailable(
                f"a new PID namespace cannot have a /proc of its own here ({prepared.get('why', '')})"
            )
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
        deadline = time.monotonic() + limit * self.scale
        while True:
            value = condition()
            if value or time.monotonic() > deadline:
                return value
            for subject in self._subjects:
                subject.pump(TICK)

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

    def open(self, text: str = "go", limit: float = 4.0) -> bool:
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


def perform(
    scene: Callable[..., Any],
    packed: bytes,
    parameters: list[Any],
    *,
    directory: str,
    limit: float,
    needs: list[str],
    scale: float,
) -> dict[str, Any]:
    """Play a scene, in the stage's own process; what was seen, as the fields of a :class:`~.dispatch.Answer`."""
    stage = Stage(packed, directory, limit, needs, scale)
    answer: dict[str, Any] = {}
    try:
        answer["seen"] = scene(stage, *parameters)
    except NotAttempted:
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
