"""Removing a tree that strangers filled. Man pages: unlink(2), rmdir(2)."""

from __future__ import annotations

import os
from pathlib import Path


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
