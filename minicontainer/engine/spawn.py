"""How a process that outlives its maker is made: the supervisor of a container, the relay of an `exec`.

From a small program with a single thread (the command line) by fork(2). From anything else, a Jupyter kernel above
all, by the fork server: to fork a process with threads and hundreds of megabytes is slow and copies other threads'
locks. Lab 10. Man pages: fork(2), setsid(2), pthread_atfork(3).
"""

from __future__ import annotations

import os
import signal

direct = False
"""Whether this process may fork by itself; set by the command line."""

PRELOAD = (
    "minicontainer.engine.supervisor",
    "minicontainer.engine.exec",
)
"""What the fork server imports once, so that its children share it."""


def spawn(target: str, arguments: dict[str, object], descriptors: list[int]) -> int:
    """Run ``module:function`` with (arguments, descriptors) in a process of its own session; returns its PID.

    The descriptors stay the caller's; the process has copies.
    """
    if direct:
        return _fork(target, arguments, descriptors)
    from minicontainer.runtime import forkserver

    return forkserver.shared(PRELOAD).call(target, arguments, descriptors, preload=PRELOAD)


def _fork(target: str, arguments: dict[str, object], descriptors: list[int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        # The caller's Ctrl-C and its Python handlers are not ours.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        module, _, function = target.partition(":")
        imported = __import__(module, fromlist=[function])
        getattr(imported, function)(arguments, descriptors)
        status = 0
    finally:
        os._exit(status)
