"""``sh("ps -e")``: a shell line in a cell, whose output is the cell's output.

In a notebook, ``!ps -e`` runs on a pseudo-terminal and its lines end in CR LF; ``subprocess.run(["ps", "-e"])`` writes
to the kernel's descriptor 1, which Jupyter may or may not capture (ipykernel does not when a test runs the notebook).
``sh`` captures and prints, so that a cell shows the same wherever it runs. Man page: sh(1).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from minicontainer.errors import MinicontainerError


class ShellError(MinicontainerError):
    """A shell line ended with a status other than 0, or not in time."""

    exit_code = 1


class Completed:
    """How a shell line ended. Its repr is empty after success, so that a cell may end with ``sh(...)``.

    :ivar status: exit status, or 128 plus the signal's number.
    :ivar output: what it wrote, standard output and standard error in the order they came.
    """

    def __init__(self, command: str, status: int, output: str) -> None:
        self.command = command
        self.status = status
        self.output = output

    def __repr__(self) -> str:
        return f"(exit status {self.status})" if self.status else ""

    @property
    def lines(self) -> list[str]:
        """The output line by line."""
        return self.output.splitlines()


def sh(
    command: str,
    *,
    check: bool = True,
    show: bool = True,
    timeout: float = 60.0,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run `command` with /bin/sh, print what it writes, and say how it ended.

    >>> sh("echo hello; exit 3", check=False).status
    hello
    3

    :param check: raise where the exit status is not 0; False for a failure that is to be seen.
    :param show: print the output; False to use only ``.output``.
    :param timeout: seconds.
    :param env: the whole environment, instead of this process's own.
    :raises ShellError: for a status other than 0, unless `check` is False; for one that takes too long, always.
    """
    # A session of its own: when time is up, the whole pipeline is killed and not its shell alone.
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=None if env is None else dict(env),
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(input, timeout)
    except BaseException as error:
        output = _kill(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        _print(output if show else "")
        raise ShellError(f"`{command}` was still running after {timeout:g} seconds and was killed") from None
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    _print(output if show else "")
    if check and status != 0:
        shown = "" if show else f": {output.strip().splitlines()[-1]}" if output.strip() else ""
        raise ShellError(f"`{command}` ended with status {status}{shown}", hint=_hint(status))
    return Completed(command, status, output)


def _kill(process: subprocess.Popen[str]) -> str:
    """Kill the shell and its whole process group; what it had written so far."""
    import os
    import signal

    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the last of the group has just ended
    try:
        return process.communicate(timeout=2)[0]
    except subprocess.TimeoutExpired:
        return ""  # a daemon of its own session holds the pipe; the shell itself is dead


def _print(output: str) -> None:
    if output:
        print(output, end="" if output.endswith("\n") else "\n", flush=True)


def _hint(status: int) -> str:
    if status == 127:
        return "127 means that the shell found no such command"
    if status == 126:
        return "126 means that the file is there but cannot be executed"
    if status > 128:
        return f"{status} means that it was ended by signal {status - 128}"
    return "sh(..., check=False) lets a cell go on after a failure"
