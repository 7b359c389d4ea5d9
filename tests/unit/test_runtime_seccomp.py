"""The filter compiler, judged by running its programs: a small BPF machine stands in for the kernel's."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import StepError
from minicontainer.runtime import seccomp
from minicontainer.runtime.spec import DEFAULT_CAPABILITIES

X86_64, X86, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW = 0x7FFF0000
NUMBERS = seccomp._data("syscalls.json")
pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers below are x86_64's")


def decide(program: bytes, number: int, args: tuple[int, ...] = (), architecture: int = X86_64) -> int:
    """Run the program on one system call, as bpf(4) defines its instructions."""
    padded = [*args, *[0] * (6 - len(args))]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(value & (1 << 64) - 1 for value in padded))
    accumulator, position = 0, 0
    while True:
        code, jump_true, jump_false, k = struct.unpack_from("=HBBI", program, position * 8)
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            position += k
        elif code in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
            position += jump_true if holds else jump_false
        elif code == 0x06:
            return k
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


@pytest.fixture(scope="module")
def default() -> bytes:
    profile = seccomp.default_profile(DEFAULT_CAPABILITIES)
    assert profile is not None
    return seccomp.compile_filter(profile)


def errno_of(value: int) -> int:
    assert value & 0xFFFF0000 == 0x00050000, hex(value)
    return value & 0xFFFF


def test_default_profile_allows_ordinary_calls(default):
    for name in (
        "read",
        "write",
        "openat",
        "execve",
        "mmap",
        "futex",
        "clock_gettime",
        "exit_group",
        "chroot",
        "mknod",
    ):
        assert decide(default, NUMBERS["x86_64"][name]) == ALLOW, name


@pytest.mark.parametrize(
    "name",
    "mount umount2 unshare setns pivot_root bpf keyctl add_key userfaultfd perf_event_open kexec_load init_module"
    " open_by_handle_at io_uring_setup reboot swapon fsopen move_mount open_tree settimeofday syslog".split(),
)
def test_default_profile_refuses_dangerous_calls(default, name):
    assert errno_of(decide(default, NUMBERS["x86_64"][name])) == errno.EPERM


def test_clone_may_not_make_namespaces_and_clone3_does_not_exist(default):
    clone, clone3 = NUMBERS["x86_64"]["clone"], NUMBERS["x86_64"]["clone3"]
    assert decide(default, clone, (0x11,)) == ALLOW
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert errno_of(decide(default, clone, (0x11 | flag,))) == errno.EPERM, hex(flag)
    assert errno_of(decide(default, clone3)) == errno.ENOSYS


def test_sockets_of_two_families_are_refused(default):
    for family in range(46):
        expected = family in (38, 40)
        answer = decide(default, NUMBERS["x86_64"]["socket"], (family, 1, 0))
        assert (answer != ALLOW) == expected, family


def test_personality_is_limited(default):
    personality = NUMBERS["x86_64"]["personality"]
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert decide(default, personality, (value,)) == ALLOW
    assert errno_of(decide(default, personality, (0x0040000,))) == errno.EPERM


def test_unknown_newer_calls_do_not_exist_rather_than_being_forbidden(default):
    newest = max(NUMBERS["x86_64"].values())
    for number in (newest + 1, 1000, 0x40000000 + NUMBERS["x86_64"]["read"], 0xFFFFFFFF):
        assert errno_of(decide(default, number)) == errno.ENOSYS


def test_32_bit_calls_are_judged_by_their_own_numbers(default):
    assert decide(default, NUMBERS["x86"]["read"], architecture=X86) == ALLOW
    assert decide(default, NUMBERS["x86"]["exit"], architecture=X86) == ALLOW
    assert errno_of(decide(default, NUMBERS["x86"]["mount"], architecture=X86)) == errno.EPERM


def test_foreign_architecture_gets_nothing(default):
    assert errno_of(decide(default, 0, architecture=AARCH64)) == errno.ENOSYS


def test_capabilities_open_their_calls():
    profile = seccomp.default_profile([*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN", "CAP_SYSLOG"])
    program = seccomp.compile_filter(profile)
    for name in ("mount", "unshare", "setns", "clone3", "syslog"):
        assert decide(program, NUMBERS["x86_64"][name]) == ALLOW, name
    assert decide(program, NUMBERS["x86_64"]["clone"], (0x10000000,)) == ALLOW


_COMPARE = {
    "SCMP_CMP_EQ": lambda a, v: a == v,
    "SCMP_CMP_NE": lambda a, v: a != v,
    "SCMP_CMP_GT": lambda a, v: a > v,
    "SCMP_CMP_GE": lambda a, v: a >= v,
    "SCMP_CMP_LT": lambda a, v: a < v,
    "SCMP_CMP_LE": lambda a, v: a <= v,
}
_word = st.one_of(
    st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1])
)


@given(
    rules=st.lists(
        st.lists(
            st.tuples(st.integers(0, 5), st.sampled_from(sorted(_COMPARE)), _word), min_size=1, max_size=4
        ),
        min_size=1,
        max_size=4,
    ),
    args=st.lists(_word, min_size=6, max_size=6),
)
def test_comparisons_are_64_bit_and_rules_are_tried_in_order(rules, args):
    syscalls = [
        {
            "names": ["getpid"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": position + 1,
            "args": [{"index": index, "op": operator, "value": value} for index, operator, value in rule],
        }
        for position, rule in enumerate(rules)
    ]
    program = seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls})
    expected = ALLOW
    for position, rule in enumerate(rules):
        if all(_COMPARE[operator](args[index], value) for index, operator, value in rule):
            expected = 0x50000 | position + 1
            break
    assert decide(program, NUMBERS["x86_64"]["getpid"], tuple(args)) == expected


@given(mask=_word, wanted=_word, value=_word)
def test_masked_equality(mask, wanted, value):
    arg = {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": wanted}
    rule = {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": [arg]}
    program = seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    expected = 0x50007 if value & mask == wanted else ALLOW
    assert decide(program, NUMBERS["x86_64"]["getpid"], (value,)) == expected


@given(st.sets(st.sampled_from(sorted(NUMBERS["x86_64"])), max_size=200), st.integers(0, 500))
def test_search_finds_every_number(names, number):
    rule = {"names": sorted(names), "action": "SCMP_ACT_ALLOW"}
    program = seccomp.compile_filter({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [rule]})
    by_number = {NUMBERS["x86_64"][name] for name in names}
    newest = max(NUMBERS["x86_64"].values())
    expected = ALLOW if number in by_number else 0x80000000 if number <= newest else 0x50000 | errno.ENOSYS
    assert decide(program, number) == expected


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"defaultAction": "SCMP_ACT_NONSENSE"}, "not an action"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "not supported"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["PDP11"]}, "not an architecture"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {
                        "names": ["read"],
                        "action": "SCMP_ACT_KILL",
                        "args": [{"index": 0, "value": 0, "op": "~"}],
                    }
                ],
            },
            "not an operator",
        ),
    ],
)
def test_nonsense_is_refused_in_words(profile, words):
    with pytest.raises(StepError, match=words):
        seccomp.compile_filter(profile)
