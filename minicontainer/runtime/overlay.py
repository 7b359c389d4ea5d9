"""Layers seen as one tree: overlayfs. Lab 05. Kernel: Documentation/filesystems/overlayfs.rst; man 2 mount."""

from __future__ import annotations

import os
from typing import Any

from minicontainer.errors import StepError
from minicontainer.linux.mount import (
    AT_FDCWD,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    MOVE_MOUNT_F_EMPTY_PATH,
    fsconfig,
    fsmount,
    fsopen,
    mount,
    move_mount,
)
from minicontainer.linux.namespace import in_user_namespace

_OPTIONS_LIMIT = 4000  # mount(2) copies at most one page of options


def stack(lower: list[str], upper: str, work: str, target: str) -> None:
    """Mount at `target` the layers `lower` (the topmost first) with the writable directory `upper` on top.

    :param work: an empty directory on the file system of `upper`, which overlayfs needs to move files atomically.
    :raises SyscallError: EINVAL where `upper` lies on a file system that cannot hold one (such as another overlay).
    """
    common, names = _relative(lower)
    options = [f"upperdir={_escape(upper)}", f"workdir={_escape(work)}"]
    if in_user_namespace():
        options.append("userxattr")  # trusted.* attributes belong to the machine's own root
    joined = ":".join(_escape(name) for name in names)
    data = ",".join([f"lowerdir={joined}", *options])
    if len(data) > _OPTIONS_LIMIT:
        _stack_by_descriptor(lower, upper, work, target)
        return
    before = os.getcwd()
    os.chdir(common)
    try:
        mount("overlay", target, "overlay", 0, data)
    finally:
        os.chdir(before)


def _stack_by_descriptor(lower: list[str], upper: str, work: str, target: str) -> None:
    """For more layers than fit into a page of options: one fsconfig(2) call a layer (``lowerdir+``, Linux 6.8)."""
    context = fsopen("overlay")
    try:
        for layer in lower:
            fsconfig(context, FSCONFIG_SET_STRING, "lowerdir+", layer)
        fsconfig(context, FSCONFIG_SET_STRING, "upperdir", upper)
        fsconfig(context, FSCONFIG_SET_STRING, "workdir", work)
        if in_user_namespace():
            fsconfig(context, FSCONFIG_SET_FLAG, "userxattr")
        fsconfig(context, FSCONFIG_CMD_CREATE)
        tree = fsmount(context)
    finally:
        os.close(context)
    try:
        move_mount(tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def _relative(lower: list[str]) -> tuple[str, list[str]]:
    """The directory that all layers lie in and their names there, so that many fit into the option string."""
    parents = {os.path.dirname(layer) for layer in lower}
    if len(parents) == 1 and (common := parents.pop()):
        return common, [os.path.basename(layer) for layer in lower]
    return "/", lower


def _escape(path: str) -> str:
    """A path as overlayfs reads it in an option: backslash before the characters that separate options and layers."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def as_mount(lower: list[str], upper: str, work: str) -> dict[str, Any]:
    """The OCI mount entry by which a bundle asks for this overlay as its root."""
    options = [
        f"lowerdir={':'.join(_escape(layer) for layer in lower)}",
        f"upperdir={upper}",
        f"workdir={work}",
    ]
    return {"destination": "/", "type": "overlay", "source": "overlay", "options": options}


def from_mount(entry: dict[str, Any]) -> tuple[list[str], str, str]:
    """(lower, upper, work) of such an entry.

    :raises StepError: where one of the three is missing.
    """
    found = dict(option.partition("=")[::2] for option in entry.get("options", []))
    try:
        lower, upper, work = found["lowerdir"], found["upperdir"], found["workdir"]
    except KeyError as error:
        raise StepError(f"stack: the overlay mount has no {error.args[0]}", step="stack") from None
    layers, current, position = [], "", 0
    while position < len(lower):
        if lower[position] == "\\" and position + 1 < len(lower):
            position += 1
            current += lower[position]
        elif lower[position] == ":":
            layers.append(current)
            current = ""
        else:
            current += lower[position]
        position += 1
    return [*layers, current], upper, work
