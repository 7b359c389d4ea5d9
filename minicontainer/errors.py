"""Errors are part of the interface: what happened, why, and what to do about it.

Every error that a person may meet is a :class:`MinicontainerError`. Its text is one line; its hint says what to
do; its exit code is the one the command line ends with (Docker's: 125 our own failure, 126 found but not
executable, 127 not found, 1 for a container that does not exist).
"""

from __future__ import annotations


class MinicontainerError(Exception):
    """Base of all errors meant for a person.

    :param message: one line: what failed and why.
    :param hint: what to do about it; empty where there is nothing useful to say.
    :param exit_code: overrides the class's exit status for this one error.
    """

    exit_code: int = 125

    def __init__(self, message: str, *, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, object]:
        """The error as plain data, to cross a pipe between processes (see :func:`from_dict`)."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(MinicontainerError):
    """The request itself makes no sense: a bad flag, name or reference."""


class ImageNotFound(MinicontainerError):
    """No image of that name or id is in the store."""


class ContainerNotFound(MinicontainerError):
    """No container has that name or id."""

    exit_code = 1


class NotRunning(MinicontainerError):
    """The operation needs a running container."""

    exit_code = 1


class NameConflict(MinicontainerError):
    """The name belongs to another container."""


class Interrupted(MinicontainerError):
    """The user pressed Ctrl-C; what was begun has been undone."""

    exit_code = 130


class StepError(MinicontainerError):
    """A step of making the container failed, often in another process; it travelled here as data.

    :param step: the step's name as in ``minicontainer.runtime.steps`` ("enter_root", "stack", "exec", ...).
    :param syscall: the system call that failed, or "" where the failure was not one.
    :param errno: its error number, or 0.
    :param path: the path it was about, or "".
    :param traceback: the learner's own traceback where a learner's step failed, else "".
    """

    def __init__(
        self,
        message: str,
        *,
        step: str = "",
        syscall: str = "",
        errno: int = 0,
        path: str = "",
        hint: str = "",
        exit_code: int | None = None,
        traceback: str = "",
    ) -> None:
        super().__init__(message, hint=hint, exit_code=exit_code)
        self.step = step
        self.syscall = syscall
        self.errno = errno
        self.path = path
        self.traceback = traceback

    def to_dict(self) -> dict[str, object]:
        return super().to_dict() | {
            "step": self.step,
            "syscall": self.syscall,
            "errno": self.errno,
            "path": self.path,
            "traceback": self.traceback,
        }


def from_dict(data: dict) -> MinicontainerError:
    """Rebuild an error that travelled as data; an unknown kind becomes the base class."""
    every = (UsageError, ImageNotFound, ContainerNotFound, NotRunning, NameConflict, Interrupted)
    kinds: dict[str, type[MinicontainerError]] = {kind.__name__: kind for kind in every}
    if data.get("kind") == "StepError":
        fields = ("step", "syscall", "errno", "path", "hint", "exit_code", "traceback")
        return StepError(data["message"], **{field: data[field] for field in fields if field in data})
    kind = kinds.get(data.get("kind", ""), MinicontainerError)
    return kind(data["message"], hint=data.get("hint", ""), exit_code=data.get("exit_code"))
