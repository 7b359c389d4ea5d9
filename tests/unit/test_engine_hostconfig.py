"""Limits and privileges as plain values: Docker's grammar, its words, and what becomes of them in a bundle."""

from __future__ import annotations

import json
import os

import pytest

from minicontainer.engine import hostconfig, limits, privileges, quantities
from minicontainer.errors import MinicontainerError, UsageError
from minicontainer.runtime import spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("7", 7), ("1b", 1), ("1k", 1024), ("1KB", 1024), ("2KiB", 2048), ("64m", 64 << 20), ("1.5g", 3 << 29),
     ("1 GB", 1 << 30), (".5m", 1 << 19), ("1t", 1 << 40)],
)  # fmt: skip
def test_sizes(text, expected):
    assert quantities.size(text) == expected


@pytest.mark.parametrize("text", ["", "foo", "-1", "1x", "1 2", "m", "1mm", "1ib", "0x10", "1e3", "--1"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="invalid (size|suffix)"):
        quantities.size(text)


def test_cpus_are_exact():
    assert quantities.nano_cpus("0.1") == 100_000_000
    assert quantities.nano_cpus(".000000001") == 1
    with pytest.raises(ValueError, match="too precise"):
        quantities.nano_cpus("0.0000000001")
    for text in ("x", "", "inf", "nan"):
        with pytest.raises(ValueError, match="failed to parse"):
            quantities.nano_cpus(text)


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (quantities.bytes_rate, "/dev/sda", "bad format: /dev/sda"),
        (quantities.bytes_rate, "sda:1mb", "bad format for device path: sda:1mb"),
        (quantities.bytes_rate, "/dev/sda:x", "invalid rate for device: /dev/sda:x"),
        (quantities.operations_rate, "/dev/sda:1mb", "invalid rate for device"),
        (quantities.operations_rate, "/dev/sda:-1", "invalid rate for device"),
        (quantities.ulimit, "nofile", "invalid ulimit argument: nofile"),
        (quantities.ulimit, "files=1", "invalid ulimit type: files"),
        (
            quantities.ulimit,
            "nofile=3:2",
            "ulimit soft limit must be less than or equal to hard limit: 3 > 2",
        ),
        (quantities.ulimit, "nofile=-1:2", "less than or equal"),
        (quantities.ulimit, "nofile=1:2:3", "whole number"),
        (quantities.device, "/dev/null:rwx", "bad mode specified: rwx"),
        (quantities.device, "dev/null", "not an absolute path"),
        (quantities.tmpfs, "run", "mount path must be absolute"),
        (quantities.tmpfs, "/", "destination can't be '/'"),
    ],
)
def test_wrong_values_are_answered_in_dockers_words(parse, text, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        parse(text)


def test_devices_in_each_form():
    def parts(text):
        return tuple(quantities.device(text).values())

    assert parts("/dev/a") == ("/dev/a", "/dev/a", "rwm")
    assert parts("/dev/a:/dev/b") == ("/dev/a", "/dev/b", "rwm")
    assert parts("/dev/a:/dev/b:r") == ("/dev/a", "/dev/b", "r")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "5m"}, "Minimum memory limit allowed is 6MB"),
        ({"memory_swap": "64m"}, "You should always set the Memory limit"),
        ({"memory": "64m", "memory_swap": "32m"}, "Minimum memoryswap limit should be larger"),
        ({"memory": "64m", "memory_reservation": "65m"}, "Minimum memory limit can not be less"),
        ({"memory_reservation": "1m"}, "Minimum memory reservation allowed is 6MB"),
        ({"cpus": "0.001"}, "Range of CPUs is from 0.01"),
        ({"cpus": "4096"}, "CPUs available"),
        ({"cpus": "1", "cpu_quota": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"cpus": "1", "cpu_period": 5000}, "Nano CPUs and CPU Period cannot both be set"),
        ({"cpu_period": 999}, "CPU cfs period can not be less than 1ms"),
        ({"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms"),
        ({"cpu_shares": -1}, "invalid CPU shares"),
        ({"cpuset_cpus": "a"}, "Invalid value a for cpuset cpus"),
        ({"cpuset_cpus": "4000"}, "Requested CPUs are not available - requested 4000, available: "),
        ({"blkio_weight": 9}, "Range of blkio weight is from 10 to 1000"),
        ({"oom_score_adj": 1001}, "range for oom score adj"),
        ({"cap_add": ["FLY"]}, "invalid capability: FLY"),
        ({"security_opt": ["label=disable"]}, "invalid --security-opt"),
        ({"security_opt": ["seccomp=/nowhere"]}, "opening seccomp profile"),
        ({"security_opt": [f"seccomp={os.devnull}"]}, "decoding seccomp profile"),
    ],
)  # fmt: skip
def test_contradictions_are_answered_in_dockers_words(options, words):
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        hostconfig.settle(hostconfig.parse(options))


def test_an_option_that_there_is_not():
    with pytest.raises(TypeError, match="unknown option"):
        hostconfig.parse({"memroy": 1})


def test_what_was_not_asked_for_is_not_kept():
    assert hostconfig.parse({"memory": 0, "privileged": False}) == {}


def test_resources_of_the_bundle():
    host = hostconfig.parse(
        {"memory": "64m", "cpus": 0.5, "pids_limit": 10, "cpuset_cpus": "0", "blkio_weight": 20}
    )
    assert limits.resources(host) == {
        "memory": {"limit": 64 << 20},
        "cpu": {"cpus": "0", "quota": 50000, "period": 100000},
        "pids": {"limit": 10},
        "blockIO": {"weight": 20},
    }


def test_a_disk_that_is_none():
    with pytest.raises(MinicontainerError, match="not a block device"):
        limits.resources(hostconfig.parse({"device_read_bps": ["/dev/null:1mb"]}))
    with pytest.raises(MinicontainerError, match="/dev/nowhere: No such file"):
        limits.resources(hostconfig.parse({"device_read_bps": ["/dev/nowhere:1mb"]}))


def test_limits_of_processes():
    bundle = {"process": {}, "linux": {}}
    limits.apply(bundle, hostconfig.parse({"ulimit": ["nofile=10:20", "core=-1"], "oom_score_adj": 5}))
    assert bundle["process"] == {
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
            {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
        ],
        "oomScoreAdj": 5,
    }
    assert bundle["linux"] == {}


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        (["sys_admin"], [], {"CAP_SYS_ADMIN", "CAP_CHOWN"}, {"CAP_SYS_TIME"}),
        ([], ["CAP_CHOWN"], {"CAP_KILL"}, {"CAP_CHOWN"}),
        (["KILL"], ["ALL"], {"CAP_KILL"}, {"CAP_CHOWN"}),
        (["ALL"], ["CHOWN"], {"CAP_SYS_TIME"}, {"CAP_CHOWN"}),
    ],
)
def test_capabilities_added_and_dropped(add, drop, has, lacks):
    chosen = set(privileges.capabilities(hostconfig.parse({"cap_add": add, "cap_drop": drop})))
    assert has <= chosen and not lacks & chosen


def test_the_default_profile_follows_the_capabilities():
    def names(**options):
        bundle = spec.default_spec()
        privileges.apply(bundle, hostconfig.parse(options))
        rules = bundle["linux"]["seccomp"]["syscalls"]
        return {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}

    assert "mount" in names(cap_add=["SYS_ADMIN"])
    assert "mount" not in names(cap_add=["SYS_TIME"])
    assert "chroot" not in names(cap_drop=["SYS_CHROOT"])


def test_profiles_in_dockers_form(tmp_path):
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "other")
    rules = [
        {"names": ["always"]},
        {"name": "old"},
        {"names": ["admin"], "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["unless-admin"], "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["here"], "includes": {"arches": [machine]}},
        {"names": ["elsewhere"], "includes": {"arches": ["s390x"]}},
        {"names": ["young"], "includes": {"minKernel": "99.1"}},
        {"names": ["grown"], "includes": {"minKernel": "3.10"}},
    ]
    file = tmp_path / "profile.json"
    text = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{**rule, "action": "SCMP_ACT_ALLOW"} for rule in rules],
    }
    file.write_text(json.dumps(text))
    [kept] = hostconfig.parse({"security_opt": [f"seccomp={file}"]})["SecurityOpt"]
    profile = json.loads(kept.removeprefix("seccomp="))

    def names(held):
        return [rule["names"][0] for rule in privileges.profile(profile, held)["syscalls"]]

    assert names([]) == ["always", "old", "unless-admin", "here", "grown"]
    assert names(["CAP_SYS_ADMIN"]) == ["always", "old", "admin", "here", "grown"]
