"""Following a container's log: waiting for more without asking all the time."""

from __future__ import annotations

import time
from collections.abc import Callable

from minicontainer.engine import record
from minicontainer.engine.times import moment, timestamp
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.engine.engine import Engine


def moment_text(what: str, given: str | float | None) -> str:
    """A point in time as log entries write it, "" for none.

    :raises UsageError: it is not a time.
    """
    if given is None or given == "":
        return ""
    try:
        return timestamp(moment(given))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f'invalid value for "{what}": {given}',
            hint='for example 2024-01-02T13:23:37Z, 1700000000, or "42m" ago',
        ) from error


def follower(engine: Engine, known: record.Record) -> Callable[[], bool]:
    """A function that waits until the container's log has grown, or the container has ended (then it returns False).

    The supervisor says when there is more; it is connected to before the log is read, so that nothing is missed.
    """
    container_id = known.config.id
    attachment = engine.connect(container_id, notify=True)

    def listen() -> bool:
        assert attachment is not None
        attachment.receive()
        if attachment.status is None and not attachment.lost:
            return True
        attachment.close()
        return False

    def look() -> bool:
        time.sleep(0.1)
        try:
            return record.current(engine.directory(container_id)).state.running
        except FileNotFoundError:
            return False

    return listen if attachment is not None else look
