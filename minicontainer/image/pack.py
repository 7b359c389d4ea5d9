"""A layer archive out of a directory, or out of entries that exist nowhere yet; the same content, the same bytes.

Names are sorted, and nothing of the moment gets in: no access times, no user names, no device or inode numbers.
Used in lab 04 and for base images. Source: OCI image-spec layer.md; https://reproducible-builds.org, "Archives".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from minicontainer.errors import MinicontainerError
from minicontainer.image import overlay
from minicontainer.image.tar import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    Entry,
    header,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
_END = bytes(2 * BLOCK)


class TarWriter:
    """Writes entries to `file`; :meth:`close` ends the archive (the file stays open)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, entry: Entry, content: bytes | BinaryIO = b"") -> None:
        """Append one entry; a file's `size` is set from bytes, and promised by the caller for a stream.

        :raises MinicontainerError: where a stream ends before the entry's size.
        """
        if isinstance(content, bytes):
            entry.size = len(content)
            self._file.write(header(entry))
            self._file.write(content)
        else:
            self._file.write(header(entry))
            left = entry.size
            while left:
                piece = content.read(min(left, 1 << 20))
                if not piece:
                    raise MinicontainerError(f"{os.fsdecode(entry.name)} became shorter while it was read")
                self._file.write(piece)
                left -= len(piece)
        self._file.write(bytes(-entry.size % BLOCK))

    def close(self) -> None:
        """Write the two zero blocks that end an archive."""
        self._file.write(_END)


def pack(directory: Path | str, file: BinaryIO, *, mtime: int | None = None) -> None:
    """Write the tree below `directory` as a layer archive to `file`, with the root's own entry first.

    :param mtime: nanoseconds since 1970 to give to everything instead of its own time.

    Sockets are left out, as by every archiver.
    """
    writer = TarWriter(file)
    seen: dict[tuple[int, int], bytes] = {}
    for path, name in _walk(os.fsencode(directory)):
        status = os.lstat(path)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            continue
        entry = entry_of(path, name, status, kind)
        if mtime is not None:
            entry.mtime = mtime
        if status.st_nlink > 1 and kind != DIRECTORY:
            first = seen.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                entry.kind, entry.linkname, entry.xattrs, entry.size = LINK, first, {}, 0
        if entry.kind == FILE:
            with open(path, "rb", buffering=0) as content:
                writer.add(entry, content)
        else:
            writer.add(entry)
    writer.close()


def entry_of(path: bytes, name: bytes, status: os.stat_result, kind: bytes) -> Entry:
    """The metadata of the file at `path`, as an entry called `name`."""
    return Entry(
        name,
        kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == FILE else 0,
        mtime=status.st_mtime_ns,
        linkname=os.readlink(path) if kind == SYMLINK else b"",
        major=os.major(status.st_rdev) if kind in (CHAR, BLOCK_DEVICE) else 0,
        minor=os.minor(status.st_rdev) if kind in (CHAR, BLOCK_DEVICE) else 0,
        xattrs=_xattrs(path),
    )


def _xattrs(path: bytes) -> dict[bytes, bytes]:
    """The attributes that belong into a layer."""
    found = {}
    for name in os.listxattr(path, follow_symlinks=False):
        if (name.startswith("user.") or name == "security.capability") and not name.startswith(
            overlay.PRIVATE
        ):
            found[os.fsencode(name)] = os.getxattr(path, name, follow_symlinks=False)
    return found


def _walk(top: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(path, name in the archive) of `top` and of all below it, parents first, sorted; without recursion."""
    pending = [(top, b"./")]
    while pending:
        path, name = pending.pop()
        yield path, name
        if stat.S_ISDIR(os.lstat(path).st_mode):
            below = b"" if name == b"./" else name + b"/"
            children = sorted(os.listdir(path), reverse=True)
            pending += [(path + b"/" + child, below + child) for child in children]
