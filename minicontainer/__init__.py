"""minicontainer: a container runtime small enough to read, and the course that builds it.

The floors, from the ground up (each imports only from the floors below it)::

    linux    one thin function per system call, constants, errors
    cgroup   limits, v1 and v2 behind one interface
    runtime  what runc does: OCI bundle -> isolated process
    image    references, content store, layers, base images
    engine   what dockerd does: containers' lives, supervisor, logs, exec
    labhost  the private toy machine, and the doctor
    bench    measurements
    course   swapping in the learner's steps, checks, pictures
    cli      the docker-compatible command line

Importing this package costs nothing: the names below are loaded on first use.

>>> from minicontainer import Engine
>>> Engine().run("busybox", ["echo", "hi"]).stdout          # doctest: +SKIP
'hi\\n'
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["Engine", "MinicontainerError", "__version__", "steps"]


def __getattr__(name: str) -> object:
    """Load the public names lazily (PEP 562), so that the command line pays only for what it uses."""
    if name == "Engine":
        from minicontainer.engine import Engine

        return Engine
    if name == "steps":
        from minicontainer.runtime import steps

        return steps
    if name == "MinicontainerError":
        from minicontainer.errors import MinicontainerError

        return MinicontainerError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
