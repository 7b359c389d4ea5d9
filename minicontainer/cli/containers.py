"""Verbs on existing containers: ps, stop, restart, kill, rm, wait, logs."""

from __future__ import annotations

import time

from minicontainer.cli import output
from minicontainer.cli.listing import Row, rendered
from minicontainer.cli.text import duration, ellipsis, quote
from minicontainer.engine import times
from minicontainer.errors import ContainerNotFound, MinicontainerError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.cli.flags import Parsed
    from minicontainer.engine import Container, Engine


def engine() -> Engine:
    """The engine on this user's directories; in this small program its supervisors may be forked directly."""
    from minicontainer.engine import Engine, spawn

    spawn.direct = True
    return Engine()


def each(names: list[str], action: Callable[[str], object], *, show: bool = True) -> int:
    """Do something to every container named, going on after a failure as Docker does; print the names that worked."""
    status = 0
    for name in names:
        try:
            result = action(name)
        except MinicontainerError as error:
            output.complain(error.message, error.hint)
            status = 1
        else:
            output.line(name if show else str(result))
    return status


def stop(parsed: Parsed) -> int:
    """Stop signal, then SIGKILL after the timeout."""
    here = engine()
    return each(parsed.arguments, lambda name: here.stop(name, **_stopping(parsed)))


def restart(parsed: Parsed) -> int:
    """Stop and start again."""
    here = engine()
    return each(parsed.arguments, lambda name: here.restart(name, **_stopping(parsed)))


def _stopping(parsed: Parsed) -> dict[str, Any]:
    wishes = {"timeout": parsed.timeout, "signal": parsed.signal}
    return {name: value for name, value in wishes.items() if value is not None}


def kill(parsed: Parsed) -> int:
    """Send a signal, SIGKILL by default."""
    here = engine()
    return each(parsed.arguments, lambda name: here.kill(name, parsed.signal or "KILL"))


def rm(parsed: Parsed) -> int:
    """Remove containers; with ``-f`` one that is not there is no failure."""
    here = engine()
    status = 0
    for name in parsed.arguments:
        try:
            here.remove(name, force=parsed.force, volumes=parsed.volumes)
            output.line(name)
        except MinicontainerError as error:
            output.complain(error.message, error.hint)
            if not (parsed.force and isinstance(error, ContainerNotFound)):
                status = 1
    return status


def wait(parsed: Parsed) -> int:
    """Print exit statuses as containers end."""
    return each(parsed.arguments, engine().wait, show=False)


def logs(parsed: Parsed) -> int:
    """What a container printed, each stream to ours of the same name."""
    from minicontainer.cli.attach import STDERR, STDOUT, write_all

    entries = engine().logs(
        parsed.arguments[0],
        follow=parsed.follow,
        tail=_tail(parsed.tail),
        since=parsed.since,
        until=parsed.until,
    )
    # A long log goes out in blocks: a system call for each line made ours several times slower than reading it.
    # Who follows wants each line at once.
    longest = 0 if parsed.follow else 64 * 1024
    waiting, stream = bytearray(), "stdout"

    def put() -> None:
        write_all(STDERR if stream == "stderr" else STDOUT, bytes(waiting))
        waiting.clear()

    for entry in entries:
        if entry.stream != stream:
            put()
            stream = entry.stream
        waiting += f"{entry.time} ".encode() + entry.data if parsed.timestamps else entry.data
        if len(waiting) >= longest:
            put()
    put()
    return 0


def _tail(text: str | None) -> int | None:
    """How many lines; as in Docker, anything but a number means all of them."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


# -- ps -----------------------------------------------------------------------------------------------------------

COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


class ContainerRow(Row):
    """A container as ``ps`` shows it."""

    HEADERS = {
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Status": "STATUS",
        "State": "STATE",
        "Ports": "PORTS",
        "Names": "NAMES",
        "Labels": "LABELS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Mounts": "MOUNTS",
        "Networks": "NETWORKS",
    }

    def __init__(self, container: Container, *, full: bool, now: int) -> None:
        self._config = container.config
        self._state = container.state
        self._full = full
        self._now = now

    def field(self, name: str) -> Any:
        return self._label if name == "Label" else super().field(name)

    def _label(self, name: str) -> str:
        from minicontainer.cli.text import visible

        return visible(self._config.labels.get(name, ""))

    def _ago(self, text: str) -> str:
        return duration((self._now - times.parse(text)) / 1e9)

    def ID(self) -> str:
        return self._config.id if self._full else self._config.id[:12]

    def Names(self) -> str:
        return self._config.name

    def Image(self) -> str:
        return self._config.image

    def Command(self) -> str:
        words = self._config.arguments
        text = " ".join([*words[:1], *(f"'{word}'" if " " in word else word for word in words[1:])])
        return quote(text if self._full else ellipsis(text, 20))

    def CreatedAt(self) -> str:
        return time.strftime(
            "%Y-%m-%d %H:%M:%S %z %Z", time.localtime(times.parse(self._config.created) // 10**9)
        )

    def RunningFor(self) -> str:
        return f"{self._ago(self._config.created)} ago"

    def State(self) -> str:
        return self._state.shown

    def Status(self) -> str:
        state = self._state
        if state.status == "running":
            return f"Up {self._ago(state.started_at)}{' (Paused)' if state.paused else ''}"
        if state.status == "exited":
            return f"Exited ({state.exit_code}) {self._ago(state.finished_at)} ago"
        return str(state.status).capitalize()

    def Ports(self) -> str:
        return ""

    def Labels(self) -> str:
        return ",".join(f"{name}={value}" for name, value in sorted(self._config.labels.items()))

    def LocalVolumes(self) -> str:
        return "0"

    def Mounts(self) -> str:
        return ""

    def Networks(self) -> str:
        return self._config.network


def ps(parsed: Parsed) -> int:
    """List containers, newest first."""
    filters = _filters(parsed.filter)
    count = 1 if parsed.latest else parsed.last
    everything = (
        parsed.all or (count is not None and count >= 0) or bool({"status", "exited"} & filters.keys())
    )
    found = engine().containers(all=everything)
    found = [container for container in found if _matches(container, filters)]
    if count is not None and count >= 0:
        found = found[:count]
    if parsed.quiet:
        if parsed.format is not None:
            output.raw("WARNING: Ignoring custom format, because both --format and --quiet are set.\n")
        output.write("".join(f"{each.id if parsed.no_trunc else each.id[:12]}\n" for each in found))
        return 0
    now = time.time_ns()
    rows = [ContainerRow(container, full=parsed.no_trunc, now=now) for container in found]
    output.write(rendered(rows, ContainerRow, COLUMNS, parsed.format))
    return 0


STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


def _filters(given: list[str]) -> dict[str, list[str]]:
    """Filters by name; several values of one name are alternatives, except labels.

    :raises UsageError: a filter or a value that means nothing.
    """
    filters: dict[str, list[str]] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in MATCHERS:
            raise UsageError(
                f"Invalid filter '{name}'", hint=f"there are: {', '.join(sorted(MATCHERS))}", exit_code=1
            )
        if (name == "status" and value not in STATES) or (
            name == "exited" and not value.lstrip("-").isdigit()
        ):
            raise UsageError(f"Invalid filter '{text}'", exit_code=1)
        filters.setdefault(name, []).append(value)
    return filters


def _matches(container: Container, filters: dict[str, list[str]]) -> bool:
    for name, values in filters.items():
        some = all if name == "label" else any
        if not some(MATCHERS[name](container, value) for value in values):
            return False
    return True


def _search(pattern: str, text: str) -> bool:
    import re

    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern in text


def _has_label(container: Container, value: str) -> bool:
    name, equals, wanted = value.partition("=")
    return name in container.config.labels and (not equals or container.config.labels[name] == wanted)


def _descends(container: Container, name: str) -> bool:
    """Whether its image is the one of this name or id; a name means what it means now."""
    from minicontainer.errors import ImageNotFound
    from minicontainer.image.store import Store

    if container.image == name:
        return True
    try:
        return Store().resolve(name).id == container.config.image_id
    except (ImageNotFound, UsageError):
        return False


MATCHERS: dict[str, Callable[[Container, str], bool]] = {
    "ancestor": _descends,
    "exited": lambda container, value: (
        container.state.status == "exited" and container.state.exit_code == int(value)
    ),
    "id": lambda container, value: _search(f"^(?:{value})", container.id),
    "label": _has_label,
    # Docker's own names begin with a slash, and people write patterns such as ^/web$.
    "name": lambda container, value: _search(value, container.name) or _search(value, f"/{container.name}"),
    "status": lambda container, value: container.state.shown == value,
}
