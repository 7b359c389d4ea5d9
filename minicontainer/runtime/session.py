"""A process of its own: session, signals, keyring, standard streams, terminal. Labs 02 and 10.

What init and `exec` do alike before anything else, so that the caller's session, signal handlers and keys are not the
container's. Man pages: setsid(2), sigaction(2), session-keyring(7), tty_ioctl(4).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enumerations, which cost 0.2 ms in a fresh process
import errno
import fcntl
import os
import signal
import termios

from minicontainer.linux.process import join_session_keyring
from minicontainer.runtime.channel import Channel
from minicontainer.runtime.devices import open_console

_RESET = tuple(
    int(number)
    for number in (
        signal.SIGPIPE,
        signal.SIGXFSZ,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGCHLD,
        signal.SIGHUP,
    )
)


def reset_signals() -> None:
    """Give the program the signals a program expects: Python ignores SIGPIPE and SIGXFSZ, and ignored stays ignored."""
    for number in _RESET:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def join_keyring() -> None:
    """A session keyring of its own, where the kernel has keyrings and allows it: the host's would be inherited."""
    try:
        join_session_keyring()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EDQUOT):
            raise


def take_stdio(stdio: tuple[int, int, int]) -> None:
    """Make the three descriptors 0, 1 and 2, in whatever order they overlap."""
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3) for descriptor in stdio]
    for number, descriptor in enumerate(copies):
        os.dup2(descriptor, number)
        os.close(descriptor)


def take_terminal(
    channel: Channel,
    top: int,
    size: dict[str, int] | None,
    *,
    on_dev_console: bool = True,
    owner: int | None = None,
) -> None:
    """A terminal of the container's own as 0, 1, 2 and controlling terminal; its master side goes home."""
    master, slave = open_console(top, size, on_dev_console=on_dev_console)
    if owner is not None:
        os.fchown(slave, owner, -1)
    channel.send({"console": True}, descriptor=master)
    os.close(master)
    take_stdio((slave, slave, slave))
    os.close(slave)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
