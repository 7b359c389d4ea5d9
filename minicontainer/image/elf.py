"""ELF programs: which loader and libraries does one need?

A program that names no loader (no PT_INTERP) and no library is static: alone in a root file system it still runs,
which is why labs start with busybox. Used in lab 01. Source: elf(5), ld.so(8).
"""

from __future__ import annotations

import os
import struct

from minicontainer.errors import MinicontainerError

_PT_DYNAMIC = 2
_PT_INTERP = 3
_DT_NEEDED = 1


class Elf:
    """What the program headers of an ELF file say."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """:raises MinicontainerError: where the file is not an ELF file, or is damaged."""
        self.path = os.fspath(path)
        self.interpreter = ""  # the dynamic loader, "" for a static program or a library
        self.needs_libraries = False
        try:
            with open(self.path, "rb") as file:
                self._read(file.read(1 << 26))
        except (struct.error, IndexError, ValueError) as error:
            raise MinicontainerError(f"{self.path} is not a readable ELF file: {error}") from error
        except OSError as error:
            raise MinicontainerError(f"cannot read {self.path}: {error.strerror}") from error

    @property
    def is_static(self) -> bool:
        """Whether the program runs with nothing else in its root."""
        return not self.interpreter and not self.needs_libraries

    def _read(self, data: bytes) -> None:
        if data[:4] != b"\x7fELF":
            raise ValueError("no ELF magic")
        wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
        offset, size, count = (
            struct.unpack_from(order + "Q", data, 32)[0]
            if wide
            else struct.unpack_from(order + "I", data, 28)[0],
            *struct.unpack_from(order + "HH", data, 54 if wide else 42),
        )
        for index in range(count):
            where = offset + index * size
            if wide:
                kind, _flags, start, _va, _pa, length = struct.unpack_from(order + "IIQQQQ", data, where)
            else:
                kind, start, _va, _pa, length = struct.unpack_from(order + "IIIII", data, where)
            if kind == _PT_INTERP:
                self.interpreter = data[start : start + length].split(b"\0")[0].decode()
            elif kind == _PT_DYNAMIC:
                pair = order + ("qQ" if wide else "iI")
                tags = [tag for tag, _value in struct.iter_unpack(pair, data[start : start + length])]
                self.needs_libraries = _DT_NEEDED in tags


def is_elf(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins like an ELF file."""
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(path: str, loader: str) -> list[str]:
    """The files of the shared libraries that `path` needs, all levels down, as the dynamic loader would find them.

    :raises MinicontainerError: where a library is missing on this machine.
    """
    import subprocess

    done = subprocess.run([loader, "--list", path], capture_output=True, text=True, check=False)
    if done.returncode != 0 and "statically linked" not in done.stdout + done.stderr:
        raise MinicontainerError(
            f"the libraries of {path} cannot be found: {(done.stderr or done.stdout).strip()}",
            hint="`ldd` shows which one is missing",
        )
    found = []
    for line in done.stdout.splitlines():
        words = line.split()
        if "not found" in line:
            raise MinicontainerError(f"{path} needs {words[0]}, which this machine lacks")
        candidates = [word for word in words if word.startswith("/")]
        if candidates:
            found.append(candidates[-1] if "=>" in words else candidates[0])
    return found
