"""Output: how the command line writes, and what happens when nobody reads.

A reader that goes away (``minicontainer ps | head -1``) is not an error worth words: the command ends as one killed
by SIGPIPE would, with status 141. A full disk under standard output is an error and says so.
"""

from __future__ import annotations

import os
import sys

from minicontainer.cli.text import visible

STDOUT = "/dev/stdout"


def write(text: str) -> None:
    """Write to standard output, as UTF-8 whatever the locale says; bytes that were not UTF-8 go out as they came.

    :raises BrokenPipeError: when the reader is gone.
    """
    data = text.encode("utf-8", "surrogateescape")
    buffer = getattr(sys.stdout, "buffer", None)
    try:
        if buffer is not None:
            buffer.write(data)
        elif sys.stdout is not None:
            sys.stdout.write(data.decode("utf-8", "replace"))
    except OSError as error:
        raise _about_output(error) from None


def flush() -> None:
    """Send off what was written.

    :raises OSError: with the name of standard output; BrokenPipeError when its reader is gone.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise _about_output(error) from None


def _about_output(error: OSError) -> OSError:
    return type(error)(error.errno, error.strerror, STDOUT)


def line(text: str) -> None:
    """Write one line and send it off, so that a long list of containers reports each as it is done."""
    write(text + "\n")
    flush()


def complain(message: str, hint: str = "") -> None:
    """One line on standard error (two with a hint), with control characters shown instead of sent."""
    text = f"minicontainer: {_tidy(message)}\n"
    if hint:
        text += f"{_tidy(hint)}\n"
    raw(text)


def raw(text: str) -> None:
    """Write to standard error without buffering; an unwritable standard error leaves nothing more to be done."""
    try:
        os.write(2, text.encode("utf-8", "surrogateescape"))
    except OSError:
        return  # there is nowhere left to say so, and the exit status still tells


def _tidy(text: str) -> str:
    return "\n".join(visible(part) for part in text.strip().split("\n"))


def standard_descriptors() -> None:
    """Open /dev/null on descriptors 0 to 2 that the caller closed (``>&-``).

    Otherwise the next file opened, a lock or a record, would become standard output and be written over.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, hence this one


def to_terminal() -> bool:
    """Whether a person reads our standard output on a terminal."""
    return os.isatty(1)
