"""System call filters: Docker's default profile, a compiler from profiles to BPF, and their installation. Lab 06.

A filter is a small program that the kernel runs at every system call; it sees the number, the architecture and the
arguments, and answers with an action. This one searches the number by halving: the calls are cut into ranges that share
an answer, and comparisons lead to the right range in eight steps or so. Man pages: seccomp(2), bpf(4);
OCI runtime-spec config-linux.md "Seccomp". The profile's facts are those of moby's profiles/seccomp/default.json.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
from typing import Any

from minicontainer.errors import StepError
from minicontainer.linux.libc import syscall

_HERE = os.path.dirname(__file__)
_LARGEST_PROGRAM = 4096  # instructions, BPF_MAXINSNS

# Instruction codes, <linux/filter.h>: a word loaded from the call's data, jumps that compare with it, and the answer.
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_JUMP_GREATER = 0x25
_JUMP_GREATER_EQUAL = 0x35
_RETURN = 0x06
_OFFSET_NUMBER = 0
_OFFSET_ARCHITECTURE = 4
_OFFSET_ARGUMENTS = 16

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_ALLOW = _ACTIONS["SCMP_ACT_ALLOW"]
_ENOSYS = _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}
# AUDIT_ARCH_*, <linux/audit.h>, by the OCI name, with the key of our table of numbers.
_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": (0xC000003E, "x86_64"),
    "SCMP_ARCH_X86": (0x40000003, "x86"),
    "SCMP_ARCH_AARCH64": (0xC00000B7, "aarch64"),
}
_NATIVE = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "aarch64": ("SCMP_ARCH_AARCH64",),
}
# Flags of clone(2) that make namespaces; without CAP_SYS_ADMIN the profile wants none of them.
_CLONE_NAMESPACES = 0x7E020000
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40

Instruction = tuple[int, int, int, int]
Rule = dict[str, Any]


def _data(name: str) -> Any:
    with open(os.path.join(_HERE, name)) as file:
        return json.load(file)


def default_profile(capabilities: tuple[str, ...] | list[str]) -> dict[str, Any] | None:
    """Docker's default profile as OCI ``linux.seccomp``, for a container that has `capabilities`.

    Returns None on an architecture whose system call numbers we do not have.
    """
    machine = os.uname().machine
    if machine not in _NATIVE:
        return None
    facts = _data("seccomp_default.json")
    allowed = set(facts["allow"])
    for architecture in _NATIVE[machine]:
        allowed.update(facts["on_architecture"].get(_ARCHITECTURES[architecture][1], []))
    for capability in capabilities:
        allowed.update(facts["with_capability"].get(capability, []))
    allowed -= {"personality", "socket"}
    rules: list[Rule] = [{"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"}]
    for value in _PERSONALITIES:
        rules.append(_allow("personality", [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]))
    families = [{"index": 0, "value": family, "op": "SCMP_CMP_NE"} for family in (_AF_ALG, _AF_VSOCK)]
    rules.append(_allow("socket", families))
    if "CAP_SYS_ADMIN" not in capabilities:
        no_namespaces = {"index": 0, "value": _CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append(_allow("clone", [no_namespaces]))
        # clone3(2) hides its flags behind a pointer that a filter cannot follow; glibc falls back to clone(2).
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": list(_NATIVE[machine]),
        "syscalls": rules,
    }


def _allow(name: str, args: list[dict[str, Any]]) -> Rule:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": args}


def compile_filter(profile: dict[str, Any]) -> bytes:
    """The BPF program for an OCI ``linux.seccomp`` object: 8 bytes an instruction, as struct sock_filter.

    Names that this machine's table does not have are left out, as libseccomp does. A call newer than the table
    answers ENOSYS unless the profile allows by default, so that a C library can fall back to an older call.

    :raises StepError: for an action, operator or architecture that is not known, or a program that is too long.
    """
    numbers = _data("syscalls.json")
    names = list(profile.get("architectures") or [])
    native = _NATIVE.get(os.uname().machine)
    if native is None:
        raise StepError(f"seccomp: no table of system calls for {os.uname().machine}", step="compile_filter")
    if native[0] not in names:
        names.insert(0, native[0])
    program: list[Instruction] = []
    for name in names:
        if name not in _ARCHITECTURES:
            if name.startswith("SCMP_ARCH_"):
                continue  # calls made in that architecture's way end below, at "not an architecture we know"
            raise StepError(f"seccomp: {name!r} is not an architecture", step="compile_filter")
        audit, key = _ARCHITECTURES[name]
        body = [(_LOAD, 0, 0, _OFFSET_NUMBER), *_search(_intervals(profile, numbers[key]))]
        program += [
            (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
            (_JUMP_EQUAL, 1, 0, audit),
            (_JUMP, 0, 0, len(body)),
            *body,
        ]
    program.append((_RETURN, 0, 0, _ENOSYS))
    if len(program) > _LARGEST_PROGRAM:
        raise StepError(
            f"seccomp: the filter has {len(program)} instructions, the kernel takes {_LARGEST_PROGRAM}",
            step="compile_filter",
            hint="use fewer rules with arguments",
        )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def known() -> dict[str, list[str]]:
    """The words of a profile that this compiler understands (OCI features-linux.md "Seccomp")."""
    operators = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
    return {
        "actions": sorted(_ACTIONS),
        "operators": [f"SCMP_CMP_{name}" for name in operators],
        "archs": sorted(_ARCHITECTURES),
        "knownFlags": sorted(_FLAGS),
        "supportedFlags": sorted(_FLAGS),
    }


def _action(name: str, number: int | None) -> int:
    """The kernel's return value for an action, with its errno where it carries one."""
    if name == "SCMP_ACT_NOTIFY":
        raise StepError(
            "seccomp: SCMP_ACT_NOTIFY (a supervisor that answers for the kernel) is not supported"
        )
    if name not in _ACTIONS:
        raise StepError(f"seccomp: {name!r} is not an action", step="compile_filter")
    value = _ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        value |= (errno.EPERM if number is None else number) & 0xFFFF
    return value


def _intervals(profile: dict[str, Any], numbers: dict[str, int]) -> list[tuple[int, list[Instruction]]]:
    """Ranges of system call numbers and the code that answers each: (first number, code), ascending from 0."""
    otherwise = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    rules: dict[int, list[Rule]] = {}
    for rule in profile.get("syscalls") or []:
        for name in rule["names"]:
            if name in numbers:
                rules.setdefault(numbers[name], []).append(rule)
    answers: dict[int, list[Instruction]] = {}
    default = [(_RETURN, 0, 0, otherwise)]
    for number, here in rules.items():
        answers[number] = _answer(here, otherwise)
    newest = max(numbers.values())
    intervals: list[tuple[int, list[Instruction]]] = []
    for number in range(newest + 1):
        code = answers.get(number, default)
        if not intervals or intervals[-1][1] != code:
            intervals.append((number, code))
    if otherwise != _ALLOW:
        intervals.append((newest + 1, [(_RETURN, 0, 0, _ENOSYS)]))
    elif intervals[-1][1] != default:
        intervals.append((newest + 1, default))
    return intervals


def _answer(rules: list[Rule], otherwise: int) -> list[Instruction]:
    """The code for one system call: its rules in order, the first that matches decides."""
    code: list[Instruction] = []
    for rule in rules:
        action = _action(rule["action"], rule.get("errnoRet"))
        if not rule.get("args"):
            return [*code, (_RETURN, 0, 0, action)]
        code += _matching(rule["args"], action)
    return [*code, (_RETURN, 0, 0, otherwise)]


def _matching(args: list[dict[str, Any]], action: int) -> list[Instruction]:
    """Code that answers `action` when every comparison holds and else falls through to what follows."""
    blocks: list[list[Instruction]] = [[(_RETURN, 0, 0, action)]]
    for arg in reversed(args):
        rest = sum(len(block) for block in blocks)
        blocks.insert(0, _compare(arg, rest))
    return [instruction for block in blocks for instruction in block]


def _compare(arg: dict[str, Any], skip: int) -> list[Instruction]:
    """Code that goes on where the 64-bit argument compares true, else jumps over `skip` instructions more.

    The kernel compares 32 bits at a time: the high half decides unless it is equal. Jumps are relative to the
    instruction behind them.
    """
    index, operator, value = arg["index"], arg["op"], arg["value"] & 0xFFFFFFFFFFFFFFFF
    low = _OFFSET_ARGUMENTS + 8 * index  # both architectures are little-endian
    high = low + 4
    value_high, value_low = value >> 32, value & 0xFFFFFFFF
    if skip > 240:
        raise StepError("seccomp: a rule has too many arguments", step="compile_filter")
    if operator == "SCMP_CMP_MASKED_EQ":
        wanted = arg.get("valueTwo", 0)
        return [
            (_LOAD, 0, 0, high), (_AND, 0, 0, value_high), (_JUMP_EQUAL, 0, skip + 3, wanted >> 32),
            (_LOAD, 0, 0, low), (_AND, 0, 0, value_low), (_JUMP_EQUAL, 0, skip, wanted & 0xFFFFFFFF),
        ]  # fmt: skip
    if operator == "SCMP_CMP_EQ":
        return [
            (_LOAD, 0, 0, high), (_JUMP_EQUAL, 0, skip + 2, value_high),
            (_LOAD, 0, 0, low), (_JUMP_EQUAL, 0, skip, value_low),
        ]  # fmt: skip
    if operator == "SCMP_CMP_NE":
        return [
            (_LOAD, 0, 0, high), (_JUMP_EQUAL, 0, 2, value_high),
            (_LOAD, 0, 0, low), (_JUMP_EQUAL, skip, 0, value_low),
        ]  # fmt: skip
    # (compare of the low half, true means the operator holds?)
    low_half = {
        "SCMP_CMP_GT": (_JUMP_GREATER, True),
        "SCMP_CMP_GE": (_JUMP_GREATER_EQUAL, True),
        "SCMP_CMP_LE": (_JUMP_GREATER, False),
        "SCMP_CMP_LT": (_JUMP_GREATER_EQUAL, False),
    }.get(operator)
    if low_half is None:
        raise StepError(f"seccomp: {operator!r} is not an operator", step="compile_filter")
    jump, holds = low_half
    greater = (3, 0) if holds else (skip + 3, 0)  # the high half is greater: decided
    unequal = (0, skip + 2) if holds else (0, 2)  # ... is smaller: decided the other way
    last = (0, skip) if holds else (skip, 0)
    return [
        (_LOAD, 0, 0, high), (_JUMP_GREATER, *greater, value_high), (_JUMP_EQUAL, *unequal, value_high),
        (_LOAD, 0, 0, low), (jump, *last, value_low),
    ]  # fmt: skip


def _search(intervals: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Code that finds the interval of the loaded number by halving and runs its code."""
    if len(intervals) == 1:
        return intervals[0][1]
    middle = len(intervals) // 2
    left, right = _search(intervals[:middle]), _search(intervals[middle:])
    pivot = intervals[middle][0]
    if len(left) <= 255:
        return [(_JUMP_GREATER_EQUAL, len(left), 0, pivot), *left, *right]
    # A conditional jump reaches 255 instructions; an unconditional one reaches as far as it needs to.
    return [(_JUMP_GREATER_EQUAL, 0, 1, pivot), (_JUMP, 0, 0, len(left)), *left, *right]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install_filter(program: bytes, flags: list[str] | None = None) -> None:
    """Have the kernel apply `program` to every later system call of this process and its children (man 2 seccomp).

    :raises SyscallError: EACCES without no_new_privs or CAP_SYS_ADMIN, EINVAL for a program it refuses.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    structure = _Program(len(program) // 8, ctypes.addressof(buffer))
    bits = 0
    for flag in flags or []:
        if flag not in _FLAGS:
            raise StepError(f"seccomp: {flag!r} is not a flag that is supported", step="install_filter")
        bits |= _FLAGS[flag]
    syscall("seccomp", 1, bits, structure)  # SECCOMP_SET_MODE_FILTER


_compiled: dict[str, bytes] = {}


def compiled(profile: dict[str, Any]) -> bytes:
    """As :func:`compile_filter`, remembering what was compiled in this process: the profile rarely changes."""
    key = json.dumps(profile, sort_keys=True)
    if key not in _compiled:
        _compiled[key] = compile_filter(profile)
    return _compiled[key]
