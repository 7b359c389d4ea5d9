"""What a container in the background costs in memory: its processes' share, and the kernel's.

Processes are counted by PSS, which divides a page among those that share it: summing RSS would count the shims' shared
text again and again. The kernel's part is what its slabs, stacks, page tables and per-CPU areas grew by. The fall of
MemAvailable is kept beside it as a cross-check; it also moves with the page cache. Man page: proc(5) (meminfo,
smaps_rollup).
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from minicontainer.bench import stats
from minicontainer.bench.lines import Line

if TYPE_CHECKING:
    from minicontainer.bench.start import Bench

API = Line("memory per detached container, started from one API process : docker", 0.5)
CLI = Line("memory per detached container, one command line each : docker", 1.6)
KERNEL_FIELDS = ("Slab", "KernelStack", "PageTables", "Percpu")
_SETTLE = 0.5  # seconds for the kernel to free what is being removed, and for daemons to become quiet


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    with open("/proc/meminfo") as file:
        fields = (line.split() for line in file)
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields if words[-1] == "kB"}


def per_container(arm: Any, count: int) -> dict[str, float]:
    """Start `count` containers, weigh them, remove them; bytes for each one.

    :returns: "processes" (PSS of the processes that are new), "kernel", "available" (the fall of MemAvailable), and
        "growth" (what the PSS of everything grew by, daemons included).
    """
    arm.start()  # what only the first one costs: caches, a daemon's own start
    time.sleep(_SETTLE)
    before, processes = meminfo(), arm.place.memory()
    for _ in range(count):
        arm.start()
    time.sleep(_SETTLE)
    after, more = meminfo(), arm.place.memory()
    arm.remove_all()
    time.sleep(_SETTLE)
    new = sum(size for pid, size in more.items() if pid not in processes)
    kernel = sum(after.get(name, 0) - before.get(name, 0) for name in KERNEL_FIELDS)
    return {
        "processes": new / count,
        "kernel": kernel / count,
        "available": (before["MemAvailable"] - after["MemAvailable"]) / count,
        "growth": (sum(more.values()) - sum(processes.values())) / count,
    }


def measure(bench: Bench) -> None:
    """Rounds of all arms in random order; the ratio is taken inside a round."""
    names: list[str] = [name for name in ("api", "cli", "docker") if name in bench.arms]
    rounds: list[dict[str, float]] = []
    details: list[dict[str, dict[str, float]]] = []
    for number in range(bench.rounds if len(names) > 1 else 0):
        bench.tell(f"memory, round {number + 1} of {bench.rounds}")
        random.shuffle(names)
        weighed = {name: per_container(bench.arms[name], bench.count) for name in names}
        details.append(weighed)
        rounds.append({name: parts["processes"] + parts["kernel"] for name, parts in weighed.items()})
    for line, arm in ((API, "api"), (CLI, "cli")):
        reason = bench.missing(arm, "docker")
        if reason:
            bench.row(line, note=f"skipped: {reason}")
            continue
        estimate = stats.ratio(rounds, arm, "docker")
        bench.row(line, estimate, rounds, arms=(arm, "docker"), scale=(1 / 1e6, "MB"))
        bench.rows[-1].parts = details
