"""index.json: which images there are, and under which names; replaced whole, under a lock.

An entry points to a manifest. An image with three names has three entries; one with none has one entry that only
keeps it from being garbage. Used in lab 09. Source: OCI image-spec image-layout.md, annotations.md; man 2 flock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minicontainer import paths
from minicontainer.errors import MinicontainerError
from minicontainer.image.config import INDEX, BadImage, Descriptor, parse_document
from minicontainer.image.reference import Reference

REF_NAME = "org.opencontainers.image.ref.name"
SIZE = "io.minicontainer.image.size"  # bytes of the uncompressed layers, which the manifest does not say
_LIMIT = 16 << 20


class Index:
    """The index of the image layout in the directory `layout`."""

    def __init__(self, layout: Path) -> None:
        self._path = layout / "index.json"
        self._lock = layout / "lock"

    def exists(self) -> bool:
        """Whether there is one."""
        return self._path.exists()

    def read(self) -> list[Descriptor]:
        """All entries; none where there is no store yet.

        :raises BadImage: where the file is damaged.
        """
        try:
            with open(self._path, "rb") as file:
                data = file.read(_LIMIT)
        except FileNotFoundError:
            return []
        except PermissionError as error:
            raise MinicontainerError(
                f"cannot read the image store {self._path.parent}: {error.strerror}",
                hint="run as root, or as an ordinary user inside `minicontainer lab -- …`",
            ) from error
        entries = parse_document(data, "the store's index.json").get("manifests")
        if not isinstance(entries, list):
            raise BadImage("the store's index.json has no list of manifests")
        return [Descriptor.from_json(entry, "an entry of index.json") for entry in entries]

    def create(self) -> None:
        """Make an empty one, unless somebody else did."""
        with paths.lock(self._lock):
            if not self.exists():
                self._write([])

    @contextmanager
    def change(self) -> Iterator[list[Descriptor]]:
        """The index to be changed: read and written under the lock; not written when the block raises."""
        with paths.lock(self._lock):
            entries = self.read()
            yield entries
            self._write(entries)

    def _write(self, entries: Iterable[Descriptor]) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [entry.to_json() for entry in entries],
        }
        paths.write_whole(self._path, json.dumps(document, indent=1), durable=True)


def names_of(entries: Iterable[Descriptor]) -> list[str]:
    """The names that the entries give."""
    return [entry.annotations[REF_NAME] for entry in entries if REF_NAME in entry.annotations]


def repository(name: str) -> str:
    """``busybox`` of ``busybox:latest``."""
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name


def enter(entries: list[Descriptor], entry: Descriptor, reference: Reference | None) -> None:
    """Put an entry into the index under a name; the image that had the name stays, if need be without one."""
    name = reference.familiar() if reference is not None else None
    if name is not None:
        for old in [old for old in entries if old.annotations.get(REF_NAME) == name]:
            entries.remove(old)
            if old.digest != entry.digest and all(other.digest != old.digest for other in entries):
                annotations = {key: value for key, value in old.annotations.items() if key != REF_NAME}
                entries.append(Descriptor(old.media_type, old.digest, old.size, annotations))
        # An entry without a name only keeps an image that has no other.
        entries[:] = [old for old in entries if old.digest != entry.digest or REF_NAME in old.annotations]
    elif any(old.digest == entry.digest for old in entries):
        return
    annotations = {key: value for key, value in entry.annotations.items() if key != REF_NAME}
    entries.append(
        Descriptor(
            entry.media_type, entry.digest, entry.size, annotations | ({REF_NAME: name} if name else {})
        )
    )
