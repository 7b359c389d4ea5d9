"""A learner's function travels by value to the process it must run in; its prints and its failure travel back.

The function is pickled with its code (cloudpickle), never by name, and the source lines of its cell go with it, so that
a traceback made in another process still shows them. Lab 02 on; see ``steps.use``.
"""

from __future__ import annotations

import io
import linecache
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from minicontainer.errors import StepError
from minicontainer.runtime import steps
from minicontainer.runtime.channel import Channel

STEP_SECONDS = 10.0


def pack(value: object, functions: Iterable[Callable[..., Any]] = ()) -> bytes:
    """`value` as bytes that another process can load, with the source of the cells that `functions` come from."""
    import cloudpickle

    sources = {}
    for function in functions:
        code = getattr(function, "__code__", None)
        if code is not None and not os.path.exists(code.co_filename):
            sources[code.co_filename] = "".join(linecache.getlines(code.co_filename))
    data: bytes = pickle.dumps((sources, cloudpickle.dumps(value)))
    return data


def unpack(data: bytes) -> Any:
    """The value that :func:`pack` packed; its cells' source lines become known to tracebacks here."""
    sources, value = pickle.loads(data)
    for name, text in sources.items():
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return pickle.loads(value)


def learners_traceback(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """The traceback as a learner wants it: from their own first line on, without the machinery around it."""
    tb: TracebackType | None = error.__traceback__
    name = getattr(getattr(function, "__code__", None), "co_filename", None)
    frame = tb
    while name and frame is not None:
        if frame.tb_frame.f_code.co_filename == name:
            tb = frame
            break
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, tb))


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Raise :class:`TimeoutError` in the block after `seconds`; for a single-threaded process (man 2 setitimer)."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"{what} did not return within {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def call_step(channel: Channel, name: str, *arguments: Any, ours: Callable[..., Any] | None = None) -> Any:
    """Call the step in force: our own directly, a learner's with its prints caught, in a time limit.

    :param ours: the package's function where the caller has it at hand; after the root has changed it must be given,
        since looking it up may import a module.
    :raises StepError: where the learner's function raised, ran out of time or tried to leave; with their traceback.
    """
    learners = steps.active().get(name)
    if learners is None:
        return (ours or steps.default(name))(*arguments)
    printed = io.StringIO()
    before = sys.stdout
    sys.stdout = printed
    try:
        with time_limit(STEP_SECONDS, f"your step {name}"):
            return learners(*arguments)
    except BaseException as error:
        raise StepError(
            f"your step {name} failed: {type(error).__name__}: {error}",
            step=name,
            errno=(error.errno or 0) if isinstance(error, OSError) else 0,
            hint=f"its place in the package is {steps.TABLE[name].default or 'not filled'}; see the traceback",
            traceback=learners_traceback(error, learners),
        ) from error
    finally:
        sys.stdout = before
        if printed.getvalue():
            channel.send({"printed": printed.getvalue(), "step": name})
