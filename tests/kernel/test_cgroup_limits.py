"""Limits by their effect: workloads that meet them, on whichever cgroup version this machine has.

The same file is for v1, hybrid and v2. A test asks the hierarchy, never the version, for what it needs.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from pathlib import Path

import pytest

from minicontainer.cgroup import limits, oom, stats
from minicontainer.cgroup.group import Group
from minicontainer.errors import StepError
from tests.kernel.cgroup_workload import limited_groups, needs_controller

pytestmark = pytest.mark.needs("cgroups")

MIB = 1 << 20


@pytest.fixture
def make():
    with limited_groups() as new:
        yield new


# --- memory -------------------------------------------------------------------------------------------------------

_EAT = """
held = []
for megabyte in range(int(sys.argv[1])):
    held.append(bytearray(os.urandom(4096) * 256))
    os.write(1, b".")
"""


def test_memory_beyond_the_limit_is_answered_by_the_oom_killer(make):
    needs_controller("memory")
    limited = make(memory={"limit": 40 * MIB, "swap": 40 * MIB})
    event = oom.watch(limited.group.directories)
    try:
        assert oom.oom_kills(limited.group.directories) == 0
        status, out = limited.run(_EAT, 160)
        assert status == -signal.SIGKILL
        assert 20 <= len(out) <= 40  # an interpreter needs a few as well
        assert oom.oom_kills(limited.group.directories) == 1
        assert select.select([event], [], [], 5)[0], "the event never came"
    finally:
        os.close(event)
    usage = limited.usage
    assert usage.oom_kills == 1 and usage.oom_events >= 1
    assert usage.memory_limit == 40 * MIB
    assert usage.memory_peak is None or 20 * MIB < usage.memory_peak <= 40 * MIB


def test_memory_below_the_limit_is_given(make):
    needs_controller("memory")
    limited = make(memory={"limit": 40 * MIB, "swap": 40 * MIB})
    status, out = limited.run(_EAT, 12)
    assert (status, len(out)) == (0, 12)
    assert oom.oom_kills(limited.group.directories) == 0


def test_limit_below_what_is_in_use(make):
    """v1 refuses it; v2 takes it and kills, unless asked to look before."""
    needs_controller("memory")
    limited = make(memory={"limit": 64 * MIB, "swap": 64 * MIB})
    process = limited.start(_EAT + "import time\nos.write(1, b'!')\ntime.sleep(60)", 24)
    while process.stdout.read(1) != "!":
        pass
    assert limited.usage.memory > 24 * MIB
    with pytest.raises(StepError) as caught:
        limits.update(
            limited.group, {"memory": {"limit": 8 * MIB, "swap": 8 * MIB, "checkBeforeUpdate": True}}
        )
    assert caught.value.errno == errno.EBUSY
    assert "bytes now" in caught.value.hint
    assert process.poll() is None
    if "memory" in limited.group.hierarchies.v1:
        with pytest.raises(StepError, match="refuses '8388608': Device or resource busy"):
            limits.update(limited.group, {"memory": {"limit": 8 * MIB, "swap": 8 * MIB}})
    limits.update(limited.group, {"memory": {"limit": 128 * MIB, "swap": 128 * MIB}})
    assert limited.usage.memory_limit == 128 * MIB
    limits.update(limited.group, {"memory": {"limit": 48 * MIB, "swap": 64 * MIB}})
    assert limited.usage.memory_limit == 48 * MIB
    limits.update(limited.group, {"memory": {"limit": -1}})
    assert limited.usage.memory_limit is None


def test_without_the_oom_killer_a_process_waits_for_memory(make):
    limited = make(memory={"limit": 40 * MIB, "swap": 40 * MIB, "disableOOMKiller": True, "swappiness": 0})
    directory = limited.group.controllers().get("memory", "")
    if not os.path.exists(f"{directory}/memory.oom_control"):
        pytest.skip("cgroup v2 has no such choice: limits.ignored() says so")
    process = limited.start(_EAT, 60)
    deadline = time.monotonic() + 20
    while "under_oom 1" not in Path(directory, "memory.oom_control").read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    limits.update(limited.group, {"memory": {"limit": 100 * MIB, "swap": 100 * MIB}})
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, len(out)) == (0, 60)
    assert oom.oom_kills(limited.group.directories) == 0
    assert Path(directory, "memory.swappiness").read_text() == "0\n"


# --- processor ----------------------------------------------------------------------------------------------------

_SPIN = """
import time
begin, end = time.process_time(), time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pass
print(time.process_time() - begin)
"""


def test_cpu_quota_holds_back(make):
    needs_controller("cpu")
    limited = make(cpu={"quota": 20_000, "period": 100_000})
    before = limited.usage
    status, out = limited.run(_SPIN, 1.5)
    after = limited.usage
    assert status == 0
    assert 0.05 <= float(out) / 1.5 <= 0.3  # 0.2 was asked for
    assert after.throttled_periods >= 5 and after.throttled_ns > 100_000_000
    assert after.periods >= after.throttled_periods
    assert 0.05 <= after.cpu_fraction(before) <= 0.3
    assert after.cpu_ns >= float(out) * 0.9e9


def test_cpu_without_a_quota_is_not_held_back(make):
    needs_controller("cpu")
    limited = make(cpu={"shares": 1024})
    _, out = limited.run(_SPIN, 0.5)
    assert limited.usage.throttled_periods == 0
    assert float(out) > 0


def test_cpu_shares_divide_one_processor(make):
    needs_controller("cpu")
    pin = f"os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\n"
    rich, poor = make(cpu={"shares": 4096}), make(cpu={"shares": 256})
    both = [limited.start(pin + _SPIN, 2) for limited in (rich, poor)]
    used = [float(process.communicate(timeout=60)[0]) for process in both]
    assert used[0] > 2.5 * used[1], used


def test_cpu_limits_change_in_any_order(make):
    """Quota, period and burst must fit together after each write: large to small, and small to large."""
    needs_controller("cpu")
    limited = make(cpu={"quota": 900_000, "period": 1_000_000, "burst": 500_000})
    for quota, period, burst in ((2_000, 10_000, 1_000), (800_000, 1_000_000, 700_000), (-1, 100_000, 0)):
        limits.update(limited.group, {"cpu": {"quota": quota, "period": period, "burst": burst}})
    with pytest.raises(StepError) as caught:
        limits.update(limited.group, {"cpu": {"period": 5}})
    assert caught.value.errno == errno.EINVAL and "1000 to 1000000" in caught.value.hint


def test_realtime_time_that_the_groups_above_do_not_have_is_refused_in_words(make):
    needs_controller("cpu")
    limited = make()
    if not os.path.exists(f"{limited.group.controllers()['cpu']}/cpu.rt_runtime_us"):
        pytest.skip("this kernel's cpu controller does not divide realtime CPU time")
    with pytest.raises(StepError, match="cpu.rt_runtime_us refuses '10000'") as caught:
        limits.update(limited.group, {"cpu": {"realtimeRuntime": 10_000, "realtimePeriod": 1_000_000}})
    assert "groups above" in caught.value.hint


def test_cpuset_is_the_affinity(make):
    needs_controller("cpuset")
    last = max(os.sched_getaffinity(0))
    limited = make(cpu={"cpus": str(last), "mems": "0"})
    _, out = limited.run("print(sorted(os.sched_getaffinity(0)))")
    assert json.loads(out) == [last]


def test_cpuset_can_come_later(make):
    """On v1 the container had no cpuset group before: it is made, and the running processes move."""
    needs_controller("cpuset")
    limited = make(pids={"limit": 50})
    process = limited.start("print(flush=True)\nimport time\ntime.sleep(60)")
    process.stdout.readline()
    before = os.sched_getaffinity(process.pid)
    last = max(before)
    limits.update(limited.group, {"cpu": {"cpus": str(last)}})
    assert os.sched_getaffinity(process.pid) == {last}


def test_processors_that_are_not_there_are_refused_in_words(make):
    needs_controller("cpuset")
    count = os.cpu_count() or 1
    with pytest.raises(StepError) as caught:
        make(cpu={"cpus": str(count + 1)})
    assert "cpuset.cpus" in caught.value.path
    assert f"0-{count - 1}" in caught.value.hint or count == 1


# --- tasks --------------------------------------------------------------------------------------------------------

_FORK = """
children = []
try:
    while len(children) < 50:
        pid = os.fork()
        if pid == 0:
            import time
            time.sleep(60)
            os._exit(0)
        children.append(pid)
except OSError as error:
    print(len(children), error.errno, flush=True)
sys.stdin.read() if len(sys.argv) > 1 else None
for pid in children:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""


def test_fork_fails_at_the_limit_of_tasks(make):
    needs_controller("pids")
    limited = make(pids={"limit": 6})
    _, out = limited.run(_FORK)
    assert out.split() == ["5", str(errno.EAGAIN)]  # the forker is the sixth
    assert limited.usage.pids_limit == 6
    limits.update(limited.group, {"pids": {"limit": 9}})
    _, out = limited.run(_FORK)
    assert out.split() == ["8", str(errno.EAGAIN)]
    limits.update(limited.group, {"pids": {"limit": -1}})
    assert limited.usage.pids_limit is None


def test_unified_sets_files_of_v2(make):
    limited = make()
    if "unified" not in limited.group.controllers():
        pytest.skip("no cgroup v2 on this machine")
    if "pids" in limited.group.hierarchies.v1:  # hybrid: v2 has no pids controller to set
        with pytest.raises(StepError, match="pids.max refuses '3': No such file"):
            limits.update(limited.group, {"unified": {"pids.max": "3"}})
        return
    limits.update(limited.group, {"unified": {"pids.max": "3"}})
    _, out = limited.run(_FORK)
    assert out.split() == ["2", str(errno.EAGAIN)]


# --- disks --------------------------------------------------------------------------------------------------------

_READ = """
import mmap, time
descriptor = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 1 << 16)
begin = time.monotonic()
done = 0
while done < int(sys.argv[2]):
    done += os.preadv(descriptor, [buffer], done)
print(time.monotonic() - begin)
"""


def disk_to_read(directory: Path) -> tuple[str, int, int]:
    """A file on a real disk, or a disk, and the numbers of the whole disk."""
    status = directory.stat()
    block = Path(f"/sys/dev/block/{os.major(status.st_dev)}:{os.minor(status.st_dev)}")
    if block.exists():
        data = directory / "data"
        with open(data, "wb") as file:
            file.write(os.urandom(4 * MIB))
            os.fsync(file.fileno())
        found, path = block.resolve(), str(data)
    else:
        disks = [
            disk
            for disk in sorted(Path("/sys/block").iterdir())
            if disk.name[:2] in ("vd", "sd", "nv") and int((disk / "size").read_text()) >= 8192
        ]
        if not disks:
            pytest.skip("no disk to read from: only file systems without one, as in some virtual machines")
        found = disks[0].resolve()
        path = f"/dev/{found.name}"
    if (found / "partition").exists():
        found = found.parent
    major, minor = (found / "dev").read_text().split(":")
    return path, int(major), int(minor)


def test_reads_are_slowed_to_the_limit(make, tmp_path):
    needs_controller("blkio", "io")
    path, major, minor = disk_to_read(tmp_path)
    rate = 2 * MIB
    disk = {"major": major, "minor": minor}
    limited = make(blockIO={"throttleReadBpsDevice": [{**disk, "rate": rate}]})
    before = limited.usage.io.get(f"{major}:{minor}", stats.DiskUsage())
    _, out = limited.run(_READ, path, 4 * MIB)
    speed = 4 * MIB / float(out)
    assert 0.5 * rate <= speed <= 1.5 * rate, speed
    after = limited.usage.io[f"{major}:{minor}"]
    assert after.read_bytes - before.read_bytes >= 4 * MIB
    assert after.reads > before.reads
    limits.update(limited.group, {"blockIO": {"throttleReadBpsDevice": [{**disk, "rate": 0}]}})  # none
    _, out = limited.run(_READ, path, 4 * MIB)
    assert 4 * MIB / float(out) > 2 * rate


def test_operations_are_counted_too(make, tmp_path):
    needs_controller("blkio", "io")
    path, major, minor = disk_to_read(tmp_path)
    limited = make(blockIO={"throttleReadIOPSDevice": [{"major": major, "minor": minor, "rate": 20}]})
    _, out = limited.run(_READ, path, 2 * MIB)  # 32 reads of 64 KiB
    assert 0.7 <= float(out) <= 3.5


def test_disk_that_is_not_there_is_refused_in_words(make):
    needs_controller("blkio", "io")
    with pytest.raises(StepError) as caught:
        make(blockIO={"throttleReadBpsDevice": [{"major": 4000, "minor": 9, "rate": 1}]})
    assert "4000:9" in str(caught.value)
    assert "disk" in caught.value.hint


# --- the whole container ------------------------------------------------------------------------------------------


def test_container_is_killed_at_its_memory_limit(bundle):
    needs_controller("memory")
    bundle.config["linux"]["resources"]["memory"] = {"limit": 32 * MIB, "swap": 32 * MIB}
    process = bundle.create("sh", "-c", "exec tail /dev/zero")
    process.start()
    group = Group(bundle.config["linux"]["cgroupsPath"])
    assert bundle.wait(process) == 137
    assert oom.oom_kills(group.directories) == 1


def test_container_that_cannot_even_start_says_why(bundle):
    needs_controller("memory")
    bundle.config["linux"]["resources"]["memory"] = {"limit": MIB // 2, "swap": MIB // 2}
    with pytest.raises(StepError) as caught:
        bundle.create("true")
    assert "memory limit is too small" in caught.value.hint


def test_frozen_group_can_be_killed(make):
    limited = make()
    process = limited.start(_COUNT)
    assert process.stdout.read(1) == "."
    limited.group.freeze(True)
    assert limited.group.frozen()
    limited.group.kill()
    assert process.wait(10) == -signal.SIGKILL


def test_container_feels_its_other_limits(bundle):
    needs_controller("pids")
    needs_controller("cpuset")
    last = max(os.sched_getaffinity(0))
    bundle.config["linux"]["resources"] |= {"pids": {"limit": 4}, "cpu": {"cpus": str(last), "shares": 512}}
    _, out, err = bundle.run(
        "sh", "-c", "grep Cpus_allowed_list /proc/self/status; for i in 1 2 3 4 5; do sleep 1 & done; wait"
    )
    assert out.split()[1] == str(last)
    assert "fork" in err and ("unavailable" in err or "again" in err)
    group = Group(bundle.config["linux"]["cgroupsPath"])
    assert [directory for directory in group.directories if os.path.exists(directory)] == []


def test_failed_limit_leaves_nothing(bundle):
    needs_controller("pids")
    bundle.config["linux"]["resources"]["pids"] = {"limit": 1 << 40}
    with pytest.raises(StepError) as caught:
        bundle.create("true")
    assert caught.value.step == "limit"
    assert "pids.max refuses '1099511627776'" in str(caught.value)
    group = Group(bundle.config["linux"]["cgroupsPath"])
    assert not any(os.path.exists(directory) for directory in group.directories)


def test_container_without_limits_has_no_cpuset_group(bundle):
    """It would cost each start a group more, and on v1 mean nothing until it is filled."""
    process = bundle.create("sleep", "100")
    group = Group(bundle.config["linux"]["cgroupsPath"])
    assert not os.path.exists(f"{group.hierarchies.v1.get('cpuset', '/nowhere')}/{group.path}")
    process.abandon()


def test_learners_limit_takes_the_place_of_ours(bundle):
    from minicontainer.runtime import steps

    needs_controller("pids")

    seen = []
    bundle.config["linux"]["resources"]["pids"] = {"limit": 7}
    with steps.use(limit=lambda group, resources: seen.append((group, resources))):
        bundle.create("true").abandon()
    ((group, resources),) = seen
    assert resources["pids"] == {"limit": 7}
    assert all(os.path.isdir(directory) for directory in group.values())
    assert Path(group["pids"], "pids.max").read_text().strip() == "max"  # ours has not run


# --- pressure, freezer, removal -----------------------------------------------------------------------------------


def test_usage_counts_tasks_and_time(make):
    needs_controller("pids")
    limited = make(pids={"limit": 50})
    process = limited.start("held = os.urandom(4 << 20)\nprint(flush=True)\nimport time\ntime.sleep(60)")
    process.stdout.readline()
    usage = limited.usage
    assert usage.pids == 1
    assert usage.cpu_ns > 0 and usage.cpu_user_ns + usage.cpu_system_ns <= usage.cpu_ns * 1.1
    if "memory" in limited.group.controllers():
        assert 4 * MIB < usage.memory < 64 * MIB
        assert usage.working_set <= usage.memory


_COUNT = """
import time
while True:
    os.write(1, b".")
    time.sleep(0.002)
"""


def freezers(group: Group) -> list[str]:
    names = ("cgroup.freeze", "freezer.state")
    return [d for d in group.directories if any(os.path.exists(f"{d}/{name}") for name in names)]


def test_frozen_group_makes_no_progress_and_goes_on_after(make):
    """Each freezer there is: on a hybrid machine both versions' are tried."""
    from minicontainer.cgroup import freezer

    limited = make()
    assert freezers(limited.group)
    process = limited.start(_COUNT)
    output = process.stdout.fileno()
    for directory in freezers(limited.group):
        assert select.select([output], [], [], 10)[0]
        freezer.freeze([directory], True)
        assert freezer.frozen([directory])
        while select.select([output], [], [], 0)[0]:
            os.read(output, 1 << 16)
        time.sleep(0.2)
        assert not select.select([output], [], [], 0)[0], "a frozen process wrote"
        freezer.freeze([directory], False)
        assert not freezer.frozen([directory])
        assert select.select([output], [], [], 10)[0], "a thawed process does not go on"


def test_groups_that_the_container_made_go_with_it(make):
    limited = make()
    for directory in limited.group.directories:
        if os.path.exists(directory):
            os.makedirs(f"{directory}/below/deeper")
    process = limited.start("print(flush=True)\nimport time\ntime.sleep(60)")
    process.stdout.readline()
    for directory in limited.group.directories:
        if os.path.exists(f"{directory}/below/deeper/cgroup.procs") and "cpuset" not in directory:
            Path(f"{directory}/below/deeper/cgroup.procs").write_text(str(process.pid))
    assert process.pid in limited.group.processes()
    limited.group.kill()
    assert process.wait(10) == -signal.SIGKILL
    limited.group.remove()
    assert not any(os.path.exists(directory) for directory in limited.group.directories)
