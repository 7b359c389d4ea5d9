"""Hooks: programs of the administrator's that run at six moments of a container's life. Lab 15.

Each gets the container's state as JSON on standard input (OCI runtime-spec config.md "POSIX-platform Hooks").
"""

from __future__ import annotations

import json
import os
import select
import signal
from pathlib import Path
from typing import Any

from minicontainer.errors import StepError
from minicontainer.runtime.wait import exit_status


def state_of(
    container_id: str, bundle: Path | str, config: dict[str, Any], *, status: str = "creating", pid: int = 0
) -> dict[str, Any]:
    """The OCI state object (runtime.md "State")."""
    state: dict[str, Any] = {
        "ociVersion": config.get("ociVersion", "1.0.2"),
        "id": container_id,
        "status": status,
        "bundle": os.path.abspath(bundle),
    }
    if pid:
        state["pid"] = pid
    if config.get("annotations"):
        state["annotations"] = config["annotations"]
    return state


def has_hooks(config: dict[str, Any], *kinds: str) -> bool:
    """Whether the bundle names a hook of one of these kinds."""
    hooks = config.get("hooks") or {}
    return any(hooks.get(kind) for kind in kinds)


def run_hooks(kind: str, config: dict[str, Any], state: dict[str, Any]) -> None:
    """Run the hooks of one kind in their order.

    :raises StepError: where one cannot be run, fails or takes longer than its ``timeout`` (seconds).
    """
    for hook in (config.get("hooks") or {}).get(kind) or []:
        _run(kind, hook, state)


def _run(kind: str, hook: dict[str, Any], state: dict[str, Any]) -> None:
    """One hook. It is forked here rather than started by a module, since it may run after the root has changed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(reader, 0)
            given = hook.get("env")
            environment = (
                dict(os.environ) if given is None else dict(entry.partition("=")[::2] for entry in given)
            )
            os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
        except OSError:
            os._exit(127)
        finally:
            os._exit(126)
    os.close(reader)
    pidfd = os.pidfd_open(pid)
    try:
        before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a hook need not read its input
        try:
            os.write(writer, json.dumps(state).encode())
        except BrokenPipeError:
            pass  # it has ended already; its status says how
        finally:
            signal.signal(signal.SIGPIPE, before)
            os.close(writer)
        timeout = hook.get("timeout")
        ended = select.select([pidfd], [], [], timeout)[0]
        if not ended:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
        status = exit_status(os.waitpid(pid, 0)[1])
    if not ended:
        raise StepError(f"hooks: {kind} {hook['path']} took longer than its {timeout} s", step=kind)
    if status != 0:
        hint = "is it there, and executable?" if status in (126, 127) else ""
        raise StepError(f"hooks: {kind} {hook['path']} ended with status {status}", step=kind, hint=hint)
