"""Run somebody's function in another process, by value, with limits, and bring back everything that happened.

For a learner's function that is tried outside a container: it may loop, fork, exit, print megabytes or kill its parent,
and costs only the process it runs in. Used by the checks of every lab. Man pages: prctl(2) (PR_SET_CHILD_SUBREAPER),
wait(2).
"""

from __future__ import annotations

import ast
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle  # noqa: F401 - the fork server imports this module once, and every child then has it

from minicontainer.linux.mount import MS_PRIVATE, MS_REC, mount
from minicontainer.linux.namespace import CLONE_NEWNS, CLONE_NEWPID, clone
from minicontainer.linux.process import set_child_subreaper
from minicontainer.runtime.forkserver import shared
from minicontainer.runtime.travel import learners_traceback, pack, unpack

_MOST_OUTPUT = 1 << 20  # bytes of each stream that are kept


@dataclass(frozen=True)
class Outcome:
    """What became of a function that ran elsewhere.

    :ivar value: what it returned, or None. Only plain data comes back (numbers, text, bytes, tuples, lists, dicts,
        sets): an object could run code of the other process's choosing in ours.
    :ivar exception: the exception's class name, or "" when it returned.
    :ivar error: the exception's text; ``traceback`` has the learner's own lines.
    :ivar status: how the process ended: 0, an exit code, or 128 plus a signal.
    :ivar timed_out: whether the time limit ended it.
    :ivar leftovers: processes that it left running (they have been killed).
    """

    value: Any = None
    exception: str = ""
    error: str = ""
    traceback: str = ""
    stdout: str = ""
    stderr: str = ""
    status: int = 0
    timed_out: bool = False
    seconds: float = 0.0
    leftovers: int = 0
    returned_twice: bool = False

    @property
    def ok(self) -> bool:
        """Whether the function returned normally, and only once."""
        return not (self.exception or self.timed_out or self.status or self.returned_twice)


def run(
    function: Callable[..., Any], *args: Any, timeout: float = 10.0, flags: int = 0, **kwargs: Any
) -> Outcome:
    """Call ``function(*args, **kwargs)`` in a child of the fork server and report what happened.

    The function travels by value. A forked copy of it that returns instead of ending is noticed (``returned_twice``).

    :param timeout: seconds; then the process and all its descendants are killed.
    :param flags: CLONE_NEW* bits: new namespaces for the call (with CLONE_NEWPID it runs as PID 1, /proc not mounted).
    """
    payload = pack((function, args, kwargs), [function])
    source, sink = os.pipe()
    result, result_write = os.pipe()
    out, out_write = os.pipe()
    err, err_write = os.pipe()
    mine = [source, sink, result, result_write, out, out_write, err, err_write]
    theirs = [source, result_write, out_write, err_write]
    started = time.monotonic()
    try:
        arguments = {"timeout": timeout, "flags": flags, "size": len(payload)}
        shared().call("minicontainer.runtime.sandbox:_keeper", arguments, theirs, functions={})
        for descriptor in theirs:
            os.close(descriptor)
            mine.remove(descriptor)
        streams = _exchange(
            sink, payload, {result: bytearray(), out: bytearray(), err: bytearray()}, timeout + 10
        )
        mine.remove(sink)
    finally:
        for descriptor in mine:
            os.close(descriptor)
    return _outcome(streams[result], streams[out], streams[err], time.monotonic() - started)


def _exchange(
    sink: int, payload: bytes, streams: dict[int, bytearray], patience: float
) -> dict[int, bytearray]:
    """Feed `payload` to `sink` and read all streams to their ends, keeping only so much of each."""
    poll = select.poll()
    os.set_blocking(sink, False)
    poll.register(sink, select.POLLOUT)
    for descriptor in streams:
        poll.register(descriptor, select.POLLIN)
    view, left, deadline = memoryview(payload), len(streams), time.monotonic() + patience
    sink_open = True
    while left:
        events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            break
        for descriptor, _ in events:
            if descriptor == sink and sink_open:
                try:
                    view = view[os.write(sink, view[:65536]) :]
                except BrokenPipeError:
                    view = view[:0]
                if not view:
                    poll.unregister(sink)
                    os.close(sink)
                    sink_open = False
            elif descriptor in streams:
                data = os.read(descriptor, 65536)
                if not data:
                    poll.unregister(descriptor)
                    left -= 1
                elif len(streams[descriptor]) < _MOST_OUTPUT:
                    streams[descriptor] += data
    if sink_open:
        os.close(sink)
    return streams


def _outcome(result: bytearray, out: bytearray, err: bytearray, seconds: float) -> Outcome:
    """Put the pieces together: the keeper's word (the last record) counts, the learner's process may be lying."""
    said: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    returns = 0
    position = 0
    while position + 5 <= len(result):
        kind, size = result[position], int.from_bytes(result[position + 1 : position + 5], "big")
        body = bytes(result[position + 5 : position + 5 + size])
        position += 5 + size
        if kind == ord("k"):
            kept = json.loads(body)
        elif kind == ord("r"):
            returns += 1
            said = said or _plain(body)
    value = None
    if "value" in said:
        try:
            value = ast.literal_eval(said["value"])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            shown = said["value"][:200]
            said = {
                "exception": "TypeError",
                "error": f"the function returned {shown}, which is not plain data",
            }
    return Outcome(
        value=value,
        exception=said.get("exception", ""),
        error=said.get("error", ""),
        traceback=said.get("traceback", ""),
        stdout=out.decode(errors="replace"),
        stderr=err.decode(errors="replace"),
        status=kept.get("status", 1),
        timed_out=kept.get("timed_out", False),
        leftovers=kept.get("leftovers", 0),
        seconds=seconds,
        returned_twice=returns > 1,
    )


def _plain(body: bytes) -> dict[str, str]:
    """What the other process says, taken for no more than text."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return {"exception": "RuntimeError", "error": "the process sent something that is not a result"}
    return {str(key): str(value) for key, value in said.items()}


def _record(descriptor: int, kind: str, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    view = memoryview(kind.encode() + len(data).to_bytes(4, "big") + data)
    while view:
        view = view[os.write(descriptor, view) :]


def _keeper(args: dict[str, Any], fds: list[int]) -> int:
    """Runs in the fork server's child: make the process, watch the clock, clean up after it, tell how it ended."""
    source, result, out, err = fds
    payload = b""
    while len(payload) < args["size"]:
        part = os.read(source, 1 << 20)
        if not part:
            return 1
        payload += part
    os.close(source)
    set_child_subreaper()
    pid = clone(args["flags"])
    if pid == 0:
        _subject(payload, args["flags"], result, out, err)
    os.close(out)
    os.close(err)
    pidfd = os.pidfd_open(pid)
    ended = select.select([pidfd], [], [], args["timeout"])[0]
    if not ended:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    status = 1
    while True:
        finished, wait_status = os.waitpid(-1, 0)
        if finished == pid:
            status = (
                128 + os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else os.WEXITSTATUS(wait_status)
            )
            break
    if ended:
        _let_descendants_end(0.25)
    leftovers = _kill_descendants()
    _record(result, "k", {"status": status, "timed_out": not ended, "leftovers": leftovers})
    return 0


def _let_descendants_end(seconds: float) -> None:
    """Give processes that the subject left a moment to end by themselves: a copy of it may be about to report."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return


def _kill_descendants() -> int:
    """Kill everything the subject left behind: as subreaper we inherit all of it, generation by generation."""
    count = 0
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(pid) for pid in file.read().split()]
        except FileNotFoundError:
            return count
        if not children:
            return count
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            _, wait_status = os.waitpid(child, 0)
            count += os.WIFSIGNALED(wait_status)
    return count


def _subject(payload: bytes, flags: int, result: int, out: int, err: int) -> None:
    """The process that calls the function."""
    status = 0
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        for number, descriptor in ((0, null), (1, out), (2, err)):
            os.dup2(descriptor, number)
        if flags & CLONE_NEWNS:
            mount(None, "/", None, MS_REC | MS_PRIVATE)
        function, args, kwargs = unpack(payload)
        try:
            value = function(*args, **kwargs)
            _record(result, "r", {"value": repr(value)})
        except Exception as error:
            body = {"exception": type(error).__name__, "error": str(error)}
            body["traceback"] = learners_traceback(error, function)
            _record(result, "r", body)
        except SystemExit as error:
            _record(result, "r", {"exception": "SystemExit", "error": str(error)})
            status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        _record(result, "r", {"exception": type(error).__name__, "error": str(error), "traceback": ""})
        status = 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)


__all__ = ["CLONE_NEWPID", "Outcome", "run"]
