"""The machine that was measured, and how busy others kept it meanwhile. Man page: proc(5)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

from minicontainer import __version__
from minicontainer.cgroup.hierarchy import detect

VERSIONS = ("crun", "runc", "bwrap", "podman", "docker", "dockerd", "containerd")
_TICKS = os.sysconf("SC_CLK_TCK")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find(program: str) -> str | None:
    """The program's path; administrators' directories count even where $PATH lacks them."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def first_line(argv: list[str]) -> str:
    """The first line that a program prints, or "" where it cannot."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.splitlines() or [""])[0] if done.returncode == 0 else ""


def filesystem(path: str) -> str:
    """The type of the file system that `path` lies on ("ext4", "overlay")."""
    best, kind = "", "unknown"
    for line in _read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        target = before.split()[4]
        if os.path.commonpath([target, path]) == target and len(target) >= len(best):
            best, kind = target, after.split()[0]
    return kind


def describe(directory: str) -> dict[str, Any]:
    """What a reader needs to judge the numbers. :param directory: where containers' files were."""
    cpu = _read("/proc/cpuinfo")
    system = platform.freedesktop_os_release() if os.path.exists("/etc/os-release") else {}
    package = os.path.dirname(os.path.abspath(__file__))
    programs = {name: path for name in VERSIONS if (path := find(name))}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "minicontainer": __version__,
        "commit": first_line(["git", "-C", package, "rev-parse", "HEAD"]) if find("git") else "",
        "system": system.get("PRETTY_NAME", "unknown"),
        "kernel": platform.release(),
        "processor": _field(cpu, "model name") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in _field(cpu, "flags").split(),
        "memory_bytes": int((_field(_read("/proc/meminfo"), "MemTotal") or "0 kB").split()[0]) * 1024,
        "python": platform.python_version(),
        "interpreter": os.path.basename(os.path.realpath(sys.executable)),
        "cgroup": detect().version,
        "filesystem": filesystem(directory),
        "load": list(os.getloadavg()),
        "versions": {name: first_line([path, "--version"]) for name, path in programs.items()},
    }


def summary(machine: dict[str, Any]) -> str:
    """The description in two lines for people."""
    virtual = ", virtual" if machine["virtual"] else ""
    gigabytes = machine["memory_bytes"] / 1e9
    return (
        f"{machine['system']}, Linux {machine['kernel']}, {machine['processor']}{virtual}, {machine['cpus']} CPUs,"
        f" {gigabytes:.0f} GB\nPython {machine['python']}, cgroup {machine['cgroup']}, files on"
        f" {machine['filesystem']}, load {machine['load'][0]:.2f}"
    )


def busy_seconds() -> tuple[float, float]:
    """(CPU seconds that all CPUs have worked, CPU seconds that the hypervisor gave to others) since boot."""
    fields = [int(word) for word in _read("/proc/stat").split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq) / _TICKS, steal / _TICKS


class Watch:
    """Tells whether others used the machine: all CPU time less our own.

    :param own: CPU seconds used so far by what we started, our own process not counted.
    :param share: fraction of one CPU that others may take.
    """

    def __init__(self, own: Any, share: float = 0.25) -> None:
        self.own, self.share = own, share
        self.foreign = self.stolen = 0.0  # CPU seconds, over all blocks

    def begin(self) -> Any:
        """Start of a block; returns what to call at its end, which answers whether it was disturbed."""
        busy, stolen = busy_seconds()
        own, start = self.own() + time.process_time(), time.monotonic()

        def end() -> bool:
            elapsed = time.monotonic() - start
            busy_now, stolen_now = busy_seconds()
            foreign = busy_now - busy - (self.own() + time.process_time() - own)
            self.foreign += max(0.0, foreign)
            self.stolen += stolen_now - stolen
            # /proc/stat counts in ticks of 10 ms: two of them say nothing.
            return foreign > self.share * elapsed + 2 / _TICKS

        return end
