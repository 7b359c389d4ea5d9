"""Lab 02, namespaces: shared_namespaces, isolate, init. Each item as in :mod:`minicontainer.course.checks.lab01`."""

from __future__ import annotations

import os
import signal
from typing import Any

from minicontainer.course import proc
from minicontainer.course.check import Behaviour, Trial, item
from minicontainer.course.checks.lab01 import as_data, write_program
from minicontainer.course.stage import Stage, Subject, TimedOut
from minicontainer.course.subject import Link
from minicontainer.linux import namespace

# By the names of the files in /proc/PID/ns; a user namespace comes with lab 06, a network with lab 07.
_KINDS = {
    "uts": namespace.CLONE_NEWUTS,
    "ipc": namespace.CLONE_NEWIPC,
    "mnt": namespace.CLONE_NEWNS,
    "pid": namespace.CLONE_NEWPID,
    "cgroup": namespace.CLONE_NEWCGROUP,
}


_PATIENCE = 4.0


def _flags(kinds: list[str]) -> int:
    return sum(_KINDS[kind] for kind in kinds)


def _choose(trial: Trial, *, without: str = "") -> list[str]:
    kinds = [kind for kind in _KINDS if kind != without]
    return sorted(trial.rng.sample(kinds, trial.rng.randrange(1, len(kinds))))


# ------------------------------------------------------------------------------------------ shared_namespaces
@item(
    "lab02-shared_namespaces",
    signature="(a: int, b: int) -> set[str]",
    title="Say which namespaces two processes share",
    stars=1,
    needs=("namespaces", "proc"),
    behaviours=Behaviour.table("""
        same 1 two processes that share everything: all names, without the two ..._for_children
            ls /proc/PID/ns; man 7 namespaces
        differ 2 a process in new namespaces: all names but those
            ls -li /proc/PID/ns: the same inode number is the same namespace
        gone 1 OSError where one of the processes is gone
            man 5 proc: /proc/PID vanishes with the process
    """),
)
def shared_namespaces(trial: Trial) -> None:
    groups = [[], [], *(_choose(trial) for _ in range(4 if trial.hidden else 2))]
    seen = trial.watch(scene_shared, [_flags(kinds) for kinds in groups], rows=("same", "differ", "gone"))
    if seen is None:
        return
    right = True
    for case in seen["cases"]:
        expected, call = set(case["expected"]), case["call"]
        passed = case["value"] is not None and set(case["value"]) == expected
        key = "same" if case["same"] else "differ"
        right = right and passed
        got: object = set(case["value"]) if case["value"] is not None else call["text"]
        trial.expect(key, _sorted(expected), _sorted(got), passed=passed)
    gone = seen["gone"]["os_error"]
    text = (
        seen["gone"]["text"]
        if right or not gone
        else f"{seen['gone']['text']}, as for processes that are there"
    )
    trial.expect(
        "gone", "OSError", text, passed=gone and any(case["value"] is not None for case in seen["cases"])
    )


def _sorted(names: object) -> object:
    return ", ".join(sorted(map(str, names))) or "nothing" if isinstance(names, set) else names


def scene_shared(stage: Stage, flags: list[int]) -> dict[str, Any]:
    """Some processes with namespaces of their own; the truth about them from outside, beside the function's answer."""
    count = len(flags)
    pairs = [
        [0, 1],
        *([0, index] for index in range(2, count)),
        *([index, index - 1] for index in range(2, count)),
    ]
    subject = stage.start(play_shared, flags, pairs)
    pids = subject.said("pids")["pids"]
    processes = [subject.find(pid) for pid in pids]
    spaces = [proc.namespaces(each.pid) if each is not None else {} for each in processes]
    subject.resume()
    cases = []
    for first, second in pairs:
        one, other = spaces[first], spaces[second]
        call = subject.call()
        names = call.value if isinstance(call.value, set) else None
        cases.append({
            "expected": [name for name in one if one[name] == other.get(name)],
            "same": one == other,
            "value": None if names is None else sorted(map(str, names)),
            "call": as_data(call),
        })  # fmt: skip
    return {"cases": cases, "gone": as_data(subject.call(failing=True))}


def play_shared(link: Link, flags: list[int], pairs: list[list[int]]) -> None:
    pids = [_sleeper(each) for each in flags]
    link.say("pids", pids=pids)
    link.pause()
    for first, second in pairs:
        link.call(pids[first], pids[second])
    os.kill(pids[-1], signal.SIGKILL)
    os.waitpid(pids[-1], 0)
    link.call(pids[0], pids[-1])


def _sleeper(flags: int) -> int:
    """A process in new namespaces that only waits to be killed."""
    pid = namespace.clone(flags)
    if pid == 0:
        try:
            while True:
                signal.pause()
        finally:
            os._exit(1)
    return pid


# ---------------------------------------------------------------------------------------------------- isolate
@item(
    "lab02-isolate",
    signature="(flags: int, child: Callable[[], int]) -> int",
    title="Run a function in a process with namespaces of its own",
    stars=2,
    needs=("namespaces",),
    step="isolate",
    behaviours=Behaviour.table("""
        new 2 child() runs in new namespaces of each kind in flags, and of no other kind
            ls -l /proc/PID/ns of the child and of the caller; man 2 clone
        caller 1 the caller's own namespaces, and those of its later children, stay as they were
            /proc/PID/ns/* and pid_for_children of the caller; man 2 unshare
        pid 1 the result is the child's PID, given while the child is still running
            man 2 clone: RETURN VALUE; /proc/PID/status: NSpid
        status 1 the exit status of the process is what child() returned
            man 2 _exit; man 2 wait
        leak 1 where child() raises, its process ends with another status than 0, and never returns to the caller
            try: ... finally: os._exit(...)
    """),
)
def isolate(trial: Trial) -> None:
    for _ in range(2 if trial.hidden else 1):
        for kinds in (_choose(trial, without="pid"), sorted({"pid", *_choose(trial, without="pid")})):
            status = trial.rng.randrange(3, 97)
            rows = ("new", "caller", "pid", "status")
            seen = trial.watch(scene_isolate, _flags(kinds), status, rows=rows)
            if seen is not None:
                _judge_isolate(trial, seen, kinds, status)
    kinds = sorted({"pid", *_choose(trial, without="pid")})
    seen = trial.watch(scene_isolate_failing, _flags(kinds), trial.word(), rows=("leak",))
    if seen is not None:
        expected = "a process that ends by itself, not with 0"
        trial.expect("leak", expected, seen["what"], passed=seen["alone"])


def _judge_isolate(trial: Trial, seen: dict[str, Any], kinds: list[str], status: int) -> None:
    result = seen["call"]["text"] if seen["call"] else "nothing yet"
    if seen["kinds"] is None:
        got = (
            f"no child process; isolate gave {result}"
            if not seen["own"]
            else "child() ran in the caller itself"
        )
        for key in ("new", "caller", "pid", "status"):
            trial.expect(key, "a new process that runs child()", got, passed=False)
        return
    trial.expect(
        "new",
        "new: " + ", ".join(kinds),
        "new: " + (", ".join(seen["kinds"]) or "none"),
        passed=seen["kinds"] == kinds,
    )
    changed = ", ".join(seen["changed"])
    trial.expect("caller", "nothing changed", f"changed: {changed}" if changed else "nothing changed")
    expected = f"{seen['pid']}, while child() runs"
    got = f"{result}, while child() runs" if seen["early"] else f"{result}, only after child() had ended"
    trial.expect(
        "pid",
        expected,
        got,
        passed=seen["early"] and seen["call"]["value"] == seen["pid"] and result == str(seen["pid"]),
    )
    ended = f"exit status {seen['status']}" if seen["status"] is not None else seen["trouble"]
    trial.expect("status", f"exit status {status}", ended)


def scene_isolate(stage: Stage, flags: int, status: int) -> dict[str, Any]:
    """Look at the caller and at the child while the child waits at a gate."""
    gate = stage.gate("child")
    subject = stage.start(play_isolate, flags, status, gate.path)
    before = _spaces(subject.pid)
    subject.resume()
    seen: dict[str, Any] = {
        "kinds": None,
        "own": False,
        "call": None,
        "status": None,
        "trouble": "it could not be waited for",
    }
    stage.until(lambda: subject.has_said_word("child") or subject.over(), _PATIENCE)
    # isolate may well return before its child has come to speak.
    heard = stage.until(lambda: subject.has_said_word("child") or not proc.children(subject.pid), _PATIENCE)
    heard = heard and subject.has_said_word("child")
    early = bool(stage.until(lambda: subject.has_said("call"), 1.5))
    running = [each for each in proc.children(subject.pid) if each.state != "Z"]
    if heard and running:
        child = running[0]
        spaces = proc.namespaces(child.pid)
        seen["kinds"] = sorted(kind for kind in spaces if spaces[kind] != before.get(kind))
        seen["pid"] = subject.inside(child)
        after = _spaces(subject.pid)
        seen["changed"] = sorted(name for name in before if before[name] != after.get(name))
    elif heard:
        seen["own"] = subject.said("child")["pid"] == subject.inside_pid()
    if heard:
        gate.open()
    seen["early"] = early
    seen["call"] = as_data(subject.call())
    subject.resume()
    ended = subject.said("ended")
    if isinstance(ended["status"], int):
        seen["status"] = ended["status"]
    else:
        seen["trouble"] = f"it could not be waited for: {ended['trouble']}"
    return seen


def _spaces(pid: int) -> dict[str, int]:
    """The namespaces of `pid`, and the PID namespace of its next children."""
    return proc.namespaces(pid) | {"pid_for_children": _inode(f"/proc/{pid}/ns/pid_for_children")}


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:  # a PID namespace that has no PID 1 yet cannot be looked at (man 7 namespaces)
        return 0


def play_isolate(link: Link, flags: int, status: int, gate: str) -> None:
    def child() -> int:
        link.say("child", pid=os.getpid())
        with open(gate) as waiting:
            waiting.readline()
        return status

    link.pause()
    pid = link.call(flags, child)
    link.pause()
    _say_how_it_ended(link, pid)


def _say_how_it_ended(link: Link, pid: object) -> None:
    if type(pid) is not int or pid <= 0:
        link.say("ended", status=None, trouble=f"{pid!r} is no PID")
        return
    try:
        _, wait_status = os.waitpid(pid, 0)
    except OSError as error:
        link.say("ended", status=None, trouble=str(error))
    else:
        link.say("ended", status=os.waitstatus_to_exitcode(wait_status), trouble="")


def scene_isolate_failing(stage: Stage, flags: int, text: str) -> dict[str, Any]:
    """A child that raises: does its process end by itself, or come back into the caller's code?"""
    subject = stage.start(play_isolate_failing, flags, text)
    call = subject.call()
    ended = subject.said("ended")
    subject.wait()
    stage.until(lambda: not proc.descendants(subject.keeper), 0.5)
    subject.pump(0)
    status = ended["status"]
    if subject.leaks:
        return {"alone": False, "what": f"{subject.leaks} more came back to the caller"}
    if not isinstance(status, int):
        return {"alone": False, "what": f"isolate gave {call}; {ended['trouble']}"}
    return {"alone": status != 0, "what": f"a process that ended with {status}"}


def play_isolate_failing(link: Link, flags: int, text: str) -> None:
    def child() -> int:
        raise RuntimeError(text)

    _say_how_it_ended(link, link.call(flags, child))


# ------------------------------------------------------------------------------------------------------- init
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_WAITS = '#!/bin/sh\n: > "$0.ready"\nread order < "$0.gate"\neval "$order"\n'
_ORPHANS = "#!/bin/sh\nfor i in 1 2 3; do ( sleep 0.02 & ); done\n" + _WAITS.removeprefix("#!/bin/sh\n")
_LONG_ORPHAN = '#!/bin/sh\n( sleep 60 & )\nread order < "$0.gate"\neval "$order"\n'


@item(
    "lab02-init",
    signature="(argv: list[str]) -> int",
    title="Be PID 1: run a program, reap orphans, pass signals on",
    stars=3,
    needs=("namespaces",),
    limit=4.0,
    behaviours=Behaviour.table("""
        child 1 the program runs as a child of PID 1, which waits for it
            man 7 pid_namespaces; /proc/PID/status: NSpid, PPid
        status 1 the result is its exit code, 128 + n after signal n, 127 where there is no such program
            man 2 wait; your exit_status of lab 01
        reaps 2 orphans that end while the program runs do not stay zombies
            man 2 wait: os.wait() takes any child; state Z in /proc/PID/status
        forwards 2 a signal sent to PID 1 reaches the program
            man 7 pid_namespaces: PID 1 gets only signals it has a handler for; SigCgt in /proc/PID/status
        prompt 1 it returns as soon as the program has ended, whatever orphans still run
            compare the PID that os.wait() returns with the program's
    """),
)
def init(trial: Trial) -> None:
    code, number = (
        trial.rng.randrange(3, 97),
        int(trial.rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGALRM))),
    )
    for order, expected in ((f"exit {code}", code), (f"kill -{number} $$", 128 + number)):
        seen = trial.watch(scene_init, _WAITS, trial.word(), order, rows=("child", "status"))
        if seen is not None:
            trial.expect("child", "a child of PID 1", seen["where"])
            _judge_status(trial, "status", f"{expected} after `{order}`", seen, expected)
    missing = trial.watch(scene_init_missing, f"mc-{trial.word()}", rows=("status",))
    if missing is not None:
        right = missing["call"]["value"] == 127 and missing["call"]["text"] == "127" and not missing["leaks"]
        back = " and a second process came back" if missing["leaks"] else ""
        trial.expect(
            "status", "127 for a program that does not exist", missing["call"]["text"] + back, passed=right
        )
    code = trial.rng.randrange(3, 97)
    seen = trial.watch(scene_init, _ORPHANS, trial.word(), f"exit {code}", rows=("reaps",))
    if seen is not None:
        none = "no zombie, the program still running"
        there = seen["where"] == "a child of PID 1"
        trial.expect("reaps", none, seen["zombies"] or (none if there else seen["where"]))
    others = trial.rng.sample(_FORWARDED[1:], 3 if trial.hidden else 1)
    for each in (signal.SIGTERM, *others):
        code = trial.rng.randrange(3, 97)
        seen = trial.watch(scene_init_signal, trial.word(), int(each), code, rows=("forwards",))
        if seen is not None:
            expected_text = f"{each.name} reaches the program, which exits with {code}"
            trial.expect("forwards", expected_text, seen["what"] or expected_text)
            if seen["what"]:
                break  # each lost signal costs seconds of waiting
    code = trial.rng.randrange(3, 97)
    seen = trial.watch(scene_init, _LONG_ORPHAN, trial.word(), f"exit {code}", rows=("prompt",))
    if seen is not None:
        _judge_status(trial, "prompt", f"{code} at once", seen, code)


def _judge_status(trial: Trial, key: str, expected: str, seen: dict[str, Any], value: int) -> None:
    call = seen["call"]
    if seen["where"] != "a child of PID 1":
        got = seen["where"] + (f"; init gave {call['text']}" if call else "")
        trial.expect(key, expected, got, passed=False)
        return
    if call is None:
        trial.expect(key, expected, "it had not returned 2 seconds after the program's end", passed=False)
        return
    right = call["text"] == str(value) and call["value"] == value
    trial.expect(key, expected, call["text"], passed=right)


def scene_init(stage: Stage, script: str, name: str, order: str) -> dict[str, Any]:
    """A program under the function as PID 1; what is there while it waits, and what comes after its order."""
    program = os.path.join(stage.directory, name)
    write_program(program, script)
    gate = stage.gate(f"{name}.gate")
    subject = stage.start(play_init, [program, "x"])
    first = _first(stage, subject)
    running = stage.until(
        lambda: _program(first, program) or _is_program(first, program) or subject.over(), _PATIENCE
    )
    if not isinstance(running, proc.Process):
        if _is_program(first, program):
            return {"where": "the program is PID 1 itself", "zombies": "", "call": None}
        # Neither a program nor a result: then it is the time limit that ends this, and the whole check.
        return {"where": "no such process", "zombies": "", "call": as_data(subject.call())}
    where = (
        "a child of PID 1"
        if running.parent == first
        else f"a child of another process (PID {subject.inside(running)})"
    )
    zombies = ""
    if script == _ORPHANS:
        stage.until(lambda: os.path.exists(f"{program}.ready") or subject.over(), _PATIENCE)
        stage.until(lambda: subject.over() or not _others(first, running.pid, "RSDI"), _PATIENCE)
        stage.until(lambda: subject.over() or not _others(first, running.pid, "Z"), 1.0)
        left = _others(first, running.pid, "Z")
        zombies = ", ".join(f"{each.name} (PID {each.numbers[-1]}, state Z)" for each in left)
        if subject.over():
            where = "init has returned while the program was running"
    gate.open(order)
    return {"where": where, "zombies": zombies, "call": _late(subject)}


def _first(stage: Stage, subject: Subject) -> int:
    """The process that is PID 1 for the function, as the stage sees it."""
    pid = subject.said("init")["pid"]
    found = stage.until(lambda: subject.find(pid) or subject.over(), _PATIENCE)
    return found.pid if isinstance(found, proc.Process) else 0


def _is_program(pid: int, program: str) -> bool:
    return os.fsencode(program) in proc.read(pid, "cmdline").split(b"\0")


def _program(first: int, program: str) -> proc.Process | None:
    for each in proc.descendants(first):
        if _is_program(each.pid, program) and each.state != "Z":
            return each
    return None


def _others(first: int, program: int, states: str) -> list[proc.Process]:
    return [each for each in proc.children(first) if each.pid != program and each.state in states]


def _late(subject: Subject) -> dict[str, Any] | None:
    """The function's result, or None where it does not come."""
    try:
        return as_data(subject.call(2.0))
    except TimedOut:
        return None


def play_init(link: Link, argv: list[str]) -> None:
    pid = namespace.clone(namespace.CLONE_NEWPID)
    if pid == 0:
        try:
            link.call(argv)
        finally:
            os._exit(0)
    link.say("init", pid=pid)
    os.waitpid(pid, 0)


def scene_init_missing(stage: Stage, program: str) -> dict[str, Any]:
    subject = stage.start(play_init, [program])
    subject.said("init")
    call = subject.call()
    subject.pump(0.02)
    return {"call": as_data(call), "leaks": subject.leaks}


def scene_init_signal(stage: Stage, name: str, number: int, code: int) -> dict[str, Any]:
    """Send a signal to PID 1 and see whether the program, which waits for it, ends with its own code."""
    program = os.path.join(stage.directory, name)
    word = signal.Signals(number).name.removeprefix("SIG")
    write_program(
        program, f"#!/bin/sh\ntrap 'exit {code}' {word}\n: > \"$0.ready\"\nwhile :; do sleep 0.02; done\n"
    )
    subject = stage.start(play_init, [program])
    first = _first(stage, subject)
    stage.until(
        lambda: os.path.exists(f"{program}.ready") or subject.over() or _is_program(first, program), _PATIENCE
    )
    if subject.over():
        return {"what": "the program does not run"}
    if _is_program(first, program):
        return {"what": "the program is PID 1 itself"}
    has_handler = bool(stage.until(lambda: _handles(first, number), 1.0))
    os.kill(first, number)
    call = _late(subject)
    if call is None:
        return {
            "what": "the program goes on" + ("" if has_handler else f": PID 1 has no handler for SIG{word}")
        }
    return {"what": "" if call["text"] == str(code) else f"init gave {call['text']}"}


def _handles(pid: int, number: int) -> bool:
    """Whether `pid` catches the signal, or has it blocked to take it with sigwait(2) or signalfd(2)."""
    lines = proc.status(pid)
    masks = [int(lines.get(name, "0"), 16) for name in ("SigCgt", "SigBlk")]
    return any(mask >> (number - 1) & 1 for mask in masks)
