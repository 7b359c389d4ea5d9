"""Points in time as text: RFC 3339 in UTC with nanoseconds, as in Docker's records and logs.

With nine digits always, two such texts compare as their times do.
"""

from __future__ import annotations

import calendar
import time

ZERO = "0001-01-01T00:00:00Z"  # what Docker shows for "never"

_cached: tuple[int, str] = (-1, "")


def timestamp(nanoseconds: int | None = None) -> str:
    """The time (nanoseconds since the epoch, now by default) as text.

    >>> timestamp(1_700_000_000_000_000_042)
    '2023-11-14T22:13:20.000000042Z'
    """
    global _cached
    seconds, rest = divmod(time.time_ns() if nanoseconds is None else nanoseconds, 1_000_000_000)
    if _cached[0] != seconds:  # a busy log asks many times a second
        _cached = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return f"{_cached[1]}.{rest:09d}Z"


def parse(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; fraction and zone are optional (UTC).

    >>> parse("2023-11-14T22:13:20.000000042Z")
    1700000000000000042
    >>> parse("2023-11-14T23:13:20+01:00") == parse("2023-11-14T22:13:20Z")
    True

    :raises ValueError: for anything else.
    """
    body, offset = text.strip().replace(" ", "T", 1), 0
    if body.endswith(("Z", "z")):
        body = body[:-1]
    elif len(body) > 16 and body[-6] in "+-" and body[-3] == ":":
        sign = 1 if body[-6] == "+" else -1
        offset = sign * (int(body[-5:-3]) * 3600 + int(body[-2:]) * 60)
        body = body[:-6]
    whole, _, fraction = body.partition(".")
    if fraction and not (fraction.isascii() and fraction.isdigit()):
        raise ValueError(f"not a time: {text!r}")
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"):
        try:
            seconds = calendar.timegm(time.strptime(whole, form))
        except ValueError:
            continue
        return (seconds - offset) * 1_000_000_000 + int((fraction + "000000000")[:9])
    raise ValueError(f"not a time: {text!r}")


_UNITS = {"h": 3600, "m": 60, "s": 1}


def moment(text: str | float, now: int | None = None) -> int:
    """A point in time as Docker's ``--since`` takes it: RFC 3339, seconds since the epoch, or "10m" ago.

    >>> moment("1m30s", now=100_000_000_000)
    10000000000
    >>> moment("12.5")
    12500000000

    :returns: nanoseconds since the epoch.
    :raises ValueError: when it is none of these.
    """
    if isinstance(text, (int, float)):
        return int(text * 1_000_000_000)
    number = ""
    ago = 0.0
    if text and text[-1] in _UNITS:
        for character in text:
            if character in _UNITS:
                ago += float(number) * _UNITS[character]
                number = ""
            else:
                number += character
        return (time.time_ns() if now is None else now) - int(ago * 1_000_000_000)
    try:
        return int(float(text) * 1_000_000_000)
    except ValueError:
        return parse(text)
