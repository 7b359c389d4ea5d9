"""Quantities as people write them on a command line, and what they mean: sizes, CPUs, rates, limits, devices.

Plain texts in, plain values out; a ValueError carries Docker's own words. Sources: docker/go-units (size.go,
ulimit.go), docker/cli opts/ (opts.go, throttledevice.go, ulimit.go), docker/cli cli/command/container/opts.go.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?([a-zA-Z]*)")
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip


def size(text: str | int) -> int:
    """Bytes; units are powers of 1024.

    >>> size("64m"), size("1.5 GiB"), size(4096)
    (67108864, 1610612736, 4096)

    :raises ValueError: not a size.
    """
    if isinstance(text, int) and text >= 0:
        return text
    found = _SIZE.fullmatch(str(text))
    if found is None:
        raise ValueError(f"invalid size: '{text}'")
    unit = found[2].lower()
    letter = "" if unit == "b" else re.sub(r"(?<=.)i?b$", "", unit)
    if letter not in _UNITS:
        raise ValueError(f"invalid suffix: '{found[2]}'")
    return int(Decimal(found[1]) * 1024 ** _UNITS[letter])


def swap(text: str | int) -> int:
    """As :func:`size`; -1 is no limit."""
    return -1 if str(text) == "-1" else size(text)


def nano_cpus(text: str | float) -> int:
    """Billionths of a CPU.

    >>> nano_cpus("1.5")
    1500000000

    :raises ValueError: not a number, or finer than that.
    """
    try:
        nano = Decimal(str(text)) * 10**9
        if not nano.is_finite():
            raise InvalidOperation
    except InvalidOperation:
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if nano != int(nano):
        raise ValueError("value is too precise")
    return int(nano)


def bytes_rate(text: str) -> dict[str, Any]:
    """``/dev/sda:1mb``: bytes a second from or to a disk.

    >>> bytes_rate("/dev/sda:1mb")
    {'Path': '/dev/sda', 'Rate': 1048576}
    """
    unit = "Unit is optional and can be kb, mb, or gb"
    return _rate(text, size, f"<number>[<unit>]. Number must be a positive integer. {unit}")


def operations_rate(text: str) -> dict[str, Any]:
    """``/dev/sda:100``: operations a second."""
    return _rate(text, int, "<number>. Number must be a positive integer")


def _rate(text: str, parse: Any, form: str) -> dict[str, Any]:
    path, _, number = text.partition(":")
    if not path or not number or ":" in number:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    try:
        rate = parse(number)
        if rate < 0:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:{form}"
        ) from None
    return {"Path": path, "Rate": rate}


def ulimit(text: str) -> dict[str, Any]:
    """``nofile=1024:2048``: soft and hard limit; one number is both, -1 is no limit (man 2 setrlimit).

    >>> ulimit("nofile=1024")
    {'Name': 'nofile', 'Hard': 1024, 'Soft': 1024}
    """
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    first, colon, second = values.partition(":")
    try:
        soft = int(first)
        hard = int(second) if colon else soft
    except ValueError:
        raise ValueError(f"'{values}' is not a whole number, or two as soft:hard") from None
    if hard != -1 and (soft > hard or soft == -1):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def device(text: str) -> dict[str, str]:
    """``/dev/fuse[:/dev/inside][:rwm]``.

    >>> device("/dev/fuse:r")
    {'PathOnHost': '/dev/fuse', 'PathInContainer': '/dev/fuse', 'CgroupPermissions': 'r'}
    """
    host, *rest = text.split(":")
    inside, access = host, "rwm"
    if rest and not rest[-1].startswith("/"):
        access = rest.pop()
        if not access or set(access) - set("rwm") or len(set(access)) < len(access):
            raise ValueError(f"bad mode specified: {access}")
    if rest:
        inside = rest.pop()
    if rest or not host.startswith("/") or not inside.startswith("/"):
        raise ValueError(f"{text} is not an absolute path")
    return {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access}


def tmpfs(text: str) -> tuple[str, str]:
    """``/run:size=64k,mode=755``: where, and options of the file system (man 5 tmpfs)."""
    path, _, options = text.partition(":")
    if not path.startswith("/"):
        raise ValueError(f"invalid mount path: '{path}' mount path must be absolute")
    if path.rstrip("/") == "":
        raise ValueError(f"invalid specification: destination can't be '{path}'")
    return path, options
