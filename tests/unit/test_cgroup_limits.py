"""What limits write: OCI resources against a tree of plain files that stands for the kernel's."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cgroup import files, limits, v1, v2
from minicontainer.errors import StepError

MIB = 1 << 20


@pytest.fixture
def writes(monkeypatch) -> list[tuple[str, str]]:
    """Everything written, in order, as (file name, value)."""
    seen: list[tuple[str, str]] = []
    put = files.put

    def recording(path: str, value: str) -> None:
        put(path, value)
        seen.append((path.rpartition("/")[2], value))

    monkeypatch.setattr(files, "put", recording)
    return seen


def tree(directory: Path, **contents: str) -> str:
    for name, text in contents.items():
        (directory / name.replace("__", ".")).write_text(text)
    return str(directory)


def v2_tree(directory: Path) -> dict[str, str]:
    path = tree(
        directory,
        memory__max="max\n", memory__swap__max="max\n", memory__low="0\n", memory__current="5000000\n",
        cpu__max="max 100000\n", cpu__weight="100\n", cpu__max__burst="0\n", cpu__idle="0\n", cpuset__cpus="\n",
        cpuset__cpus__effective="0-1,3\n", cpuset__mems="\n", pids__max="max\n", io__max="", io__weight="default 100\n",
        hugetlb__2MB__max="max\n", hugetlb__2MB__rsvd__max="max\n", memory__high="max\n",
    )  # fmt: skip
    return dict.fromkeys(("unified", "memory", "cpu", "cpuset", "pids", "io", "hugetlb"), path)


def v1_tree(directory: Path) -> dict[str, str]:
    found = {}
    for name, contents in {
        "memory": {"memory.limit_in_bytes": "", "memory.memsw.limit_in_bytes": "", "memory.soft_limit_in_bytes": "",
                   "memory.swappiness": "60", "memory.oom_control": "oom_kill_disable 0"},
        "cpu": {"cpu.shares": "1024", "cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000", "cpu.cfs_burst_us": "0",
                "cpu.rt_period_us": "1000000", "cpu.rt_runtime_us": "0", "cpu.idle": "0"},
        "cpuset": {"cpuset.cpus": "", "cpuset.mems": ""},
        "pids": {"pids.max": "max"},
        "blkio": {"blkio.throttle.read_bps_device": "", "blkio.throttle.write_iops_device": "", "blkio.weight": "",
                  "blkio.weight_device": "", "blkio.leaf_weight": "", "blkio.leaf_weight_device": ""},
        "hugetlb": {"hugetlb.2MB.limit_in_bytes": ""},
        "net_cls": {"net_cls.classid": ""}, "net_prio": {"net_prio.ifpriomap": ""},
    }.items():  # fmt: skip
        (directory / name).mkdir()
        for file, text in contents.items():
            (directory / name / file).write_text(text)
        found[name] = str(directory / name)
    return found


ALL = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB, "swappiness": 0},
    "cpu": {"shares": 512, "quota": 50_000, "period": 200_000, "burst": 10_000, "cpus": "0-1,3", "mems": "0"},
    "pids": {"limit": 100},
    "blockIO": {
        "weight": 500, "leafWeight": 300,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 1000}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
    "devices": [{"allow": False}],
}  # fmt: skip


def test_v2_files_for_everything(tmp_path, writes):
    limits.limit(v2_tree(tmp_path), ALL)
    assert writes == [
        ("memory.swap.max", str(32 * MIB)), ("memory.max", str(64 * MIB)), ("memory.low", str(32 * MIB)),
        ("cpu.weight", "59"), ("cpu.max", "50000 200000"), ("cpu.max.burst", "10000"),
        ("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0"),
        ("pids.max", "100"),
        ("io.weight", "default 4950"), ("io.weight", "8:0 1"), ("io.max", "8:0 rbps=1048576"),
        ("io.max", "8:16 wiops=max"),
        ("hugetlb.2MB.max", str(4 * MIB)), ("hugetlb.2MB.rsvd.max", str(4 * MIB)),
    ]  # fmt: skip


def test_v1_files_for_everything(tmp_path, writes):
    limits.limit(
        v1_tree(tmp_path),
        ALL | {"network": {"classID": 0x100001, "priorities": [{"name": "eth0", "priority": 5}]}},
    )
    assert writes == [
        ("memory.limit_in_bytes", str(64 * MIB)), ("memory.memsw.limit_in_bytes", str(96 * MIB)),
        ("memory.soft_limit_in_bytes", str(32 * MIB)), ("memory.swappiness", "0"),
        ("cpu.shares", "512"), ("cpu.cfs_period_us", "200000"), ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_burst_us", "10000"),
        ("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0"),
        ("pids.max", "100"),
        ("blkio.weight", "500"), ("blkio.leaf_weight", "300"), ("blkio.weight_device", "8:0 10"),
        ("blkio.leaf_weight_device", "8:0 1000"), ("blkio.throttle.read_bps_device", "8:0 1048576"),
        ("blkio.throttle.write_iops_device", "8:16 0"),
        ("hugetlb.2MB.limit_in_bytes", str(4 * MIB)),
        ("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "eth0 5"),
    ]  # fmt: skip


def test_each_controller_goes_where_it_is_on_a_hybrid_machine(tmp_path, writes):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    unified = v2_tree(tmp_path / "two")
    group = v1_tree(tmp_path / "one") | {"unified": unified["unified"], "pids": unified["pids"]}
    limits.limit(group, {"memory": {"limit": MIB}, "pids": {"limit": 3}, "unified": {"memory.high": "1000"}})
    assert writes == [("memory.limit_in_bytes", str(MIB)), ("pids.max", "3"), ("memory.high", "1000")]
    assert Path(unified["pids"], "pids.max").read_text() == "3"


def test_zeros_of_docker_ask_for_nothing():
    resources = {
        "memory": {"limit": 0, "swap": 0, "disableOOMKiller": False, "reservation": None},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
        "blockIO": {"weight": 0, "weightDevice": [], "throttleReadBpsDevice": None},
        "pids": {}, "hugepageLimits": [], "unified": {}, "network": {},
    }  # fmt: skip
    assert limits.controllers(resources) == set()
    limits.limit({}, resources)


def test_controllers_by_both_names():
    assert limits.controllers({"blockIO": {"weight": 10}}) == {"blkio", "io"}
    assert limits.controllers({"cpu": {"cpus": "0"}}) == {"cpuset"}
    assert limits.controllers({"cpu": {"shares": 2, "cpus": "0"}}) == {"cpu", "cpuset"}
    assert limits.controllers({"unified": {"memory.high": "1", "pids.max": "2"}}) == {"memory", "pids"}
    assert limits.controllers({"pids": {"limit": 0}}) == {"pids"}


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (1, 1), (2, 1), (1024, 100), (262144, 10000), (999999, 10000), (512, 59), (2048, 174)],
)
def test_shares_become_weight(shares, weight):
    assert v2.shares_to_weight(shares) == weight


@given(st.integers(2, 262143))
def test_weight_grows_with_shares_and_stays_in_range(shares):
    assert 1 <= v2.shares_to_weight(shares) <= v2.shares_to_weight(shares + 1) <= 10000


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    [
        (100, 0, None), (0, 0, None), (-1, 0, "max"), (100, -1, "max"), (0, -1, "max"), (100, 100, "0"),
        (100, 250, "150"),
    ],
)  # fmt: skip
def test_total_of_memory_and_swap_becomes_swap_alone(limit, swap, expected):
    assert v2.swap_maximum(limit, swap) == expected


@pytest.mark.parametrize(
    ("limit", "swap", "words"), [(0, 100, "needs a limit on memory"), (200, 100, "is smaller than")]
)
def test_totals_that_make_no_sense_are_refused(limit, swap, words):
    with pytest.raises(StepError, match=words):
        v2.swap_maximum(limit, swap)


def test_swap_alone_is_changed_against_the_limit_in_force(tmp_path, writes):
    group = v2_tree(tmp_path)
    (tmp_path / "memory.max").write_text("1000\n")
    limits.limit(group, {"memory": {"swap": 1500}})
    assert writes == [("memory.swap.max", "500")]


def test_kernel_without_swap_may_be_asked_for_none(tmp_path, writes):
    group = v2_tree(tmp_path)
    (tmp_path / "memory.swap.max").unlink()
    limits.limit(group, {"memory": {"limit": 100, "swap": 100}})
    assert writes == [("memory.max", "100")]
    with pytest.raises(StepError, match=r"memory\.swap\.max refuses '50': No such file"):
        limits.limit(group, {"memory": {"limit": 100, "swap": 150}})


@pytest.mark.parametrize(
    ("wanted", "now", "written"),
    [
        ({"quota": 5000}, "max 100000", "5000 100000"),
        ({"period": 50000}, "20000 100000", "20000 50000"),
        ({"quota": -1}, "20000 70000", "max 70000"),
        ({"quota": 5000, "period": 10000}, "", "5000 10000"),
    ],
)
def test_quota_and_period_share_a_file(tmp_path, writes, wanted, now, written):
    group = v2_tree(tmp_path)
    (tmp_path / "cpu.max").write_text(now + "\n")
    limits.limit(group, {"cpu": wanted})
    assert writes == [("cpu.max", written)]


def test_processors_that_v2_would_not_give_are_refused(tmp_path):
    with pytest.raises(StepError, match=r"cpuset\.cpus refuses '7'"):
        limits.limit(v2_tree(tmp_path), {"cpu": {"cpus": "7"}})


def test_bfq_keeps_the_range_of_v1(tmp_path, writes):
    group = v2_tree(tmp_path)
    (tmp_path / "io.bfq.weight").write_text("default 100\n")
    weights = {"weight": 700, "weightDevice": [{"major": 8, "minor": 0, "weight": 20}]}
    limits.limit(group, {"blockIO": weights})
    assert writes == [("io.bfq.weight", "700"), ("io.bfq.weight", "8:0 20")]


@pytest.mark.parametrize(
    "name",
    ["../memory.max", "/etc/passwd", "a/b.c", "..", "", "memory", "cgroup.procs", "cgroup.kill", ".max"],
)
def test_unified_names_are_files_of_the_group(tmp_path, name):
    group = v2_tree(tmp_path)
    (tmp_path / "cgroup.procs").write_text("")
    with pytest.raises(StepError, match="is not the name of a limit"):
        limits.limit(group, {"unified": {name: "1"}})


def test_unified_lines_are_one_write_each(tmp_path, writes):
    limits.limit(v2_tree(tmp_path), {"unified": {"io.max": "8:0 rbps=5\n8:16 wbps=6"}})
    assert writes == [("io.max", "8:0 rbps=5"), ("io.max", "8:16 wbps=6")]


def test_unified_file_that_is_not_there(tmp_path):
    with pytest.raises(StepError) as caught:
        limits.limit(v2_tree(tmp_path), {"unified": {"misc.max": "1"}})
    assert "does not offer misc.max" in caught.value.hint
    assert not (tmp_path / "misc.max").exists()


def test_unified_needs_v2(tmp_path):
    with pytest.raises(StepError, match="needs cgroup v2"):
        limits.limit(v1_tree(tmp_path), {"unified": {"memory.high": "1"}})


@pytest.mark.parametrize(
    ("resources", "words", "hint"),
    [
        ({"pids": {"limit": 1}}, "no pids controller", "subtree_control"),
        ({"blockIO": {"weight": 10}}, "no io controller", "subtree_control"),
        ({"network": {"classID": 1}}, "no net_cls controller", "v1 only"),
        ({"rdma": {"mlx": {"hcaHandles": 1}}}, "rdma is not supported", "leave it out"),
        ({"cpu": {"realtimeRuntime": 5}}, "realtime", "rtprio"),
    ],
)
def test_what_v2_lacks_is_said(tmp_path, resources, words, hint):
    path = tree(tmp_path)
    with pytest.raises(StepError, match=words) as caught:
        limits.limit({"unified": path, "cpu": path}, resources)
    assert hint in caught.value.hint


def test_ordinary_user_without_a_group_is_told_what_to_do():
    with pytest.raises(StepError) as caught:
        limits.limit({}, {"memory": {"limit": MIB}})
    assert "Delegate=yes" in caught.value.hint


def test_what_has_no_effect_is_named(tmp_path):
    resources = {
        "memory": {"kernel": 5, "swappiness": 3, "disableOOMKiller": True},
        "blockIO": {"leafWeight": 20},
    }
    words = " ".join(limits.ignored(v2_tree(tmp_path), resources))
    assert all(name in words for name in ("memory.kernel:", "swappiness", "disableOOMKiller", "leafWeight"))
    (tmp_path / "one").mkdir()
    assert [text.split(":")[0] for text in limits.ignored(v1_tree(tmp_path / "one"), resources)] == [
        "memory.kernel"
    ]


def test_dependent_files_are_written_in_the_order_the_kernel_takes(monkeypatch):
    """A kernel whose total may never be below its limit, as memory and memsw are on v1."""
    state = {"limit": 100, "total": 100}

    def put(path: str, value: str) -> None:
        after = state | {path.rpartition("/")[2]: int(value)}
        if after["total"] < after["limit"]:
            raise OSError(errno.EINVAL, "Invalid argument")
        state.update(after)

    monkeypatch.setattr(files, "put", put)
    files.settle("/group", [("limit", "500"), ("total", "600")])
    assert state == {"limit": 500, "total": 600}
    files.settle("/group", [("total", "60"), ("limit", "50")])
    assert state == {"limit": 50, "total": 60}
    with pytest.raises(StepError, match="limit refuses '70'"):
        files.settle("/group", [("limit", "70")])
    assert state == {"limit": 50, "total": 60}


def test_cpuset_of_v1_is_filled_on_the_way_down(tmp_path):
    for directory, cpus in ((tmp_path, "0-3\n"), (tmp_path / "ours", "\n"), (tmp_path / "ours/one", "\n")):
        directory.mkdir(exist_ok=True)
        (directory / "cpuset.cpus").write_text(cpus)
        (directory / "cpuset.mems").write_text("0\n" if directory == tmp_path else "\n")
    v1.fill_cpuset(str(tmp_path), "ours/one")
    assert (tmp_path / "ours/one/cpuset.cpus").read_text() == "0-3"
    assert (tmp_path / "ours/cpuset.mems").read_text() == "0"


@given(st.sets(st.integers(0, 200)))
def test_lists_of_processors(members):
    parts, ordered = [], sorted(members)
    while ordered:
        first = last = ordered.pop(0)
        while ordered and ordered[0] == last + 1:
            last = ordered.pop(0)
        parts.append(str(first) if first == last else f"{first}-{last}")
    assert v2.numbers(",".join(parts)) == members
