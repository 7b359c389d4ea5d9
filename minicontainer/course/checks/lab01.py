"""Lab 01, a process and its root: exit_status, run, make_rootfs, enter_chroot.

Each item is a *check* (makes the inputs, judges), a *scene* (watches, in the stage) and a *play* (calls the learner's
function, in the subject); see :mod:`minicontainer.course.stage`.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
from typing import Any

from minicontainer.course import proc
from minicontainer.course.check import Behaviour, Trial, item
from minicontainer.course.stage import Call, Stage, Subject
from minicontainer.course.subject import Link

# ------------------------------------------------------------------------------------------------ exit_status
_DEADLY = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR2)


@item(
    "lab01-exit_status",
    signature="(wait_status: int) -> int",
    title="Say how a process ended, as a shell does",
    stars=1,
    step="exit_status",
    behaviours=(
        Behaviour("exited", "a process that called exit(n) gives n", 1, "man 2 wait: WIFEXITED, WEXITSTATUS"),
        Behaviour("killed", "a process killed by signal n gives 128 + n", 1, "man 2 wait: WIFSIGNALED, WTERMSIG"),
        Behaviour("core", "a core dump changes nothing: still 128 + n", 1, "man 2 wait: WCOREDUMP is bit 7, not part of the signal"),
    ),
)
def exit_status(trial: Trial) -> None:
    codes = [0, *trial.rng.sample(range(1, 256), 6 if trial.hidden else 3)]
    signals = trial.rng.sample([int(number) for number in _DEADLY], 5 if trial.hidden else 2)
    dumped = trial.rng.sample([signal.SIGQUIT, signal.SIGILL, signal.SIGABRT, signal.SIGSEGV], 2)
    cases = [("exited", code << 8, code) for code in codes]
    cases += [("killed", number, 128 + number) for number in signals]
    cases += [("core", number | 0x80, 128 + number) for number in map(int, dumped)]
    calls = trial.watch(scene_calls, [[status] for _, status, _ in cases], rows=("exited", "killed", "core"))
    if calls is None:
        return
    for (key, status, expected), call in zip(cases, calls, strict=True):
        right = type(call["value"]) is int and call["value"] == expected
        trial.expect(key, f"{expected} for the wait status {status:#06x}", f"{call['text']}", passed=right)


def scene_calls(stage: Stage, cases: list[list[Any]]) -> list[dict[str, Any]]:
    """Call the function once for each list of arguments."""
    subject = stage.start(play_calls, cases)
    return [as_data(subject.call()) for _ in cases]


def play_calls(link: Link, cases: list[list[Any]]) -> None:
    for arguments in cases:
        link.call(*arguments)


def as_data(call: Call) -> dict[str, Any]:
    """A call as the checker gets it: the value where it is a plain one, and always a text."""
    plain = call.value if isinstance(call.value, (int, float, str)) and not hasattr(call.value, "__slots__") else None
    return {"value": plain, "text": str(call), "returned": call.returned, "os_error": call.os_error}


# -------------------------------------------------------------------------------------------------------- run
# It waits at its gate, so that the scene can look at it and decide only then how it ends.
_PROGRAM = '#!/bin/sh\nread order < "$0.gate"\neval "$order"\n'


@item(
    "lab01-run",
    signature="(argv: list[str], env: dict[str, str]) -> int",
    title="Run a program and wait for it",
    stars=2,
    behaviours=(
        Behaviour("child", "the program runs as a child process of the caller, with argv as it was given", 1, "man 2 fork; /proc/PID/stat field 4, /proc/PID/cmdline"),
        Behaviour("env", "its environment is exactly env, and it is found on env's PATH", 1, "man 3 exec: execvpe; /proc/PID/environ"),
        Behaviour("waits", "run returns when the program has ended, and leaves no zombie", 1, "man 2 wait; state Z in /proc/PID/status"),
        Behaviour("status", "its result is the exit code, or 128 + n after signal n", 1, "man 2 wait: WIFEXITED, WIFSIGNALED"),
        Behaviour("missing", "127 for a program that does not exist, 126 for one that cannot be executed", 1, "man 3 exec: ENOENT, EACCES; man 1 bash: EXIT STATUS"),
        Behaviour("leak", "after a failed exec the child ends itself: only one process returns to the caller", 1, "man 2 _exit: os._exit in the child"),
    ),
)
def run(trial: Trial) -> None:
    order: str | int
    for _ in range(2 if trial.hidden else 1):
        name, key, text = trial.word(), trial.word().upper(), f"{trial.word()} $HOME '{trial.word()}'"
        code, number = trial.rng.randrange(3, 125), int(trial.rng.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1)))
        for order, expected in ((f"exit {code}", code), (f"kill -{number} $$", 128 + number)):
            seen = trial.watch(scene_run, name, [text, "--", trial.word(3)], {key: text}, order, rows=("child", "waits", "status"))
            if seen is not None:
                _judge_run(trial, seen, expected)
    _judge_failures(trial)


def _judge_run(trial: Trial, seen: dict[str, Any], expected: int) -> None:
    if seen["running"] is None:
        got = f"no such process; run gave {seen['call']['text']}" if seen["call"] else "no such process"
        for key in ("child", "env", "waits"):
            trial.expect(key, "the program running", got, passed=False)
    else:
        running = seen["running"]
        trial.expect("child", f"a child of the caller, with arguments {seen['argv']}", running["what"], passed=running["child"])
        trial.expect("env", seen["env"], running["env"])
        if seen["early"]:
            trial.expect("waits", "run still waiting", "run had returned while the program was running", passed=False)
        else:
            trial.expect("waits", "no process left", seen["left"] or "no process left")
    if seen["call"] is not None:
        right = type(seen["call"]["value"]) is int and seen["call"]["value"] == expected
        right = right and seen["running"] is not None and not seen["early"]
        late = " (before the program had ended)" if seen["early"] else ""
        trial.expect("status", f"{expected} after `{seen['order']}`", seen["call"]["text"] + late, passed=right)


def _judge_failures(trial: Trial) -> None:
    argv_missing, argv_plain = [f"mc-{trial.word()}", "x"], [trial.word(), "y"]
    for argv, kind, expected in ((argv_missing, "missing", 127), (argv_plain, "plain", 126)):
        seen = trial.watch(scene_failed_exec, argv, kind, rows=("missing", "leak"))
        if seen is None:
            continue
        what = "does not exist" if kind == "missing" else "has no execute permission"
        right = type(seen["call"]["value"]) is int and seen["call"]["value"] == expected
        trial.expect("missing", f"{expected} for a program that {what}", seen["call"]["text"], passed=right)
        # One process came back: that proves something only of a run that did try, and so gave a number.
        tried = type(seen["call"]["value"]) is int and seen["call"]["value"] != 0
        got = f"{seen['leaks']} more came back" if seen["leaks"] else "one process came back"
        if not tried:
            got = f"run gave {seen['call']['text']}"
        trial.expect("leak", "one process came back", got, passed=tried and not seen["leaks"])


def scene_run(stage: Stage, name: str, words: list[str], env: dict[str, str], order: str) -> dict[str, Any]:
    """Run a program that waits at a gate; look at it there, give it its order, and see what run says."""
    directory = os.path.join(stage.directory, "bin")
    os.mkdir(directory)
    program = os.path.join(directory, name)
    write_program(program, _PROGRAM)
    gate = stage.gate(os.path.join("bin", f"{name}.gate"))
    env = env | {"PATH": f"{directory}:/usr/bin:/bin"}
    subject = stage.start(play_calls, [[[name, *words], env]])
    expected = ["/bin/sh", program, *words]
    found = stage.until(lambda: _find_program(subject, expected) or subject.has_said("call"), 2.0)
    running = None
    if isinstance(found, proc.Process):
        stage.until(lambda: subject.has_said("call"), 0.05)
        running = {
            "child": found.parent == subject.pid,
            "what": "as expected" if found.parent == subject.pid else f"it runs as process {found.pid}, child of {found.parent}",
            "env": _environment(found.pid),
        }
    early = subject.has_said("call")
    if running:
        gate.open(order)
    call = subject.call()
    left = [f"PID {subject.inside(each)} ({each.name}, state {each.state})" for each in _left(stage, subject)]
    return {
        "running": running, "early": early, "call": as_data(call), "left": ", ".join(left),
        "argv": words, "env": env, "order": order,
    }  # fmt: skip


def _left(stage: Stage, subject: Subject) -> list[proc.Process]:
    return proc.children(subject.pid)


def _find_program(subject: Subject, argv: list[str]) -> proc.Process | None:
    for each in proc.descendants(subject.keeper):
        words = proc.read(each.pid, "cmdline").split(b"\0")[:-1]
        if [os.fsdecode(word) for word in words] == argv:
            return each
    return None


def _environment(pid: int) -> dict[str, str]:
    pairs = (os.fsdecode(entry).partition("=") for entry in proc.read(pid, "environ").split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def write_program(path: str, text: str, mode: int = 0o755) -> None:
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def scene_failed_exec(stage: Stage, argv: list[str], kind: str) -> dict[str, Any]:
    """Run something that cannot be executed; count who comes back."""
    if kind == "plain":
        argv = [os.path.join(stage.directory, argv[0]), *argv[1:]]
        write_program(argv[0], "#!/bin/sh\nexit 0\n", 0o644)
    subject = stage.start(play_calls, [[argv, {"PATH": "/usr/bin:/bin"}]])
    call = subject.call()
    subject.wait()
    stage.until(lambda: not proc.descendants(subject.keeper), 0.5)
    subject.pump(0)
    return {"call": as_data(call), "leaks": subject.leaks}
