"""What an OCI runtime remembers of its containers between one command and the next. Lab 15.

One directory for each container, below the runtime's root: ``status``, a copy of the configuration as it was at
creation (later edits of config.json must have no effect), and the socket on which the created container waits for its
start. Everything else is asked of the kernel. OCI runtime-spec runtime.md "State".
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from typing import Any

from minicontainer.cgroup.group import Group
from minicontainer.errors import ContainerNotFound, MinicontainerError
from minicontainer.linux.process import start_time
from minicontainer.paths import write_whole
from minicontainer.runtime.channel import Channel
from minicontainer.runtime.child import Gate

_ID = re.compile(r"[A-Za-z0-9_+.-]{1,1024}")
START_SOCKET = "start.sock"


class StartGate(Gate):
    """A created container waits on a socket of its state directory; whoever connects starts it."""

    def __init__(self, directory: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chdir(directory)  # the path of a socket has at most 107 bytes
        try:
            self.socket.bind(START_SOCKET)
        finally:
            os.fchdir(here)
            os.close(here)
        self.socket.listen(1)

    def wait(self, channel: Channel) -> Channel | None:
        channel.close()  # the process that made us goes now; its end of the channel says "ready" and no more
        connection, _ = self.socket.accept()
        starter = Channel(connection)
        message, _ = starter.receive()
        return starter if message is not None and "start" in message else None


class State:
    """One container of an OCI runtime.

    :param root: the runtime's directory (``--root``).
    :raises MinicontainerError: for an id that is not one.
    """

    def __init__(self, root: str, container_id: str) -> None:
        if not _ID.fullmatch(container_id) or container_id in (".", ".."):
            raise MinicontainerError(
                f"invalid container ID {container_id!r}",
                hint="use letters, digits and _+-. only",
                exit_code=1,
            )
        self.root = root
        self.id = container_id
        self.directory = os.path.join(root, container_id)
        self.data: dict[str, Any] = {}
        self.config: dict[str, Any] = {}

    @classmethod
    def load(cls, root: str, container_id: str) -> State:
        """The container of that id.

        :raises ContainerNotFound: where there is none.
        """
        state = cls(root, container_id)
        try:
            with open(f"{state.directory}/status") as file:
                state.data = json.load(file)
            with open(f"{state.directory}/config.json") as file:
                state.config = json.load(file)
        except FileNotFoundError:
            raise ContainerNotFound(f"container {container_id} does not exist") from None
        except ValueError as error:
            raise MinicontainerError(
                f"the state of container {container_id} is damaged: {error}",
                hint="delete --force removes it",
                exit_code=1,
            ) from error
        return state

    def claim(self, config: dict[str, Any]) -> None:
        """Make the directory, which makes the id taken.

        :raises MinicontainerError: where the id is in use.
        """
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        try:
            os.mkdir(self.directory, 0o700)
        except FileExistsError:
            raise MinicontainerError(f"container with id {self.id} already exists", exit_code=1) from None
        self.config = config
        write_whole_here(self.directory, "config.json", json.dumps(config))

    def record(self, bundle: str, pid: int) -> None:
        """Remember the created container."""
        self.data = {
            "id": self.id,
            "bundle": os.path.abspath(bundle),
            "pid": pid,
            "start_time": start_time(pid),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z",
            "owner": os.geteuid(),
        }
        write_whole_here(self.directory, "status", json.dumps(self.data))

    def forget(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.directory, ignore_errors=False)

    @property
    def pid(self) -> int:
        """PID of the container's first process; 0 once it has ended."""
        pid: int = self.data["pid"]
        return pid if start_time(pid) == self.data["start_time"] else 0

    @property
    def group(self) -> Group | None:
        """The container's control group."""
        path = self.config.get("linux", {}).get("cgroupsPath")
        return Group(path) if path else None

    @property
    def status(self) -> str:
        """ "created", "running", "paused" or "stopped", as the kernel has it now."""
        if not self.pid:
            return "stopped"
        if os.path.exists(f"{self.directory}/{START_SOCKET}"):
            return "created"
        group = self.group
        return "paused" if group is not None and group.frozen() else "running"

    def connect(self) -> Channel:
        """A channel to the created container, which waits for its start."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        directory = os.open(self.directory, os.O_PATH | os.O_CLOEXEC)
        try:
            end.connect(f"/proc/self/fd/{directory}/{START_SOCKET}")
        finally:
            os.close(directory)
        return Channel(end)

    def started(self) -> None:
        """The container has left the state "created"."""
        os.unlink(f"{self.directory}/{START_SOCKET}")

    def public(self) -> dict[str, Any]:
        """The OCI state object, with the fields that runc adds."""
        status = self.status
        shown: dict[str, Any] = {
            "ociVersion": self.config.get("ociVersion", "1.0.2"),
            "id": self.id,
            "pid": self.pid,
            "status": status,
            "bundle": self.data["bundle"],
            "rootfs": os.path.join(self.data["bundle"], self.config["root"]["path"]),
            "created": self.data["created"],
            "owner": _user_name(self.data["owner"]),
        }
        if self.config.get("annotations"):
            shown["annotations"] = self.config["annotations"]
        return shown


def write_whole_here(directory: str, name: str, text: str) -> None:
    """A file of the state directory, replaced in one step."""
    from pathlib import Path

    write_whole(Path(directory, name), text)


def _user_name(uid: int) -> str:
    """The name of a user, or nothing where there is none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def all_states(root: str) -> list[State]:
    """Every container below `root` that was created to the end, by id."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            found.append(State.load(root, name))
        except ContainerNotFound:
            continue  # being created right now, or left by a create that was killed
    return found
