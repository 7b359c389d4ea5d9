"""Device programs, judged by running them: a small eBPF machine stands in for the kernel's."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cgroup import devices
from minicontainer.errors import StepError

ACCESS = {"m": 1, "r": 2, "w": 4}
KIND = {"b": 1, "c": 2}
MASK = (1 << 64) - 1


def decide(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Run the program on one access, as the instruction set's specification defines its instructions."""
    wanted = sum(ACCESS[letter] for letter in access)
    context = struct.pack("=III", wanted << 16 | KIND[kind], major, minor)
    registers: list[int | None] = [
        None
    ] * 11  # reading one that was never written is what the verifier refuses
    position, steps = 0, 0
    while True:
        code, both, offset, number = struct.unpack_from("=BBhi", program, position * 8)
        register, source = both & 15, both >> 4
        position, steps = position + 1, steps + 1
        assert steps < 10_000
        value = registers[register]
        if code == 0x61:
            assert source == 1
            registers[register] = struct.unpack_from("=I", context, offset)[0]
        elif code == 0xB7:
            registers[register] = number & MASK
        elif code == 0x57:
            registers[register] = value & number & MASK
        elif code == 0x77:
            registers[register] = value >> number
        elif code == 0x05:
            position += offset
        elif code in (0x55, 0x45):
            holds = value != number & MASK if code == 0x55 else value & number & MASK
            assert offset >= 0  # a loop is what the verifier refuses
            position += offset if holds else 0
        elif code == 0x95:
            assert registers[0] in (0, 1)
            return registers[0] == 1
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


def by_meaning(rules: list[dict], kind: str, major: int, minor: int, access: str) -> bool:
    """The last rule that matches decides, for each letter; before any rule everything is allowed."""
    answers = []
    for letter in access:
        answer = True
        for rule in rules:
            whole = rule.get("type", "a") == "a"
            matches = whole or (
                rule["type"] == kind
                and rule.get("major") in (None, major)
                and rule.get("minor") in (None, minor)
                and letter in rule["access"]
            )
            if matches:
                answer = rule["allow"]
        answers.append(answer)
    return all(answers)


def in_v1(rules: list[dict], kind: str, major: int, minor: int, access: str) -> bool:
    """What the kernel's v1 controller answers to the list we would write (security/device_cgroup.c)."""
    allowed, exceptions = devices.exceptions(rules)
    matching = [
        letters
        for (type_, a, b), letters in exceptions.items()
        if type_ == kind and a in (None, major) and b in (None, minor)
    ]
    if allowed:
        return not any(set(letters) & set(access) for letters in matching)
    return any(set(access) <= set(letters) for letters in matching)


_access = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])
_number = st.one_of(st.none(), st.integers(0, 2))
_rule = st.one_of(
    st.fixed_dictionaries({"allow": st.booleans(), "access": st.just("rwm")}),
    st.fixed_dictionaries(
        {"allow": st.booleans(), "type": st.sampled_from("bc"), "access": _access},
        optional={"major": _number, "minor": _number},
    ),
)


@given(st.lists(_rule, max_size=8))
def test_program_decides_as_the_rules_mean(rules):
    program = devices.compile_rules(rules)
    for kind, major, minor, access in itertools.product(
        "bc", range(3), range(3), ("r", "w", "m", "rw", "rwm")
    ):
        expected = by_meaning(rules, kind, major, minor, access)
        assert decide(program, kind, major, minor, access) == expected, (kind, major, minor, access)


@given(st.lists(_rule, max_size=6))
def test_v1_list_never_allows_more_than_the_rules(rules):
    """v1 may be stricter (one exception must cover all letters at once), or say that it cannot; never laxer."""
    try:
        devices.exceptions(rules)
    except StepError:
        return
    for kind, major, minor, letter in itertools.product("bc", range(3), range(3), "rwm"):
        expected = by_meaning(rules, kind, major, minor, letter)
        assert in_v1(rules, kind, major, minor, letter) == expected, (kind, major, minor, letter)


def test_docker_default():
    for program in (
        devices.compile_rules(list(devices.DEFAULT_RULES)),
        devices.compile_rules([*devices.DEFAULT_RULES, *devices.STANDARD]),
    ):
        for minor in (3, 5, 7, 8, 9):
            assert decide(program, "c", 1, minor, "rwm")
        for number in (0, 1, 2):
            assert decide(program, "c", 5, number, "rw")
        assert decide(program, "c", 136, 77, "rw")
        assert decide(program, "b", 8, 0, "m") and decide(program, "c", 10, 200, "m")
        for kind, major, minor in (
            ("b", 8, 0),
            ("b", 254, 0),
            ("c", 1, 1),
            ("c", 1, 11),
            ("c", 10, 200),
            ("b", 1, 3),
        ):
            for access in ("r", "w", "rw", "rm", "rwm"):
                assert not decide(program, kind, major, minor, access), (kind, major, minor, access)


def test_same_rules_twice_make_the_program_no_longer():
    once = devices.compile_rules(list(devices.DEFAULT_RULES))
    assert devices.compile_rules([*devices.DEFAULT_RULES, *devices.STANDARD]) == once


def test_v1_list_of_docker_default():
    allowed, exceptions = devices.exceptions(list(devices.DEFAULT_RULES))
    assert not allowed
    assert exceptions[("c", None, None)] == exceptions[("b", None, None)] == "m"
    assert exceptions[("c", 1, 3)] == "rwm"
    assert len(exceptions) == 11


def test_negative_numbers_and_u_are_what_they_stand_for():
    program = devices.compile_rules(
        [{"allow": False}, {"allow": True, "type": "u", "major": -1, "minor": 4, "access": "r"}]
    )
    assert decide(program, "c", 9, 4, "r") and not decide(program, "c", 9, 5, "r")
    assert not decide(program, "b", 9, 4, "r")


@pytest.mark.parametrize("rule", [{"type": "x"}, {"type": "c", "access": "rx"}, {"type": "p"}])
def test_nonsense_is_refused_in_words(rule):
    with pytest.raises(StepError, match="is not a device rule"):
        devices.compile_rules([rule])
