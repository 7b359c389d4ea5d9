"""Entries of an archive become files: each made by name below a descriptor of its parent.

The order within an archive is free: a whiteout may come after what it must not hide, a directory after what lies in
it, a hard link before its target's replacement. Built in lab 04, attacked in lab 06. Source: OCI image-spec layer.md.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.image import overlay
from minicontainer.image.limits import Limits, clean, follow
from minicontainer.image.merged import Merged
from minicontainer.image.metadata import Metadata, attributes_of
from minicontainer.image.parents import DIRECTORY as DIRECTORY_FLAGS
from minicontainer.image.parents import Parents
from minicontainer.image.remove import remove_tree
from minicontainer.image.tar import DIRECTORY, FILE, LINK, SYMLINK, BadArchive, Entry, TarReader, shown
from minicontainer.linux.path import open_in_root

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOPS = 40  # symbolic links on the way to one parent, the kernel's own limit
_HOLE = 1 << 16  # zeros from this many bytes on become a hole
_ZEROS = bytes(1 << 18)


class LayerWriter:
    """Makes entries below one root. Directories are kept 0700 while it works and get their mode and times last."""

    def __init__(self, root: int, reader: TarReader, below: Merged | None, limits: Limits) -> None:
        self.leans = False  # the result depends on the layers below
        self.left_out: dict[str, int] = {}
        self._root = root
        self._reader = reader
        self._below = below
        self._limits = limits
        self._metadata = Metadata(self.left_out)
        self._parents = Parents(root, limits.depth)
        self._attributes: dict[bytes, Entry] = {b"": Entry(b"", DIRECTORY, mode=0o755)}
        self._whiteouts: set[bytes] = set()
        self._opaque: set[bytes] = set()
        os.fchmod(root, 0o700)  # no set-group-ID from the directory above

    def close(self) -> None:
        """Forget the open directories."""
        self._parents.forget()

    def write(self, entry: Entry) -> None:
        """Make one entry of the archive."""
        path = clean(entry.name, self._limits)
        if b".wh." in path and self._deletion(path):
            return
        if len(entry.linkname) > self._limits.path:
            raise BadArchive(
                f"the link {shown(entry.name)} has a target longer than {self._limits.path} bytes"
            )
        if not path:
            if entry.kind != DIRECTORY:
                raise BadArchive("the layer's root is not a directory")
            self._attributes[path] = entry
            self._metadata.own(entry, self._root)
            self._metadata.mark(entry, self._root)
            return
        parent, _, name = path.rpartition(b"/")
        self._make(entry, path, self._parent(parent), name)

    def _make(self, entry: Entry, path: bytes, dirfd: int, name: bytes) -> None:
        if entry.kind == FILE:
            self._file(entry, dirfd, name)
        elif entry.kind == DIRECTORY:
            self._directory(entry, path, dirfd, name)
        elif entry.kind == LINK:
            self._link(entry, path, name)
        elif entry.kind == SYMLINK:
            self._clear(dirfd, name)
            os.symlink(entry.linkname, name, dir_fd=dirfd)
            self._metadata.finish_special(entry, dirfd, name)
        else:
            self._clear(dirfd, name)
            if self._metadata.node(entry, dirfd, name):
                os.chmod(name, entry.mode, dir_fd=dirfd)
                self._metadata.finish_special(entry, dirfd, name)

    def _file(self, entry: Entry, dirfd: int, name: bytes) -> None:
        try:
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=dirfd)
        except FileExistsError:
            self._clear(dirfd, name)
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=dirfd)
        try:
            hole = False
            for piece in self._reader.content():
                hole = len(piece) >= _HOLE and not piece[0] and piece == _ZEROS[: len(piece)]
                if hole:
                    os.lseek(descriptor, len(piece), os.SEEK_CUR)
                else:
                    while piece:
                        piece = piece[os.write(descriptor, piece) :]
            if hole:
                os.ftruncate(descriptor, entry.size)
            self._metadata.own(entry, descriptor)
            os.fchmod(descriptor, entry.mode)
            self._metadata.mark(entry, descriptor)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)

    def _directory(self, entry: Entry, path: bytes, dirfd: int, name: bytes) -> None:
        hides = False
        try:
            os.mkdir(name, 0o700, dir_fd=dirfd)
        except FileExistsError:
            status = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                hides = path in self._whiteouts
                self._clear(dirfd, name)
                os.mkdir(name, 0o700, dir_fd=dirfd)
        descriptor = os.open(name, DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=dirfd)
        self._parents.remember(path, descriptor)
        self._metadata.own(entry, descriptor)
        self._metadata.mark(entry, descriptor)
        if hides:
            self._hide(path, descriptor)
        self._attributes[path] = entry

    def _link(self, entry: Entry, path: bytes, name: bytes) -> None:
        """A hard link, to an entry of this layer or of one below, of which a copy is made then."""
        target = clean(entry.linkname, self._limits)
        where, _, old = target.rpartition(b"/")
        source = self._parents.existing(where)
        dirfd = self._parent(path.rpartition(b"/")[0])
        status = None
        if source is not None:
            try:
                status = os.stat(old or b".", dir_fd=source, follow_symlinks=False)
            except FileNotFoundError:
                pass  # in a layer below, then
        if source is None or status is None or (overlay.is_whiteout(status) and target in self._whiteouts):
            self._copy_from_below(entry, target, dirfd, name)
            return
        if stat.S_ISDIR(status.st_mode):
            raise BadArchive(f"entry {shown(entry.name)} is a hard link to a directory")
        try:
            present = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
        except FileNotFoundError:
            present = None
        if present is not None:
            if os.path.samestat(present, status):
                return  # a link to itself, or the same link once more
            self._clear(dirfd, name)
            source = self._parent(where)  # again: making room may have closed it
        os.link(old, name, src_dir_fd=source, dst_dir_fd=dirfd, follow_symlinks=False)

    def _copy_from_below(self, entry: Entry, target: bytes, dirfd: int, name: bytes) -> None:
        found = self._below.find(target) if self._below is not None else None
        if found is None or not stat.S_ISREG(found.status.st_mode):
            raise BadArchive(
                f"entry {shown(entry.name)} is a hard link to {shown(target)}, which does not exist"
            )
        self.leans = True
        self._clear(dirfd, name)
        source = found.open()
        try:
            copy = os.open(name, _NEW_FILE, 0o600, dir_fd=dirfd)
            try:
                while os.copy_file_range(source, copy, 1 << 30):
                    continue
                like = attributes_of(found, source)
                self._metadata.own(like, copy)
                os.fchmod(copy, like.mode)
                self._metadata.mark(like, copy)
                os.utime(copy, ns=(like.mtime, like.mtime))
            finally:
                os.close(copy)
        finally:
            os.close(source)

    def _clear(self, dirfd: int, name: bytes) -> None:
        """Make room for an entry: what an earlier one of the same name made goes."""
        try:
            status = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            remove_tree(b"/proc/self/fd/%d/%s" % (dirfd, name))
        else:
            os.unlink(name, dir_fd=dirfd)
        if not overlay.is_whiteout(status):
            self._parents.forget(keep=dirfd)

    def _parent(self, path: bytes, hops: int = 0) -> int:
        """A descriptor of the directory at `path`, made with its own parents where the archive left it out."""
        descriptor = self._parents.existing(path)
        return self._missing_parent(path, hops) if descriptor is None else descriptor

    def _missing_parent(self, path: bytes, hops: int) -> int:
        """The archive has no entry for a parent: as the layers below have it, or root's with mode 0755."""
        parent, _, name = path.rpartition(b"/")
        dirfd = self._parent(parent, hops)
        try:
            status = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        below = self._below.find(path) if self._below is not None and status is None else None
        if self._below is not None:
            self.leans = True
        link = None
        if status is not None and stat.S_ISLNK(status.st_mode):
            link = os.readlink(name, dir_fd=dirfd)
        elif below is not None and stat.S_ISLNK(below.status.st_mode):
            link = below.readlink()
        if link is not None:
            if hops >= _HOPS:
                raise BadArchive(f"too many symbolic links on the way to {shown(path)}")
            return self._parent(follow(parent, link, self._limits), hops + 1)
        if status is not None and not (overlay.is_whiteout(status) and path in self._whiteouts):
            raise BadArchive(f"{shown(path)} is not a directory, and an entry lies below it")
        entry = Entry(path, DIRECTORY, mode=0o755)
        if below is not None and stat.S_ISDIR(below.status.st_mode):
            source = below.open()
            try:
                entry = attributes_of(below, source)
            finally:
                os.close(source)
        self._directory(entry, path, dirfd, name)
        return self._parent(path)

    def _deletion(self, path: bytes) -> bool:
        """Act on a name that deletes; False where the path only looks like one."""
        parts = path.split(b"/")
        if any(part.startswith(overlay.AUFS) and part != overlay.OPAQUE for part in parts):
            return True  # aufs' bookkeeping means nothing here
        if any(part.startswith(overlay.WHITEOUT) for part in parts[:-1]):
            raise BadArchive(f"entry {shown(path)} lies below a whiteout")
        parent, _, name = path.rpartition(b"/")
        if not name.startswith(overlay.WHITEOUT):
            return False
        if name == overlay.OPAQUE:
            self._hide(parent, self._parent(parent))
            return True
        hidden = name[len(overlay.WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise BadArchive(f"the whiteout {shown(path)} names no entry")
        self._whiteout(
            f"{os.fsdecode(parent)}/{os.fsdecode(hidden)}".lstrip("/").encode(errors="surrogateescape")
        )
        return True

    def _whiteout(self, path: bytes) -> None:
        """Hide what the layers below have at `path`, never what this layer has, in whatever order they come."""
        parent, _, name = path.rpartition(b"/")
        if self._below is not None and self._below.find(path) is None:
            self.leans = True  # nothing to hide; overlayfs would show the whiteout in a listing
            return
        dirfd = self._parent(parent)
        try:
            status = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
        except FileNotFoundError:
            overlay.make_whiteout(name, dirfd)
            self._whiteouts.add(path)
            return
        if stat.S_ISDIR(status.st_mode):
            self._hide(path, self._parent(path))

    def _hide(self, path: bytes, descriptor: int) -> None:
        overlay.make_opaque(descriptor)
        self._opaque.add(path)

    def finish(self) -> None:
        """What can only be done when all entries are there."""
        for path in self._whiteouts:
            if any(path.startswith(hidden + b"/") for hidden in self._opaque if hidden):
                self._clear(self._parent(path.rpartition(b"/")[0]), path.rpartition(b"/")[2])
        if b"" in self._opaque and self._below is not None:
            # overlayfs always merges the layers' roots, so an opaque root has to hide name by name.
            self.leans = True
            for name in self._below.names(b""):
                self._whiteout(name)
        self.close()
        for path in sorted(
            self._attributes, reverse=True
        ):  # children first: a parent may be closed to us afterwards
            try:
                descriptor = open_in_root(self._root, path or b".", DIRECTORY_FLAGS | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                continue  # a later entry took its place
            try:
                entry = self._attributes[path]
                os.fchmod(descriptor, entry.mode)
                os.utime(descriptor, ns=(entry.mtime, entry.mtime))
            finally:
                os.close(descriptor)
