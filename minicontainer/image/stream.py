"""Compressed bytes in, plain bytes out, hashed on the way: how a layer is read without ever being held whole.

gzip and plain tar always; zstd where Python has it (3.14, or the backports.zstd or zstandard package). Inflating and
hashing run in a thread, which needs no lock of Python's while it works, so that writing files goes on beside it.
Source: OCI image-spec layer.md, RFC 1952 (gzip), RFC 8878 (zstd).
"""

from __future__ import annotations

import threading
import zlib
from queue import SimpleQueue

from minicontainer.image.blobs import new_hash
from minicontainer.image.config import LAYER, LAYER_GZIP, LAYER_ZSTD, BadImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

CHUNK = 1 << 18  # bytes: large enough to make Python's part small, small enough for the cache
_AHEAD = 8  # chunks the thread may be ahead


class PlainStream:
    """The uncompressed bytes of `file`, as an iterator of chunks.

    :param file: anything with ``read(n)``; it is read to its end, and not closed.
    :param limit: most uncompressed bytes to deliver; more is an error (a decompression bomb).
    :param tee: is given the bytes as they were read, still compressed (to store them meanwhile).

    After the last chunk, `size` and `diff_id` (the digest of the plain bytes) are known; `media_type` from the start
    of the first chunk on.
    """

    def __init__(self, file: BinaryIO, *, limit: int, tee: Callable[[bytes], None] | None = None) -> None:
        self._file = file
        self._limit = limit
        self._tee = tee
        self._hash = new_hash(CHUNK)
        self.size = 0
        self.media_type = LAYER
        self._full: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._free = threading.Semaphore(_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="layer-stream", daemon=True)

    def __enter__(self) -> PlainStream:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopped = True
        self._free.release()
        self._thread.join()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            item = self._full.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            self._free.release()
            yield item

    @property
    def diff_id(self) -> str:
        """The digest of all plain bytes delivered."""
        return f"sha256:{self._hash.hexdigest()}"

    def drain(self) -> None:
        """Read what is left, so that the digest covers all of it."""
        for _chunk in self:
            continue

    def _work(self) -> None:
        try:
            for chunk in self._decompressed():
                self.size += len(chunk)
                if self.size > self._limit:
                    raise BadImage(f"the layer unpacks to more than the limit of {self._limit} bytes")
                self._hash.update(chunk)
                self._free.acquire()
                if self._stopped:
                    return
                self._full.put(chunk)
            self._full.put(None)
        except BaseException as error:  # raised again in the thread that reads
            self._full.put(error)

    def _read(self, size: int = CHUNK) -> bytes:
        data = self._file.read(size)
        if self._tee is not None and data:
            self._tee(data)
        return data

    def _decompressed(self) -> Iterator[bytes]:
        first = self._read()
        if first.startswith(b"\x1f\x8b"):
            self.media_type = LAYER_GZIP
            yield from self._gunzip(first)
        elif first.startswith(b"\x28\xb5\x2f\xfd"):
            self.media_type = LAYER_ZSTD
            yield from self._unzstd(first)
        else:
            while first:
                yield first
                first = self._read()

    def _gunzip(self, data: bytes) -> Iterator[bytes]:
        """A gzip file may be several members one after the other, and zeros at the end."""
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            while data:
                plain = member.decompress(data, CHUNK)
                if plain:
                    yield plain
                if member.eof:
                    data = member.unused_data.lstrip(b"\0") or self._read().lstrip(b"\0")
                    while not data and (more := self._read()):
                        data = more.lstrip(b"\0")
                    member = zlib.decompressobj(zlib.MAX_WBITS | 16) if data else member
                else:
                    data = member.unconsumed_tail or self._read()
        except zlib.error as error:
            raise BadImage(f"the layer's gzip data is damaged: {error}") from error
        if not member.eof:
            raise BadImage("the layer's gzip data ends too early")

    def _unzstd(self, first: bytes) -> Iterator[bytes]:
        reader = _zstd_reader(_Joined(first, self._read))
        try:
            while plain := reader.read(CHUNK):
                yield plain
        except Exception as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise BadImage(f"the layer's zstd data is damaged: {error}") from error
        while self._read():  # nothing may be left unread: the tee wants all of it
            continue


class _Joined:
    """A reader that gives back the bytes which had to be looked at first."""

    def __init__(self, first: bytes, read: Callable[[int], bytes]) -> None:
        self._first = first
        self._read = read

    def read(self, size: int = -1) -> bytes:
        wanted = CHUNK if size < 0 else size
        if self._first:
            data, self._first = self._first[:wanted], self._first[wanted:]
            return data
        return self._read(wanted)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def _zstd_reader(source: _Joined) -> Any:
    """A decompressing reader from whichever zstd module this Python has.

    :raises BadImage: where it has none.
    """
    import importlib

    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name).ZstdFile(source)
        except ImportError:
            continue
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise BadImage(
            "the layer is compressed with zstd, which this Python cannot read",
            hint="install the Python package `zstandard`, or use Python 3.14",
        ) from None
    return zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
