"""Verbs that start something: run, create, start, exec.

A container is made in two steps, as in Docker: `create` puts it on the disk, `start` brings it to life. Until the
second has succeeded, Ctrl-C undoes the first; from then on the container has its own supervisor and a life of its own,
and this process is only a window on it.
"""

from __future__ import annotations

import os
import signal

from minicontainer.cli import output
from minicontainer.cli.attach import DETACH, STDERR, STDOUT, Target, Window, detach_keys, relay
from minicontainer.cli.containers import each, engine
from minicontainer.cli.flags import attribute
from minicontainer.cli.signals import Interruptible, Stopped
from minicontainer.cli.terminal import size
from minicontainer.cli.verbs import HOST
from minicontainer.errors import ContainerNotFound, ImageNotFound, MinicontainerError, NotRunning, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.flags import Flag, Parsed
    from minicontainer.engine import Attachment, Engine

READER_GONE = 141  # 128 + SIGPIPE


def run(parsed: Parsed) -> int:
    """Create a container and start it; in the foreground, stay until it ends and end as it did."""
    if parsed.detach and parsed.attach:
        raise UsageError("conflicting options: cannot specify both --attach and --detach", exit_code=1)
    shown, stdin = _streams(parsed)
    if not parsed.detach:
        _check_terminal(stdin and parsed.tty)
    here = engine()
    attachment = None
    with Interruptible() as signals:
        container_id = _create(here, parsed)
        try:
            signals.check()
            attachment = here.start(
                container_id,
                attach=not parsed.detach,
                stdin=stdin and not parsed.detach,
                size=_window() if parsed.tty else None,
            )
            signals.check()
            if attachment is not None:
                keys = _keys(parsed.detach_keys)
                window = Window(tty=parsed.tty, stdin=stdin, shown=shown, forward=parsed.sig_proxy, keys=keys)
                return _stay(here, attachment, window, signals, remove=parsed.rm)
            output.line(container_id)
            return 0
        except KeyboardInterrupt:
            # Raised only before the relay has taken the signals over, or after it: then the container has ended.
            if attachment is None or attachment.status is None:
                _undo(here, container_id, parsed.cidfile)
            raise
        except MinicontainerError:
            if attachment is None and parsed.rm:
                _undo(here, container_id, None)
            elif attachment is None and parsed.detach:
                output.line(container_id)  # it is there, though it does not run
            raise


def create(parsed: Parsed) -> int:
    """Create a container and print its id."""
    here = engine()
    with Interruptible() as signals:
        container_id = _create(here, parsed)
        try:
            signals.check()
        except KeyboardInterrupt:
            _undo(here, container_id, parsed.cidfile)
            raise
    output.line(container_id)
    return 0


def start(parsed: Parsed) -> int:
    """Start containers; with ``-a`` or ``-i`` one of them, in the foreground."""
    here = engine()
    if not (parsed.attach or parsed.interactive):
        return each(parsed.arguments, here.start)
    if len(parsed.arguments) > 1:
        raise UsageError("you cannot start and attach multiple containers at once", exit_code=1)
    known = here.get(parsed.arguments[0])
    tty = known.config.tty
    stdin = parsed.interactive and known.config.stdin_open
    _check_terminal(stdin and tty)
    with Interruptible() as signals:
        attachment = here.start(known.id, attach=True, stdin=stdin, size=_window() if tty else None)
        assert attachment is not None  # asked for with attach=True
        window = Window(tty=tty, stdin=stdin, keys=_keys(parsed.detach_keys))
        return _stay(here, attachment, window, signals, remove=known.config.auto_remove)


def attach(parsed: Parsed) -> int:
    """Be the window on a container that runs already; end as it does."""
    here = engine()
    known = here.get(parsed.arguments[0])
    if not known.state.running:
        raise NotRunning(
            "You cannot attach to a stopped container, start it first",
            hint=f"minicontainer start -a {parsed.arguments[0]}",
        )
    tty = known.config.tty
    stdin = known.config.stdin_open and not parsed.no_stdin
    _check_terminal(stdin and tty)
    with Interruptible() as signals:
        attachment = here.attach(known.id, stdin=stdin)
        window = Window(tty=tty, stdin=stdin, forward=parsed.sig_proxy, keys=_keys(parsed.detach_keys))
        return _stay(here, attachment, window, signals, remove=known.config.auto_remove)


def _keys(text: str | None) -> bytes:
    return DETACH if text is None else detach_keys(text)


def execute(parsed: Parsed) -> int:
    """Run a command in a running container; in the foreground, end as it did."""
    stdin = parsed.interactive and not parsed.detach
    _check_terminal(stdin and parsed.tty)
    here = engine()
    with Interruptible() as signals:
        try:
            attachment = here.exec_start(
                parsed.arguments[0],
                parsed.arguments[1:],
                attach=not parsed.detach,
                size=_window() if parsed.tty else None,
                env=_environment(parsed),
                workdir=parsed.workdir,
                user=parsed.user,
                tty=parsed.tty,
                stdin_open=stdin,
            )
        except MinicontainerError as error:
            if error.exit_code == 125:
                error.exit_code = 126  # Docker's answer to whatever keeps an exec from starting
            raise
        target = Target(attachment.started, first=False)
        with attachment:
            try:
                signals.check()
                if parsed.detach:
                    return 0
                window = Window(tty=parsed.tty, stdin=stdin, keys=_keys(parsed.detach_keys))
                status = relay(attachment, target, window, signals)
            except (KeyboardInterrupt, OSError):
                target.send(signal.SIGKILL)  # it has nobody to talk to any more
                raise
    if attachment.lost:
        raise MinicontainerError("the command was lost: its container was killed", exit_code=137)
    return 0 if status is None else status


def _stay(
    here: Engine,
    attachment: Attachment,
    window: Window,
    signals: Interruptible,
    *,
    remove: bool,
) -> int:
    """Be the window on a container until it ends; returns its exit status."""
    target = Target(attachment.started or _pid(here, attachment.id), first=True)
    with attachment:
        try:
            status = relay(attachment, target, window, signals)
        except Stopped as stopped:
            return 128 + stopped.number  # --sig-proxy=false: it was for us alone
        except OSError as error:
            # Our output has no reader any more, or no room. One that nobody could ever look at again must not go on.
            if remove:
                _undo(here, attachment.id, None)
            if isinstance(error, BrokenPipeError):
                return READER_GONE
            raise
    if attachment.lost:
        if remove:
            _undo(here, attachment.id, None)
        hint = "" if remove else f"what it printed: minicontainer logs {attachment.id[:12]}"
        raise MinicontainerError(
            "the container's supervisor was killed, and the container with it", hint=hint, exit_code=137
        )
    return 0 if status is None else target.status(status)


def _pid(here: Engine, container_id: str) -> int:
    """The first process of a container that ran before we came, 0 when it has ended meanwhile."""
    try:
        return here.get(container_id).state.pid
    except ContainerNotFound:
        return 0


# -- creating -----------------------------------------------------------------------------------------------------


def _create(here: Engine, parsed: Parsed) -> str:
    """Create the container that the flags describe."""
    if parsed.pull not in (None, "missing", "never", "always"):
        problem = f'invalid pull option: \'{parsed.pull}\': must be one of "always", "missing" or "never"'
        raise UsageError(problem)
    if parsed.pull == "always":
        raise UsageError(
            "--pull always: there is no registry client yet", hint="use images that are already here"
        )
    cidfile = _reserve(parsed.cidfile) if parsed.cidfile else -1
    try:
        container_id = here.create(parsed.arguments[0], parsed.arguments[1:] or None, **_options(parsed))
    except BaseException as error:
        if cidfile >= 0:
            os.close(cidfile)
            os.unlink(parsed.cidfile)
        if isinstance(error, ImageNotFound):
            raise _no_image(parsed.arguments[0]) from error
        raise
    for warning in here.warnings:
        output.raw(f"WARNING: {warning}\n")
    if cidfile >= 0:
        os.write(cidfile, container_id.encode())
        os.close(cidfile)
    return container_id


def _options(parsed: Parsed) -> dict[str, Any]:
    """The engine's keyword arguments; what was not given is left to its defaults."""
    _, stdin = _streams(parsed)
    options = {
        "name": parsed.name,
        "env": _environment(parsed),
        "workdir": parsed.workdir,
        "user": parsed.user,
        "hostname": parsed.hostname,
        "entrypoint": parsed.entrypoint,
        "labels": parsed.label,
        "tty": parsed.tty,
        "stdin_open": parsed.interactive or stdin,
        "remove": parsed.rm,
        "read_only": parsed.read_only,
        "network": parsed.network,
        "stop_signal": parsed.stop_signal,
        "stop_timeout": parsed.stop_timeout,
    }
    return {name: value for name, value in options.items() if value is not None} | asked(parsed, HOST)


def asked(parsed: Parsed, flags: tuple[Flag, ...]) -> dict[str, Any]:
    """Those of `flags` that were given, by the engine's names for them."""
    given = ((attribute(flag), getattr(parsed, attribute(flag))) for flag in flags)
    return {name: value for name, value in given if value is not None and value is not False and value != []}


def _no_image(name: str) -> ImageNotFound:
    from minicontainer.image.reference import Reference

    return ImageNotFound(
        f"Unable to find image '{Reference.parse(name).familiar()}' locally",
        hint="there is no registry client yet: `minicontainer images` lists what is here, "
        "`minicontainer base` makes busybox",
    )


def _reserve(path: str) -> int:
    """Create the file for the container's id before the container, so that an id is never lost."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        problem = f"container ID file found, make sure the other container isn't running or delete {path}"
        raise UsageError(problem) from None


def _undo(here: Engine, container_id: str, cidfile: str | None) -> None:
    """Take back a container that nobody will ask for."""
    try:
        here.remove(container_id, force=True)
    except ContainerNotFound:
        pass  # with --rm its supervisor was quicker
    if cidfile:
        os.unlink(cidfile)


def _environment(parsed: Parsed) -> list[str]:
    """The variables of the files, then those of the command line, which win."""
    entries: list[str] = []
    for path in parsed.env_file:
        entries += read_env_file(path)
    return entries + parsed.env


def read_env_file(path: str) -> list[str]:
    """NAME=value lines; a NAME alone copies the caller's variable. Empty lines and ``#`` comments are skipped.

    Nothing is unquoted and nothing expanded, as in Docker (docker/cli, opts/file.go).

    :raises UsageError: a line without a name, or a name with a space.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = file.read().split("\n")
    entries = []
    for line in lines:
        line = line.removesuffix("\r").lstrip(" \t")
        if not line or line.startswith("#"):
            continue
        name, equals, _ = line.partition("=")
        if not name:
            raise UsageError(f"invalid env file ({path}): no variable name on line '{line}'")
        if any(character.isspace() for character in name):
            raise UsageError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
        entries.append(line)
    return entries


# -- terminals ----------------------------------------------------------------------------------------------------


def _streams(parsed: Parsed) -> tuple[tuple[int, ...], bool]:
    """Which outputs to show, and whether to pass our input on, from ``-a`` and ``-i``."""
    if not parsed.attach:
        return (STDOUT, STDERR), parsed.interactive
    numbers = {"stdout": STDOUT, "stderr": STDERR}
    return tuple(numbers[name] for name in parsed.attach if name in numbers), "stdin" in parsed.attach


def _check_terminal(wanted: bool) -> None:
    if wanted and not os.isatty(0):
        raise UsageError(
            "the input device is not a TTY",
            hint="leave out -t when the input is a file or a pipe",
            exit_code=1,
        )


def _window() -> tuple[int, int] | None:
    return size(1) or size(0)
