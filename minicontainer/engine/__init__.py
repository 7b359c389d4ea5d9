"""engine: what dockerd does. Containers' lives, supervisors, logs, exec, without a daemon.

In lab order (lab 10)::

    options      what a person may ask for, and how it combines with the image
    record       what is known about a container, and the lock that says whether it lives
    names        unique names and ids
    create       a container on the disk, all of it or nothing
    users        USER and -u, resolved in the image's own files
    lookup       reading those files through the layers
    bundle       from the record to an OCI bundle
    spawn        making a process that outlives its maker
    supervisor   one small process per container
    stdio        moving its output and input; frames, logs, attach: where they go
    exec         one more process in it
    ending       waited for, stopped, killed
    removal      and gone
    engine       all of it behind one object

Everything here is loaded on first use.
"""

from __future__ import annotations

_HOME = {
    "Attachment": "attach",
    "CommandFailed": "container",
    "Container": "container",
    "ContainerOptions": "options",
    "Engine": "engine",
    "ExecOptions": "options",
    "Result": "container",
    "TimedOut": "container",
}
__all__ = [
    "Attachment",
    "CommandFailed",
    "Container",
    "ContainerOptions",
    "Engine",
    "ExecOptions",
    "Result",
    "TimedOut",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.attach import Attachment
    from minicontainer.engine.container import CommandFailed, Container, Result, TimedOut
    from minicontainer.engine.engine import Engine
    from minicontainer.engine.options import ContainerOptions, ExecOptions


def __getattr__(name: str) -> object:
    """Load the public names lazily (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{_HOME[name]}", fromlist=[name])
    return getattr(module, name)
