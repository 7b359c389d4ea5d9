"""Container: the handle that the Python API gives out, and what a finished run leaves."""

from __future__ import annotations

from minicontainer.engine.frozen import Frozen
from minicontainer.engine.record import Config, Record, State
from minicontainer.errors import ContainerNotFound, MinicontainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from minicontainer.engine.attach import Attachment
    from minicontainer.engine.engine import Engine
    from minicontainer.engine.logs import Entry


class Result(Frozen):
    """How a command went.

    :ivar status: its exit status; 128 plus the signal's number where one ended it.
    :ivar stdout: its output as text; bytes that are not UTF-8 become U+FFFD. With a terminal, errors are in it too.
    """

    status: int
    stdout: str = ""
    stderr: str = ""
    id: str = ""


class CommandFailed(MinicontainerError):
    """A command ended with another status than 0 (asked for with ``check=True``).

    :ivar result: the whole result.
    """

    def __init__(self, command: Sequence[str], result: Result) -> None:
        last = result.stderr.strip().rpartition("\n")[2]
        super().__init__(
            f"{' '.join(command)} ended with status {result.status}" + (f": {last}" if last else ""),
            exit_code=result.status,
        )
        self.result = result


class TimedOut(MinicontainerError, TimeoutError):
    """A command was killed because it did not end in time."""


class Container:
    """One container: what it is, where it stands, and what can be done to it.

    :ivar record: configuration and state as they were when this handle was made; :meth:`refresh` gives a newer one.
    """

    def __init__(self, engine: Engine, record: Record) -> None:
        self._engine = engine
        self.record = record

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.record.config.id

    @property
    def name(self) -> str:
        """The name, without a slash."""
        return self.record.config.name

    @property
    def image(self) -> str:
        """The image as it was named when the container was created."""
        return self.record.config.image

    @property
    def config(self) -> Config:
        """What it was created with."""
        return self.record.config

    @property
    def state(self) -> State:
        """Where it stood when this handle was made."""
        return self.record.state

    @property
    def status(self) -> str:
        """Where it stands now: "created", "running", "paused", "exited", or "removed"."""
        try:
            return self._engine.get(self.id).state.shown
        except ContainerNotFound:
            return "removed"

    def refresh(self) -> Container:
        """A handle with the record as it is now."""
        return self._engine.get(self.id)

    def start(self) -> Container:
        """Start it (again)."""
        self._engine.start(self.id)
        return self.refresh()

    def stop(self, timeout: float | None = None) -> None:
        """Ask it to end, and kill it if it has not after `timeout` seconds."""
        self._engine.stop(self.id, timeout)

    def restart(self, timeout: float | None = None) -> Container:
        """Stop and start."""
        self._engine.restart(self.id, timeout)
        return self.refresh()

    def kill(self, signal: str | int = "KILL") -> None:
        """Send a signal to its first process."""
        self._engine.kill(self.id, signal)

    def pause(self) -> None:
        """Freeze its processes where they stand."""
        self._engine.pause(self.id)

    def unpause(self) -> None:
        """Let its processes go on."""
        self._engine.unpause(self.id)

    def update(self, **options: Any) -> Container:
        """Change its limits; options as for :meth:`Engine.update`."""
        self._engine.update(self.id, **options)
        return self.refresh()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it does not run; returns its exit status."""
        return self._engine.wait(self.id, timeout)

    def remove(self, force: bool = False) -> None:
        """Remove it; a running one only by force."""
        self._engine.remove(self.id, force)

    def exec(self, command: Sequence[str] | str, **options: Any) -> Result:
        """Run a command in it; see :meth:`Engine.exec`."""
        return self._engine.exec(self.id, command, **options)

    def attach(self, **options: Any) -> Attachment:
        """Connect to its output and input; see :meth:`Engine.attach`."""
        return self._engine.attach(self.id, **options)

    def logs(self, tail: int | None = None, timestamps: bool = False, **options: Any) -> str:
        """What it has printed so far, both streams in order; options as for :meth:`Engine.logs`."""
        return "".join(
            (f"{entry.time} " if timestamps else "") + entry.data.decode(errors="replace")
            for entry in self._engine.logs(self.id, tail=tail, **options)
        )

    def follow(self, tail: int | None = None) -> Iterator[Entry]:
        """What it prints, entry by entry, until it ends."""
        return self._engine.logs(self.id, follow=True, tail=tail)

    def inspect(self) -> dict[str, Any]:
        """Everything about it, in Docker's words."""
        return self._engine.inspect(self.id)

    def __repr__(self) -> str:
        return f"<Container {self.name} ({self.id[:12]}) of {self.image}: {self.status}>"
