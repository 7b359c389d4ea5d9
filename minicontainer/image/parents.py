"""Descriptors of the directories that entries are made in, found inside the root and kept open for the next entry.

Most entries follow another one of the same directory, so few are opened twice. Man page: openat2(2).
"""

from __future__ import annotations

import errno
import os

from minicontainer.image.tar import BadArchive, shown
from minicontainer.linux.path import open_in_root

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KEPT = 128


class Parents:
    """Open directories by path, the least recently used closed first; b"" is the root itself, which is not ours.

    :param depth: the most directories that one may lie below the root.
    """

    def __init__(self, root: int, depth: int) -> None:
        self._root = root
        self._depth = depth
        self._open: dict[bytes, int] = {}
        self._prefix_length = len(os.readlink(f"/proc/self/fd/{root}"))

    def existing(self, path: bytes) -> int | None:
        """A descriptor of the directory at `path`, or None; it stays open while the next 127 are opened."""
        if not path:
            return self._root
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            self._open[path] = descriptor  # last in line to be closed
            return descriptor
        try:
            descriptor = open_in_root(self._root, path, DIRECTORY)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return None
        self.remember(path, descriptor)
        return descriptor

    def remember(self, path: bytes, descriptor: int) -> None:
        """Keep the open directory `descriptor`, which is `path`.

        :raises BadArchive: where it lies too deep.
        """
        old = self._open.pop(path, None)
        if old is not None:
            os.close(old)
        if len(self._open) >= _KEPT:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = descriptor
        # Links inside the layer can lead deeper than any name; this is the depth that counts for whoever removes it.
        if os.readlink(b"/proc/self/fd/%d" % descriptor).count(b"/", self._prefix_length) > self._depth:
            raise BadArchive(f"directory {shown(path)} lies deeper than the limit of {self._depth}")

    def forget(self, keep: int | None = None) -> None:
        """Close all but `keep`: something was removed, so paths may lead elsewhere now."""
        for path, descriptor in list(self._open.items()):
            if descriptor != keep:
                os.close(self._open.pop(path))
