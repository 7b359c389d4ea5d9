"""Reading a small file of a container that does not run: through its layers, without mounting them.

The quick way walks the layers as overlayfs would, and gives up at anything but plain directories and files (a symbolic
link, a redirect). The slow way is always right: a forked child with a mount namespace of its own stacks the layers and
opens the file below that root. Labs 05 and 06. Man pages: openat2(2), mount_namespaces(7), xattr(7);
kernel: Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.errors import MinicontainerError
from minicontainer.linux.path import open_in_root

LARGEST = 4 << 20  # bytes; a passwd file beyond this is an attack


class Undecided(Exception):
    """The layers alone do not tell; look through the mounted stack."""


def read_layered(layers: list[str], path: str) -> bytes | None:
    """The content of `path` in the stack of `layers` (topmost first), None where it does not exist.

    :raises Undecided: a symbolic link or another special case lies on the way.
    """
    parts = [part for part in path.split("/") if part]
    candidates = list(layers)
    for depth in range(1, len(parts) + 1):
        last = depth == len(parts)
        present: list[str] = []
        for layer in candidates:
            found = f"{layer}/{'/'.join(parts[:depth])}"
            try:
                mode = os.lstat(found)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISCHR(mode.st_mode) and mode.st_rdev == 0:
                break  # a whiteout: neither here nor below
            if stat.S_ISREG(mode.st_mode) and _is_whiteout(found, mode):
                break
            if not stat.S_ISDIR(mode.st_mode):
                if present:
                    break  # hidden by a directory above
                if not last:
                    if stat.S_ISLNK(mode.st_mode):
                        raise Undecided
                    return None
                return _read_plain(layer, path, mode)
            if last:
                return None  # a directory is no file
            present.append(layer)
            if _closes(found):
                break
        candidates = present
        if not candidates:
            return None
    return None


def _read_plain(layer: str, path: str, mode: os.stat_result) -> bytes:
    if not stat.S_ISREG(mode.st_mode):
        raise Undecided
    # A layer does not change while a container of it may start, but the upper directory was written by the container.
    root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        content = read_in_root(root, path)
    finally:
        os.close(root)
    return b"" if content is None else content


def _attribute(path: str, name: str) -> bytes:
    for space in ("trusted", "user"):
        try:
            return os.getxattr(path, f"{space}.overlay.{name}", follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES):
                raise
    return b""


def _is_whiteout(path: str, mode: os.stat_result) -> bool:
    """Whether an empty file is the other form of a whiteout, an extended attribute (Linux 6.7)."""
    if mode.st_size:
        return False
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return False
    return any(name.endswith("overlay.whiteout") for name in names)


def _closes(directory: str) -> bool:
    """Whether nothing below this layer's directory shows through it.

    :raises Undecided: its lower part lies elsewhere (redirect_dir).
    """
    try:
        names = os.listxattr(directory, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False
    if any(name.endswith("overlay.redirect") for name in names):
        raise Undecided
    return any(name.endswith("overlay.opaque") for name in names) and _attribute(directory, "opaque") == b"y"


def read_in_root(root: int, path: str) -> bytes | None:
    """The content of the regular file `path` below the directory behind `root`; None where there is none.

    :raises MinicontainerError: it is larger than any such file should be.
    """
    try:
        # Not blocking, for a FIFO that an image put there; O_NOCTTY for a terminal.
        descriptor = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EACCES):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = b""
        while len(content) <= LARGEST:
            piece = os.read(descriptor, 65536)
            if not piece:
                return content
            content += piece
    finally:
        os.close(descriptor)
    raise MinicontainerError(f"the container's {path} is larger than {LARGEST >> 20} MiB")


def read_mounted(
    layers: list[str], upper: str, work: str, target: str, paths: list[str]
) -> dict[str, bytes | None]:
    """The contents of `paths`, read through the stack as the kernel shows it, mounted where nobody else sees it.

    Forks, so only for a process with a single thread (a supervisor).
    """
    import json

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            result = _mount_and_read(layers, upper, work, target, paths)
            with os.fdopen(writer, "w") as out:
                json.dump(result, out)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    try:
        with os.fdopen(reader) as source:
            text = source.read()
    finally:
        os.waitpid(pid, 0)
    if not text:
        raise MinicontainerError(f"cannot look into the container's file system at {target}")
    answer = json.loads(text)
    if "error" in answer:
        raise MinicontainerError(f"cannot look into the container's file system: {answer['error']}")
    contents = answer["contents"].items()
    return {path: None if content is None else content.encode("latin-1") for path, content in contents}


def _mount_and_read(
    layers: list[str], upper: str, work: str, target: str, paths: list[str]
) -> dict[str, object]:
    from minicontainer.linux import mount, namespace
    from minicontainer.runtime import steps

    try:
        namespace.unshare(namespace.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        steps.get("stack")(layers, upper, work, target)
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        contents = {path: read_in_root(root, path) for path in paths}
    except (OSError, MinicontainerError) as error:
        return {"error": str(error)}
    return {"contents": {path: None if c is None else c.decode("latin-1") for path, c in contents.items()}}
