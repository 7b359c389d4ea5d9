"""bpf(2): loading a program that the kernel asks about devices, and attaching it to a cgroup v2 directory.

Lab 04. Man pages: bpf(2), bpf-helpers(7); the kernel's Documentation/bpf/standardization/instruction-set.rst and
include/uapi/linux/bpf.h, whose names the constants have.
"""

from __future__ import annotations

import ctypes
import errno
import resource
import struct

from minicontainer.linux.libc import SyscallError, syscall

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16

BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_F_REPLACE = 4

# Instruction codes: class, operation, and whether the operand is the number in the instruction (K).
LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
MOVE = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
AND = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
SHIFT_RIGHT = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
JUMP = 0x05  # BPF_JMP | BPF_JA
JUMP_UNLESS_EQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
JUMP_IF_SET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
EXIT = 0x95  # BPF_JMP | BPF_EXIT

_LICENSE = ctypes.create_string_buffer(b"Apache-2.0")


def instruction(code: int, register: int = 0, number: int = 0, *, source: int = 0, offset: int = 0) -> bytes:
    """One instruction of 8 bytes.

    :param register: the one it changes or looks at; `source` is the second, where there is one.
    :param offset: of a jump, in instructions after the next; of a load, in bytes.
    """
    return struct.pack("=BBhi", code, register | source << 4, offset, number)


def load_device_program(program: bytes, name: str = "minicontainer") -> int:
    """Have the kernel verify and load a program of type BPF_PROG_TYPE_CGROUP_DEVICE; returns its descriptor.

    :raises SyscallError: EPERM without CAP_BPF or CAP_SYS_ADMIN in the first user namespace, EINVAL or EACCES for a
        program that the verifier refuses.
    """
    text = ctypes.create_string_buffer(program, len(program))
    attributes = struct.pack(
        "=IIQQIIQII16s",
        BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(text), ctypes.addressof(_LICENSE),
        0, 0, 0, 0, 0, name.encode()[:15],
    )  # fmt: skip
    try:
        return _bpf(BPF_PROG_LOAD, attributes)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
    # Before Linux 5.11 programs counted as locked memory, of which the usual limit allows little.
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        return _bpf(BPF_PROG_LOAD, attributes)  # which says EPERM again, and that is the answer
    try:
        return _bpf(BPF_PROG_LOAD, attributes)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def attach(directory: int, program: int, *, replace: int | None = None) -> None:
    """Attach a device program to the cgroup v2 behind the descriptor `directory`, beside those of groups above.

    :param replace: descriptor of the attached program whose place it takes in one step (Linux 5.6).
    """
    flags = BPF_F_ALLOW_MULTI | (BPF_F_REPLACE if replace is not None else 0)
    _bpf(
        BPF_PROG_ATTACH,
        struct.pack(
            "=IIIII", directory, program, BPF_CGROUP_DEVICE, flags, replace if replace is not None else 0
        ),
    )


def detach(directory: int, program: int) -> None:
    """Take an attached device program away again."""
    _bpf(BPF_PROG_DETACH, struct.pack("=III", directory, program, BPF_CGROUP_DEVICE))


def attached(directory: int) -> list[int]:
    """Identifiers of the device programs attached to exactly this group."""
    room = 64
    identifiers = (ctypes.c_uint32 * room)()
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", directory, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(identifiers), room)
        + bytes(36)
    )
    syscall("bpf", BPF_PROG_QUERY, attributes, len(attributes) - 1)
    count: int = struct.unpack_from("=I", attributes.raw, 24)[0]
    return list(identifiers[:count])


def open_program(identifier: int) -> int:
    """A descriptor of the loaded program with that identifier."""
    return _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", identifier, 0, 0))


def _bpf(command: int, attributes: bytes) -> int:
    return syscall("bpf", command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))
