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
from minicontainer.linux.path import open_in_root

# ------------------------------------------------------------------------------------------------ exit_status
_DEADLY = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGUSR2,
)


@item(
    "lab01-exit_status",
    signature="(wait_status: int) -> int",
    title="Say how a process ended, as a shell does",
    stars=1,
    step="exit_status",
    behaviours=Behaviour.table("""
        exited 1 a process that called exit(n) gives n
            man 2 wait: WIFEXITED, WEXITSTATUS
        killed 1 a process killed by signal n gives 128 + n
            man 2 wait: WIFSIGNALED, WTERMSIG
        core 1 a core dump changes nothing: still 128 + n
            man 2 wait: WCOREDUMP is bit 7, not part of the signal
    """),
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


def play_call_and_pause(link: Link, *arguments: Any) -> None:
    link.call(*arguments)
    link.pause()  # the scene looks at what the call has left behind


def as_data(call: Call) -> dict[str, Any]:
    """A call as the checker gets it: the value where it is a plain one, and always a text."""
    plain = (
        call.value
        if isinstance(call.value, (int, float, str)) and not hasattr(call.value, "__slots__")
        else None
    )
    return {"value": plain, "text": str(call), "returned": call.returned, "os_error": call.os_error}


# -------------------------------------------------------------------------------------------------------- run
_SYSTEM_PATH = "/usr/bin:/bin"
_PATIENCE = 4.0  # seconds for what comes at once on an idle machine; no wait lasts longer than its reason
# It waits at its gate, so that the scene can look at it and decide only then how it ends.
_PROGRAM = '#!/bin/sh\nread order < "$0.gate"\neval "$order"\n'


@item(
    "lab01-run",
    signature="(argv: list[str], env: dict[str, str]) -> int",
    title="Run a program and wait for it",
    stars=2,
    behaviours=Behaviour.table("""
        child 1 the program runs as a child process of the caller, with argv as it was given
            man 2 fork; /proc/PID/stat field 4, /proc/PID/cmdline
        env 1 its environment is exactly env, and it is found on env's PATH
            man 3 exec: execvpe; /proc/PID/environ
        waits 1 run returns when the program has ended, and leaves no zombie
            man 2 wait; state Z in /proc/PID/status
        status 1 its result is the exit code, or 128 + n after signal n
            man 2 wait: WIFEXITED, WIFSIGNALED
        missing 1 127 for a program that does not exist, 126 for one that cannot be executed
            man 3 exec: ENOENT, EACCES; man 1 bash: EXIT STATUS
        leak 1 after a failed exec the child ends itself: only one process returns to the caller
            man 2 _exit: os._exit in the child
    """),
)
def run(trial: Trial) -> None:
    for _ in range(2 if trial.hidden else 1):
        code, number = (
            trial.rng.randrange(3, 125),
            int(trial.rng.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1))),
        )
        for order, expected in ((f"exit {code}", code), (f"kill -{number} $$", 128 + number)):
            words = [f"{trial.word()} $HOME '{trial.word()}'", "--", "", trial.word(3)]
            env = {trial.word().upper(): f"{trial.word()} {trial.word()}"}
            seen = trial.watch(
                scene_run, trial.word(), False, words, env, order, rows=("child", "waits", "status")
            )
            if seen is not None:
                _judge_run(trial, seen, expected)
    seen = trial.watch(
        scene_run, trial.word(), True, ["x"], {trial.word().upper(): "1"}, "exit 0", rows=("env",)
    )
    if seen is not None:
        if seen["running"]:
            _judge_environment(trial, seen)
        else:
            where = f"{seen['name']} is found in the last directory of env's PATH"
            trial.expect("env", where, f"not found; run gave {seen['call']['text']}", passed=False)
    _judge_failures(trial)


def _judge_run(trial: Trial, seen: dict[str, Any], expected: int) -> None:
    running, call = seen["running"], seen["call"]
    if running is None:
        for key in ("child", "env", "waits", "status"):
            trial.expect(
                key, "the program running", f"no such process; run gave {call['text']}", passed=False
            )
        return
    what = (
        "a child of the caller"
        if running["child"]
        else f"process {running['pid']}, child of {running['parent']}"
    )
    trial.expect(
        "child",
        f"a child of the caller with the arguments {seen['words']}",
        f"{what} with the arguments {running['words']}",
    )
    _judge_environment(trial, seen)
    if seen["early"]:
        trial.expect("waits", "run waiting", "run had returned while the program was running", passed=False)
    else:
        trial.expect("waits", "no process left", seen["left"] or "no process left")
    right = type(call["value"]) is int and call["value"] == expected and not seen["early"]
    late = " (before the program had ended)" if seen["early"] else ""
    trial.expect("status", f"{expected} after `{seen['order']}`", call["text"] + late, passed=right)


def _judge_environment(trial: Trial, seen: dict[str, Any]) -> None:
    expected, got = seen["env"], seen["running"]["env"]
    # Names only: what is too much there is the caller's own environment, which is nobody else's business.
    more, less = sorted(got.keys() - expected.keys()), sorted(expected.keys() - got.keys())
    wrong = sorted(name for name in expected.keys() & got.keys() if expected[name] != got[name])
    parts = [
        f"{word}: {', '.join(names)}"
        for word, names in (("too many", more), ("missing", less), ("other value", wrong))
        if names
    ]
    exactly = f"exactly {', '.join(sorted(expected))}"
    trial.expect("env", exactly, "; ".join(parts) or exactly)


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


def scene_run(
    stage: Stage, name: str, on_path: bool, words: list[str], env: dict[str, str], order: str
) -> dict[str, Any]:
    """Run a program that waits at a gate; look at it there, give it its order, and see what run says."""
    directory = os.path.join(stage.directory, "bin")
    os.mkdir(directory)
    program = os.path.join(directory, name)
    write_program(program, _PROGRAM)
    gate = stage.gate(os.path.join("bin", f"{name}.gate"))
    env = env | {"PATH": f"{_SYSTEM_PATH}:{directory}"}
    subject = stage.start(play_call_and_pause, [name if on_path else program, *words], env)
    found = stage.until(lambda: _find_program(subject, program) or subject.over(), _PATIENCE)
    if not isinstance(found, proc.Process):
        # run may have returned before its child became the program: give that child a moment.
        found = stage.until(lambda: _find_program(subject, program), 0.1)
    running = None
    if found is not None:
        stage.until(lambda: subject.has_said("call"), 0.05)
        running = {
            "child": found.parent == subject.pid,
            "pid": subject.inside(found),
            "parent": found.parent,
            "words": _words(found.pid)[2:],
            "env": _environment(found.pid),
        }
    early = subject.has_said("call")
    if running:
        gate.open(order)
    call = subject.call()
    left = [
        f"PID {subject.inside(each)} ({each.name}, state {each.state})" for each in proc.children(subject.pid)
    ]
    return {
        "running": running, "early": early, "call": as_data(call), "left": ", ".join(left),
        "name": name, "words": words, "env": env, "order": order,
    }  # fmt: skip


def _find_program(subject: Subject, program: str) -> proc.Process | None:
    for each in proc.descendants(subject.keeper):
        if program in _words(each.pid)[1:2]:
            return each
    return None


def _words(pid: int) -> list[str]:
    """The program and its arguments; a script's interpreter comes before them."""
    return [os.fsdecode(word) for word in proc.read(pid, "cmdline").split(b"\0")[:-1]]


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
    subject = stage.start(play_calls, [[argv, {"PATH": _SYSTEM_PATH}]])
    call = subject.call()
    subject.wait()
    stage.until(lambda: not proc.descendants(subject.keeper), 0.5)
    subject.pump(0)
    return {"call": as_data(call), "leaks": subject.leaks}


# ------------------------------------------------------------------------------------------------ make_rootfs
# Programs that can show that they run, with the arguments by which they print the word; the first ones have
# libraries beside the C library on most distributions.
_PRINTERS: dict[str, list[str]] = {
    "grep": [".", "/word"],
    "sed": ["", "/word"],
    "cat": ["/word"],
    "echo": ["{word}"],
    "head": ["-n", "1", "/word"],
    "tail": ["-n", "1", "/word"],
    "sort": ["/word"],
    "basename": ["/somewhere/{word}"],
}


@item(
    "lab01-make_rootfs",
    signature="(rootfs: str, programs: list[str]) -> None",
    title="Fill a directory with programs and all that they need to start",
    stars=2,
    needs=("chroot",),
    behaviours=Behaviour.table("""
        there 1 each program is found under its own path below rootfs, and is executable
            man 1 ls: -l below rootfs; man 7 path_resolution
        start 2 each program starts when rootfs is the root, and does its work
            ldd PROGRAM: every line with a path, the loader's too; man 8 ld.so
        own 1 the files are copies: no link ties them to the files outside
            man 1 stat: the inode numbers inside and outside
    """),
)
def make_rootfs(trial: Trial) -> None:
    present = {name: path for name in _PRINTERS if (path := shutil.which(name, path=_SYSTEM_PATH))}
    rich = [name for name in ("grep", "sed") if name in present]
    plain = [name for name in present if name not in rich]
    names = trial.rng.sample(rich, min(len(rich), 1)) + trial.rng.sample(
        plain, min(len(plain), 3 if trial.hidden else 1)
    )
    shell = shutil.which("sh", path=_SYSTEM_PATH) or "/bin/sh"
    word, code = trial.word(), trial.rng.randrange(3, 125)
    commands = [[shell, "-c", f"echo {word}; exit {code}"]]
    commands += [[present[name], *(text.format(word=word) for text in _PRINTERS[name])] for name in names]
    trial.rng.shuffle(commands)
    seen = trial.watch(scene_make_rootfs, commands, word, rows=("there", "start", "own"))
    if seen is None:
        return
    call = seen["call"]
    for command, facts in zip(commands, seen["programs"], strict=True):
        program = command[0]
        failed = "" if call["returned"] else f"; make_rootfs raised {call['text']}"
        there = facts["file"] == "an executable file"
        trial.expect(
            "there", f"{program}: an executable file", f"{program}: {facts['file']}{failed}", passed=there
        )
        status = code if command[1:2] == ["-c"] else 0
        expected = f"{program}: prints {word}, exit status {status}"
        got = (
            f"{program}: prints {facts['printed']}, exit status {facts['status']}"
            if facts["status"] is not None
            else f"{program}: {facts['trouble']}"
        )
        trial.expect("start", expected, got + failed, passed=expected == got and there)
        trial.expect("own", f"{program}: a copy", f"{program}: {facts['kind']}")


def scene_make_rootfs(stage: Stage, commands: list[list[str]], word: str) -> dict[str, Any]:
    """Have the directory filled, look at the files in it, and then run them with it as the root."""
    rootfs = os.path.join(stage.directory, "rootfs")
    os.mkdir(rootfs)
    programs = [command[0] for command in commands]
    subject = stage.start(play_calls, [[rootfs, programs]])
    call = subject.call()
    subject.wait()
    facts: list[dict[str, Any]] = [_look_at_program(rootfs, program) for program in programs]
    write_program(os.path.join(stage.directory, "word"), word + "\n", 0o644)
    actor = stage.start(play_in_root, rootfs, commands)
    for fact in facts:
        fact.update(actor.said("ran"))
    return {"call": as_data(call), "programs": facts}


def _look_at_program(rootfs: str, program: str) -> dict[str, Any]:
    """The file that a process with `rootfs` as its root would find at `program`."""
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY)
    try:
        found = open_in_root(root, program, os.O_PATH)
    except OSError as error:
        return {"file": error.strerror, "kind": "no file"}
    finally:
        os.close(root)
    try:
        inside, outside = os.fstat(found), os.stat(program)
    finally:
        os.close(found)
    executable = stat.S_ISREG(inside.st_mode) and inside.st_mode & 0o111
    same = (inside.st_dev, inside.st_ino) == (outside.st_dev, outside.st_ino)
    return {
        "file": "an executable file" if executable else f"a file of mode {stat.filemode(inside.st_mode)}",
        "kind": f"the very file outside (inode {inside.st_ino})" if same else "a copy",
    }


def play_in_root(link: Link, rootfs: str, commands: list[list[str]]) -> None:
    """Run each command with `rootfs` as its root and say what came of it; the learner's function is not loaded here."""
    shutil.copy(os.path.join(os.path.dirname(rootfs), "word"), os.path.join(rootfs, "word"))
    for command in commands:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _exec_in_root(rootfs, command, writer)
        os.close(writer)
        with open(reader, "rb") as output:
            printed = output.read(4096).decode(errors="replace")
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        trouble = printed if code == 250 else ""
        link.say("ran", status=None if trouble else code, printed=printed.strip()[:200], trouble=trouble)


def _exec_in_root(rootfs: str, command: list[str], output: int) -> None:
    try:
        os.chroot(rootfs)
        os.chdir("/")
        os.dup2(output, 1)
        os.execve(command[0], command, {"PATH": _SYSTEM_PATH, "LC_ALL": "C"})
    except OSError as error:
        os.write(output, f"cannot be executed: {error.strerror}".encode())
    finally:
        os._exit(250)


# ----------------------------------------------------------------------------------------------- enter_chroot
@item(
    "lab01-enter_chroot",
    signature="(rootfs: str) -> None",
    title="Move this process into another root",
    stars=1,
    needs=("chroot",),
    behaviours=Behaviour.table("""
        root 1 the root of the process is rootfs
            man 2 chroot; ls -l /proc/PID/root
        cwd 2 its working directory is / of the new root, so that no .. leads out
            man 2 chroot: it does not change the working directory; ls -l /proc/PID/cwd
        failure 1 a rootfs that is missing, or no directory, raises OSError and moves nothing
            man 2 chroot: ENOENT, ENOTDIR
    """),
)
def enter_chroot(trial: Trial) -> None:
    entered = False
    for _ in range(2 if trial.hidden else 1):
        seen = trial.watch(scene_enter_chroot, "directory", trial.word(), rows=("root", "cwd"))
        if seen is None:
            continue
        failed = "" if seen["call"]["returned"] else f" ({seen['call']['text']})"
        entered = seen["entered"]
        trial.expect(
            "root",
            f"/proc/PID/root is {seen['rootfs']}",
            f"/proc/PID/root is {seen['root']}{failed}",
            passed=entered,
        )
        trial.expect(
            "cwd",
            f"/proc/PID/cwd is {seen['rootfs']}",
            f"/proc/PID/cwd is {seen['cwd']}{failed}",
            passed=seen["inside"],
        )
    for kind in ("missing", "file"):
        seen = trial.watch(scene_enter_chroot, kind, trial.word(), rows=("failure",))
        if seen is None:
            continue
        what = "is missing" if kind == "missing" else "is a file"
        got = f"{seen['call']['text']}, /proc/PID/root is {seen['root']}"
        right = seen["call"]["os_error"] and seen["unmoved"]
        if right and not entered:
            right, got = False, f"{got}; but a good rootfs is not entered either"
        trial.expect("failure", f"OSError where rootfs {what}, /proc/PID/root is /", got, passed=right)


def scene_enter_chroot(stage: Stage, kind: str, name: str) -> dict[str, Any]:
    """Let the function move its process, and see from outside where the process is then."""
    rootfs = os.path.join(stage.directory, name)
    if kind == "directory":
        os.makedirs(os.path.join(rootfs, "etc"))
    elif kind == "file":
        write_program(rootfs, "not a directory\n", 0o644)
    subject = stage.start(play_enter_chroot, rootfs)
    before = _places(subject.pid)
    subject.resume()
    call = subject.call(failing=kind != "directory")
    after = _places(subject.pid)
    target = _identity(rootfs) if kind == "directory" else None
    return {
        "call": as_data(call),
        "rootfs": rootfs,
        "root": proc.link(subject.pid, "root"),
        "cwd": proc.link(subject.pid, "cwd"),
        "entered": after[0] == target,
        "inside": after == (target, target),
        "unmoved": after == before,
    }


def play_enter_chroot(link: Link, rootfs: str) -> None:
    link.pause()
    play_call_and_pause(link, rootfs)


def _places(pid: int) -> tuple[tuple[int, int] | None, ...]:
    return tuple(_identity(f"/proc/{pid}/{name}") for name in ("root", "cwd"))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
