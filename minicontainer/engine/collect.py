"""gc: clearing away what crashes left. Idempotent, and safe beside everything else that runs. Lab 10."""

from __future__ import annotations

import errno
import os
import time

from minicontainer.cgroup.group import Group, parent_path
from minicontainer.engine import create, names, record
from minicontainer.engine.removal import SUFFIX, clean_kernel, remove_container
from minicontainer.engine.tree import remove_tree
from minicontainer.errors import MinicontainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.engine import Engine

_MAKING = 10.0  # seconds within which a maker has surely taken the lock of its new directory


def collect(engine: Engine) -> list[str]:
    """Finish interrupted removals and creations; repair records; remove what ``--rm`` promised and could not do.

    :returns: what was done, one line each.
    """
    done: list[str] = []
    containers, names_directory = f"{engine.root}/containers", f"{engine.root}/names"
    for entry in _entries(containers):
        if entry.endswith(SUFFIX):
            remove_tree(f"{containers}/{entry}")
            done.append(f"finished the removal of {entry[:12]}")
    for container_id in names.all_ids(containers):
        done += _one(engine, f"{containers}/{container_id}", container_id)
    for name in _entries(names_directory):
        container_id = names.owner(names_directory, name)
        if container_id and create.half_made(containers, names_directory, container_id, name):
            done.append(f"removed the half-made container {name}")
    for container_id in _entries(f"{engine.run_root}/containers"):
        if not os.path.isdir(f"{containers}/{container_id}"):
            remove_tree(f"{engine.run_root}/containers/{container_id}")
            done.append(f"removed the live directory of {container_id[:12]}")
    return done + _groups(set(names.all_ids(containers)))


def _one(engine: Engine, directory: str, container_id: str) -> list[str]:
    try:
        before = record.read(directory)
        known = record.current(directory)
    except FileNotFoundError:
        return _half_made(engine, directory, container_id)
    except MinicontainerError as error:
        return [f"left {container_id[:12]} alone: {error}"]
    done: list[str] = []
    if before.state.running and not known.state.running:
        done.append(f"{known.config.name} had lost its supervisor")
    if known.state.running:
        return done
    try:
        lock = record.acquire(directory, blocking=False)
    except (BlockingIOError, FileNotFoundError):
        return done  # it is just being started, or removed
    try:
        clean_kernel(directory)
        if known.config.auto_remove and known.state.error == record.LOST:
            remove_container(engine.root, container_id, known.config.name)
            done.append(f"removed {known.config.name}")
    except MinicontainerError as error:
        done.append(f"left {known.config.name} alone: {error}")
    finally:
        os.close(lock)
    return done


def _groups(known: set[str]) -> list[str]:
    """Remove empty control groups of containers that are no more; groups with processes are somebody's."""
    done = set()
    for directory in Group(parent_path()).directories:
        for name in _entries(directory):
            group = f"{directory}/{name}"
            if len(name) != 64 or name in known or not os.path.isdir(group):
                continue
            if time.time() - os.stat(group).st_mtime < _MAKING:
                continue  # of another data directory, perhaps, and about to be entered
            try:
                os.rmdir(group)
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOENT):
                    raise
                continue
            done.add(f"removed the control group of {name[:12]}")
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOENT, errno.ENOTEMPTY, errno.EACCES, errno.EPERM):
                raise
    return sorted(done)


def _half_made(engine: Engine, directory: str, container_id: str) -> list[str]:
    """Remove what a killed maker left before it took a name (the others are found by their names)."""
    try:
        if time.time() - os.stat(directory).st_mtime < _MAKING:
            return []
        lock = record.acquire(directory, blocking=False)
    except (BlockingIOError, FileNotFoundError):
        return []
    try:
        if os.path.exists(f"{directory}/{record.RECORD}"):
            return []
        remove_container(engine.root, container_id, "")
    finally:
        os.close(lock)
    return [f"removed the half-made container {container_id[:12]}"]


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
