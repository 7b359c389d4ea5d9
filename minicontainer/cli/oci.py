"""``minicontainer-oci``: the runtime as Docker, Podman and containerd call it, with runc's verbs and flags. Lab 15.

Each call is one short-lived process, so it imports what its verb needs and no more. Errors go to standard error, and as
the last line of ``--log`` in the form that containerd reads.
"""

from __future__ import annotations

import json
import os
import sys

from minicontainer.cli.flags import LIST, NUMBER, STRING, SWITCH, Flag, FlagError, Parsed, Verb, parse
from minicontainer.errors import MinicontainerError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.runtime.state import State

_GLOBAL = (
    Flag("", "root", STRING, "directory of the containers' state"),
    Flag("", "log", STRING, "file for messages"),
    Flag("", "log-format", STRING, "text or json"),
    Flag("", "debug", SWITCH, "show tracebacks"),
    Flag("", "systemd-cgroup", SWITCH, "let systemd make the control groups"),
    Flag("", "cgroup-manager", STRING, "crun's: cgroupfs, or disabled for no control groups"),
    Flag("", "rootless", STRING, "accepted for compatibility: it is found out by looking"),
    Flag("v", "version", SWITCH, "print the version"),
)
_BUNDLE = Flag("b", "bundle", STRING, "directory of the bundle (default: the working directory)")
_CONSOLE = Flag("", "console-socket", STRING, "unix socket that receives the terminal's master side")
_PID_FILE = Flag("", "pid-file", STRING, "file to write the process's PID to")
_CREATE = (
    _BUNDLE,
    Flag("f", "config", STRING, "crun's: the configuration file (default: config.json in the bundle)"),
    _CONSOLE,
    _PID_FILE,
    Flag("", "preserve-fds", NUMBER, "descriptors from 3 on that the program inherits"),
    Flag("", "no-pivot", SWITCH, "use chroot instead of pivot_root (for a root on a ramdisk)"),
    Flag("", "no-new-keyring", SWITCH, "keep the caller's session keyring"),
)
_EXEC = (
    _CONSOLE,
    _PID_FILE,
    Flag("p", "process", STRING, "file with an OCI process object"),
    Flag("d", "detach", SWITCH, "do not wait"),
    Flag("t", "tty", SWITCH, "a terminal"),
    Flag("u", "user", STRING, "UID[:GID]"),
    Flag("e", "env", LIST, "NAME=VALUE"),
    Flag("", "cwd", STRING, "working directory"),
    Flag("g", "additional-gids", LIST, "supplementary group"),
    Flag("c", "cap", LIST, "add a capability"),
    Flag("", "no-new-privs", SWITCH, "set no_new_privs"),
    Flag("", "preserve-fds", NUMBER, "descriptors from 3 on that the program inherits"),
    Flag("", "cgroup", STRING, "accepted for compatibility"),
    Flag("", "apparmor", STRING, "accepted for compatibility"),
    Flag("", "process-label", STRING, "accepted for compatibility"),
    Flag("", "ignore-paused", SWITCH, "accepted for compatibility"),
)
_HERE = "minicontainer.cli.oci:"
VERBS = {
    verb.name: verb
    for verb in (
        Verb("create", "ID", "make a container", _HERE + "_create", _CREATE, least=1, most=1),
        Verb("start", "ID", "start a created container", _HERE + "_start", least=1, most=1),
        Verb(
            "run", "ID", "create, start, wait, delete", _HERE + "_run",
            (*_CREATE, Flag("d", "detach", SWITCH, "do not wait"), Flag("", "keep", SWITCH, "do not delete at the end"),
             Flag("", "no-subreaper", SWITCH, "accepted for compatibility")),
            least=1, most=1,
        ),
        Verb("state", "ID", "print a container's state", _HERE + "_state", least=1, most=1),
        Verb("kill", "ID [SIGNAL]", "send a signal", _HERE + "_kill",
             (Flag("a", "all", SWITCH, "to every process of the container"),), least=1, most=2),
        Verb("delete", "ID", "remove a container", _HERE + "_delete",
             (Flag("f", "force", SWITCH, "kill it first; no error where there is none"),
              Flag("r", "regex", SWITCH, "crun's: ID is a regular expression for several")), least=1, most=1),
        Verb("exec", "ID COMMAND…", "one more process", _HERE + "_exec", _EXEC, least=1, until_argument=True),
        Verb("pause", "ID", "freeze all processes", _HERE + "_pause", least=1, most=1),
        Verb("resume", "ID", "let them go on", _HERE + "_resume", least=1, most=1),
        Verb("list", "", "list the containers", _HERE + "_list",
             (Flag("f", "format", STRING, "table or json"), Flag("q", "quiet", SWITCH, "ids only")), most=0),
        Verb("ps", "ID", "list the processes in a container", _HERE + "_ps",
             (Flag("f", "format", STRING, "table or json"),), least=1),
        Verb("features", "", "say what this runtime can do", _HERE + "_features", most=0),
        Verb("spec", "", "write an example config.json", _HERE + "_spec",
             (_BUNDLE, Flag("", "rootless", SWITCH, "for an ordinary user")), most=0),
    )
}  # fmt: skip


class Call:
    """One call: its global flags and its verb's."""

    def __init__(self, options: Parsed, parsed: Parsed) -> None:
        self.options = options
        self.parsed = parsed
        self.root: str = options.root or default_root()

    @property
    def id(self) -> str:
        """The container's id, the first argument."""
        return self.parsed.arguments[0]

    def load(self) -> State:
        """The container that the call is about."""
        from minicontainer.runtime.state import State

        return State.load(self.root, self.id)


def default_root() -> str:
    """Where state is kept without ``--root``."""
    from minicontainer.paths import run_root

    return str(run_root() / "oci")


def main(words: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    words = sys.argv[1:] if words is None else words
    options = Parsed(Verb("", "", "", "", _GLOBAL))
    try:
        options = parse(Verb("", "", "", "", _GLOBAL, until_argument=True), words)
        if options.version:
            return _version()
        if options.help or not options.arguments:
            return _help()
        name, *rest = options.arguments
        if name not in VERBS:
            raise UsageError(
                f"unknown command {name!r}", hint=f"the commands are: {', '.join(VERBS)}", exit_code=1
            )
        verb = VERBS[name]
        parsed = parse(verb, rest)
        if parsed.help:
            return _verb_help(verb)
        function = globals()[verb.where.partition(":")[2]]
        status: int = function(Call(options, parsed)) or 0
        return status
    except MinicontainerError as error:
        if options.debug:
            raise
        _complain(options, error)
        # As runc: 1 for whatever fails before the program runs; the engine above reads the text for 126 and 127.
        return 1 if not isinstance(error, FlagError) else error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if options.debug:
            raise
        from minicontainer.linux.hints import describe, explain

        hint = explain(getattr(error, "syscall", ""), error.errno or 0)
        _complain(options, MinicontainerError(describe(error), hint=hint))
        return 1


def _complain(options: Parsed, error: MinicontainerError) -> None:
    """The error on standard error, and in the log in the form its reader expects."""
    sys.stderr.write(f"minicontainer-oci: {error}\n" + (f"{error.hint}\n" if error.hint else ""))
    if not options.log:
        return
    import time

    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if options.log_format == "json":
        line = json.dumps({"level": "error", "msg": str(error), "time": moment})
    else:
        line = f'time="{moment}" level=error msg={json.dumps(str(error))}'
    try:
        with open(options.log, "a") as file:
            file.write(line + "\n")
    except OSError as problem:
        sys.stderr.write(f"minicontainer-oci: cannot write the log {options.log}: {problem.strerror}\n")


def _version() -> int:
    from minicontainer import __version__
    from minicontainer.runtime.spec import OCI_VERSION

    print(f"minicontainer-oci version {__version__}\nspec: {OCI_VERSION}")
    return 0


def _help() -> int:
    print("minicontainer-oci [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND …\n")
    for verb in VERBS.values():
        print(f"  {verb.name:10}{verb.summary}")
    return 0


def _verb_help(verb: Verb) -> int:
    print(f"minicontainer-oci {verb.name} [OPTIONS] {verb.arguments}\n\n{verb.summary}\n")
    for flag in verb.flags:
        print(f"  {flag.shown:26}{flag.help}")
    return 0


def _make(call: Call) -> State:
    """What create and run share."""
    from minicontainer.runtime import lifecycle

    manager = call.options.cgroup_manager or "cgroupfs"
    if call.options.systemd_cgroup or manager not in ("cgroupfs", "disabled"):
        raise UsageError(
            "--systemd-cgroup is not supported yet", hint="use the cgroupfs manager", exit_code=1
        )
    parsed = call.parsed
    return lifecycle.create(
        call.root,
        call.id,
        parsed.bundle or ".",
        config_file=parsed.config,
        groups=manager != "disabled",
        pid_file=parsed.pid_file,
        console_socket=parsed.console_socket,
        preserve=parsed.preserve_fds or 0,
    )


def _create(call: Call) -> None:
    _make(call)


def _start(call: Call) -> None:
    from minicontainer.runtime import lifecycle

    lifecycle.start(call.load())


def _run(call: Call) -> int:
    """Create and start; in the foreground also wait, pass signals on, and delete."""
    from minicontainer.runtime import lifecycle

    state = _make(call)
    pid = state.pid
    try:
        lifecycle.start(state)
    except BaseException:
        lifecycle.delete(call.root, call.id, force=True)
        raise
    if call.parsed.detach:
        return 0
    status = _wait(pid)
    if not call.parsed.keep:
        lifecycle.delete(call.root, call.id, force=True)
    return status


def _wait(pid: int) -> int:
    """Wait for our child `pid`, passing on the signals that we get."""
    import signal

    from minicontainer.runtime.wait import exit_status

    def forward(number: int, frame: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), forward)
    return exit_status(os.waitpid(pid, 0)[1])


def _state(call: Call) -> None:
    print(json.dumps(call.load().public(), indent=2))


def _kill(call: Call) -> None:
    from minicontainer.runtime import lifecycle

    words = call.parsed.arguments
    number = signal_number(words[1] if len(words) > 1 else "SIGTERM")
    lifecycle.signal_one(call.load(), number, everything=call.parsed.all)


def signal_number(text: str) -> int:
    """9, KILL and SIGKILL are the same signal.

    :raises UsageError: for what is none.
    """
    import signal

    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper().removeprefix("SIG")
    try:
        return signal.Signals["SIG" + name].value
    except KeyError:
        raise UsageError(f"unknown signal {text!r}", hint="see `kill -l`", exit_code=1) from None


def _delete(call: Call) -> None:
    from minicontainer.runtime import lifecycle

    if not call.parsed.regex:
        lifecycle.delete(call.root, call.id, force=call.parsed.force)
        return
    import re

    from minicontainer.runtime.state import all_states

    for state in all_states(call.root):
        if re.search(call.id, state.id):
            lifecycle.delete(call.root, state.id, force=call.parsed.force)


def _exec(call: Call) -> int:
    from minicontainer.runtime import lifecycle

    parsed = call.parsed
    state = call.load()
    process = _process(parsed, state.config.get("process", {}))
    if process.get("terminal") and not parsed.console_socket:
        raise UsageError("the terminal needs a console socket", hint="use --console-socket", exit_code=1)
    started = lifecycle.exec_process(
        state, process, console_socket=parsed.console_socket, pid_file=parsed.pid_file
    )
    return 0 if parsed.detach else _wait(started.pid)


def _process(parsed: Parsed, base: dict[str, Any]) -> dict[str, Any]:
    """The OCI process object to execute: from a file, or the container's own with this call's changes."""
    if parsed.process:
        try:
            with open(parsed.process) as file:
                given: dict[str, Any] = json.load(file)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"cannot read the process from {parsed.process}: {error}", exit_code=1
            ) from error
        return given
    if len(parsed.arguments) < 2:
        raise UsageError("exec needs a command, or --process", exit_code=1)
    process = {**base, "args": parsed.arguments[1:], "terminal": parsed.tty}
    process["env"] = [*parsed.env, *base.get("env", [])]
    if parsed.cwd:
        process["cwd"] = parsed.cwd
    user = dict(base.get("user", {}))
    if parsed.user:
        uid, _, gid = parsed.user.partition(":")
        if not uid.isdigit() or gid and not gid.isdigit():
            raise UsageError(f"--user {parsed.user!r}: give numbers, UID or UID:GID", exit_code=1)
        user["uid"] = int(uid)
        user["gid"] = int(gid or user.get("gid", 0))
    if parsed.additional_gids:
        user["additionalGids"] = [int(gid) for gid in parsed.additional_gids]
    process["user"] = user
    if parsed.cap:
        sets = {name: list(names) for name, names in (base.get("capabilities") or {}).items()}
        for name in ("bounding", "effective", "permitted"):
            sets[name] = [*sets.get(name, []), *parsed.cap]
        process["capabilities"] = sets
    if parsed.no_new_privs:
        process["noNewPrivileges"] = True
    return process


def _pause(call: Call) -> None:
    _freeze(call, True, "running")


def _resume(call: Call) -> None:
    _freeze(call, False, "paused")


def _freeze(call: Call, frozen: bool, wanted: str) -> None:
    state = call.load()
    status = state.status
    group = state.group
    if status != wanted and not (frozen and status == "created") or group is None:
        verb = "pause" if frozen else "resume"
        raise MinicontainerError(f"cannot {verb} container {state.id} that is {status}", exit_code=1)
    group.freeze(frozen)


def _list(call: Call) -> None:
    from minicontainer.runtime.state import all_states

    states = [state.public() for state in all_states(call.root)]
    if call.parsed.quiet:
        print("".join(f"{state['id']}\n" for state in states), end="")
        return
    if call.parsed.format == "json":
        print(json.dumps(states))
        return
    rows: list[tuple[str, ...]] = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    rows += [tuple(str(state[key]) for key in keys) for state in states]
    widths = [max(len(row[column]) for row in rows) for column in range(len(keys))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _ps(call: Call) -> None:
    state = call.load()
    group = state.group
    pids = group.processes() if group is not None else []
    if call.parsed.format == "json":
        print(json.dumps(pids))
        return
    import subprocess

    done = subprocess.run(["ps", *(call.parsed.arguments[1:] or ["-ef"])], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if not lines:
        raise MinicontainerError("ps printed nothing", hint="install procps", exit_code=1)
    column = lines[0].split().index("PID")
    wanted = {str(pid) for pid in pids}
    print("\n".join([lines[0], *(line for line in lines[1:] if line.split()[column] in wanted)]))


def _features(call: Call) -> None:
    from minicontainer.runtime.features import features

    print(json.dumps(features(), indent=2))


def _spec(call: Call) -> None:
    from minicontainer.runtime.spec import example

    path = os.path.join(call.parsed.bundle or ".", "config.json")
    try:
        with open(path, "x") as file:
            json.dump(example(), file, indent=4)
    except FileExistsError:
        raise UsageError(f"{path} exists", hint="remove it first", exit_code=1) from None


if __name__ == "__main__":
    sys.exit(main())
