"""Where things are kept, and how files are written so that a crash never leaves half of one.

Root keeps images and containers under ``/var/lib/minicontainer`` and live things under ``/run/minicontainer``; an
ordinary user under the XDG directories (XDG Base Directory Specification). ``MINICONTAINER_ROOT`` and
``MINICONTAINER_RUN`` override both, which is how tests and the lab host keep to themselves.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minicontainer.errors import MinicontainerError


def data_root() -> Path:
    """The directory for what must survive a reboot: images, layers, container records."""
    chosen = os.environ.get("MINICONTAINER_ROOT")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/minicontainer")
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(base) / "minicontainer"


def run_root() -> Path:
    """The directory for what lives only as long as the machine is up: sockets, runtime state."""
    chosen = os.environ.get("MINICONTAINER_RUN")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/run/minicontainer")
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        return Path(base) / "minicontainer"
    return Path(f"/tmp/minicontainer-{os.geteuid()}")


def private_directory(path: Path) -> Path:
    """Create `path` for this user alone (mode 0700) and refuse one that somebody else prepared.

    :raises MinicontainerError: when it cannot be made or belongs to another user.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat(follow_symlinks=False)
    except OSError as error:
        raise MinicontainerError(
            f"cannot use {path}: {os.strerror(error.errno or 0)}",
            hint="run as root, or as an ordinary user inside `minicontainer lab -- …`",
        ) from error
    if owner.st_uid != os.geteuid() or path.is_symlink():
        raise MinicontainerError(
            f"refusing {path}: it belongs to user {owner.st_uid}, not to us",
            hint="remove it, or set MINICONTAINER_RUN and MINICONTAINER_ROOT to directories of your own",
        )
    return path


def write_whole(path: Path, data: bytes | str, mode: int = 0o600, *, durable: bool = False) -> None:
    """Replace the file `path` by `data` in one step: readers see the old content or the new, never a part.

    :param durable: also wait until the data is on the disk (fsync), for what must survive a power cut.
    """
    if isinstance(data, str):
        data = data.encode()
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if durable:
            os.fsync(descriptor)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


@contextmanager
def lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold an advisory lock (flock(2)) on the file `path`, which is made when missing.

    The kernel drops the lock when its holder dies, however it dies.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
