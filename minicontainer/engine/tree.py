"""Removing a container's directory, whatever the container put into it.

A container may nest directories deeper than a path can be long, or than descriptors can be open. So a directory that
is not empty is first moved up, next to its parent, and then emptied: two open directories are enough at any depth, and
no symbolic link is ever followed. Man pages: openat(2), unlinkat(2), renameat(2), path_resolution(7).
"""

from __future__ import annotations

import errno
import os

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove the directory `path` and all below it; it may be gone already.

    :raises OSError: EBUSY for a mount point in it, EACCES and EPERM for files of somebody else.
    """
    try:
        top = _open(path, None)
    except FileNotFoundError:
        return
    try:
        moved = 0
        pending = _empty(top)
        while pending:
            name = pending.pop()
            try:
                directory = _open(name, top)
            except FileNotFoundError:  # another process removes the same tree
                continue
            try:
                for inner in _empty(directory):
                    moved += 1
                    # A name that cannot be in our own directories; the container's files are all below one of them.
                    aside = f".removing-{os.getpid()}-{moved}"
                    os.rename(inner, aside, src_dir_fd=directory, dst_dir_fd=top)
                    pending.append(aside)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return  # another process removed the same tree and was quicker


def _open(name: str, parent: int | None) -> int:
    """Open a directory to empty it; one that denies itself to its owner (overlayfs makes such) is opened up first."""
    try:
        return os.open(name, _FLAGS, dir_fd=parent)
    except PermissionError:
        # Our user owns it, and nobody else can swap it: its parent is our own directory.
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _FLAGS, dir_fd=parent)


def _empty(directory: int) -> list[str]:
    """Remove files and empty directories from an open directory; returns the directories that are not empty."""
    remaining = []
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    if found and os.fstat(directory).st_mode & 0o300 != 0o300:
        os.fchmod(directory, 0o700)  # or its owner could not remove from it, unless root
    for name, is_directory in found:
        try:
            if is_directory:
                os.rmdir(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            if not is_directory or error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES):
                raise
            remaining.append(name)
    return remaining
