"""A layer's archive becomes a directory that overlayfs can stack.

No entry reaches outside the directory, whatever its name, its links and the links before it say: each is made by name
below a descriptor of its parent, and parents are opened with openat2(2)'s RESOLVE_IN_ROOT. Deletions are turned into
overlayfs' form. Counts, sizes and depths are bounded. Built in lab 04, attacked in lab 06.
Source: OCI image-spec layer.md; man 2 openat2, man 7 path_resolution.

Where implementations differ, this one decides: `..` in a name is resolved before anything else, and a name that leads
out by it is an error, as in Docker; a symbolic link as a parent is followed, inside the root, as in containerd.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from minicontainer.errors import MinicontainerError
from minicontainer.image.limits import LIMITS, Limits
from minicontainer.image.merged import Merged
from minicontainer.image.stream import PlainStream
from minicontainer.image.tar import BadArchive, Entry, TarReader, shown
from minicontainer.image.writer import LayerWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO


class Unpacked:
    """What :func:`unpack` found out."""

    def __init__(self) -> None:
        self.diff_id = ""
        self.size = 0  # bytes of the plain archive
        self.media_type = ""
        self.leans = False  # the result depends on the layers below: it fits this stack only
        # What could not be made, by kind ("devices", "owners", "xattrs"): as an ordinary user or in a user namespace.
        self.left_out: dict[str, int] = {}


def unpack(
    file: BinaryIO,
    directory: Path,
    *,
    lower: Sequence[Path] | None = None,
    limits: Limits = LIMITS,
    tee: Callable[[bytes], None] | None = None,
) -> Unpacked:
    """Unpack the layer archive `file` (plain, gzip or zstd) into the empty `directory`.

    :param lower: the unpacked layers below, topmost first: used where the archive leans on them, and to leave out
        whiteouts of what is not there. None: unpack the archive by itself.
    :param tee: is given the archive's bytes as they are read.
    :raises BadArchive: a damaged or hostile archive; what was made so far stays in `directory` for the caller to drop.
    :raises MinicontainerError: the disk is full, or the file system cannot hold such an entry.
    """
    result = Unpacked()
    entry: Entry | None = None
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with PlainStream(file, limit=limits.size, tee=tee) as stream, Merged(lower or ()) as below:
            reader = TarReader(iter(stream), max_entries=limits.entries)
            writer = LayerWriter(root, reader, below if lower is not None else None, limits)
            try:
                for entry in reader:
                    writer.write(entry)
                entry = None
                writer.finish()
            finally:
                writer.close()
            result.leans, result.left_out = writer.leans, writer.left_out
            stream.drain()
            result.diff_id, result.size, result.media_type = stream.diff_id, stream.size, stream.media_type
    except OSError as error:
        where = f" at {shown(entry.name)}" if entry is not None else ""
        raise _explain(error, where) from error
    finally:
        os.close(root)
    return result


def _explain(error: OSError, where: str) -> MinicontainerError:
    """An error of the file system, for a person: was it the disk, or the archive?"""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    ):
        hint = "make room: remove containers and images, or look at `df -h` and `df -i`"
        return MinicontainerError(f"cannot unpack the layer{where}: {reason}", hint=hint)
    return BadArchive(f"the layer cannot be unpacked{where}: {reason}")
