"""The lines about starting containers: ours against crun, Podman, Docker and the bare interpreter. Labs 02 and 14.

Every line is measured side by side in one run: each block runs all its arms once in random order (see
:mod:`minicontainer.bench.stats`), and each arm in a private place (see :mod:`minicontainer.bench.place`).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from minicontainer.bench import layers, machine, memory, ours, peers, stats
from minicontainer.bench.lines import Line, Row
from minicontainer.bench.place import PREFIX, Place
from minicontainer.errors import MinicontainerError

BRIDGE = "not yet: needs the bridge"

# Seconds of rest before each unit. Daemons, and the kernel with network namespaces, clean up after a command has ended.
# And people do not start containers back to back: the kernel moves a process between v1 control groups in 1 ms where
# another move was just before, but in 15 ms where it has to wait for a grace period first, which would make crun's time
# depend on what happened to run before it.
REST = 0.1

API = Line("`true` from a process of 300 MB with threads, through the API : crun run with its cgroup", 0.6)
API_BRIDGE = Line("the same on the bridge with an address and a published port : the same crun run", 1.0)
DOCKER_BRIDGE = Line("minicontainer run --rm busybox true : docker's, both on the bridge", 0.33)
DOCKER_NONE = Line("the same with --network none : docker's", 0.33, extra=True)
PODMAN = Line("minicontainer run --rm --network none busybox true : podman's", 0.6)
PS = Line("minicontainer ps (3 containers) : python -c pass", 4.0)
API_MANY_BRIDGE = Line("start of detached containers with network, one API process : docker", 0.1)
API_MANY = Line("the same with --network none : docker", 0.1, extra=True)
CLI_MANY_BRIDGE = Line("start of detached containers with network, one command line each : docker", 0.4)
CLI_MANY = Line("the same with --network none : docker", 0.4, extra=True)
LAYERS = Line(f"overlay mount with {layers.MANY} layers, beyond that with one", 1.0, unit="ms")
API_RUNC = Line("`true` through the API : runc run with its cgroup", None, extra=True)
API_BWRAP = Line("`true` through the API : bwrap (no cgroup, no state)", None, extra=True)


class Arm(Protocol):
    """What every runtime here can do: a container that does nothing, containers that stay."""

    place: Place

    def true(self) -> float: ...
    def start(self) -> float: ...
    def remove_all(self) -> None: ...


class Bench:
    """One run of the benchmark.

    :param blocks: blocks a line.
    :param count: detached containers to start.
    :param rounds: how often the memory of `count` containers is measured.
    :param tell: prints progress.
    """

    def __init__(
        self, directory: str, blocks: int, count: int, rounds: int, tell: Callable[[str], None]
    ) -> None:
        self.blocks, self.count, self.rounds, self.tell = blocks, count, rounds, tell
        self.stack = ExitStack()
        self.reasons: dict[str, str] = {}
        self.arms: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.dropped, self.busy = 0, False  # of the last measurement
        image_root = f"{directory}/data"
        self.workspace = peers.prepare(directory, busybox_layer(image_root))
        self.data = image_root
        self.watch = machine.Watch(lambda: sum(arm.place.cpu_seconds() for arm in self.arms.values()))

    def open(self) -> None:
        """Start every runtime that is here, and remember why the others are not."""
        runtimes: dict[str, Callable[[], AbstractContextManager[Any]]] = {
            "api": lambda: ours.api(self.workspace, self.data),
            "cli": lambda: ours.command_line(self.workspace, self.data),
            "crun": lambda: peers.crun(self.workspace),
            "runc": lambda: peers.runc(self.workspace),
            "bwrap": lambda: peers.bwrap(self.workspace),
            "podman": lambda: peers.podman(self.workspace),
            "docker": lambda: peers.docker(self.workspace),
        }
        for name, make in runtimes.items():
            self.tell(f"preparing {name}")
            try:
                arm = self.stack.enter_context(make())
                if name not in ("api", "cli"):
                    arm.true()  # a machine on which it cannot run is told here
                self.arms[name] = arm
            except peers.Missing as error:
                self.reasons[name] = str(error)

    def close(self) -> None:
        """Clear every place away."""
        self.stack.close()

    def measure(self) -> None:
        """All lines, in the order in which they are promised."""
        self.api()
        self.row(API_BRIDGE, note=BRIDGE)
        self.row(DOCKER_BRIDGE, note=BRIDGE)
        self.command_lines()
        self.ps()
        self.many()
        memory.measure(self)
        self.overlay()

    # -- the lines ------------------------------------------------------------------------------------------------

    def api(self) -> None:
        """The API against the OCI runtimes; crun twice, for the noise floor."""
        blocks = self.interleave(
            "API",
            {
                "api": ("api", "true"),
                "crun": ("crun", "true"),
                "crun again": ("crun", "true"),
                "runc": ("runc", "true"),
                "bwrap": ("bwrap", "true"),
            },
        )
        self.compare(API, blocks, "api", "crun", floor="crun again")
        self.compare(API_RUNC, blocks, "api", "runc")
        self.compare(API_BWRAP, blocks, "api", "bwrap")

    def command_lines(self) -> None:
        """One container a command line."""
        arms = {name: (name, "true") for name in ("cli", "podman", "docker")}
        blocks = self.interleave("command lines", arms | {"cli again": ("cli", "true")})
        self.compare(DOCKER_NONE, blocks, "cli", "docker", floor="cli again")
        self.compare(PODMAN, blocks, "cli", "podman", floor="cli again")

    def ps(self) -> None:
        """Listing three containers against an interpreter that does nothing."""
        if "cli" in self.arms:
            for _ in range(3):
                self.arms["cli"].start()
        arms = {"ps": ("cli", "ps"), "python": ("cli", "bare"), "python again": ("cli", "bare")}
        blocks = self.interleave("ps", arms)
        self.compare(PS, blocks, "ps", "python", floor="python again")
        if "cli" in self.arms:
            self.arms["cli"].remove_all()

    def many(self) -> None:
        """Detached containers that accumulate: the k-th block starts the k-th one of each arm."""
        arms = {name: (name, "start") for name in ("api", "cli", "docker")}
        blocks = self.interleave("detached", arms, self.count, keep_all=True)
        self.row(API_MANY_BRIDGE, note=BRIDGE)
        self.compare(API_MANY, blocks, "api", "docker", total=True)
        self.row(CLI_MANY_BRIDGE, note=BRIDGE)
        self.compare(CLI_MANY, blocks, "cli", "docker", total=True)
        for name in arms:
            if name in self.arms:
                self.arms[name].remove_all()

    def overlay(self) -> None:
        """Many layers against one."""
        self.tell("layers")
        if os.geteuid() != 0:
            self.row(LAYERS, note="skipped: mounting here needs root")
            return
        with Place("layers", self.workspace.directory) as place:
            argv = [sys.executable, "-m", "minicontainer.bench.layers", f"{place.directory}/stack"]
            env = ours.variables(place, self.data)
            done = place.run([*argv, str(max(40, self.blocks))], env, timeout=120)
        if done.status != 0:
            raise MinicontainerError(f"the overlay benchmark failed: {done.stderr.strip()}")
        blocks = json.loads(done.stdout)
        more = stats.difference(blocks, layers.MANY_ARM, layers.ONE_ARM)
        scaled = stats.Estimate(more.value * 1e3, more.low * 1e3, more.high * 1e3, more.count)
        self.row(LAYERS, scaled, blocks)

    # -- how they are measured ------------------------------------------------------------------------------------

    def interleave(
        self,
        title: str,
        arms: dict[str, tuple[str, str]],
        count: int | None = None,
        *,
        keep_all: bool = False,
    ) -> list[dict[str, float]]:
        """The blocks to judge by of those `arms` (arm -> (runtime, what it does)) whose runtime is here.

        :param keep_all: also keep disturbed blocks, where a block cannot be repeated.
        """
        here: dict[str, Callable[[], float]] = {
            arm: getattr(self.arms[runtime], method)
            for arm, (runtime, method) in arms.items()
            if runtime in self.arms
        }
        self.tell(title)
        if len(here) < 2:
            return []

        def rested(unit: Callable[[], float]) -> Callable[[], float]:
            def run() -> float:
                time.sleep(REST)
                return unit()

            return run

        units = {arm: rested(unit) for arm, unit in here.items()}
        wanted = count or self.blocks
        measured = stats.interleave(units, wanted, watch=None if keep_all else self.watch.begin)
        self.dropped = len(measured.disturbed)
        blocks, self.busy = measured.usable(max(1, wanted // 2))
        return blocks

    def compare(
        self,
        line: Line,
        blocks: list[dict[str, float]],
        arm: str,
        peer: str,
        *,
        floor: str = "",
        total: bool = False,
    ) -> None:
        """Add the row of `line`: `arm` against `peer`; `floor` is the arm that repeats one of them."""
        reason = self.missing(arm, peer)
        if reason:
            self.row(line, note=f"skipped: {reason}")
            return
        estimate = (stats.total_ratio if total else stats.ratio)(blocks, arm, peer)
        same = floor.removesuffix(" again")
        noise = stats.noise_floor(blocks, same, floor) if floor and floor in blocks[0] else None
        self.row(line, estimate, blocks, arms=(arm, peer), noise=noise, dropped=self.dropped, busy=self.busy)

    def missing(self, *arms: str) -> str:
        """Why one of these arms is not here, or ""."""
        return next((self.reasons[arm] for arm in arms if arm in self.reasons), "")

    def row(self, line: Line, estimate: stats.Estimate | None = None, blocks: Any = (), **more: Any) -> None:
        self.rows.append(Row(line, estimate, list(blocks), **more))


def busybox_layer(root: str) -> Path:
    """Make our image in the data directory `root`; returns its only layer.

    :raises MinicontainerError: there is no static busybox on this machine.
    """
    from minicontainer.image.base import find_busybox, make_busybox
    from minicontainer.image.store import Store

    if find_busybox() is None:
        raise MinicontainerError(
            "no static busybox on this machine, which every runtime here is to run",
            hint="install one (Debian, Ubuntu: busybox-static; Fedora: busybox)",
        )
    store = Store(Path(root))
    return store.layer_paths(make_busybox(store))[0]


@contextmanager
def workspace(below: str) -> Iterator[str]:
    """A directory for everything, removed at the end."""
    path = tempfile.mkdtemp(prefix=f"{PREFIX}-", dir=below)
    os.chmod(path, 0o755)  # Podman and Docker look through it as other users
    try:
        yield path
    finally:
        shutil.rmtree(path)


def run(
    *, below: str, blocks: int, count: int, rounds: int, tell: Callable[[str], None]
) -> tuple[dict[str, Any], list[Row]]:
    """Measure everything; returns the machine's description and the rows."""
    random.seed()
    with workspace(below) as directory:
        described = machine.describe(directory)
        bench = Bench(directory, blocks, count, rounds, tell)
        try:
            bench.open()
            bench.measure()
        finally:
            bench.close()
        described["foreign_cpu_seconds"] = bench.watch.foreign
        described["stolen_cpu_seconds"] = bench.watch.stolen
        return described, bench.rows
