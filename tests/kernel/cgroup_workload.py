"""Control groups with limits, and Python programs that enter them by themselves: what the cgroup tests share."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from minicontainer.cgroup import limits, stats
from minicontainer.cgroup.group import Group, parent_path

_ENTER = """
import os, sys
for path in sys.argv.pop(1).split(":"):
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, b"0")
    os.close(descriptor)
"""


class Limited:
    """A control group with limits, and Python programs that enter it by themselves before they do their work."""

    def __init__(self, name: str) -> None:
        self.group = Group(f"{parent_path()}/{name}-{os.getpid()}")
        self.running: list[subprocess.Popen] = []

    def limit(self, **resources) -> None:
        self.group.create(limits.controllers(resources))
        limits.limit(self.group.controllers(), resources)

    @property
    def usage(self) -> stats.Usage:
        return stats.usage(self.group.controllers())

    def start(self, program: str, *arguments: object) -> subprocess.Popen:
        entrances = []
        for directory in self.group.directories:
            names = [name for name in ("tasks", "cgroup.procs") if os.path.exists(f"{directory}/{name}")]
            entrances += [f"{directory}/{name}" for name in names[:1]]
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _ENTER + program,
            ":".join(entrances),
            *map(str, arguments),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def run(self, program: str, *arguments: object) -> tuple[int, str]:
        process = self.start(program, *arguments)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def close(self) -> None:
        self.group.kill()
        if self.group.frozen():
            self.group.freeze(False)
        for process in self.running:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.group.remove()


@contextmanager
def limited_groups() -> Iterator[Callable[..., Limited]]:
    """A function that makes groups with the given resources; they end with the block, and what runs in them."""
    with ExitStack() as stack:
        made = itertools.count()

        def new(**resources) -> Limited:
            limited = Limited(f"limits{next(made)}")
            stack.callback(limited.close)
            limited.limit(**resources)
            return limited

        yield new


def needs_controller(*names: str) -> None:
    """Skip, with the reason, where the machine has none of these controllers."""
    hierarchies = Group("x").hierarchies
    have = {*hierarchies.v1, *hierarchies.v2_controllers}
    if not have & set(names):
        pytest.skip(f"no {names[0]} controller on this machine (it has {' '.join(sorted(have))})")
