"""Handing controllers down the v2 tree, by its effect: the leaf rule, whose groups are ours, ordinary users."""

from __future__ import annotations

import errno
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.cgroup import delegation, limits
from minicontainer.cgroup.group import Group, parent_path
from minicontainer.cgroup.hierarchy import Hierarchies, detect
from minicontainer.errors import StepError
from minicontainer.linux import mount, namespace

HERE = detect()
needs_v2 = pytest.mark.skipif(HERE.v2 is None, reason="no cgroup v2 on this machine")
needs_pids_on_v2 = pytest.mark.skipif(
    bool(HERE.v1) or "pids" not in HERE.v2_controllers,
    reason="this machine's controllers are on cgroup v1: v2 has nothing to hand down",
)
NOBODY = 65534


def in_child(function: Callable[[], Any]) -> Any:
    """What the function returns, called in a forked process: it changes groups, namespaces and user there."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = {"value": function()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with open(read) as file:
        answer = json.loads(file.read())
    os.waitpid(pid, 0)
    assert "error" not in answer, answer["error"]
    return answer["value"]


@pytest.fixture
def area() -> Iterator[str]:
    """The path of a group beside our parent group, which is therefore not ours; removed with all below it."""
    path = f"{parent_path()}-area"
    yield path
    top = f"{HERE.v2}/{path}"
    for directory, _, _ in os.walk(top, topdown=False):
        os.rmdir(directory)


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that stays where it is put."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def put(pid: int, path: str) -> Path:
    directory = Path(HERE.v2 or "", path)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.procs").write_text(str(pid))
    return directory


def group_of(pid: int) -> str:
    return delegation.own_path(f"/proc/{pid}/cgroup")


@needs_pids_on_v2
def test_every_container_gets_what_can_be_counted():
    group = Group(f"{parent_path()}/counted")
    group.create()
    try:
        expected = {name for name in ("cpu", "io", "memory", "pids") if name in HERE.v2_controllers}
        assert expected <= set(group.controllers())
        assert len(set(group.controllers().values())) == 1
    finally:
        group.remove()


@needs_pids_on_v2
def test_processes_in_a_group_of_ours_make_way_into_a_leaf(sleeper):
    middle = f"{parent_path()}/middle"
    directory = put(sleeper, middle)
    group = Group(f"{middle}/inner")
    try:
        group.create({"pids"})
        assert "pids" in group.controllers()
        assert group_of(sleeper) == f"/{middle}/init"
    finally:
        os.kill(sleeper, signal.SIGKILL)
        group.remove()
        Group(middle).remove()
    assert not directory.exists()


@needs_pids_on_v2
def test_processes_of_others_stay_and_the_refusal_says_why(area, sleeper):
    directory = put(sleeper, area)
    group = Group(f"{area}/inner")
    group.create()  # nothing was asked for: no error
    with pytest.raises(StepError) as caught:
        group.create({"pids"})
    assert caught.value.errno == errno.EBUSY
    assert caught.value.path == f"{directory}/cgroup.subtree_control"
    assert "holds 1 processes" in caught.value.hint and "MINICONTAINER_CGROUP_PARENT" in caught.value.hint
    assert group_of(sleeper) == f"/{area}"
    with pytest.raises(StepError, match="no pids controller"):
        limits.limit(group.controllers(), {"pids": {"limit": 3}})
    os.setxattr(directory, "user.delegate", b"1")  # as systemd marks what it has delegated
    group.create({"pids"})
    assert group_of(sleeper) == f"/{area}/init"
    limits.limit(group.controllers(), {"pids": {"limit": 3}})
    os.kill(sleeper, signal.SIGKILL)
    group.remove()
    os.waitid(os.P_PID, sleeper, os.WEXITED | os.WNOWAIT)


def delegate(area: str) -> Path:
    """Give the group to an ordinary user, as systemd's Delegate=yes does."""
    directory = Path(HERE.v2 or "", area)
    directory.mkdir()
    for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        if (directory / name).exists():
            os.chown(directory / name, NOBODY, NOBODY)
    return directory


def become_nobody(directory: Path) -> None:
    (directory / "cgroup.procs").write_text("0")
    os.environ.pop("MINICONTAINER_CGROUP_PARENT", None)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


@needs_v2
@pytest.mark.needs("cgroups")
def test_ordinary_user_finds_the_delegated_subtree(area):
    directory = delegate(area)

    def look() -> list[Any]:
        become_nobody(directory)
        group = Group(f"{parent_path()}/mine")
        found = [parent_path(), group.create()]
        group.remove()
        return found

    path, made = in_child(look)
    assert path == f"{area}/minicontainer"
    assert made == [f"{HERE.v2}/{area}/minicontainer/mine"]
    assert os.listdir(directory) and not (directory / "minicontainer").exists()


def test_ordinary_user_without_one_gets_no_group_and_a_clear_word():
    def look() -> list[Any]:
        os.environ.pop("MINICONTAINER_CGROUP_PARENT", None)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        group = Group(f"{parent_path()}/mine")
        found = group.create({"pids"})
        try:
            limits.limit(group.controllers(), {"pids": {"limit": 3}})
        except StepError as error:
            return [found, error.hint]
        return [found, ""]

    made, hint = in_child(look)
    assert made == []
    assert "Delegate=yes" in hint


@needs_pids_on_v2
def test_ordinary_user_limits_what_was_delegated(area):
    directory = delegate(area)
    Group(f"{area}/x").create()  # enables the controllers of the area's own, as systemd does for its units
    os.rmdir(directory / "x")
    (directory / "cgroup.subtree_control").write_text(
        " ".join(f"-{name}" for name in (directory / "cgroup.subtree_control").read_text().split())
    )
    os.setxattr(directory, "user.delegate", b"1")

    def limit() -> list[Any]:
        become_nobody(directory)
        group = Group(f"{parent_path()}/mine")
        group.create({"pids"})
        limits.limit(group.controllers(), {"pids": {"limit": 2}})
        Path(group.controllers()["pids"], "cgroup.procs").write_text("0")
        children = []
        try:
            for _ in range(5):
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                    os._exit(0)
                children.append(pid)
        except BlockingIOError:
            pass
        count = len(children)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        inside = delegation.own_path()
        Path(directory, "init", "cgroup.procs").write_text("0")
        again = parent_path()
        group.remove()
        return [count, inside, again]

    assert in_child(limit) == [1, f"/{area}/minicontainer/mine", f"{area}/minicontainer"]


@needs_pids_on_v2
def test_root_of_a_container_makes_way_for_its_own_containers(area, tmp_path):
    """Inside a container with a cgroup namespace of its own, PID 1 sits where controllers must be enabled."""
    Group(f"{area}/x").create({"pids"})
    outer = Path(HERE.v2 or "", area, "x")

    def inside() -> list[Any]:
        (outer / "cgroup.procs").write_text("0")
        namespace.unshare(namespace.CLONE_NEWCGROUP | namespace.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        mount.mount("cgroup2", str(tmp_path), "cgroup2", 0, None)
        top = str(tmp_path)
        found: list[Any] = [delegation.own_path(), delegation.is_ours(top)]
        group = Group("minicontainer/deeper", Hierarchies({}, top, tuple(delegation.offered(top))))
        group.create({"pids"})
        found += [delegation.own_path(), "pids" in group.controllers()]
        group.remove()
        return found

    assert in_child(inside) == ["/", True, "/init", True]


@needs_v2
def test_the_machines_own_root_is_not_ours():
    if delegation.own_path() != "/" or os.path.exists(f"{HERE.v2}/cgroup.events"):
        pytest.skip("we are not in the root group of the machine")
    assert not delegation.is_ours(HERE.v2 or "")
