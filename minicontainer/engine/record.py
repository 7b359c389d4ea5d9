"""What is known about a container, and the file that keeps it: ``containers/<id>/record.json``.

A record has two parts: the configuration, fixed when the container is created, and the state, which changes as the
container starts and ends. It is written whole (temporary file and rename) by whoever holds the container's lock, so
any process can read it at any moment without one.

Whether the container's supervisor still lives is asked of the kernel, through a second lock that the supervisor holds
from its first moment to its last: no process id, which could by now belong to somebody else, and the same answer
from every PID namespace and after a reboot. A record that says "running" while nobody holds that lock is repaired by
its next reader. Lab 10. Man page: flock(2).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os

from minicontainer.engine.frozen import Frozen
from minicontainer.engine.times import ZERO, timestamp
from minicontainer.errors import MinicontainerError
from minicontainer.paths import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RECORD = "record.json"
LOCK = "lock"
ALIVE = "alive"
LOST = "supervisor lost"


class Config(Frozen):
    """What the container was created with. Environment and command are the image's and the user's, merged.

    :ivar layers: the image's layers, topmost first, relative to the data root where they are below it.
    :ivar env: "NAME=value" in the order the program sees them, without the ones that every container gets.
    :ivar stop_timeout: seconds between the stop signal and SIGKILL.
    :ivar host: limits and privileges that were asked for, as :mod:`.hostconfig` has them.
    """

    id: str
    name: str
    created: str
    image: str
    image_id: str
    layers: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    labels: dict[str, str] = {}
    network: str = "none"
    tty: bool = False
    stdin_open: bool = False
    auto_remove: bool = False
    read_only: bool = False
    stop_signal: str = "SIGTERM"
    stop_timeout: int = 10
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    host: dict[str, Any] = {}

    @property
    def arguments(self) -> list[str]:
        """The argument vector of the container's first process."""
        return [*self.entrypoint, *self.command]


class State(Frozen):
    """Where the container is in its life.

    :ivar status: "created", "running" or "exited"; "dead" for a record that cannot be read.
    :ivar pid: the container's first process in the supervisor's PID namespace, 0 when it does not run.
    :ivar pid_started: its start time in clock ticks (man 5 proc), which guards `pid` against reuse.
    :ivar supervisor: the supervisor's process id, for people; never used to decide whether it lives.
    :ivar exit_code: exit status, 128 + signal number, or 125 to 127 where it could not be started.
    :ivar error: why it could not be started, or that its supervisor was lost.
    :ivar paused: it runs, but its processes are frozen.
    """

    status: str = "created"
    pid: int = 0
    pid_started: int = 0
    supervisor: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ZERO
    finished_at: str = ZERO
    restart_count: int = 0
    paused: bool = False

    @property
    def shown(self) -> str:
        """The state's name for people: that of a running container may be "paused"."""
        return "paused" if self.running and self.paused else self.status

    @property
    def running(self) -> bool:
        """Whether its first process lives, as far as the record knows."""
        return self.status == "running"


class Record(Frozen):
    """A container: configuration and state."""

    config: Config
    state: State = State()


def read(directory: str) -> Record:
    """The record in a container's directory, as it stands there.

    :raises FileNotFoundError: there is none (being made, or removed).
    :raises MinicontainerError: it is not a record.
    """
    with open(f"{directory}/{RECORD}", "rb") as file:
        text = file.read()
    try:
        data = json.loads(text)
        return Record(config=Config.from_dict(data["config"]), state=State.from_dict(data["state"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MinicontainerError(
            f"{directory}/{RECORD} is damaged: {error}",
            hint="remove the container with `rm -f` and create it again",
        ) from error


def write(directory: str, record: Record) -> None:
    """Replace the record in a container's directory; the caller holds the container's lock.

    Not flushed to the disk: after a power cut the container does not run whatever its record says, and the rename
    keeps the file whole.

    :raises MinicontainerError: no space, read-only file system.
    """
    text = json.dumps(record.to_dict(), separators=(",", ":"))
    try:
        write_whole(f"{directory}/{RECORD}", text)  # type: ignore[arg-type]  # any path that formats as text
    except OSError as error:
        raise storage_error(error, directory) from error


def storage_error(error: OSError, directory: str) -> MinicontainerError:
    """The error for a person of a failed write below `directory`."""
    reason = os.strerror(error.errno or 0)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MinicontainerError(
            f"cannot write to {directory}: {reason}",
            hint="free some space: remove containers (`rm`) or images (`rmi`)",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "run as root, or as an ordinary user inside `minicontainer lab -- …`"
        return MinicontainerError(f"cannot write to {directory}: {reason}", hint=hint)
    return MinicontainerError(f"cannot write to {directory}: {reason}")


def acquire(directory: str, *, blocking: bool = True) -> int:
    """Take the container's lock; returns a descriptor that holds it until its last copy is closed.

    The descriptor may be handed to another process: the lock then passes on without a gap.

    :raises BlockingIOError: somebody holds it and `blocking` is false.
    :raises FileNotFoundError: the container is gone, or went while we waited.
    """
    path = f"{directory}/{LOCK}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        # The directory may have been removed, and even made anew, between open and lock.
        if os.stat(path).st_ino != os.fstat(descriptor).st_ino:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class changing:
    """A block in which a container's record is changed: read under its lock, written at the end if it is another.

    :raises FileNotFoundError: the container is gone.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def __enter__(self) -> changing:
        self._lock = acquire(self._directory)
        try:
            self._before = self.record = read(self._directory)
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            if kind is None and self.record != self._before:
                write(self._directory, self.record)
        finally:
            os.close(self._lock)


def hold_alive(directory: str) -> int:
    """Take the lock that says "this container's supervisor lives"; the descriptor is kept until the process ends.

    It may block for the instant in which a reader looks at it.
    """
    descriptor = os.open(f"{directory}/{ALIVE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def supervised(directory: str) -> bool:
    """Whether a supervisor of this container lives now."""
    try:
        descriptor = os.open(f"{directory}/{ALIVE}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lost(state: State) -> State:
    """The state of a running container whose supervisor was killed: the kernel took its processes with it."""
    return state.replace(
        status="exited", pid=0, pid_started=0, exit_code=137, error=LOST, finished_at=timestamp()
    )


def current(directory: str) -> Record:
    """The record as it really is: "running" with no living supervisor becomes exited (137), and is written so.

    :raises FileNotFoundError: as :func:`read`.
    """
    record = read(directory)
    if not record.state.running or supervised(directory):
        return record
    try:
        holder = acquire(directory, blocking=False)
    except BlockingIOError:  # its supervisor is just writing the end, or another reader repairs it
        return _look_again(directory)
    except PermissionError:
        return record.replace(state=lost(record.state))
    try:
        record = read(directory)
        if record.state.running and not supervised(directory):
            record = record.replace(state=lost(record.state))
            _collect(directory)
            try:
                write(directory, record)
            except MinicontainerError:
                return record  # a full disk: `rm`, which is the cure, has to see what is true all the same
        return record
    finally:
        os.close(holder)


def _look_again(directory: str) -> Record:
    """Wait for the holder of the lock to finish writing, then believe the record unless it is still wrong."""
    os.close(acquire(directory))
    record = read(directory)
    if record.state.running and not supervised(directory):
        return record.replace(state=lost(record.state))
    return record


def _collect(directory: str) -> None:
    """Remove what a lost supervisor left in the kernel: the control group."""
    from minicontainer.engine.removal import clean_kernel
    from minicontainer.errors import StepError

    try:
        clean_kernel(directory)
    except (OSError, StepError):
        return  # `rm` and `gc` try again and say why
