"""What a layer's archive may ask for, and what its names mean.

An archive is hostile until shown otherwise: without bounds, a few kilobytes could fill the disk, or make directories
that nobody can remove. Used in labs 04 and 06. Man page: path_resolution(7).
"""

from __future__ import annotations

from minicontainer.image.tar import BadArchive, shown


class Limits:
    """What a layer may ask for. The defaults hold every image in daily use, several times over."""

    def __init__(
        self,
        *,
        entries: int = 1_000_000,
        size: int = 64 << 30,
        depth: int = 255,
        name: int = 255,
        path: int = 4095,
    ) -> None:
        self.entries = entries
        self.size = size  # bytes, uncompressed
        self.depth = depth  # directories between the root and an entry
        self.name = name  # bytes of one component, NAME_MAX
        self.path = path  # bytes of a whole name or link target, PATH_MAX - 1


LIMITS = Limits()


def clean(name: bytes, limits: Limits = LIMITS) -> bytes:
    """An archive's name as a path from the root: no leading slash, no ".", no ".."; b"" is the root itself.

    :raises BadArchive: where ".." leads out, or a limit is broken.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise BadArchive(f"entry {shown(name)} leads out of the layer")
            parts.pop()
        elif len(part) > limits.name:
            raise BadArchive(f"entry {shown(name)} has a component longer than {limits.name} bytes")
        else:
            parts.append(part)
    if len(parts) > limits.depth or len(name) > limits.path:
        raise BadArchive(f"entry {shown(name)} is longer or deeper than the limit")
    return b"/".join(parts)


def follow(parent: bytes, link: bytes, limits: Limits) -> bytes:
    """Where the symbolic link `link` in the directory `parent` leads, as seen from the root; ".." stops there."""
    parts = [] if link.startswith(b"/") else parent.split(b"/")
    for part in link.split(b"/"):
        parts = parts[:-1] if part == b".." else [*parts, part]
    return clean(b"/".join(parts), limits)
