"""Content addressed storage: a file's name is the SHA-256 of its bytes, so nobody can change it unnoticed.

A blob is written under a temporary name and renamed when it is complete and its digest is what was promised; what
is read back into memory is hashed again. Used in lab 09. Source: OCI image-spec image-layout.md, descriptor.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from minicontainer.image.config import DOCUMENT_LIMIT, BadImage, is_sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

_SMALL = 1 << 16


def new_hash(size: int = _SMALL) -> Any:
    """A SHA-256 object; for up to 64 KiB the interpreter's own.

    hashlib loads OpenSSL, which takes 4 ms and is five times as fast per byte: worth it for layers, not for the two
    small documents that each `minicontainer run` verifies.
    """
    if size <= _SMALL:
        for module in ("_sha2", "_sha256"):  # since Python 3.12, and before
            try:
                return __import__(module).sha256()
            except ImportError:
                continue  # built without: OpenSSL's, below, is always there
    from hashlib import sha256

    return sha256()


def digest_of(data: bytes) -> str:
    """``sha256:<hex>`` of `data`."""
    state = new_hash(len(data))
    state.update(data)
    return f"sha256:{state.hexdigest()}"


class Blobs:
    """The ``blobs/sha256`` directory of an image layout."""

    def __init__(self, layout: Path) -> None:
        self.directory = layout / "blobs" / "sha256"
        # Unfinished blobs: on the same file system, outside of what readers look at.
        self.ingest = layout / "ingest"

    def path(self, digest: str) -> Path:
        """Where the blob lies.

        :raises BadImage: for anything but a well-formed sha256 digest: it becomes a path (CVE-2024-3727).
        """
        if not is_sha256(digest):
            raise BadImage(f"unsupported digest {digest!r}", hint="the store holds sha256 digests only")
        return self.directory / digest[7:]

    def has(self, digest: str) -> bool:
        """Whether the blob is there (its content is verified when it is read)."""
        return self.path(digest).exists()

    def read(self, digest: str, limit: int = DOCUMENT_LIMIT) -> bytes:
        """The blob's bytes, verified.

        :raises BadImage: missing, larger than `limit` bytes, or not what its digest says.
        """
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise BadImage(
                f"blob {digest} is missing from the store", hint="remove the image and add or pull it again"
            ) from None
        if len(data) > limit:
            raise BadImage(f"blob {digest} is larger than the limit of {limit} bytes")
        found = digest_of(data)
        if found != digest:
            raise BadImage(
                f"blob {digest} is damaged: its content is {found}",
                hint="remove the image and add or pull it again",
            )
        return data

    def put(self, data: bytes) -> str:
        """Store `data` and return its digest; storing it twice is one blob."""
        digest = digest_of(data)
        if not self.has(digest):
            with BlobWriter(self) as writer:
                writer.write(data)
                writer.commit(digest)
        return digest

    def open(self, digest: str) -> BinaryIO:
        """The blob as an unverified stream, for a reader that hashes as it goes.

        :raises BadImage: where it is missing.
        """
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise BadImage(
                f"blob {digest} is missing from the store", hint="remove the image and add or pull it again"
            ) from None


class BlobWriter:
    """Write one blob piece by piece; without :meth:`commit`, leaving the context drops it."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        blobs.ingest.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._temporary = blobs.ingest / f"{os.getpid()}-{os.urandom(6).hex()}"
        self._file = open(self._temporary, "xb", buffering=0)
        self._hash = new_hash(_SMALL + 1)
        self.size = 0  # bytes so far

    def __enter__(self) -> BlobWriter:
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def commit(self, expected: str | None = None, size: int | None = None) -> str:
        """Give the blob its name and return its digest.

        :param expected: the digest that was promised; :param size: the size that was promised, bytes.
        :raises BadImage: where the content is another.
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        if expected is not None and digest != expected:
            raise BadImage(f"content does not match its digest: expected {expected}, got {digest}")
        if size is not None and self.size != size:
            raise BadImage(f"content of {digest} is {self.size} bytes, expected {size}")
        path = self._blobs.path(digest)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(self._temporary, path)
        return digest

    def __exit__(self, *_exception: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)
