"""The learner's side of a check: the process in which their function runs, and the keeper that ends it for certain.

Two processes, made by :mod:`minicontainer.course.stage` with clone(2):

* the **keeper** is PID 1 of a fresh PID namespace. It reaps whatever the function leaves behind, and when it is killed
  the kernel kills everything in that namespace with it, whatever has called setsid(2) or forked twice;
* the **subject** is its child. It holds nothing of the checker: no descriptor but one socket, no expected value, no
  process that it could see or signal. Only here is the function unpickled, for unpickling runs code too.

What comes out of the subject is JSON, taken as a claim and not as a fact. Man pages: pid_namespaces(7), prctl(2),
close_range(2).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from minicontainer.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, mount
from minicontainer.linux.process import close_range, set_child_subreaper, set_parent_death_signal
from minicontainer.runtime import travel

LARGEST = 64 * 1024  # bytes of one message; below the socket's buffer, so that a message is one packet
LEAKED = 97  # exit status of a child that came back into its caller's code
_DEPTH = 6
_ELEMENTS = 1000


class Link:
    """The subject's end of the line to the stage; handed to each play as its first argument."""

    def __init__(self, line: socket.socket, packed: bytes) -> None:
        self._line = line
        self._packed = packed
        self._function: Callable[..., Any] | None = None

    def say(self, name: str, **data: Any) -> None:
        """Send one message that the scene waits for with ``subject.said(name)``."""
        self._send({"say": name, "data": {key: encode(value) for key, value in data.items()}})

    def pause(self) -> None:
        """Wait until the scene calls ``subject.resume()``."""
        self._line.recv(LARGEST)

    def call(self, *arguments: Any) -> Any:
        """Call the learner's function; the scene gets what came of it with ``subject.call()``.

        A forked child that comes back out of the function as well (it did not end in ``os._exit``) is reported and
        ended here, before it becomes a second copy of the play.
        """
        home = os.getpid()
        value = None
        result: dict[str, Any]
        try:
            function = self._load()
            value = function(*arguments)
            result = {"value": encode(value)}
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: a function must return
            result = _failure(error, self._function)
        if os.getpid() != home:
            self._send({"leaked": os.getpid()})
            os._exit(LEAKED)
        self._send({"call": result})
        return value

    def _load(self) -> Callable[..., Any]:
        if self._function is None:
            self._function = travel.unpack(self._packed)
        assert self._function is not None
        return self._function

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        if len(data) > LARGEST and "call" in message:
            data = json.dumps({"call": {"value": {"$": "repr", "of": "a value too large to send"}}}).encode()
        self._line.send(data)


def _failure(error: BaseException, function: Callable[..., Any] | None) -> dict[str, Any]:
    """An exception as data, with the learner's own lines."""
    try:
        text, lines = str(error), travel.learners_traceback(error, function)
    except Exception:  # an exception class of the learner's whose __str__ fails
        text, lines = "(its text cannot be shown)", ""
    return {
        "error": text[:1000],
        "name": type(error).__name__,
        "number": _number(error),
        "traceback": lines[-4000:],
    } | {
        "not_attempted": isinstance(error, NotImplementedError),
        "os_error": isinstance(error, OSError),
    }


def _number(error: BaseException) -> int:
    number = getattr(error, "errno", 0)
    return number if type(number) is int else 0


def encode(value: Any, depth: int = 0) -> Any:
    """`value` as JSON can carry it; sets and tuples keep their kind, anything else travels as its repr."""
    if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 1 << 62):
        return value
    if type(value) is str:
        return value if len(value) <= LARGEST // 8 else value[: LARGEST // 8] + "…"
    if type(value) in (list, tuple, set, frozenset, dict) and len(value) > _ELEMENTS:
        return {"$": "repr", "of": f"a {type(value).__name__} of {len(value)} elements"}
    if depth < _DEPTH:
        if type(value) is list:
            return [encode(element, depth + 1) for element in value]
        if type(value) in (tuple, set, frozenset):
            kind = "tuple" if type(value) is tuple else "set"
            return {"$": kind, "of": [encode(element, depth + 1) for element in value]}
        if type(value) is dict and all(type(key) is str for key in value):
            return {"$": "dict", "of": {key: encode(element, depth + 1) for key, element in value.items()}}
    try:
        return {"$": "repr", "of": repr(value)[:1000]}
    except Exception:  # a class of the learner's whose __repr__ fails
        return {"$": "repr", "of": f"<{type(value).__name__}>"}


class Shown(str):
    """The repr of a value that could not travel as itself: equal to no value that a check expects."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def decode(value: Any) -> Any:
    """What :func:`encode` made, as a value again; whatever is malformed comes back as text."""
    if isinstance(value, list):
        return [decode(element) for element in value]
    if isinstance(value, dict):
        kind, content = value.get("$"), value.get("of")
        if kind in ("tuple", "set") and isinstance(content, list):
            elements = [decode(element) for element in content]
            if kind == "tuple":
                return tuple(elements)
            return {element if isinstance(element, (str, int)) else Shown(element) for element in elements}
        if kind == "dict" and isinstance(content, dict):
            return {key: decode(element) for key, element in content.items()}
        return Shown(content)
    return value


def keep(
    line: socket.socket,
    output: int,
    report: int,
    *,
    private: bool,
    user: tuple[int, int] | None,
    directory: str,
    packed: bytes,
    play: Callable[..., None],
    arguments: tuple[Any, ...],
) -> NoReturn:
    """The keeper's whole life, in the process that the stage has just cloned; it ends by being killed.

    :param private: whether it is PID 1 of namespaces of its own (else it is made a subreaper).
    :param user: (uid, gid) outside, where it is in a user namespace of its own too.
    """
    try:
        set_parent_death_signal(signal.SIGKILL)
        _close_all_but(line.fileno(), output, report)
        prepared = _prepare(private, user)
        subject = os.fork()
        if subject == 0:
            os.close(report)
            _live(line, output, directory, packed, play, arguments)
        line.close()
        os.close(output)
        os.write(report, json.dumps(prepared | {"subject": subject}).encode() + b"\n")
        _reap(subject, report)
    except BaseException as error:
        os.write(report, json.dumps({"broken": f"{type(error).__name__}: {error}"}).encode() + b"\n")
    finally:
        os._exit(1)


def _prepare(private: bool, user: tuple[int, int] | None) -> dict[str, Any]:
    """Make the keeper's surroundings its own: ids, mounts that spread nowhere, a /proc of its PID namespace."""
    if user is not None:
        # One id mapped to itself-as-root needs no privilege, provided that setgroups is given up first.
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {user[0]} 1"),
            ("gid_map", f"0 {user[1]} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    if not private:
        set_child_subreaper()
        return {"proc": True}
    try:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError as error:
        return {"proc": False, "why": str(error)}
    return {"proc": True}


def _reap(subject: int, report: int) -> NoReturn:
    """Wait for every child, our own and adopted ones, until killed; say how the subject ended."""
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            signal.pause()
            continue
        if pid == subject:
            os.write(report, json.dumps({"status": status}).encode() + b"\n")


def _live(
    line: socket.socket,
    output: int,
    directory: str,
    packed: bytes,
    play: Callable[..., None],
    arguments: tuple[Any, ...],
) -> NoReturn:
    """The subject: only the line, /dev/null and the output are open; signals as in a fresh program."""
    status = 1
    link = Link(line, packed)
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        _close_all_but(line.fileno())
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(directory)
        os.environ["TMPDIR"] = directory
        link.say("ready")
        link.pause()  # until the stage has found this process from outside
        play(link, *arguments)
        sys.stdout.flush()
        status = 0
    except BaseException as error:
        link.say("broken", why=f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _close_all_but(*kept: int) -> None:
    """Close every descriptor from 3 on except `kept`."""
    first = 3
    for descriptor in sorted(number for number in kept if number >= 3):
        if descriptor > first:
            close_range(first, descriptor - 1)
        first = descriptor + 1
    close_range(first)
