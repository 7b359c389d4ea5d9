"""Removing a container: gone for everybody in one step, then its files. Lab 10. Man page: rename(2)."""

from __future__ import annotations

import json
import os

from minicontainer.cgroup.group import Group
from minicontainer.engine import names
from minicontainer.engine.tree import remove_tree

SUFFIX = ".removing"


def clean_kernel(directory: str) -> None:
    """Remove the control group that a killed supervisor has left behind, with whatever is still in it.

    :raises StepError: a process in it cannot be killed.
    """
    try:
        with open(f"{directory}/config.json", "rb") as file:
            config = json.load(file)
        path = config["linux"]["cgroupsPath"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # never started, or killed while it wrote this: no group was made yet
    if any(os.path.exists(group) for group in Group(path).directories):
        from minicontainer.runtime import container

        container.delete(directory, config=config)


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
