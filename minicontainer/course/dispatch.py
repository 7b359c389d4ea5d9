"""Sending a scene to the stage: the checker's side of :mod:`minicontainer.course.stage`.

Only JSON comes back, so that nothing a learner's function made is ever unpickled in the checker. A grader that runs
submissions elsewhere replaces :func:`play`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from minicontainer.course.watched import kill_tree
from minicontainer.runtime import forkserver, travel


class Answer(NamedTuple):
    """What came of playing a scene; exactly one of the first four says something."""

    seen: Any = None
    stop: str = ""  # why nothing more can be learnt about this function
    lost: str = ""  # how the subject's process ended before its time
    unavailable: str = ""  # what this machine lacks
    output: str = ""


def pack(function: Callable[..., Any]) -> bytes:
    """The learner's function as bytes, with the source lines of its cell."""
    return travel.pack(function, [function])


def time_scale() -> float:
    """By how much all limits are stretched (MINICONTAINER_TIME_SCALE), for emulated or busy machines."""
    return float(os.environ.get("MINICONTAINER_TIME_SCALE", "1"))


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
        "scale": time_scale(),
        "size": len(packed),
    }
    with ours:
        with theirs:
            # No steps of the learner's: unpickling them would run their code in the stage.
            pid = forkserver.shared().call(
                "minicontainer.course.stage:serve", request, [theirs.fileno()], functions={}
            )
        try:
            answer = _receive(ours, packed, time.monotonic() + limit * time_scale() * 4 + 5)
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
            kill_tree(pid)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], 5)
    except ProcessLookupError:
        pass  # it ended between the look and the kill
    finally:
        os.close(pidfd)
