"""Frames: how clients and a container's supervisor talk over one stream socket.

Docker's eight byte header (stream type, three zero bytes, length in network order), then the payload. Types 0 to 2
are stdin, stdout and stderr; type 3 is ours and carries one JSON object::

    client:     {"attach": {"output": true, "notify": false, "owner": false}}
                {"resize": [rows, columns]}  {"eof": "stdin"}  {"signal": number}
    supervisor: {"started": pid}  {"log": 1}  {"exit": status}  {"error": {...}}

Lab 10. Source: Docker Engine API, "Attach to a container", stream format.
"""

from __future__ import annotations

import json
import struct

STDIN, STDOUT, STDERR, CONTROL = 0, 1, 2, 3
LONGEST = 1 << 22  # bytes; a longer frame is no frame of ours

_HEADER = struct.Struct(">BxxxI")


def frame(kind: int, data: bytes) -> bytes:
    """One frame as bytes.

    >>> frame(STDOUT, b"hi")
    b'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x02hi'
    """
    return _HEADER.pack(kind, len(data)) + data


def control(**message: object) -> bytes:
    """A control frame, for example ``control(exit=0)``."""
    return frame(CONTROL, json.dumps(message).encode())


class FrameReader:
    """Cuts a stream of bytes into frames.

    >>> reader = FrameReader()
    >>> reader.feed(frame(STDERR, b"oh")[:9])
    []
    >>> reader.feed(b"h")
    [(2, b'oh')]
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete with `data`.

        :raises ValueError: the other side does not speak this protocol.
        """
        self._pending += data
        frames = []
        start = 0
        while len(self._pending) - start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._pending, start)
            if kind > CONTROL or length > LONGEST:
                raise ValueError(f"not a frame: type {kind}, {length} bytes")
            end = start + _HEADER.size + length
            if len(self._pending) < end:
                break
            frames.append((kind, bytes(self._pending[start + _HEADER.size : end])))
            start = end
        del self._pending[:start]
        return frames
