"""Verbs on images: images, rmi."""

from __future__ import annotations

import time

from minicontainer.cli import output
from minicontainer.cli.listing import Row, rendered
from minicontainer.cli.text import duration, size
from minicontainer.engine import times
from minicontainer.errors import MinicontainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.flags import Parsed
    from minicontainer.image.config import Image

COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
NONE = "<none>"


class ImageRow(Row):
    """An image under one of its names, as ``images`` shows it."""

    HEADERS = {
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "ID": "IMAGE ID",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
    }

    def __init__(self, image: Image, repository: str, tag: str, *, full: bool, now: int) -> None:
        self.image = image
        self._repository = repository
        self._tag = tag
        self._full = full
        self._now = now

    def Repository(self) -> str:
        return self._repository

    def Tag(self) -> str:
        return self._tag

    def Digest(self) -> str:
        return self.image.manifest_digest or NONE

    def ID(self) -> str:
        return self.image.id if self._full else self.image.short_id

    def _created(self) -> int | None:
        return times.parse(self.image.created) if self.image.created else None

    def CreatedSince(self) -> str:
        created = self._created()
        return "N/A" if created is None else f"{duration((self._now - created) / 1e9)} ago"

    def CreatedAt(self) -> str:
        created = self._created()
        return (
            "N/A"
            if created is None
            else time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created // 10**9))
        )

    def Size(self) -> str:
        return size(self.image.size)


def images(parsed: Parsed) -> int:
    """List images, newest first, one row for each name."""
    from minicontainer.image.store import Store

    now = time.time_ns()
    rows = []
    damaged: list[MinicontainerError] = []
    for image in Store().images(on_damage=damaged.append):
        for name in image.references or (f"{NONE}:{NONE}",):
            repository, _, tag = name.rpartition(":")
            rows.append(ImageRow(image, repository, tag, full=parsed.no_trunc, now=now))
    if parsed.arguments:
        rows = [row for row in rows if _named(row, parsed.arguments[0])]
    for error in damaged:
        output.complain(error.message, error.hint)
    status = 1 if damaged else 0
    if parsed.quiet:
        output.write("".join(f"{identifier}\n" for identifier in dict.fromkeys(row.ID() for row in rows)))
        return status
    columns = (*COLUMNS[:2], "Digest", *COLUMNS[2:]) if parsed.digests else COLUMNS
    output.write(rendered(rows, ImageRow, columns, parsed.format))
    return status


def _named(row: ImageRow, wanted: str) -> bool:
    """Whether the row's name is the wanted one: a repository, or with a tag; ``*`` as in a shell."""
    from fnmatch import fnmatchcase

    return fnmatchcase(row.Repository(), wanted) or fnmatchcase(f"{row.Repository()}:{row.Tag()}", wanted)


def rmi(parsed: Parsed) -> int:
    """Remove names of images, and images that then have none."""
    from minicontainer.cli.containers import engine
    from minicontainer.image.removal import Use
    from minicontainer.image.store import Store

    store = Store()
    used = [
        Use(container.config.image_id, container.id, running=container.state.running)
        for container in engine().containers(all=True)
    ]
    status = 0
    for name in parsed.arguments:
        try:
            for text in store.remove(name, force=parsed.force, used_by=used):
                output.line(text)
        except MinicontainerError as error:
            output.complain(error.message, error.hint)
            status = 1
    return status
