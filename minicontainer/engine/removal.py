"""Removing a container: gone for everybody in one step, then its files. Lab 10. Man page: rename(2)."""

from __future__ import annotations

import os

from minicontainer.engine import names
from minicontainer.engine.tree import remove_tree

SUFFIX = ".removing"


def remove_container(root: str, container_id: str, name: str) -> None:
    """Remove a container that does not run; the caller holds its lock. A crash in between is finished by `gc`.

    :raises OSError: files that cannot be removed; they stay in a directory that no command shows any more.
    """
    directory = f"{root}/containers/{container_id}"
    # The name first: without its container it would be taken for ever, a container without its name can be removed.
    if name:
        names.release(f"{root}/names", name, container_id)
    os.rename(directory, directory + SUFFIX)
    remove_tree(directory + SUFFIX)
