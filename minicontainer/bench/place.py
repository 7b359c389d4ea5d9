"""A private place in which other people's runtimes can be run, timed, and cleared away for certain.

Container engines write to /run and /dev/shm, mount things, make control groups, and start daemons that outlive their
maker. A place is a mount and a PID namespace (and a network namespace on request) with a /run and a /dev/shm of its
own. Two processes keep it: a small first process inside, which starts programs and takes their times, and a janitor
outside. When the owner lets go, or dies however it dies, the first process ends; the kernel then kills everything in
the PID namespace, and the janitor removes the place's files and control groups. Nothing in this module touches a
process, a mount or a group that it did not make. Man pages: pid_namespaces(7), mount_namespaces(7), posix_spawn(3).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from minicontainer.bench.keeper import LENGTH, receive
from minicontainer.errors import MinicontainerError

PREFIX = "minicontainer-bench"


class Outcome:
    """How a program ended.

    :ivar seconds: from just before its start to its end.
    :ivar status: exit status, 128 + n where signal n ended it, -1 where it did not end in time and was killed.
    """

    def __init__(self, seconds: float, status: int, stdout: str, stderr: str) -> None:
        self.seconds, self.status, self.stdout, self.stderr = seconds, status, stdout, stderr


class Place:
    """A private place; a context manager.

    :param name: short, for its directory and control group.
    :param workspace: the directory below which it gets one of its own, :attr:`directory`.
    :param network: give it a network namespace with only a loopback device.
    :param unmounted: mount points that are taken away inside.
    """

    def __init__(
        self, name: str, workspace: str, *, network: bool = False, unmounted: Iterable[str] = ()
    ) -> None:
        import subprocess

        self.name = name
        self.workspace = workspace
        self.directory = f"{workspace}/{name}"
        self.cgroup = f"{PREFIX}-{os.getpid()}-{name}"
        os.mkdir(self.directory, 0o700)
        self._socket, theirs = socket.socketpair()
        wishes = {
            "directory": self.directory,
            "workspace": workspace,
            "cgroup": self.cgroup,
            "network": network,
            "unmounted": list(unmounted),
            "owner": os.getpid(),
        }
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from minicontainer.bench.keeper import keep;"
            f" keep({theirs.fileno()}, {wishes!r})"
        )
        self._janitor = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # the owner's Ctrl-C must not end who cleans up
        )
        theirs.close()
        try:
            self._ask({"ready": True})
        except BaseException:
            self.close()
            raise

    def _ask(self, request: dict[str, Any], descriptors: Iterable[int] = ()) -> dict[str, Any]:
        data = json.dumps(request).encode()
        try:
            socket.send_fds(self._socket, [LENGTH.pack(len(data)) + data], list(descriptors))
            answer = receive(self._socket)[0]
        except OSError as error:
            raise MinicontainerError(f"the private place {self.name} is gone: {error}") from error
        if answer is None:
            raise MinicontainerError(f"the private place {self.name} ended", hint="see its message above")
        if "error" in answer:
            raise MinicontainerError(f"in the private place {self.name}: {answer['error']}")
        return answer

    def run(
        self,
        argv: Sequence[str],
        env: dict[str, str] | None = None,
        *,
        timeout: float = 60.0,
        input: str = "",
    ) -> Outcome:
        """Run a program inside and wait for its end.

        :param env: its whole environment; by default the owner's.
        :raises MinicontainerError: it cannot be started.
        """
        wishes = {"run": list(argv), "env": dict(os.environ) if env is None else env, "timeout": timeout}
        answer = self._ask({**wishes, "input": input})
        return Outcome(answer["seconds"], answer["status"], answer["stdout"], answer["stderr"])

    def start(
        self, argv: Sequence[str], env: dict[str, str], log: str, descriptors: Iterable[int] = ()
    ) -> int:
        """Start a program that stays; it finds `descriptors` as 3, 4, …. Returns its PID inside."""
        pid: int = self._ask({"start": list(argv), "env": env, "log": log}, descriptors)["pid"]
        return pid

    def stop(self, pid: int, number: int = signal.SIGTERM, timeout: float = 20.0) -> bool:
        """Signal a program that :meth:`start` started and wait for its end; False where it had to be killed."""
        return bool(self._ask({"stop": pid, "signal": number, "timeout": timeout})["in_time"])

    def cpu_seconds(self) -> float:
        """CPU seconds that everything inside has used so far."""
        return float(self._ask({"cpu": True})["seconds"])

    def memory(self) -> dict[int, int]:
        """PSS in bytes of each process inside, by its PID there (man 5 proc, smaps_rollup)."""
        return {int(pid): size for pid, size in self._ask({"memory": True})["pss"].items()}

    def close(self) -> None:
        """End everything inside and remove what it left; returns when that is done."""
        self._socket.close()
        status = self._janitor.wait(60)
        if status not in (0, -signal.SIGTERM):
            print(f"minicontainer: the private place {self.name} was not cleared away", file=sys.stderr)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
