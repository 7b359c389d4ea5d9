"""Verbs on containers that live: pause, unpause, rename, stats, top, update. Lab 04.

Source of the table of `stats`: docker/cli, cli/command/container/formatter_stats.go.
"""

from __future__ import annotations

import os
import time

from minicontainer.cli import output
from minicontainer.cli.containers import each, engine
from minicontainer.cli.listing import Row, rendered
from minicontainer.cli.text import size, table
from minicontainer.errors import ContainerNotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.flags import Parsed
    from minicontainer.engine import Engine
    from minicontainer.engine.live import Sample

INTERVAL = 1.0  # seconds between two looks, as in Docker
COLUMNS = ("Container", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")


def pause(parsed: Parsed) -> int:
    """Freeze containers."""
    return each(parsed.arguments, engine().pause)


def unpause(parsed: Parsed) -> int:
    """Let frozen containers go on."""
    return each(parsed.arguments, engine().unpause)


def rename(parsed: Parsed) -> int:
    """Give a container another name."""
    engine().rename(*parsed.arguments)
    return 0


def update(parsed: Parsed) -> int:
    """Change limits of containers."""
    from minicontainer.cli.run import asked

    options = asked(parsed, parsed.verb.flags)
    if not options:
        raise UsageError("you must provide one or more flags when using this command", exit_code=1)
    here = engine()

    def one(name: str) -> None:
        for warning in here.update(name, **options):
            output.raw(f"WARNING: {warning}\n")

    return each(parsed.arguments, one)


def top(parsed: Parsed) -> int:
    """A container's processes, as the host's ps shows them."""
    lines = engine().top(parsed.arguments[0], parsed.arguments[1:])
    columns = len(lines[0].split())
    # The last column, the command, has spaces of its own.
    output.write(table([tuple(line.split(None, columns - 1)) for line in lines]))
    return 0


# -- stats --------------------------------------------------------------------------------------------------------


def binary_size(number: float) -> str:
    """A size in units of 1024 with four significant digits (go-units BytesSize).

    >>> binary_size(0), binary_size(1536), binary_size(24105 << 20)
    ('0B', '1.5KiB', '23.54GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.4g}{unit}"
        number /= 1024
    return f"{number:.4g}TiB"


class StatsRow(Row):
    """One container's line; zeros where it does not run, as in Docker."""

    HEADERS = {
        "Container": "CONTAINER ID",
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    }

    def __init__(self, before: Sample | None, now: Sample, *, full: bool) -> None:
        self._before = before.usage if before is not None else None
        self._now = now
        self._full = full
        self._machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def ID(self) -> str:
        return self._now.id if self._full else self._now.id[:12]

    Container = ID

    def Name(self) -> str:
        return self._now.name

    def CPUPerc(self) -> str:
        usage, before = self._now.usage, self._before
        return f"{100 * usage.cpu_fraction(before) if usage and before else 0:.2f}%"

    def _memory(self) -> tuple[int, int]:
        """Bytes in use, and how many there can be."""
        usage = self._now.usage
        if usage is None:
            return 0, 0
        return usage.working_set, min(usage.memory_limit or self._machine, self._machine)

    def MemUsage(self) -> str:
        used, limit = self._memory()
        return f"{binary_size(used)} / {binary_size(limit)}"

    def MemPerc(self) -> str:
        used, limit = self._memory()
        return f"{100 * used / limit if limit else 0:.2f}%"

    def NetIO(self) -> str:
        return f"{size(self._now.received)} / {size(self._now.sent)}"

    def BlockIO(self) -> str:
        disks = self._now.usage.io.values() if self._now.usage else ()
        return f"{size(sum(disk.read_bytes for disk in disks))} / {size(sum(disk.write_bytes for disk in disks))}"

    def PIDs(self) -> str:
        return str(self._now.usage.pids if self._now.usage else 0)


def stats(parsed: Parsed) -> int:
    """A table of what containers use, again every second until Ctrl-C."""
    here = engine()
    for name in parsed.arguments:
        here.get(name)  # one that is not there is an error at once, not a missing line
    before = _samples(here, parsed)
    while True:
        time.sleep(INTERVAL)
        now = _samples(here, parsed)
        rows = [StatsRow(before.get(key), sample, full=parsed.no_trunc) for key, sample in now.items()]
        text = rendered(rows, StatsRow, COLUMNS, parsed.format)
        if parsed.no_stream:
            output.write(text)
            return 0
        # Home, each line cleared to its end, then whatever an earlier, longer table left below.
        output.write("\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[J" if output.to_terminal() else text)
        output.flush()
        before = now


def _samples(here: Engine, parsed: Parsed) -> dict[str, Sample]:
    """A sample of each container that was asked for, by its id."""
    names = parsed.arguments or [container.id for container in here.containers(all=parsed.all)]
    found = {}
    for name in names:
        try:
            sample = here.stats(name)
        except ContainerNotFound:
            continue  # removed between two looks
        found[sample.id] = sample
    return found
