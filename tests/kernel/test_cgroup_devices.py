"""Device rules by their effect: EPERM where a program opens a device or makes a node, with v1's list and v2's program.

A hybrid machine tries both: the BPF program works in its v2 tree too.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minicontainer.cgroup import devices
from minicontainer.cgroup.devices import DEFAULT_RULES, allow_devices
from minicontainer.errors import StepError
from tests.kernel.cgroup_workload import limited_groups

pytestmark = pytest.mark.skipif(
    not devices.is_real_root(), reason="only the real root can set device rules, not that of a user namespace"
)
NULL, ZERO, KMSG = (1, 3), (1, 5), (1, 11)

_TRY = """
import errno, stat
directory = sys.argv[1]
def attempt(call, *arguments):
    try:
        result = call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    if call is os.open:
        os.close(result)
    return "ok"
def report():
    words = []
    for name in sys.argv[2].split(","):
        path = directory + "/" + name
        words += [attempt(os.open, path, os.O_RDONLY), attempt(os.open, path, os.O_WRONLY)]
        major, minor = name.split(":")
        made = directory + "/made"
        words.append(attempt(os.mknod, made, stat.S_IFCHR | 0o600, os.makedev(int(major), int(minor))))
        if words[-1] == "ok":
            os.unlink(made)
    print(*words, flush=True)
report()
if len(sys.argv) > 3:
    while sys.stdin.readline():
        report()
"""


@pytest.fixture
def make():
    with limited_groups() as new:
        yield new


@pytest.fixture(params=["devices", "unified"])
def group(request, make):
    """A group, and the part of it that rules are to go to."""
    limited = make()
    directories = limited.group.controllers()
    if request.param not in directories:
        pytest.skip("no devices controller of v1 here" if request.param == "devices" else "no cgroup v2 here")
    limited.only = {request.param: directories[request.param]}
    return limited


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    import stat

    for major, minor in (NULL, ZERO, KMSG):
        os.mknod(tmp_path / f"{major}:{minor}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    try:
        os.close(os.open(tmp_path / "1:3", os.O_WRONLY))
    except PermissionError:
        pytest.skip("the temporary directory is mounted nodev")
    return tmp_path


def attempts(limited, nodes: Path, *numbers: tuple[int, int]) -> list[str]:
    status, out = limited.run(_TRY, nodes, ",".join(f"{major}:{minor}" for major, minor in numbers))
    assert status == 0
    return out.split()


def test_dockers_rules_let_null_be_opened_and_kmsg_not(group, nodes):
    allow_devices(group.only, list(DEFAULT_RULES))
    found = attempts(group, nodes, NULL, ZERO, KMSG)
    assert found == ["ok", "ok", "ok"] * 2 + ["EPERM", "EPERM", "ok"]


def test_each_kind_of_access_is_a_right_of_its_own(group, nodes):
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "wm"},
    ]
    allow_devices(group.only, rules)
    assert attempts(group, nodes, NULL, ZERO) == ["ok", "EPERM", "EPERM", "EPERM", "ok", "ok"]


def test_one_device_is_denied_to_a_group_that_has_all(group, nodes):
    allow_devices(group.only, [{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 3}])
    assert attempts(group, nodes, NULL, ZERO) == ["EPERM", "EPERM", "EPERM", "ok", "ok", "ok"]


def test_rules_are_replaced_as_a_whole(group, nodes):
    deny = {"allow": False}
    null, zero = ({"allow": True, "type": "c", "major": 1, "minor": n, "access": "rwm"} for n in (3, 5))
    expected = {
        "null": ["ok", "ok", "ok", "EPERM", "EPERM", "EPERM"],
        "zero": ["EPERM", "EPERM", "EPERM", "ok", "ok", "ok"],
        "all": ["ok"] * 6,
    }
    for rules, name in (
        ([deny, null], "null"), ([deny, zero], "zero"), ([deny, null, zero], "all"), ([deny, zero], "zero"),
        ([{"allow": True}], "all"), ([deny, null], "null"), ([], "all"),
    ):  # fmt: skip
        allow_devices(group.only, rules)
        assert attempts(group, nodes, NULL, ZERO) == expected[name], rules


def test_narrower_access_replaces_wider(group, nodes):
    null = {"allow": True, "type": "c", "major": 1, "minor": 3}
    allow_devices(group.only, [{"allow": False}, {**null, "access": "rwm"}])
    allow_devices(group.only, [{"allow": False}, {**null, "access": "r"}])
    assert attempts(group, nodes, NULL) == ["ok", "EPERM", "EPERM"]


def test_last_rule_wins(group, nodes):
    null = {"type": "c", "major": 1, "minor": 3}
    rules = [
        {"allow": False}, {"allow": True, **null, "access": "rwm"}, {"allow": False, **null, "access": "w"},
    ]  # fmt: skip
    allow_devices(group.only, rules)
    assert attempts(group, nodes, NULL) == ["ok", "EPERM", "ok"]


def test_v1_says_what_it_cannot_express(group, nodes):
    rules = [
        {"allow": False}, {"allow": True, "type": "c", "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    ]  # fmt: skip
    if "devices" in group.only:
        with pytest.raises(StepError, match="cannot take 'c 1:3 rwm' out of the earlier"):
            allow_devices(group.only, rules)
    else:
        allow_devices(group.only, rules)
        assert attempts(group, nodes, NULL, ZERO) == ["EPERM", "EPERM", "EPERM", "ok", "ok", "ok"]


def test_only_one_program_is_ever_attached(make):
    from minicontainer.linux import bpf

    directories = make().group.controllers()
    if "unified" not in directories:
        pytest.skip("no cgroup v2 here")
    target = os.open(directories["unified"], os.O_RDONLY | os.O_DIRECTORY)
    try:
        for rules in (list(DEFAULT_RULES), [{"allow": False}], list(DEFAULT_RULES)):
            allow_devices({"unified": directories["unified"]}, rules)
            assert len(bpf.attached(target)) == 1
        allow_devices({"unified": directories["unified"]}, [{"allow": True}])
        assert bpf.attached(target) == []
    finally:
        os.close(target)


def test_container_opens_the_standard_devices_and_no_disk(bundle):
    """Making the node is allowed, as in Docker; opening it is not."""
    command = (
        "for d in null zero full random urandom; do head -c1 /dev/$d >/dev/null && echo $d; done;"
        " mknod /tmp/disk b 254 0 && echo made; head -c1 /tmp/disk; mknod /tmp/kmsg c 1 11; echo x > /tmp/kmsg"
    )
    _, out, err = bundle.run("sh", "-c", command)
    assert out.split() == ["null", "zero", "full", "random", "urandom", "made"]
    assert err.count("Operation not permitted") == 2, err


def test_standard_devices_stay_whatever_the_rules_say(bundle):
    """A bundle of ``runc spec`` has one rule, which denies all; without /dev/null no program would run."""
    bundle.config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    status, _, err = bundle.run("sh", "-c", "echo x > /dev/null && head -c1 /dev/zero > /dev/null")
    assert (status, err) == (0, "")


def test_device_of_its_own_can_be_given(bundle):
    kmsg = {"type": "c", "major": 1, "minor": 11}
    bundle.config["linux"]["devices"] = [{"path": "/dev/mine", **kmsg, "fileMode": 0o666}]
    bundle.config["linux"]["resources"]["devices"].append({"allow": True, **kmsg, "access": "r"})
    status, _, err = bundle.run("sh", "-c", "exec 3< /dev/mine || exit 9; exec 4> /dev/mine")
    assert status not in (0, 9)
    assert err.count("Operation not permitted") == 1


def test_device_that_the_group_above_has_not_is_refused_in_words(make):
    limited = make()
    directories = limited.group.controllers()
    if "devices" not in directories:
        pytest.skip(
            "no devices controller of v1 here; on v2 the programs of all groups above are asked as well"
        )
    inner = f"{directories['devices']}/inner"
    allow_devices({"devices": directories["devices"]}, list(DEFAULT_RULES))
    os.mkdir(inner)
    with pytest.raises(StepError) as caught:
        allow_devices({"devices": inner}, [{"allow": False}, {"allow": True, "type": "c", "major": 10}])
    assert caught.value.errno == errno.EPERM
    assert "refuses 'c 10:* rwm'" in str(caught.value)
    assert "group above" in caught.value.hint
