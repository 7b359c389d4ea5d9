"""What a person may ask for when creating a container, and how it combines with what the image says. Plain values only.

Docker's rules: the user's command replaces CMD; the user's entry point replaces ENTRYPOINT and clears CMD; the user's
environment wins over the image's, name by name. Source: moby daemon/container.go `merge`, runconfig.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Iterable, Mapping, Sequence

from minicontainer.engine.frozen import Frozen
from minicontainer.errors import MinicontainerError, UsageError

NETWORKS = ("none", "host")
_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")


class ContainerOptions(Frozen):
    """The keyword arguments of :meth:`Engine.create` and :meth:`Engine.run`.

    :ivar env: "NAME=value" texts, or a mapping; a text without "=" copies the variable from the caller, if it is set.
    :ivar user: "name", "uid", "uid:gid" or "name:group".
    :ivar entrypoint: one program, or program and arguments; "" clears the image's.
    :ivar tty: give it a terminal; its standard error then comes with its standard output.
    :ivar stdin_open: keep its standard input open (``-i``).
    :ivar remove: remove the container when it ends (``--rm``).
    :ivar network: "none" (only a loopback device) or "host".
    :ivar read_only: let it write only to its own mounts, such as /dev/shm.
    :ivar stop_timeout: seconds that `stop` waits before it kills.
    """

    name: str | None = None
    env: Sequence[str] | Mapping[str, str] = ()
    workdir: str | None = None
    user: str | None = None
    hostname: str | None = None
    domainname: str | None = None
    entrypoint: str | Sequence[str] | None = None
    labels: Mapping[str, str] | Iterable[str] = ()
    tty: bool = False
    stdin_open: bool = False
    remove: bool = False
    network: str = "none"
    read_only: bool = False
    stop_signal: str | int | None = None
    stop_timeout: int | None = None


class ExecOptions(Frozen):
    """The keyword arguments of :meth:`Engine.exec`; what is not given is as in the container.

    :ivar stdin_open: give it an input (``-i``); without one it reads an empty file.
    """

    env: Sequence[str] | Mapping[str, str] = ()
    workdir: str | None = None
    user: str | None = None
    tty: bool = False
    stdin_open: bool = False


def environment(given: Sequence[str] | Mapping[str, str]) -> list[str]:
    """``-e`` values as "NAME=value".

    >>> environment({"A": "1"})
    ['A=1']

    :raises UsageError: an empty name, or a NUL byte.
    """
    entries = list(given)
    if isinstance(given, Mapping):
        entries = [f"{name}={value}" for name, value in given.items()]
    found = []
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if not name or "\0" in entry:
            raise UsageError(f"invalid environment variable: {entry!r}", hint="write NAME=value")
        if not equals:
            if name not in os.environ:
                continue
            entry = f"{name}={os.environ[name]}"
        found.append(entry)
    return found


def merge_environment(image: Iterable[str], user: Iterable[str]) -> list[str]:
    """The image's variables in their order, replaced in place or followed by the user's.

    >>> merge_environment(["PATH=/bin", "A=1"], ["B=2", "A=3"])
    ['PATH=/bin', 'A=3', 'B=2']
    """
    merged: dict[str, str] = {}
    for entry in (*image, *user):
        name, _, value = entry.partition("=")
        merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def command_line(
    image_entrypoint: Sequence[str] | None,
    image_command: Sequence[str] | None,
    entrypoint: str | Sequence[str] | None,
    command: str | Sequence[str] | None,
) -> tuple[list[str], list[str]]:
    """Entry point and arguments, by Docker's rules; a command given as one text is split as a shell would.

    >>> command_line(["/entry"], ["serve"], None, ["sh", "-c", "id"])
    (['/entry'], ['sh', '-c', 'id'])
    >>> command_line(["/entry"], ["serve"], "/bin/sh", None)
    (['/bin/sh'], [])

    :raises MinicontainerError: there is nothing to run.
    """
    if isinstance(command, str):
        command = shlex.split(command)
    given = None if command is None else [os.fspath(word) for word in command]
    if entrypoint is None:
        first = list(image_entrypoint or [])
        rest = given if given else list(image_command or [])
    else:
        first = ([entrypoint] if entrypoint else []) if isinstance(entrypoint, str) else list(entrypoint)
        rest = given or []
    if not first and not rest:
        raise MinicontainerError(
            "no command specified", hint="the image names none: add one after the image's name"
        )
    for word in (*first, *rest):
        if not isinstance(word, str) or "\0" in word:
            raise UsageError(f"a command is a list of texts without NUL bytes, not {word!r}")
    return first, rest


def check_hostname(name: str) -> str:
    """A host name that can stand in /etc/hosts.

    :raises UsageError: it cannot.
    """
    if not _HOSTNAME.fullmatch(name):
        raise UsageError(f"invalid hostname: {name!r}", hint="letters, digits, dots and hyphens, at most 64")
    return name


def parse_labels(given: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    """Labels as a mapping, from one or from "name=value" texts."""
    if isinstance(given, Mapping):
        return dict(given)
    pairs = (entry.partition("=") for entry in given)
    return {name: value for name, _, value in pairs}


def signal_number(name: str | int) -> int:
    """The number of a signal given as "KILL", "SIGKILL", "RTMIN+3", "9" or 9.

    :raises UsageError: there is no such signal.
    """
    text = str(name).strip().upper()
    plain = text.removeprefix("SIG")
    try:
        if text.isascii() and text.isdigit():
            number = int(text)
        elif plain.startswith("RTMIN+"):  # systemd's own stop signal is SIGRTMIN+3
            number = signal.SIGRTMIN + int(plain[6:])
        elif plain.startswith("RTMAX-"):
            number = signal.SIGRTMAX - int(plain[6:])
        else:
            number = signal.Signals[f"SIG{plain}"]
        if not 0 < number < signal.NSIG:
            raise ValueError
    except (KeyError, ValueError):
        raise UsageError(f"Invalid signal: {name}", hint="for example TERM, SIGHUP or 9") from None
    return int(number)


def check_network(network: str) -> str:
    """:raises UsageError: not a kind of network that there is."""
    if network not in NETWORKS:
        raise UsageError(f"network {network} not found", hint=f"one of: {', '.join(NETWORKS)}")
    return network


def check_workdir(path: str) -> str:
    """:raises UsageError: not an absolute path."""
    if not path.startswith("/") or "\0" in path:
        raise UsageError(
            f"the working directory '{path}' is invalid, it needs to be an absolute path",
            hint="begin it with /",
        )
    return os.path.normpath(path)
