"""A file tree that exists only as a description, to be written as a layer archive.

Everything belongs to root and dates from 1970, so that the same content always gives the same bytes. Used for base
images. Source: OCI image-spec layer.md.
"""

from __future__ import annotations

from pathlib import Path

from minicontainer.image.pack import TarWriter
from minicontainer.image.tar import DIRECTORY, FILE, SYMLINK, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO


class Tree:
    """Files, directories and symbolic links by path; parents are added as needed, and the first word stands.

    >>> tree = Tree()
    >>> tree.file("etc/hostname", b"toy\\n")
    >>> sorted(tree.entries)
    ['etc', 'etc/hostname']
    """

    def __init__(self) -> None:
        self.entries: dict[str, tuple[Entry, bytes | Path]] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory."""
        self._put(path, Entry(b"", DIRECTORY, mode=mode))

    def file(self, path: str, content: bytes | Path, mode: int = 0o644) -> None:
        """Add a file with the given content, or the content of a file of this machine."""
        self._put(path, Entry(b"", FILE, mode=mode), content)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._put(path, Entry(b"", SYMLINK, mode=0o777, linkname=target.encode()))

    def _put(self, path: str, entry: Entry, content: bytes | Path = b"") -> None:
        path = path.strip("/")
        parent = path.rpartition("/")[0]
        if parent and parent not in self.entries:
            self.directory(parent)
        entry.name = path.encode()
        self.entries.setdefault(path, (entry, content))

    def write(self, file: BinaryIO) -> None:
        """Write the tree as a tar archive, the root first and then by name."""
        writer = TarWriter(file)
        writer.add(Entry(b"./", DIRECTORY, mode=0o755))
        for path in sorted(self.entries):
            entry, content = self.entries[path]
            if isinstance(content, Path):
                entry.size = content.stat().st_size
                with open(content, "rb") as source:
                    writer.add(entry, source)
            else:
                writer.add(entry, content)
        writer.close()
