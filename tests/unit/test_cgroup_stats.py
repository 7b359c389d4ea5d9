"""Usage and events read from plain files with the kernel's words in them, and which hierarchies a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicontainer.cgroup import delegation, files, oom, stats
from minicontainer.cgroup.hierarchy import Hierarchies, detect

PRESSURE = """some avg10=1.50 avg60=0.25 avg300=0.00 total=1234
full avg10=0.50 avg60=0.00 avg300=0.00 total=99
"""


def write(directory: Path, contents: dict[str, str]) -> str:
    directory.mkdir(exist_ok=True)
    for name, text in contents.items():
        (directory / name).write_text(text)
    return str(directory)


def test_usage_on_v2(tmp_path):
    path = write(
        tmp_path,
        {
            "cpu.stat": "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 7\nnr_throttled 3\n"
            "throttled_usec 44\n",
            "memory.current": "4096000\n", "memory.max": "8192000\n", "memory.peak": "5000000\n",
            "memory.swap.current": "11\n", "memory.stat": "anon 1\nfile 3000000\ninactive_file 1000000\n",
            "memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n",
            "pids.current": "5\n", "pids.max": "max\n",
            "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:1 \n",
            "cpu.pressure": PRESSURE, "io.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        },
    )  # fmt: skip
    usage = stats.usage(dict.fromkeys(("unified", "cpu", "memory", "pids", "io"), path))
    assert (usage.cpu_ns, usage.cpu_user_ns, usage.cpu_system_ns) == (3_000_000, 2_000_000, 1_000_000)
    assert (usage.periods, usage.throttled_periods, usage.throttled_ns) == (7, 3, 44_000)
    assert (usage.memory, usage.memory_limit, usage.memory_peak, usage.swap) == (
        4096000,
        8192000,
        5000000,
        11,
    )
    assert (usage.cache, usage.working_set) == (3000000, 3096000)
    assert (usage.oom_events, usage.oom_kills) == (2, 1)
    assert (usage.pids, usage.pids_limit) == (5, None)
    assert usage.io == {"8:0": stats.DiskUsage(10, 20, 1, 2)}
    assert usage.pressure["cpu"] == stats.Pressure((1.5, 0.25, 0.0), (0.5, 0.0, 0.0), 1234, 99)
    assert usage.pressure["io"].some_us == 5 and "memory" not in usage.pressure


def test_usage_on_v1(tmp_path):
    group = {
        "cpuacct": write(
            tmp_path / "cpuacct",
            {"cpuacct.usage": "3000\n", "cpuacct.usage_user": "2000\n", "cpuacct.usage_sys": "1000\n"},
        ),
        "cpu": write(tmp_path / "cpu", {"cpu.stat": "nr_periods 7\nnr_throttled 3\nthrottled_time 44\n"}),
        "memory": write(
            tmp_path / "memory",
            {
                "memory.usage_in_bytes": "4096000\n", "memory.limit_in_bytes": "9223372036854771712\n",
                "memory.max_usage_in_bytes": "5000000\n",
                "memory.stat": "cache 1\ntotal_cache 3000000\ntotal_inactive_file 1000000\ntotal_swap 11\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            },
        ),
        "pids": write(tmp_path / "pids", {"pids.current": "5\n", "pids.max": "10\n"}),
        "blkio": write(
            tmp_path / "blkio",
            {
                "blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n"
                "Total 30\n",
                "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
            },
        ),
    }  # fmt: skip
    usage = stats.usage(group)
    assert (usage.cpu_ns, usage.cpu_user_ns, usage.cpu_system_ns) == (3000, 2000, 1000)
    assert (usage.periods, usage.throttled_periods, usage.throttled_ns) == (7, 3, 44)
    assert (usage.memory, usage.memory_limit, usage.memory_peak, usage.swap) == (4096000, None, 5000000, 11)
    assert (usage.cache, usage.working_set, usage.oom_kills) == (3000000, 3096000, 1)
    assert (usage.pids, usage.pids_limit) == (5, 10)
    assert usage.io == {"8:0": stats.DiskUsage(10, 20, 1, 2)}


def test_usage_of_a_group_that_is_gone():
    usage = stats.usage(dict.fromkeys(("unified", "cpu", "memory", "pids", "io"), "/nowhere"))
    assert (usage.cpu_ns, usage.memory, usage.pids, usage.io, usage.pressure) == (0, 0, 0, {}, {})


def test_fraction_of_a_processor():
    before, after = stats.Usage(1_000, cpu_ns=500), stats.Usage(2_000, cpu_ns=2_500)
    assert after.cpu_fraction(before) == 2.0
    assert before.cpu_fraction(before) == 0.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.events", "oom 3\noom_kill 2\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_kills_are_counted_on_either_version(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert oom.oom_kills(["/nowhere", str(tmp_path)]) == 2
    assert oom.oom_kills(["/nowhere"]) == 0
    assert oom.watch(["/nowhere"]) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("max\n", None), ("-1\n", None), ("9223372036854771712\n", None), ("0\n", 0), ("12\n", 12)],
)
def test_numbers_without_a_limit(tmp_path, text, value):
    (tmp_path / "file").write_text(text)
    assert files.number(f"{tmp_path}/file") == value


MOUNTS = {
    "v2": "30 24 0:26 / {root}/two rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
    "v1": "31 24 0:27 / {root}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 24 0:28 / {root}/cpuset rw - cgroup cgroup rw,cpuset\n"
    "33 24 0:29 / {root}/memory rw - cgroup cgroup rw,memory\n"
    "34 24 0:30 / {root}/systemd rw - cgroup cgroup rw,name=systemd\n",
}  # fmt: skip


def mounted(tmp_path: Path, *kinds: str) -> Hierarchies:
    (tmp_path / "two").mkdir()
    (tmp_path / "two/cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "mountinfo").write_text("".join(MOUNTS[kind].format(root=tmp_path) for kind in kinds))
    return detect(f"{tmp_path}/mountinfo")


def test_hierarchies_are_found_in_mountinfo(tmp_path):
    found = mounted(tmp_path, "v1", "v2")
    assert found.version == "hybrid"
    assert found.always() == [f"{tmp_path}/cpu,cpuacct", f"{tmp_path}/memory", f"{tmp_path}/two"]
    assert found.directories() == [f"{tmp_path}/cpuset", *found.always()]  # one that is made on demand
    assert found.v2_controllers == ("cpu", "memory")


def test_v2_alone(tmp_path):
    found = mounted(tmp_path, "v2")
    assert (found.version, found.directories()) == ("v2", [f"{tmp_path}/two"])


def test_own_path_is_that_of_v2(tmp_path):
    (tmp_path / "cgroup").write_text("3:memory:/elsewhere\n1:name=systemd:/x\n0::/user.slice/a b\n")
    assert delegation.own_path(f"{tmp_path}/cgroup") == "/user.slice/a b"
    (tmp_path / "cgroup").write_text("3:memory:/elsewhere\n")
    assert delegation.own_path(f"{tmp_path}/cgroup") == ""


def test_controllers_are_handed_down_from_the_top(tmp_path):
    """Each group on the way gets what it lacks and is offered; the container's own group does not."""
    for directory in ("", "ours", "ours/one"):
        path = tmp_path / directory
        path.mkdir(exist_ok=True)
        (path / "cgroup.controllers").write_text("cpu memory pids\n")
        (path / "cgroup.subtree_control").write_text("cpu\n" if not directory else "\n")
    delegation.enable(str(tmp_path), "ours/one", ("cpu", "memory", "hugetlb"))
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
    assert (tmp_path / "ours/cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (tmp_path / "ours/one/cgroup.subtree_control").read_text() == "\n"
