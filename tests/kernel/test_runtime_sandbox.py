"""Somebody's function in another process: what it returns, prints and breaks comes back, and nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from minicontainer.linux.namespace import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS
from minicontainer.runtime import forkserver
from minicontainer.runtime.sandbox import run


def test_value_and_output_come_back():
    def work(a, b=0):
        print("out", a)
        os.write(2, b"err\n")
        return {"sum": a + b, "raw": b"\0", "set": {1, 2}, "none": None}

    outcome = run(work, 20, b=22)
    assert outcome.ok
    assert outcome.value == {"sum": 42, "raw": b"\0", "set": {1, 2}, "none": None}
    assert (outcome.stdout, outcome.stderr) == ("out 20\n", "err\n")


def test_exception_comes_back_with_the_functions_own_lines():
    def broken():
        raise KeyError("lost")

    outcome = run(broken)
    assert outcome.exception == "KeyError" and not outcome.ok
    assert 'raise KeyError("lost")' in outcome.traceback
    assert "_subject" not in outcome.traceback, "the machinery around it is not the learner's business"


def test_objects_do_not_come_back():
    class Evil:
        def __reduce__(self):
            return (os.system, ("touch /tmp/minicontainer-evil",))

    outcome = run(lambda: Evil())
    assert outcome.value is None and "not plain data" in outcome.error


def test_endless_function_ends_at_its_limit_with_all_it_started():
    def endless():
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        while True:
            pass

    before = time.monotonic()
    outcome = run(endless, timeout=0.5)
    assert outcome.timed_out and outcome.status == 137 and outcome.leftovers == 1
    assert time.monotonic() - before < 5


def test_child_that_escapes_into_the_caller_is_noticed():
    def two():
        os.fork()
        return 1

    assert run(two).returned_twice


@pytest.mark.parametrize(
    ("way", "status"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("sys.exit(3)", 3)]
)
def test_ending_the_process_is_reported_as_status(way, status):
    def leave():
        import os  # noqa: F401 - used by the code under test
        import sys  # noqa: F401

        exec(way)

    outcome = run(leave)
    assert outcome.status == status and not outcome.ok


def test_megabytes_of_output_are_cut_not_kept():
    def flood():
        for _ in range(200):
            print("x" * 100_000)

    outcome = run(flood)
    assert outcome.ok and 1_000_000 < len(outcome.stdout) < 1_300_000


def test_new_namespaces_for_the_call():
    def look():
        return os.getpid(), os.stat("/proc/self/ns/uts").st_ino if os.path.exists("/proc/self") else 0

    outcome = run(look, flags=CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWNS)
    assert outcome.value[0] == 1


def test_function_cannot_kill_the_fork_server_by_killing_its_parent():
    server = forkserver.shared().pid
    run(lambda: os.kill(os.getppid(), 9))
    assert forkserver.shared().pid == server
    assert run(lambda: 5).value == 5


def test_fork_server_ends_with_its_owner():
    code = """
        import os
        from minicontainer.runtime import forkserver
        print(forkserver.shared().pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    server = int(out.stdout)
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{server}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{server}")


def test_works_from_threads_and_inside_an_event_loop():
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def main():
        return run(lambda: os.getpid()).value

    assert asyncio.run(main()) != os.getpid()
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda number: run(lambda: number * 2).value, range(40)))
    assert values == [number * 2 for number in range(40)]
