"""Looking into a stack of layers without mounting it: what would overlayfs show at this path?

A layer's archive may lean on the layers below it: a hard link to a file that is not in it, an entry whose parent
directories are only down there. To unpack such a layer, one has to look. Used in labs 04 and 05.
Source: kernel Documentation/filesystems/overlayfs.rst, "Merging directories".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from minicontainer.image.overlay import is_opaque, is_whiteout

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found:
    """What is at a path: where its directory is (a descriptor), its name in it, its lstat(2) result."""

    __slots__ = ("dirfd", "name", "status")

    def __init__(self, dirfd: int, name: bytes, status: os.stat_result) -> None:
        self.dirfd = dirfd
        self.name = name
        self.status = status

    def readlink(self) -> bytes:
        """The target of a symbolic link."""
        return os.readlink(self.name, dir_fd=self.dirfd)

    def open(self) -> int:
        """Open a regular file or a directory for reading."""
        return os.open(self.name, _OPEN, dir_fd=self.dirfd)


class Merged:
    """The layers `paths`, topmost first, seen as one tree. Close it, or use it as a context manager."""

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self._paths = paths
        self._opened: list[int] = []
        # What each directory is made of, topmost first; filled as one looks.
        self._directories: dict[bytes, list[int]] = {}

    def __enter__(self) -> Merged:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._forget()

    def _forget(self) -> None:
        for descriptor in self._opened:
            os.close(descriptor)
        self._opened = []
        self._directories = {}

    def _open(self, name: bytes | str, dirfd: int | None = None) -> int:
        descriptor = os.open(name, _DIRECTORY, dir_fd=dirfd)
        self._opened.append(descriptor)
        return descriptor

    def find(self, path: bytes) -> Found | None:
        """The entry at `path` ("a/b", no "..", no leading slash), or None.

        Symbolic links are not followed: where one lies on the way, nothing is found.
        """
        if len(self._opened) > 256:
            self._forget()
        parent, _, name = path.rpartition(b"/")
        for dirfd in self._directory(parent):
            try:
                status = os.stat(name or b".", dir_fd=dirfd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            return None if is_whiteout(status) else Found(dirfd, name or b".", status)
        return None

    def names(self, path: bytes) -> list[bytes]:
        """The names in the directory at `path`, sorted."""
        names: dict[bytes, bool] = {}
        for dirfd in self._directory(path):
            for name in map(os.fsencode, os.listdir(dirfd)):
                if name not in names:
                    names[name] = not is_whiteout(os.stat(name, dir_fd=dirfd, follow_symlinks=False))
        return sorted(name for name, present in names.items() if present)

    def _directory(self, path: bytes) -> list[int]:
        """Descriptors of the directories that overlayfs would merge at `path`, topmost first."""
        known = self._directories.get(path)
        if known is not None:
            return known
        parts: list[int] = []
        if not path:
            parts = [self._open(os.fspath(layer)) for layer in self._paths]
        else:
            parent, _, name = path.rpartition(b"/")
            for dirfd in self._directory(parent):
                try:
                    status = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    break  # a file or a whiteout hides the directories below it
                parts.append(self._open(name, dirfd))
                if is_opaque(parts[-1]):
                    break
        self._directories[path] = parts
        return parts
