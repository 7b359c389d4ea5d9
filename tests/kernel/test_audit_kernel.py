"""The leak audit notices what only root of a machine can leave: mounts, interfaces, control groups."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import audit
import pytest

from minicontainer.cgroup.hierarchy import detect
from minicontainer.linux import mount, namespace


def changes(before: audit.Snapshot, category: str) -> list[str]:
    """What the audit says of one category; other programs of the machine may change the others meanwhile."""
    return [
        line for line in audit.compare(before, audit.snapshot()) if line.split(": ")[1].startswith(category)
    ]


def test_notices_a_mount(tmp_path: Path):
    before = audit.snapshot()
    mount.mount("tmpfs", str(tmp_path), "tmpfs")
    try:
        lines = changes(before, "mount")
    finally:
        mount.umount(str(tmp_path))
    assert lines == [f"left behind: mount {tmp_path} (tmpfs from tmpfs, root /)"]
    assert changes(before, "mount") == []


def test_notices_a_mount_that_was_taken_away(tmp_path: Path):
    mount.mount("tmpfs", str(tmp_path), "tmpfs")
    before = audit.snapshot()
    mount.umount(str(tmp_path))
    assert changes(before, "mount") == [f"gone: mount {tmp_path} (tmpfs from tmpfs, root /)"]


def in_own_network(function) -> list[str]:
    """Run `function` in a child with a network namespace of its own; the lines it returns."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            namespace.unshare(namespace.CLONE_NEWNET)
            os.write(write, "\n".join(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text.splitlines()


def test_notices_a_bridge():
    from pyroute2 import IPRoute

    def leave_a_bridge() -> list[str]:
        before = audit.snapshot()
        with IPRoute() as route:
            route.link("add", ifname="mc-bridge0", kind="bridge")
        return changes(before, "link")

    assert in_own_network(leave_a_bridge) == ["left behind: link mc-bridge0"]


@pytest.mark.needs("cgroups")
def test_notices_a_control_group_with_our_prefix():
    root = Path(detect().directories()[0])
    group = f"minicontainer-audit-{os.getpid()}"
    before = audit.snapshot()
    (root / group).mkdir()
    try:
        lines = changes(before, "cgroup")
    finally:
        (root / group).rmdir()
    assert f"left behind: cgroup {group} in {root.name}" in lines


@pytest.mark.needs("cgroups")
def test_a_control_group_with_processes_of_another_program_is_not_ours():
    found = detect()
    root = Path(found.v1.get("pids") or found.v2 or "")  # a v1 cpuset takes nobody before it is set up
    group = root / f"minicontainer-audit-{os.getpid()}-busy"
    (group / "below").mkdir(parents=True)
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        (group / "below/cgroup.procs").write_text(str(sleeper.pid))
        names = [line for line in audit.cgroups(os.getpid()) if group.name in line]
        assert len(names) == 2  # our own child: it counts
        assert not any(group.name in line for line in audit.cgroups(sleeper.pid + 1))
    finally:
        sleeper.kill()
        sleeper.wait()
        (group / "below").rmdir()
        group.rmdir()
