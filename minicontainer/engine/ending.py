"""How a container's life ends: waited for, asked, killed, removed. Lab 10.

A signal goes to a process held by descriptor, never to a number that could have come to mean somebody else. Waiting
is listening to the supervisor, and looking at the record when it is gone. Man pages: pidfd_open(2),
pidfd_send_signal(2), pid_namespaces(7) (why PID 1 ignores what it does not handle).
"""

from __future__ import annotations

import os
import signal as signals
import time

from minicontainer.engine import names, record
from minicontainer.engine.options import signal_number
from minicontainer.engine.removal import clean_kernel, remove_container
from minicontainer.engine.tree import remove_tree
from minicontainer.errors import MinicontainerError, NotRunning
from minicontainer.linux.process import start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.engine import Engine

_KILL_PATIENCE = 10.0  # seconds for the kernel to end a process after SIGKILL


def await_end(engine: Engine, known: record.Record, deadline: float | None) -> int:
    """Wait until the container does not run; returns its exit status.

    :param deadline: on the monotonic clock.
    :raises TimeoutError: it still runs then.
    """
    container_id = known.config.id
    while known.state.running:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        attachment = engine.connect(container_id)
        if attachment is not None:
            with attachment:
                status = attachment.pump(lambda kind, data: None, timeout=remaining)
            if not attachment.lost and status is not None:
                return status
        elif remaining == 0:
            raise TimeoutError(f"container {container_id} still runs")
        else:
            time.sleep(0.01)  # it is on its way out: its socket is gone, its last record not yet written
        try:
            known = record.current(engine.directory(container_id))
        except FileNotFoundError:
            return 137  # removed by force meanwhile
    return known.state.exit_code


def _await_killed(engine: Engine, known: record.Record) -> None:
    try:
        await_end(engine, known, time.monotonic() + _KILL_PATIENCE)
    except TimeoutError:
        raise MinicontainerError(
            f"container {known.config.id} did not end within {_KILL_PATIENCE:g} seconds of SIGKILL",
            hint="a process waits for a device or a network file system; see `ps -o pid,stat,wchan`",
            exit_code=1,
        ) from None


def _signal(known: record.Record, number: int) -> None:
    """Send a signal to the container's first process, and never to another that got its PID (man 2 pidfd_open)."""
    try:
        descriptor = os.pidfd_open(known.state.pid)
    except ProcessLookupError:
        return  # it has ended; its supervisor is about to say so
    try:
        if start_time(known.state.pid) == known.state.pid_started:
            signals.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def kill(engine: Engine, known: record.Record, reference: str, signal: str | int) -> None:
    """Send a signal; after SIGKILL, wait until the container has ended.

    :raises NotRunning: it does not run.
    """
    number = signal_number(signal)
    if not known.state.running:
        raise NotRunning(f"Cannot kill container: {reference}: Container {known.config.id} is not running")
    _signal(known, number)
    if known.state.paused and number in (signals.SIGKILL, signal_number(known.config.stop_signal)):
        _resume(engine, known)
    if number == signals.SIGKILL:
        _await_killed(engine, known)


def stop(engine: Engine, known: record.Record, timeout: float | None, signal: str | int | None) -> None:
    """The stop signal, patience, SIGKILL."""
    number = signal_number(signal if signal is not None else known.config.stop_signal)
    if not known.state.running:
        return
    patience = known.config.stop_timeout if timeout is None else timeout
    _signal(known, number)
    _resume(engine, known)
    try:
        await_end(engine, known, None if patience < 0 else time.monotonic() + patience)
    except TimeoutError:
        _signal(known, signals.SIGKILL)
        _await_killed(engine, known)


def remove(engine: Engine, container_id: str, reference: str, force: bool) -> None:
    """Remove a container; one that somebody else removes meanwhile is removed all the same.

    :raises MinicontainerError: it runs, and `force` was not given.
    """
    directory = engine.directory(container_id)
    while True:
        try:
            _kill_for_removal(engine, reference, directory, force)
            lock = record.acquire(directory)
        except FileNotFoundError:
            return
        try:
            known = _readable(directory)
            if known is not None and known.state.running and record.supervised(directory):
                continue  # started again between the two looks
            name = known.config.name if known is not None else _name_of(engine, container_id)
            clean_kernel(directory)
            remove_container(engine.root, container_id, name)
            remove_tree(f"{engine.run_root}/containers/{container_id}")
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise record.storage_error(error, directory) from error
        finally:
            os.close(lock)


def _kill_for_removal(engine: Engine, reference: str, directory: str, force: bool) -> None:
    try:
        known = record.current(directory)
    except MinicontainerError:
        if not force:
            raise
        return
    if not known.state.running:
        return
    if not force:
        raise MinicontainerError(
            f'cannot remove container "/{known.config.name}": container is running: '
            "stop the container before removing or force remove",
            hint=f"minicontainer rm -f {reference}",
            exit_code=1,
        )
    _signal(known, signals.SIGKILL)
    _resume(engine, known)
    _await_killed(engine, known)


def _resume(engine: Engine, known: record.Record) -> None:
    """A frozen process gets no signal, and with cgroup v1 not even SIGKILL ends it."""
    if known.state.paused:
        from minicontainer.engine import live

        live.resume(engine.directory(known.config.id))


def _readable(directory: str) -> record.Record | None:
    """The record, or None for a damaged one."""
    try:
        return record.read(directory)
    except MinicontainerError:
        return None


def _name_of(engine: Engine, container_id: str) -> str:
    """The name of a container whose record cannot be read."""
    for name in os.listdir(f"{engine.root}/names"):
        if names.owner(f"{engine.root}/names", name) == container_id:
            return name
    return ""
