"""Device rules: which devices a container may open or make nodes for, whatever nodes lie in its file system.

The step ``allow_devices`` of lab 04. v1 has a controller with a list; v2 asks a small BPF program at each open(2) and
mknod(2). Both get the same meaning: of all rules that match, the last one decides, for each kind of access by itself.
OCI runtime-spec config-linux.md "Allowed Device list"; cgroup-v1/devices.rst; cgroup-v2.rst "Device controller".
"""

from __future__ import annotations

import errno
import os
from typing import Any

from minicontainer.cgroup import files
from minicontainer.errors import StepError

Rule = dict[str, Any]

# What every container may use, whatever its configuration says: making any node, and opening the standard ones
# (config-linux.md "Default Devices"; the list is runc's).
STANDARD: tuple[Rule, ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},  # null
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},  # zero
    {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "rwm"},  # full
    {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "rwm"},  # random
    {"allow": True, "type": "c", "major": 1, "minor": 9, "access": "rwm"},  # urandom
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},  # tty
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},  # console
    {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "rwm"},  # ptmx
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},  # pts/*
)
# Docker's: nothing but those.
DEFAULT_RULES: tuple[Rule, ...] = ({"allow": False, "access": "rwm"}, *STANDARD)

_Number = int | None  # None is a wildcard
_Exceptions = dict[tuple[str, _Number, _Number], str]
_Parsed = tuple[bool, str, _Number, _Number, str]  # allow, type, major, minor, access


def allow_devices(group: dict[str, str], rules: list[Rule]) -> None:
    """Put the group under `rules`, instead of those it had. Only the real root can: not the root of a user namespace.

    For anybody else nothing is done, and nothing is lost: in a user namespace the kernel lets nobody make a node, or
    open one on a file system that was mounted there.

    :param group: the container's directory by controller.
    :param rules: OCI ``linux.resources.devices``, later ones win.
    :raises StepError: for a rule that is none, one that v1 cannot express, or that the kernel refuses.
    """
    if not is_real_root():
        return
    if "devices" in group:
        _write_list(group["devices"], rules)
    elif "unified" in group:
        _attach_program(group["unified"], rules)
    elif not _allows_all(rules):
        raise StepError(
            "allow_devices: this machine has no control group for device rules that we may use",
            step="allow_devices",
            hint="mount the v2 hierarchy, or the devices controller of v1, so that it can be written; without device"
            " rules (linux.resources.devices) the container could open every device of the machine",
        )


def is_real_root() -> bool:
    """Whether we are root, and in the machine's first user namespace (man 7 user_namespaces)."""
    return os.geteuid() == 0 and files.read("/proc/self/uid_map").split() == ["0", "0", "4294967295"]


def _parse(rule: Rule) -> _Parsed:
    """(allow, type, major, minor, access) of an OCI rule; type "a" where it is about all devices."""
    kind, access = rule.get("type") or "a", rule.get("access") or "rwm"
    if kind not in ("a", "b", "c", "u") or set(access) - set("rwm"):
        raise StepError(
            f"allow_devices: {rule!r} is not a device rule",
            step="allow_devices",
            hint="type is a, b or c; access is some of the letters r, w and m",
        )
    major, minor = rule.get("major"), rule.get("minor")
    return (
        bool(rule.get("allow")),
        "c" if kind == "u" else kind,
        None if major is None or major < 0 else major,
        None if minor is None or minor < 0 else minor,
        access,
    )


def split(rules: list[Rule]) -> tuple[bool, list[_Parsed]]:
    """What holds for a device that no rule names, and the rules that count: those after the last about all devices."""
    allowed = True
    after: list[_Parsed] = []
    for rule in map(_parse, rules):
        if rule[1] == "a":
            # Whatever its numbers and letters: v1 has no other meaning for it.
            allowed = rule[0]
            after.clear()
        else:
            if rule in after:  # the same one later says it again: Docker's list and the standard one overlap
                after.remove(rule)
            after.append(rule)
    return allowed, after


def _allows_all(rules: list[Rule]) -> bool:
    allowed, after = split(rules)
    return allowed and all(rule[0] for rule in after)


# --- cgroup v1 ----------------------------------------------------------------------------------------------------


def exceptions(rules: list[Rule]) -> tuple[bool, _Exceptions]:
    """The rules in v1's form: one default, and a set of exceptions of the opposite kind.

    :raises StepError: where that form cannot say it, like "all character devices but one" among forbidden ones.
    """
    allowed, after = split(rules)
    found: _Exceptions = {}
    for allow, kind, major, minor, access in after:
        if allow != allowed:
            before = found.get((kind, major, minor), "")
            found[kind, major, minor] = "".join(letter for letter in "rwm" if letter in before + access)
            continue
        for key in list(found):
            if not _overlap((kind, major, minor), key) or not set(found[key]) & set(access):
                continue
            if not _covers((kind, major, minor), key):
                raise StepError(
                    f"allow_devices: cgroup v1 cannot take {_line((kind, major, minor), access)!r} out of the earlier"
                    f" {_line(key, found[key])!r}",
                    step="allow_devices",
                    hint="name the devices one by one instead of all of a kind",
                )
            found[key] = "".join(letter for letter in found[key] if letter not in access)
            if not found[key]:
                del found[key]
    return allowed, found


def _covers(one: tuple[str, _Number, _Number], other: tuple[str, _Number, _Number]) -> bool:
    return one[0] == other[0] and all(a is None or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _overlap(one: tuple[str, _Number, _Number], other: tuple[str, _Number, _Number]) -> bool:
    return one[0] == other[0] and all(
        a is None or b is None or a == b for a, b in zip(one[1:], other[1:], strict=True)
    )


def _line(key: tuple[str, _Number, _Number], access: str) -> str:
    kind, major, minor = key
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor} {access}"


def _write_list(directory: str, rules: list[Rule]) -> None:
    """Write ``devices.allow`` and ``devices.deny``: one write a rule.

    Where the group denies all but a list already, only the difference is written, what is new first: a running program
    must not meet EPERM for a device that it had and keeps.
    """
    allowed, wanted = exceptions(rules)
    lines = [_line(key, access) for key, access in wanted.items()]
    present = files.read(f"{directory}/devices.list").splitlines()
    everything = "a *:* rwm"
    if allowed:
        if lines or everything not in present:
            _write_lines(f"{directory}/devices.allow", ["a"])
        _write_lines(f"{directory}/devices.deny", lines)
    elif everything in present:
        _write_lines(f"{directory}/devices.deny", ["a"])
        _write_lines(f"{directory}/devices.allow", lines)
    else:
        before = dict(line.rsplit(" ", 1) for line in present)
        after = dict(line.rsplit(" ", 1) for line in lines)
        _write_lines(f"{directory}/devices.allow", _more(after, before))
        _write_lines(f"{directory}/devices.deny", _more(before, after))


def _more(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The access that `one` has and `other` lacks, as lines."""
    found = []
    for device, access in one.items():
        letters = "".join(letter for letter in access if letter not in other.get(device, ""))
        if letters:
            found.append(f"{device} {letters}")
    return found


def _write_lines(path: str, lines: list[str]) -> None:
    if not lines:
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    except OSError as error:
        raise files.refused(path, lines[0], error, step="allow_devices") from error
    try:
        for line in lines:
            try:
                os.write(descriptor, line.encode())
            except OSError as error:
                raise files.refused(path, line, error, step="allow_devices") from error
    finally:
        os.close(descriptor)


# --- cgroup v2 ----------------------------------------------------------------------------------------------------

_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_KIND = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_ANSWER, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5  # registers


def compile_rules(rules: list[Rule]) -> bytes:
    """The rules as a BPF program, which answers 1 to let an access happen and 0 for EPERM.

    The kernel passes the kinds of access wanted, as bits. The rules are gone through from the last to the first: one
    that allows takes its bits off the wish list, done when that is empty; one that denies a wished bit ends it.
    """
    from minicontainer.linux import bpf

    allowed, after = split(rules)
    code = [
        bpf.instruction(bpf.LOAD_WORD, _TYPE, source=_CONTEXT, offset=0),  # access << 16 | type
        bpf.instruction(bpf.LOAD_WORD, _WANTED, source=_CONTEXT, offset=0),
        bpf.instruction(bpf.AND, _TYPE, 0xFFFF),
        bpf.instruction(bpf.SHIFT_RIGHT, _WANTED, 16),
        bpf.instruction(bpf.LOAD_WORD, _MAJOR, source=_CONTEXT, offset=4),
        bpf.instruction(bpf.LOAD_WORD, _MINOR, source=_CONTEXT, offset=8),
    ]

    def leave(answer: bool) -> list[bytes]:
        return [bpf.instruction(bpf.MOVE, _ANSWER, int(answer)), bpf.instruction(bpf.EXIT)]

    for allow, kind, major, minor, access in reversed(after):
        bits = sum(_ACCESS[letter] for letter in set(access))
        if bits == 7:
            verdict = leave(allow)  # whatever is still wanted
        elif allow:
            verdict = [
                bpf.instruction(bpf.AND, _WANTED, 7 & ~bits),
                bpf.instruction(bpf.JUMP_UNLESS_EQUAL, _WANTED, 0, offset=2),
                *leave(True),
            ]
        else:
            verdict = [
                bpf.instruction(bpf.JUMP_IF_SET, _WANTED, bits, offset=1),
                bpf.instruction(bpf.JUMP, offset=2),
                *leave(False),
            ]
        tests = [(_TYPE, _KIND[kind]), (_MAJOR, major), (_MINOR, minor)]
        matched = [(register, value) for register, value in tests if value is not None]
        for position, (register, value) in enumerate(matched):
            beyond = len(matched) - position - 1 + len(verdict)
            code.append(bpf.instruction(bpf.JUMP_UNLESS_EQUAL, register, value, offset=beyond))
        code += verdict
    return b"".join(code + leave(allowed))


def _attach_program(directory: str, rules: list[Rule]) -> None:
    """Attach the program of `rules` in the place of an earlier one of ours, without a moment between the two."""
    from minicontainer.linux import bpf
    from minicontainer.linux.libc import SyscallError

    target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened: list[int] = []
    try:
        old = [bpf.open_program(identifier) for identifier in bpf.attached(target)]
        opened += old
        if _allows_all(rules):
            for program in old:
                bpf.detach(target, program)
            return
        new = bpf.load_device_program(compile_rules(rules))
        opened.append(new)
        try:
            bpf.attach(target, new, replace=old[0] if len(old) == 1 else None)
        except SyscallError as error:
            if len(old) != 1 or error.errno != errno.EINVAL:
                raise
            bpf.attach(
                target, new
            )  # a kernel before 5.6: for a moment both must agree, which is the safe way round
        else:
            old = [] if len(old) == 1 else old
        for program in old:
            bpf.detach(target, program)
    except SyscallError as error:
        raise StepError(
            f"allow_devices: bpf(2) for {directory}: {os.strerror(error.errno or 0)}",
            step="allow_devices",
            syscall="bpf",
            errno=error.errno or 0,
            path=directory,
            hint="device rules on cgroup v2 need the machine's real root (CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN)"
            " and a kernel with CONFIG_CGROUP_BPF",
        ) from error
    finally:
        for descriptor in (*opened, target):
            os.close(descriptor)
