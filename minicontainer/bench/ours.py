"""Our own command line and API, in a place like the other runtimes', on a data directory of their own."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from minicontainer.bench.peers import IMAGE, Missing, Peer, Workspace, environment
from minicontainer.bench.place import Place
from minicontainer.errors import MinicontainerError


def variables(place: Place, data: str) -> dict[str, str]:
    """The environment that leads our programs to the place's own directories."""
    own = {
        "MINICONTAINER_ROOT": data,
        "MINICONTAINER_RUN": f"{place.directory}/run",
        "MINICONTAINER_CGROUP_PARENT": place.cgroup,
        # The benchmark may itself run from a tree that is not installed.
        "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    }
    return environment(place) | own


def words() -> list[str]:
    """The command `minicontainer` of this interpreter, as a user would call it."""
    script = f"{os.path.dirname(sys.executable)}/minicontainer"
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "minicontainer.cli.main"]


class CommandLine(Peer):
    """``minicontainer`` in a place."""

    def __init__(self, place: Place, data: str) -> None:
        env = variables(place, data)
        if words()[0] != sys.executable:
            del env["PYTHONPATH"]  # the installed command finds its package by itself, as a user's does
        super().__init__("minicontainer", place, words(), env)

    def container(self, *options: str) -> list[str]:
        return ["run", "--network", "none", *options]

    def ps(self) -> float:
        """Seconds for `ps`."""
        return self.check("ps").seconds

    def bare(self) -> float:
        """Seconds for the same interpreter to do nothing."""
        done = self.place.run([sys.executable, "-c", "pass"], self.env)
        if done.status != 0:
            raise Missing(f"the interpreter fails here: {done.stderr}")
        return done.seconds


class Api:
    """The API in a large process with threads (see :mod:`minicontainer.bench.kernel`)."""

    def __init__(self, place: Place, data: str) -> None:
        self.place = place
        ours, theirs = socket.socketpair()
        argv = [sys.executable, "-m", "minicontainer.bench.kernel", "3"]
        place.start(argv, variables(place, data), f"{place.directory}/kernel.log", [theirs.fileno()])
        theirs.close()
        self._socket = ours
        self._lines = ours.makefile("rw")

    def _ask(self, request: str) -> dict:
        self._lines.write(request + "\n")
        self._lines.flush()
        line = self._lines.readline()
        if not line:
            with open(f"{self.place.directory}/kernel.log", errors="replace") as file:
                raise Missing(f"our API's process ended: {file.read()[-300:]}")
        answer: dict = json.loads(line)
        if "error" in answer:
            raise MinicontainerError(f"our API fails here: {answer['error']}")
        return answer

    def true(self) -> float:
        """Seconds for `true` in a new container."""
        return float(self._ask("true")["seconds"])

    def start(self) -> float:
        """Seconds until one more container runs in the background."""
        return float(self._ask("start")["seconds"])

    def remove_all(self) -> None:
        """Remove every container started so."""
        self._ask("remove_all")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@contextmanager
def command_line(workspace: Workspace, data: str) -> Iterator[CommandLine]:
    """Our command line."""
    with Place("cli", workspace.directory) as place:
        peer = CommandLine(place, data)
        peer.check(*peer.container("--rm", IMAGE, "true"))
        try:
            yield peer
        finally:
            peer.remove_all()


@contextmanager
def api(workspace: Workspace, data: str) -> Iterator[Api]:
    """Our API, its fork server warm."""
    with Place("api", workspace.directory) as place:
        kernel = Api(place, data)
        try:
            kernel.true()
            yield kernel
            kernel.remove_all()
        finally:
            kernel.close()
