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
                    _move(inner, directory, aside, top)
                    pending.append(aside)
            finally:
                os.close(directory)
            try:
                os.rmdir(name, dir_fd=top)
            except FileNotFoundError:  # the same other process was quicker
                continue
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
        _open_up(name, parent)
        return os.open(name, _FLAGS, dir_fd=parent)


def _move(name: str, parent: int, aside: str, top: int) -> None:
    """Move a directory up; one must be allowed to write to it, as its ".." changes."""
    try:
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=top)
    except PermissionError:
        _open_up(name, parent)
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=top)


def _open_up(name: str, parent: int | None) -> None:
    """Give the owner all rights to a directory, without following a link (chmod(2) itself would)."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)


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
