"""The lab host, in its thin form: run a command as root of a private machine inside the machine.

`minicontainer lab -- COMMAND` gives the command its own mount, PID, UTS and IPC namespaces (and a network namespace
when asked), its own /proc and /run, and a first process that ends everything inside when the command ends. An
ordinary user gets a user namespace around it and is root in there; somebody who is root already keeps the real
root's powers for now. Mounts made inside are gone when it closes; files written to the disk stay.
Man pages: namespaces(7), user_namespaces(7), pid_namespaces(7), mount_namespaces(7).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from minicontainer import paths
from minicontainer.errors import MinicontainerError, UsageError, from_dict
from minicontainer.labhost import idmap
from minicontainer.linux import hints, interface, mount, namespace, process
from minicontainer.linux.libc import SyscallError

HOSTNAME = "lab"
_RUN = "/run/minicontainer"


def run(
    command: Sequence[str],
    *,
    network: str = "host",
    single_id: bool = False,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run `command` in a new lab host, wait for it, leave nothing behind.

    The calling process must have a single thread: it clones itself.

    :param network: "host" to share the machine's network, "none" for a network namespace with only loopback.
    :param single_id: do not use the range of subordinate ids.
    :param environment: variables for the command, beside the ones it inherits.
    :returns: the command's exit status, 128+n where signal n ended it.
    :raises MinicontainerError: where the namespaces cannot be made, or the command cannot be started (126, 127).
    """
    rootless = os.geteuid() != 0
    flags = namespace.CLONE_NEWNS | namespace.CLONE_NEWPID | namespace.CLONE_NEWUTS | namespace.CLONE_NEWIPC
    if network == "none":
        flags |= namespace.CLONE_NEWNET
    elif network != "host":
        raise UsageError(f"unknown network {network!r} for the lab host", hint="it is host or none")
    maps = None
    if rootless:
        flags |= namespace.CLONE_NEWUSER
        maps = idmap.choose(single=single_id)
    cgroup_parent = os.environ.get("MINICONTAINER_CGROUP_PARENT")
    own_cgroup = None if cgroup_parent else f"minicontainer-lab-{os.getpid()}"
    inside = _environment(rootless, cgroup_parent or own_cgroup or "", environment or {})
    with _Signals() as signals:
        go_read, go_write = os.pipe()
        error_read, error_write = os.pipe()
        child = _clone(flags)
        if child == 0:
            os.close(go_write)
            os.close(error_read)
            # Nothing may return into the caller's code in the child: _first_process ends in os._exit.
            _first_process(command, inside, go_read, error_write, maps, network)
        os.close(go_read)
        os.close(error_write)
        signals.forward_to(child)
        try:
            try:
                if maps is not None:
                    idmap.write(child, maps)
                os.write(go_write, b"go")
                _raise_error(error_read)
            except BaseException:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise
            # Everything in the PID namespace is dead when its first process can be reaped (man 7 pid_namespaces).
            status = os.waitpid(child, 0)[1]
        finally:
            signals.forward_to(None)
            os.close(go_write)
            os.close(error_read)
            if own_cgroup:
                remove_cgroups(own_cgroup)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _clone(flags: int) -> int:
    try:
        return namespace.clone(flags)
    except SyscallError as error:
        raise MinicontainerError(
            f"cannot make the lab host's namespaces: {error.strerror}",
            hint=hints.explain("clone3", error.errno or 0) + "; `minicontainer doctor` looks closer",
        ) from error


def _environment(rootless: bool, cgroup_parent: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell everything inside where its things are (see :mod:`minicontainer.paths`)."""
    inside = dict(os.environ)
    # They name places in the real /run, which is not there inside.
    for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "NOTIFY_SOCKET"):
        inside.pop(name, None)
    inside["MINICONTAINER_ROOT"] = os.path.abspath(paths.data_root())
    inside["MINICONTAINER_RUN"] = _RUN
    inside["MINICONTAINER_CGROUP_PARENT"] = cgroup_parent
    inside["MINICONTAINER_LAB"] = "user" if rootless else "root"
    # So that `minicontainer` can be typed in there; what the caller's PATH finds first stays first.
    inside["PATH"] = os.pathsep.join([inside.get("PATH", os.defpath), os.path.dirname(sys.executable)])
    inside.update(extra)
    return inside


class _Signals:
    """While the lab host runs: SIGTERM and SIGHUP go on to the inside, the keyboard's signals do not end us.

    Ctrl-C reaches the command directly, as a member of the terminal's foreground process group; what it does is the
    command's affair, and we stay to clean up.
    """

    def __init__(self) -> None:
        self._target: int | None = None
        self._previous: dict[int, signal.Handlers | Callable | int | None] = {}

    def forward_to(self, pid: int | None) -> None:
        self._target = pid

    def _forward(self, number: int, _frame: object) -> None:
        if self._target is None:
            raise SystemExit(128 + number)
        os.kill(self._target, number)

    def __enter__(self) -> _Signals:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._forward)
        for number in (signal.SIGINT, signal.SIGQUIT):
            self._previous[number] = signal.signal(number, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _raise_error(descriptor: int) -> None:
    """Wait until the command was started (the pipe closes), or raise what went wrong on the way."""
    text = b""
    while part := os.read(descriptor, 65536):
        text += part
    if text:
        raise from_dict(json.loads(text))


def _report(descriptor: int, error: BaseException) -> None:
    """Send an error home, as data (the other end is :func:`_raise_error`)."""
    if isinstance(error, OSError):
        what = hints.describe(error)
        hint = hints.explain(getattr(error, "syscall", ""), error.errno or 0)
        error = MinicontainerError(f"the lab host could not be set up: {what}", hint=hint)
    elif not isinstance(error, MinicontainerError):
        error = MinicontainerError(f"the lab host could not be set up: {type(error).__name__}: {error}")
    os.write(descriptor, json.dumps(error.to_dict()).encode())


def _first_process(
    command: Sequence[str],
    environment: dict[str, str],
    go: int,
    errors: int,
    maps: idmap.IdMaps | None,
    network: str,
) -> None:
    """PID 1 of the lab host: set it up, start the command, reap orphans, end with the command's status."""
    status = 125
    try:
        if os.read(go, 2) != b"go":  # the parent died, or could not write the maps
            os._exit(status)
        if maps is not None:
            if not maps.why_single:
                os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        # Changing ids clears it, so it is set after them; a parent that died before is seen by the closed pipe.
        process.set_parent_death_signal(signal.SIGKILL)
        if select.select([go], [], [], 0)[0]:
            os._exit(status)
        _private_machine(network)
        child = os.fork()
        if child == 0:
            _become(command, environment, errors)
        os.close(errors)
        errors = -1
        status = _reap_until(child)
    except BaseException as error:
        if errors >= 0:
            _report(errors, error)
    finally:
        os._exit(status)


def _private_machine(network: str) -> None:
    """Own mounts, /proc, /run and host name for the calling process's new namespaces."""
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    keep = _resolver_directory()
    tree = -1
    if keep:
        tree = mount.open_tree(
            mount.AT_FDCWD, keep, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | mount.AT_RECURSIVE
        )
    plain = mount.MS_NOSUID | mount.MS_NODEV
    try:
        mount.mount("proc", "/proc", "proc", plain | mount.MS_NOEXEC)
    except OSError as error:
        raise MinicontainerError(
            f"the lab host cannot have its own /proc: {error.strerror}",
            hint="a container that masks parts of /proc forbids it: start it with"
            " --security-opt systempaths=unconfined (Docker) or --security-opt unmask=ALL (Podman)",
        ) from error
    mount.mount("tmpfs", "/run", "tmpfs", plain, "mode=755")
    if keep:
        os.makedirs(keep)
        mount.move_mount(tree, "", mount.AT_FDCWD, keep, mount.MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)
    for directory in ("/run/lock", "/run/user"):
        os.mkdir(directory)
    process.sethostname(HOSTNAME)
    if network == "none":
        interface.set_up("lo")


def _resolver_directory() -> str | None:
    """The directory below /run that /etc/resolv.conf leads to: without it there would be no names inside."""
    target = os.path.realpath("/etc/resolv.conf")
    directory = os.path.dirname(target)
    inside_run = directory.startswith("/run/") and os.path.isdir(directory)
    return directory if inside_run else None


def _become(command: Sequence[str], environment: dict[str, str], errors: int) -> None:
    """Replace this process by the command; where that fails, say why and end with the shell's exit status."""
    try:
        # SIG_IGN survives execve(2), and Python ignores SIGPIPE: the command gets what a shell would give it.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        message = f"cannot run {command[0]}: {error.strerror}"
        _report(errors, MinicontainerError(message, hint="check the spelling and $PATH", exit_code=code))
    finally:
        os._exit(125)


def _reap_until(child: int) -> int:
    """Wait for `child`, and for every orphan that becomes ours meanwhile; returns the child's exit status."""

    def forward(number: int, _frame: object) -> None:
        os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def remove_cgroups(parent: str, *, patience: float = 2.0) -> None:
    """Remove the empty groups below `parent` in every hierarchy, and the parent itself.

    :param patience: seconds to wait for the kernel to let go of processes that have just died.
    """
    from minicontainer.cgroup.hierarchy import detect

    deadline = time.monotonic() + patience
    for root in detect().directories():
        directories = [directory for directory, _, _ in os.walk(f"{root}/{parent}", topdown=False)]
        for directory in directories:
            while True:
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
                else:
                    break


def main(arguments: Sequence[str] | None = None) -> int:
    """`minicontainer lab [--network host|none] [--single-id] [--] [COMMAND [ARG...]]`."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="minicontainer lab",
        description="Run a command (a shell, when none is given) as root of a private machine inside this machine:"
        " own processes, mounts, /run and host name. An ordinary user needs no sudo.",
    )
    parser.add_argument(
        "--network", choices=("host", "none"), default="host", help="default: the machine's own"
    )
    parser.add_argument("--single-id", action="store_true", help="do not use subordinate ids (/etc/subuid)")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        command = [os.environ.get("SHELL") or "/bin/sh"]
    return run(command, network=options.network, single_id=options.single_id)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinicontainerError as failure:
        print(f"minicontainer lab: {failure}", file=sys.stderr)
        if failure.hint:
            print(failure.hint, file=sys.stderr)
        sys.exit(failure.exit_code)
