"""The last steps before the user's program: identity, working directory, filter, execve(2). Labs 01 and 06.

Init and `exec` share them. They run inside the container's root: files are parsed here, and nothing is imported.
Man pages: execve(2), chdir(2), credentials(7), environ(7).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from minicontainer.errors import StepError
from minicontainer.linux.process import close_range, personality
from minicontainer.runtime import credentials
from minicontainer.runtime.channel import Channel, report
from minicontainer.runtime.seccomp import install_filter
from minicontainer.runtime.travel import call_step


def become_the_user(
    channel: Channel,
    process: dict[str, Any],
    linux: dict[str, Any],
    program: bytes,
    *,
    keep_groups: bool = False,
) -> str:
    """Everything between the finished root and execve(2) that init and `exec` share; returns the program's path.

    The filter is installed as late as it can be: without no_new_privs that takes CAP_SYS_ADMIN, which is about to go.

    :param keep_groups: leave the supplementary groups of the caller (crun's annotation for Podman's --group-add).
    """
    if linux.get("personality"):
        personality({"LINUX": 0, "LINUX32": 8}[linux["personality"]["domain"]])
    credentials.apply_limits(process)
    uid = process.get("user", {}).get("uid", 0)
    environment = process.setdefault("env", [])
    if not any(entry.startswith("HOME=") for entry in environment):
        environment.append(f"HOME={credentials.home_of(uid)}")
    cwd = process.get("cwd") or "/"
    if not uid:
        _enter_directory(cwd)
    flags = (linux.get("seccomp") or {}).get("flags")
    late = bool(process.get("noNewPrivileges"))
    if program and not late:
        call_step(channel, "install_filter", program, *([flags] if flags else []), ours=install_filter)
    credentials.become(process, keep_groups=keep_groups)
    if uid:
        _enter_directory(cwd)
    found = find_program(process)
    if program and late:
        call_step(channel, "install_filter", program, *([flags] if flags else []), ours=install_filter)
    return found


def _enter_directory(path: str) -> None:
    """chdir, and refuse a directory that is not below our root (a leaked descriptor's: CVE-2024-21626)."""
    try:
        os.chdir(path)
    except OSError as error:
        text = (error.strerror or "").lower()
        raise StepError(
            f"cwd: chdir to {path!r}: {text}", step="cwd", syscall="chdir", errno=error.errno or 0, path=path,
            exit_code=126,
        ) from error  # fmt: skip
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:  # the kernel says "(unreachable)", which the C library turns into ENOENT
        inside = False
    if not inside:
        raise StepError(
            f"cwd: {path} lies outside the container's root", step="cwd", path=path, exit_code=126
        )


def find_program(process: dict[str, Any]) -> str:
    """The file that ``args[0]`` names, searched in the container's own PATH as execvp(3) would.

    :raises StepError: exit code 127 where there is none, 126 where it cannot be executed.
    """
    args = process.get("args") or []
    if not args or not args[0]:
        raise StepError("exec: no command specified", step="exec", exit_code=125)
    name = args[0]
    if "/" in name:
        candidates = [name]
    else:
        path = next(
            (entry[5:] for entry in process.get("env", []) if entry.startswith("PATH=")), "/bin:/usr/bin"
        )
        candidates = [f"{directory or '.'}/{name}" for directory in path.split(":")]
    reason: StepError | None = None
    for candidate in candidates:
        try:
            status = os.stat(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reason = _not_executable(name, error)
            continue
        if stat.S_ISDIR(status.st_mode):
            reason = _not_executable(name, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        elif not os.access(candidate, os.X_OK, effective_ids=True):
            reason = _not_executable(name, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        else:
            return candidate
    if reason is not None:
        raise reason
    where = "no such file or directory" if "/" in name else "executable file not found in $PATH"
    raise StepError(
        f"exec: {name!r}: {where}",
        step="exec",
        syscall="execve",
        errno=errno.ENOENT,
        path=name,
        hint="look at what the image has, for example with: minicontainer run --rm IMAGE ls /bin",
        exit_code=127,
    )


def _not_executable(name: str, error: OSError) -> StepError:
    return StepError(
        f"exec: {name!r}: {(error.strerror or '').lower()}",
        step="exec",
        syscall="execve",
        errno=error.errno or 0,
        path=name,
        hint="the file is there, but it is not a program that this user may execute",
        exit_code=126,
    )


def execute(channel: Channel, program: str, process: dict[str, Any], preserve: int = 0) -> int:
    """Become the user's program; returns only where the kernel refuses it."""
    environment: dict[bytes, bytes] = {}
    for entry in process.get("env", []):
        key, _, value = os.fsencode(entry).partition(b"=")
        environment.setdefault(key, value)
    close_range(3 + preserve, cloexec=True)
    try:
        os.execve(program, process["args"], environment)
    except OSError as error:
        name = process["args"][0]
        code = 127 if error.errno == errno.ENOENT else 126
        text = (error.strerror or "").lower()
        hint = (
            "its interpreter (the #! line, or the dynamic loader) is missing in the image"
            if code == 127
            else ""
        )
        if error.errno == errno.ENOEXEC:
            hint = "not a program for this machine: a script needs a #! line, a binary the right architecture"
        problem = StepError(
            f"exec: {name!r}: {text}",
            step="exec",
            syscall="execve",
            errno=error.errno or 0,
            path=name,
            hint=hint,
            exit_code=code,
        )
        return report(channel, "exec", problem)
