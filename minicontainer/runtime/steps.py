"""The steps of a container's life that the labs re-create, and how a learner's own function takes a step's place.

``steps.use(isolate=mine)`` puts the function `mine` where the package's own ``isolate`` stood, in the real engine: the
next container is made with it. As a context manager it holds for the block; as a plain call until ``steps.reset()``.

A step must have exactly the signature in :data:`TABLE`. It runs in the process named there, never in the notebook's
kernel; what it prints and how it fails come back as data.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from minicontainer.errors import UsageError

Function = Callable[..., Any]


class Step(NamedTuple):
    """One step.

    :param name: the keyword of :func:`use`.
    :param lab: the lab that builds it.
    :param signature: exact parameters and result.
    :param process: where it runs: "supervisor" (a small process forked from the fork server, on the host's side),
        "child before pivot", "child after pivot" (inside the container, before its program), or "host" (the engine).
    :param assumes: what is true when it is called.
    :param holds: what must be true when it has returned.
    :param default: ``module:function`` of the package's own, or "" while the package has none.
    """

    name: str
    lab: str
    signature: str
    process: str
    assumes: str
    holds: str
    default: str


_ROOT = "minicontainer.runtime."
_STEPS = (
    Step(
        "exit_status", "01", "(wait_status: int) -> int", "supervisor",
        "wait_status is what waitpid(2) reported for a process that has ended",
        "0 to 255: the exit code, or 128 plus the number of the signal that ended it",
        _ROOT + "wait:exit_status",
    ),
    Step(
        "isolate", "02", "(flags: int, child: Callable[[], int]) -> int", "supervisor",
        "flags are CLONE_NEW* bits; child takes no argument and returns an exit status, or never returns",
        "a process with child() as its only work lives in new namespaces of each kind in flags; its PID is"
        " returned; the caller's own namespaces are unchanged",
        _ROOT + "isolate:isolate",
    ),
    Step(
        "name_host", "02", "(hostname: str) -> None", "child before pivot",
        "the process has a UTS namespace of its own",
        "uname(2) reports hostname here, and the old name on the host",
        "minicontainer.linux.process:sethostname",
    ),
    Step(
        "mount", "03", "(rootfs: str, entry: dict) -> None", "child before pivot",
        "entry is one OCI mount (destination, type, source, options); the mount tree is private",
        "the file system is mounted at destination below rootfs, with its options, and nowhere else",
        _ROOT + "mounts:mount_in_root",
    ),
    Step(
        "enter_root", "03", "(rootfs: str) -> None", "child before pivot",
        "rootfs is a mount point in a private mount tree",
        "/ is rootfs, the working directory is /, and no path leads back to the old root",
        _ROOT + "root:enter_root",
    ),
    Step(
        "mask", "03", "(masked: list[str], read_only: list[str]) -> None", "child after pivot",
        "/ is the container's root; the paths may not exist",
        "masked files read as empty and masked directories list as empty; nothing below read_only can be written",
        _ROOT + "root:mask",
    ),
    Step(
        "limit", "04", "(group: dict[str, str], resources: dict) -> None", "supervisor",
        "group maps a controller's name to the container's directory; resources is OCI linux.resources",
        "the kernel enforces each limit on every process of the group",
        "minicontainer.cgroup.limits:limit",
    ),
    Step(
        "allow_devices", "04", "(group: dict[str, str], rules: list[dict]) -> None", "supervisor",
        "rules are OCI linux.resources.devices, later ones win",
        "open(2) and mknod(2) of a device not allowed answer EPERM in the group",
        "minicontainer.cgroup.devices:allow_devices",
    ),
    Step(
        "stack", "05", "(lower: list[str], upper: str, work: str, target: str) -> None", "child before pivot",
        "lower are directories, the topmost first; upper and work are empty or from the container's last run, on one"
        " file system",
        "target shows the layers as one tree; every change lands in upper",
        _ROOT + "overlay:stack",
    ),
    Step(
        "changes", "05", "(upper: str, lower: list[str]) -> list[tuple[str, str]]", "host",
        "upper is a container's upper directory",
        "pairs of (A, C or D, path), sorted by path, as `docker diff` prints them",
        "",
    ),
    Step(
        "map_ids", "06", "(pid: int, uid_map: list[tuple[int, int, int]], gid_map: list[tuple[int, int, int]]) -> None",
        "supervisor",
        "pid has just been made in a new user namespace and waits; each triple is (inside, outside, count)",
        "/proc/pid/uid_map and gid_map hold exactly these ranges",
        "",
    ),
    Step(
        "drop_capabilities", "06", "(keep: list[str]) -> None", "child after pivot",
        "the process is root of its user namespace",
        "bounding, permitted and effective sets hold only what is in keep; inheritable and ambient are empty",
        _ROOT + "credentials:drop_capabilities",
    ),
    Step(
        "compile_filter", "06", "(profile: dict) -> bytes", "supervisor",
        "profile is OCI linux.seccomp",
        "a BPF program of 8-byte instructions that seccomp(2) accepts and that decides as the profile says",
        _ROOT + "seccomp:compile_filter",
    ),
    Step(
        "install_filter", "06", "(program: bytes) -> None", "child after pivot",
        "program is a BPF program; no_new_privs is set or CAP_SYS_ADMIN held",
        "the kernel applies it to every later system call of this process and its children",
        _ROOT + "seccomp:install_filter",
    ),
    Step(
        "connect", "07", "(pid: int, bridge: str, address: str, gateway: str) -> None", "supervisor",
        "the bridge exists and is up; pid lives in a network namespace of its own; address is like 172.17.0.2/16",
        "eth0 in that namespace has the address, is up, and routes everything through gateway",
        "",
    ),
    Step(
        "masquerade", "08", "(subnet: str, bridge: str) -> str", "supervisor",
        "the bridge exists",
        "the text of an nft ruleset in a table of our own by which packets from subnet leave with the host's address",
        "",
    ),
    Step(
        "publish", "08", "(address: str, ports: list[tuple[str, int, int, str]]) -> str", "supervisor",
        "ports are (host address, host port, container port, protocol)",
        "the text of an nft ruleset by which each host port leads to the container's",
        "",
    ),
    Step(
        "bind", "09", "(rootfs: str, source: str, target: str, read_only: bool) -> None", "child before pivot",
        "source exists on the host; target is a path inside the container and may be, or lie below, a symbolic link",
        "target below rootfs shows source; nothing outside rootfs was created or covered",
        "",
    ),
    Step(
        "restart_delay", "10", "(restarts: int, ran: float) -> float", "supervisor",
        "restarts counts from 0 since the container was started; ran is seconds that the last run lasted",
        "seconds to wait before the next start: Docker's doubling back-off, at most 60",
        "",
    ),
    Step(
        "parse_reference", "11", "(text: str) -> tuple[str, str, str, str]", "host",
        "text is what a person typed",
        "(registry, repository, tag, digest), empty where absent; ValueError for what is no reference",
        "",
    ),
    Step(
        "verify", "11", "(data: bytes, digest: str) -> None", "host",
        "digest is like sha256:…", "returns only if data has that digest; ValueError otherwise", "",
    ),
    Step(
        "parse_dockerfile", "12", "(text: str) -> list[tuple[str, list[str], str]]", "host",
        "text is a Dockerfile", "(instruction, flags, rest) for each, continuation lines joined, comments gone", "",
    ),
    Step(
        "cache_key", "12", "(parent: str, instruction: str, contents: list[str]) -> str", "host",
        "parent is the key before, instruction is after expansion, contents are digests of copied files",
        "equal inputs give equal keys; any difference gives another key", "",
    ),
)  # fmt: skip
TABLE: Mapping[str, Step] = {step.name: step for step in _STEPS}

_overrides: dict[str, Function] = {}


class _Use:
    """What :func:`use` returns: nothing to a plain call, the undoing of it to a ``with`` block."""

    def __init__(self, before: dict[str, Function]) -> None:
        self._before = before

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        _overrides.clear()
        _overrides.update(self._before)

    def __repr__(self) -> str:
        return f"steps of your own: {', '.join(sorted(_overrides)) or 'none'}"


def use(**functions: Function) -> _Use:
    """Put the learner's functions in the place of the package's steps, for a ``with`` block or until :func:`reset`.

    >>> from minicontainer import steps
    >>> with steps.use(name_host=lambda name: None):
    ...     sorted(steps.active())
    ['name_host']
    >>> steps.active()
    {}

    :raises UsageError: for a name that is not in :data:`TABLE`, or a value that cannot be called.
    """
    for name, function in functions.items():
        if name not in TABLE:
            raise UsageError(f"there is no step called {name!r}", hint=f"the steps are: {', '.join(TABLE)}")
        if not callable(function):
            raise UsageError(f"the step {name!r} must be a function, not {type(function).__name__}")
    before = dict(_overrides)
    _overrides.update(functions)
    return _Use(before)


def reset() -> None:
    """Go back to the package's own steps."""
    _overrides.clear()


def active() -> dict[str, Function]:
    """The learner's functions in force, by the step's name."""
    return dict(_overrides)


@contextmanager
def only(functions: Mapping[str, Function]) -> Iterator[None]:
    """Exactly these functions in force for the block: how a forked process takes over those of its maker."""
    before = dict(_overrides)
    _overrides.clear()
    _overrides.update(functions)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


def default(name: str) -> Function:
    """The package's own function for the step.

    :raises UsageError: for an unknown step, or one that the package has no function for.
    """
    step = TABLE.get(name)
    if step is None or not step.default:
        raise UsageError(f"the package has no step of its own called {name!r}")
    module, _, function = step.default.partition(":")
    found: Function = getattr(importlib.import_module(module), function)
    return found


def get(name: str) -> Function:
    """The function in force for the step: the learner's, or else the package's own."""
    return _overrides.get(name) or default(name)
