"""The caller's side of `exec`: check what is asked for, and have a relay process run it."""

from __future__ import annotations

import os
import shlex
import socket

from minicontainer.engine import options as option_rules
from minicontainer.engine.attach import Attachment
from minicontainer.engine.record import Record
from minicontainer.engine.spawn import spawn
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minicontainer.engine.engine import Engine


def start(
    engine: Engine,
    known: Record,
    command: Sequence[str] | str,
    attach: bool,
    size: tuple[int, int] | None,
    given: dict[str, Any],
) -> Attachment:
    """Start `command` in the running container `known`; returns once it runs.

    :raises StepError: it cannot be executed.
    """
    try:
        options = option_rules.ExecOptions(**given)
    except TypeError as error:
        raise UsageError(str(error)) from None
    words = shlex.split(command) if isinstance(command, str) else [os.fspath(word) for word in command]
    if not words:
        raise UsageError("exec needs a command", hint="for example: minicontainer exec NAME sh")
    arguments = {
        "id": known.config.id,
        "directory": engine.directory(known.config.id),
        "pid": known.state.pid,
        "pid_started": known.state.pid_started,
        "command": words,
        "env": option_rules.environment(options.env),
        "workdir": option_rules.check_workdir(options.workdir) if options.workdir else "",
        "user": options.user or "",
        "tty": options.tty,
        "stdin_open": options.stdin_open,
        "size": list(size) if size else None,
        "output": attach,
    }
    ours, theirs = socket.socketpair()
    attachment = Attachment(ours, known.config.id)
    try:
        try:
            spawn("minicontainer.engine.exec:main", arguments, [theirs.fileno()])
        finally:
            theirs.close()
        attachment.wait_started()
    except BaseException:
        attachment.close()
        raise
    return attachment
