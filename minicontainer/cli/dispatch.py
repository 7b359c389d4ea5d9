"""Dispatch: find the verb, run it, turn every failure into one line and an exit status.

Exit statuses are Docker's: the container's own for a foreground ``run`` (128 + n for signal n), 125 for a failure of
``run`` itself or a wrong flag, 126 and 127 for a command that cannot be executed or is not there, 1 for other
failures, 130 for Ctrl-C. Nothing is imported here that the verb does not need.
"""

from __future__ import annotations

import errno
import os
import sys

from minicontainer.cli import output
from minicontainer.cli.flags import FlagError, Parsed, Verb, parse
from minicontainer.errors import Interrupted, MinicontainerError

READER_GONE = 141  # 128 + SIGPIPE
OWN_FAILURE = ("run", "exec")  # verbs whose own failures must be told from the program's exit status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def run(words: list[str]) -> int:
    """Run one command line and return its exit status; whatever happened has been reported.

    :raises SystemExit: when a guest has ended.
    """
    output.standard_descriptors()
    try:
        try:
            return _reported(words)
        finally:
            output.flush()
    except BrokenPipeError:
        return _abandon_output(READER_GONE)
    except OSError as error:  # standard output is a file on a full disk, say
        output.complain(*describe(error))
        return _abandon_output(1)


def _abandon_output(status: int) -> int:
    """Let what is still buffered go nowhere, or the interpreter would try to flush it once more and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


def _reported(words: list[str]) -> int:
    call = Call()
    try:
        return call(words)
    except Interrupted as error:
        return error.exit_code
    except KeyboardInterrupt as error:
        return 128 + getattr(error, "number", 2)  # the signal's number, SIGINT's where Python raised it
    except BrokenPipeError:
        raise
    except Exception as error:
        if call.debug:
            import traceback

            traceback.print_exc()
        return report(error, call.verb, own_status=call.guest)


class Call:
    """One command line on its way: the verb as soon as it is known, for the words of an error."""

    def __init__(self) -> None:
        self.verb: Verb | None = None
        self.guest = False
        self.debug = os.environ.get("MINICONTAINER_DEBUG", "0") not in ("", "0")

    def __call__(self, words: list[str]) -> int:
        """Read the global options, then the verb and its words, and run it."""
        from minicontainer.cli.verbs import GLOBAL, GUESTS, VERBS

        options = parse(GLOBAL, words)
        self.debug = self.debug or options.debug
        if options.root:
            os.environ["MINICONTAINER_ROOT"] = os.path.abspath(options.root)
        if options.run_root:
            os.environ["MINICONTAINER_RUN"] = os.path.abspath(options.run_root)
        if options.version:
            from minicontainer import __version__

            output.write(f"minicontainer version {__version__}\n")
            return 0
        if options.help or not options.arguments:
            return _help([])
        name, rest = options.arguments[0], options.arguments[1:]
        if name == "help":
            return _help(rest)
        if name in GUESTS:
            self.guest = True
            # A guest leaves by the ordinary way, as it would alone: it may have registered things to do at the end.
            raise SystemExit(_function(GUESTS[name][0])(rest) or 0)
        self.verb = next((verb for verb in VERBS if verb.name == name), None)
        if self.verb is None:
            raise _unknown(name)
        parsed = parse(self.verb, rest)
        if parsed.help:
            return _help([name])
        function: Callable[[Parsed], int] = _function(f"minicontainer.cli.{self.verb.where}")
        return function(parsed)


def _function(where: str) -> Callable[[Any], Any]:
    """The function "package.module:name", its module imported now."""
    module, _, name = where.partition(":")
    __import__(module)
    function: Callable[[Any], Any] = getattr(sys.modules[module], name)
    return function


def _help(names: list[str]) -> int:
    from minicontainer.cli import usage
    from minicontainer.cli.verbs import GUESTS, VERBS

    if not names:
        output.write(usage.overview())
        return 0
    if names[0] in GUESTS:
        _function(GUESTS[names[0]][0])(["--help"])
        return 0
    for verb in VERBS:
        if verb.name == names[0]:
            output.write(usage.of(verb))
            return 0
    raise _unknown(names[0])


def _unknown(name: str) -> FlagError:
    from difflib import get_close_matches

    from minicontainer.cli.verbs import GUESTS, VERBS

    similar = get_close_matches(name, [*GUESTS, *(verb.name for verb in VERBS)], 1)
    hint = f"did you mean `minicontainer {similar[0]}`?" if similar else ""
    return FlagError(f"unknown command: minicontainer {name}", hint=hint, exit_code=1)


# -- errors -------------------------------------------------------------------------------------------------------

PERMISSION = "run it with sudo, or as an ordinary user inside `minicontainer lab -- …`"
_HINTS = {
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EROFS: "the file system is mounted read-only: choose another place with --root and --run-root",
    errno.ENOSPC: "free some space: remove containers (`rm`) or images (`rmi`)",
    errno.EDQUOT: "free some space: remove containers (`rm`) or images (`rmi`)",
    errno.EMFILE: "too many open files: raise the limit with `ulimit -n`",
    errno.ENOSYS: "this kernel lacks the system call: `minicontainer doctor` says what works here",
}


def report(error: Exception, verb: Verb | None, *, own_status: bool = False) -> int:
    """Print an error as one line (and a hint) and return the exit status it stands for.

    :param own_status: the error's own status counts, as for `lab`, which runs somebody's command.
    """
    if isinstance(error, FlagError):
        from minicontainer.cli import usage

        output.complain(error.message, error.hint)
        output.raw(f"\n{usage.line(verb)}\n\n" if verb else "\n")
        output.raw(f"{usage.more(verb)}\n")
        return error.exit_code
    message, hint = describe(error)
    output.complain(message, hint)
    status = error.exit_code if isinstance(error, MinicontainerError) else 125
    if own_status or verb is not None and verb.name in OWN_FAILURE:
        return status
    return 1 if status in (125, 126, 127) else status


def describe(error: Exception) -> tuple[str, str]:
    """What to tell a person about an error: the line and the hint."""
    if isinstance(error, MinicontainerError):
        return error.message, error.hint
    if isinstance(error, OSError) and error.errno:
        reason = os.strerror(error.errno).lower()
        name = os.fsdecode(error.filename) if error.filename else ""
        if name.startswith("/dev/std"):
            return f"write {name}: {reason}", ""
        about = ": ".join(part for part in (getattr(error, "syscall", ""), name) if part)
        return f"{about}: {reason}" if about else reason, _HINTS.get(error.errno, "")
    return (
        f"unexpected {type(error).__name__}: {error}",
        "this is a fault of minicontainer: --debug (before the command) shows where it happened",
    )
