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
import stat
from collections.abc import Sequence
from pathlib import Path

from minicontainer.errors import MinicontainerError
from minicontainer.image import overlay
from minicontainer.image.merged import Found, Merged
from minicontainer.image.stream import PlainStream
from minicontainer.image.tar import (
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    BadArchive,
    Entry,
    TarReader,
    _shown,
)
from minicontainer.linux.path import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED = 128  # open parent directories
_HOPS = 40  # symbolic links on the way to one parent, the kernel's own limit
_HOLE = 1 << 16  # zeros from this many bytes on become a hole
_ZEROS = bytes(1 << 18)


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
    root = os.open(directory, _DIRECTORY)
    try:
        with PlainStream(file, limit=limits.size, tee=tee) as stream, Merged(lower or ()) as below:
            reader = TarReader(iter(stream), max_entries=limits.entries)
            writer = _Writer(root, reader, below if lower is not None else None, limits, result)
            try:
                for entry in reader:
                    writer.write(entry)
                entry = None
                writer.finish()
            finally:
                writer.close()
            stream.drain()
            result.diff_id, result.size, result.media_type = stream.diff_id, stream.size, stream.media_type
    except OSError as error:
        where = f" at {_shown(entry.name)}" if entry is not None else ""
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
                raise BadArchive(f"entry {_shown(name)} leads out of the layer")
            parts.pop()
        elif len(part) > limits.name:
            raise BadArchive(f"entry {_shown(name)} has a component longer than {limits.name} bytes")
        else:
            parts.append(part)
    if len(parts) > limits.depth or len(name) > limits.path:
        raise BadArchive(f"entry {_shown(name)} is longer or deeper than the limit")
    return b"/".join(parts)


class _Writer:
    """Makes entries below one root. Directories are kept 0700 while it works and get their mode and times last."""

    def __init__(
        self, root: int, reader: TarReader, below: Merged | None, limits: Limits, result: Unpacked
    ) -> None:
        self._root = root
        self._reader = reader
        self._below = below
        self._limits = limits
        self._result = result
        self._user = os.geteuid(), os.getegid()
        self._parents: dict[bytes, int] = {}
        self._attributes: dict[bytes, Entry] = {b"": Entry(b"", DIRECTORY, mode=0o755)}
        self._whiteouts: set[bytes] = set()
        self._opaque: set[bytes] = set()
        self._prefix_length = len(os.readlink(f"/proc/self/fd/{root}"))
        os.fchmod(root, 0o700)  # no set-group-ID from the directory above

    def close(self) -> None:
        """Forget the open directories."""
        for descriptor in self._parents.values():
            os.close(descriptor)
        self._parents.clear()

    def write(self, entry: Entry) -> None:
        """Make one entry of the archive."""
        path = clean(entry.name, self._limits)
        if b".wh." in path and self._deletion(path):
            return
        if len(entry.linkname) > self._limits.path:
            raise BadArchive(
                f"the link {_shown(entry.name)} has a target longer than {self._limits.path} bytes"
            )
        if not path:
            if entry.kind != DIRECTORY:
                raise BadArchive("the layer's root is not a directory")
            self._attributes[path] = entry
            self._own(entry, self._root)
            self._mark(entry, self._root)
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
            self._finish_special(entry, dirfd, name)
        else:
            self._clear(dirfd, name)
            if self._node(entry, dirfd, name):
                os.chmod(name, entry.mode, dir_fd=dirfd)
                self._finish_special(entry, dirfd, name)

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
            self._own(entry, descriptor)
            os.fchmod(descriptor, entry.mode)
            self._mark(entry, descriptor)
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
        descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=dirfd)
        self._remember(path, descriptor)
        self._own(entry, descriptor)
        self._mark(entry, descriptor)
        if hides:
            self._hide(path, descriptor)
        self._attributes[path] = entry

    def _link(self, entry: Entry, path: bytes, name: bytes) -> None:
        """A hard link, to an entry of this layer or of one below, of which a copy is made then."""
        target = clean(entry.linkname, self._limits)
        where, _, old = target.rpartition(b"/")
        source = self._existing(where)
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
            raise BadArchive(f"entry {_shown(entry.name)} is a hard link to a directory")
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
                f"entry {_shown(entry.name)} is a hard link to {_shown(target)}, which does not exist"
            )
        self._result.leans = True
        self._clear(dirfd, name)
        source = found.open()
        try:
            copy = os.open(name, _NEW_FILE, 0o600, dir_fd=dirfd)
            try:
                while os.copy_file_range(source, copy, 1 << 30):
                    continue
                like = _attributes_of(found, source)
                self._own(like, copy)
                os.fchmod(copy, like.mode)
                self._mark(like, copy)
                os.utime(copy, ns=(like.mtime, like.mtime))
            finally:
                os.close(copy)
        finally:
            os.close(source)

    def _node(self, entry: Entry, dirfd: int, name: bytes) -> bool:
        """Make a fifo or a device; False where this process may not make devices."""
        if entry.kind == FIFO:
            os.mkfifo(name, 0o600, dir_fd=dirfd)
            return True
        kind = {CHAR: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}[entry.kind]
        try:
            os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=dirfd)
        except PermissionError:
            self._leave_out("devices")
            return False
        return True

    def _finish_special(self, entry: Entry, dirfd: int, name: bytes) -> None:
        """Owner, attributes and time of what cannot be opened."""
        if (entry.uid, entry.gid) != self._user:
            try:
                os.chown(name, entry.uid, entry.gid, dir_fd=dirfd, follow_symlinks=False)
                if entry.kind != SYMLINK and entry.mode & 0o6000:
                    os.chmod(name, entry.mode, dir_fd=dirfd)
            except OSError as error:
                self._tolerate(error, "owners", errno.EPERM, errno.EINVAL)
        if entry.xattrs:
            self._mark(entry, b"/proc/self/fd/%d/%s" % (dirfd, name))
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=dirfd, follow_symlinks=False)

    def _own(self, entry: Entry, descriptor: int) -> None:
        """Give the owner. As an ordinary user, or for an id without a place in the user namespace, it stays ours."""
        if (entry.uid, entry.gid) != self._user:
            try:
                os.fchown(descriptor, entry.uid, entry.gid)
            except OSError as error:
                self._tolerate(error, "owners", errno.EPERM, errno.EINVAL)

    def _mark(self, entry: Entry, target: int | bytes) -> None:
        """Set the extended attributes that belong to a file's content, and none that steer overlayfs."""
        for key, value in entry.xattrs.items():
            name = os.fsdecode(key)
            allowed = name.startswith(("user.", "system.posix_acl_")) or name == "security.capability"
            if not allowed or name.startswith(overlay.PRIVATE):
                self._leave_out("xattrs")
                continue
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                self._tolerate(error, "xattrs", errno.EPERM, errno.ENOTSUP)

    def _tolerate(self, error: OSError, kind: str, *numbers: int) -> None:
        if error.errno not in numbers:
            raise error
        self._leave_out(kind)

    def _leave_out(self, kind: str) -> None:
        self._result.left_out[kind] = self._result.left_out.get(kind, 0) + 1

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
            self._forget_parents(keep=dirfd)  # paths may lead elsewhere now

    def _forget_parents(self, keep: int) -> None:
        for path, descriptor in list(self._parents.items()):
            if descriptor != keep:
                os.close(self._parents.pop(path))

    def _parent(self, path: bytes, hops: int = 0) -> int:
        """A descriptor of the directory at `path`, made with its own parents where the archive left it out."""
        descriptor = self._existing(path)
        return self._missing_parent(path, hops) if descriptor is None else descriptor

    def _existing(self, path: bytes) -> int | None:
        """A descriptor of the directory at `path`, or None; it stays open while the next 127 are opened."""
        if not path:
            return self._root
        descriptor = self._parents.pop(path, None)
        if descriptor is not None:
            self._parents[path] = descriptor  # last in line to be closed
            return descriptor
        try:
            descriptor = open_in_root(self._root, path, _DIRECTORY)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return None
        self._remember(path, descriptor)
        return descriptor

    def _remember(self, path: bytes, descriptor: int) -> None:
        old = self._parents.pop(path, None)
        if old is not None:
            os.close(old)
        if len(self._parents) >= _CACHED:
            os.close(self._parents.pop(next(iter(self._parents))))
        self._parents[path] = descriptor
        # Links inside the layer can lead deeper than any name; this is the depth that counts for whoever removes it.
        if (
            os.readlink(b"/proc/self/fd/%d" % descriptor).count(b"/", self._prefix_length)
            > self._limits.depth
        ):
            raise BadArchive(f"directory {_shown(path)} lies deeper than the limit of {self._limits.depth}")

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
            self._result.leans = True
        link = None
        if status is not None and stat.S_ISLNK(status.st_mode):
            link = os.readlink(name, dir_fd=dirfd)
        elif below is not None and stat.S_ISLNK(below.status.st_mode):
            link = below.readlink()
        if link is not None:
            if hops >= _HOPS:
                raise BadArchive(f"too many symbolic links on the way to {_shown(path)}")
            return self._parent(_follow(parent, link, self._limits), hops + 1)
        if status is not None and not (overlay.is_whiteout(status) and path in self._whiteouts):
            raise BadArchive(f"{_shown(path)} is not a directory, and an entry lies below it")
        entry = Entry(path, DIRECTORY, mode=0o755)
        if below is not None and stat.S_ISDIR(below.status.st_mode):
            source = below.open()
            try:
                entry = _attributes_of(below, source)
            finally:
                os.close(source)
        self._directory(entry, path, dirfd, name)
        return self._parents[path]

    def _deletion(self, path: bytes) -> bool:
        """Act on a name that deletes; False where the path only looks like one."""
        parts = path.split(b"/")
        if any(part.startswith(overlay.AUFS) and part != overlay.OPAQUE for part in parts):
            return True  # aufs' bookkeeping means nothing here
        if any(part.startswith(overlay.WHITEOUT) for part in parts[:-1]):
            raise BadArchive(f"entry {_shown(path)} lies below a whiteout")
        parent, _, name = path.rpartition(b"/")
        if not name.startswith(overlay.WHITEOUT):
            return False
        if name == overlay.OPAQUE:
            self._hide(parent, self._parent(parent))
            return True
        hidden = name[len(overlay.WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise BadArchive(f"the whiteout {_shown(path)} names no entry")
        self._whiteout(
            f"{os.fsdecode(parent)}/{os.fsdecode(hidden)}".lstrip("/").encode(errors="surrogateescape")
        )
        return True

    def _whiteout(self, path: bytes) -> None:
        """Hide what the layers below have at `path`, never what this layer has, in whatever order they come."""
        parent, _, name = path.rpartition(b"/")
        if self._below is not None and self._below.find(path) is None:
            self._result.leans = True  # nothing to hide; overlayfs would show the whiteout in a listing
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
            self._result.leans = True
            for name in self._below.names(b""):
                self._whiteout(name)
        self.close()
        for path in sorted(
            self._attributes, reverse=True
        ):  # children first: a parent may be closed to us afterwards
            try:
                descriptor = open_in_root(self._root, path or b".", _DIRECTORY | os.O_NOFOLLOW)
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


def _follow(parent: bytes, link: bytes, limits: Limits) -> bytes:
    """Where the symbolic link `link` in the directory `parent` leads, as seen from the root; ".." stops there."""
    parts = [] if link.startswith(b"/") else parent.split(b"/")
    for part in link.split(b"/"):
        parts = parts[:-1] if part == b".." else [*parts, part]
    return clean(b"/".join(parts), limits)


def _attributes_of(found: Found, descriptor: int) -> Entry:
    """The metadata of what a lower layer has, as an entry."""
    status = found.status
    names = [name for name in os.listxattr(descriptor) if not name.startswith(overlay.PRIVATE)]
    return Entry(
        found.name,
        DIRECTORY if stat.S_ISDIR(status.st_mode) else FILE,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        xattrs={os.fsencode(name): os.getxattr(descriptor, name) for name in names},
    )


def remove_tree(path: bytes | str | Path) -> None:
    """Remove a directory and all below it, never following a link; missing is fine.

    Also as an ordinary user, where a directory inside may be closed even to its owner.
    """
    try:
        with os.scandir(os.fsencode(path)) as entries:
            children = list(entries)
    except FileNotFoundError:
        return
    except PermissionError:
        os.chmod(path, 0o700)
        with os.scandir(os.fsencode(path)) as entries:
            children = list(entries)
    try:
        _remove_children(children)
    except PermissionError:
        os.chmod(path, 0o700)
        _remove_children(children)
    os.rmdir(path)


def _remove_children(children: list[os.DirEntry[bytes]]) -> None:
    for child in children:
        if child.is_dir(follow_symlinks=False):
            remove_tree(child.path)
        else:
            try:
                os.unlink(child.path)
            except FileNotFoundError:
                continue  # removed in the first attempt
