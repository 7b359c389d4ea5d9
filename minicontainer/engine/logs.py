"""What a container printed: Docker's "json-file" log, written by the supervisor and read by anybody.

One JSON object a line: ``{"log":"text\\n","stream":"stdout","time":"2024-05-01T12:00:00.000000000Z"}``. A line of
output is written when it is complete (or has grown to 16 KiB, then in pieces), so lines of the two streams are never
mixed. Bytes that are not UTF-8 survive as surrogate escapes (PEP 383), which JSON can carry. Lab 10.
Source: moby, daemon/logger/jsonfilelog and logger/copier.go.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring, encode_basestring_ascii

from minicontainer.engine.frozen import Frozen
from minicontainer.engine.times import timestamp

LOG = "container.log"
LONGEST = 16 * 1024  # bytes of one entry, as in moby's copier
STREAMS = {1: "stdout", 2: "stderr"}
_BLOCK = 64 * 1024


class LogWriter:
    """Turns output into log lines.

    A log that cannot be written (disk full) must not take the container down: what does not fit is dropped and
    `error` says so once.

    :ivar error: why writing failed, "" while all is well.
    """

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.error = ""
        self._partial: dict[int, bytes] = {}

    def write(self, kind: int, data: bytes) -> None:
        """Record output of a stream (1 stdout, 2 stderr); the unfinished last line waits for its end."""
        text = self._partial.pop(kind, b"") + data
        *lines, rest = text.split(b"\n")
        entries = []
        for line in lines:
            while len(line) >= LONGEST:
                entries.append(line[:LONGEST])
                line = line[LONGEST:]
            entries.append(line + b"\n")
        while len(rest) >= LONGEST:
            entries.append(rest[:LONGEST])
            rest = rest[LONGEST:]
        if rest:
            self._partial[kind] = rest
        self._append(kind, entries)

    def flush(self) -> None:
        """Record unfinished last lines: no more output comes."""
        for kind, rest in self._partial.items():
            self._append(kind, [rest])
        self._partial.clear()

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        os.close(self.descriptor)

    def _append(self, kind: int, entries: list[bytes]) -> None:
        if not entries:
            return
        end = f',"stream":"{STREAMS[kind]}","time":"{timestamp()}"}}\n'
        text = "".join(f'{{"log":{_quote(entry)}{end}' for entry in entries).encode()
        view = memoryview(text)
        try:
            while view:
                view = view[os.write(self.descriptor, view) :]
            self.error = ""
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
                raise
            self.error = f"output was lost, the log cannot be written: {os.strerror(error.errno)}"


def _quote(entry: bytes) -> str:
    """A JSON string of these bytes, readable where they are UTF-8 and without loss where they are not."""
    try:
        return encode_basestring(entry.decode())
    except UnicodeDecodeError:
        return encode_basestring_ascii(entry.decode(errors="surrogateescape"))


class Entry(Frozen):
    """One log entry.

    :ivar time: RFC 3339 with nanoseconds, UTC.
    :ivar stream: "stdout" or "stderr".
    :ivar data: the line with its newline, as the bytes that were printed.
    """

    time: str
    stream: str
    data: bytes


def _entry(line: bytes) -> Entry | None:
    """The entry of one line of the file; None for a line that a crash cut short."""
    try:
        fields = json.loads(line)
        data = fields["log"].encode(errors="surrogateescape")
        return Entry(time=fields["time"], stream=fields["stream"], data=data)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read(
    path: str,
    *,
    tail: int | None = None,
    since: str = "",
    until: str = "",
    wait: Callable[[], bool] | None = None,
) -> Iterator[Entry]:
    """The entries of a log file, oldest first.

    :param tail: only the last so many; the file is then read from its end.
    :param since: none older than this time (as :func:`~minicontainer.engine.times.timestamp` writes it).
    :param until: none younger than this.
    :param wait: for following: called at the end of the file, returns after a while, True while more may come.
    """
    try:
        file = open(path, "rb", buffering=_BLOCK)
    except FileNotFoundError:
        return
    with file:
        if tail is not None:
            file.seek(_start_of_last(file.fileno(), tail))
        rest = b""
        more = wait is not None
        while True:
            line = rest + file.readline()
            if line.endswith(b"\n"):
                rest = b""
                entry = _entry(line)
                if entry is None or entry.time < since:
                    continue
                if until and entry.time > until:
                    return
                yield entry
                continue
            rest = line  # the end for now, perhaps in the middle of an entry
            if not more or wait is None:
                return
            more = wait()  # one more round after the last word: it may have been written meanwhile


def _start_of_last(descriptor: int, count: int) -> int:
    """The offset at which the last `count` lines begin, found by reading blocks backwards."""
    position = end = os.fstat(descriptor).st_size
    if count <= 0:
        return end
    needed = count + 1  # the newline that ends the line before the first one wanted
    while position > 0:
        start = max(0, position - _BLOCK)
        block = os.pread(descriptor, position - start, start)
        if position == end and not block.endswith(b"\n"):
            needed -= 1  # an entry is just being written; what is there of it counts as a line
        found = block.count(b"\n")
        if found >= needed:
            offset = len(block)
            for _ in range(needed):
                offset = block.rindex(b"\n", 0, offset)
            return start + offset + 1
        needed -= found
        position = start
    return 0
