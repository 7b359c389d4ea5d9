"""Functions that loop, fork, exit, kill, flood and lie: the check ends in its limit with a row, and leaves nothing."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from minicontainer.course import checks, items, proc
from minicontainer.runtime import forkserver
from tests.exercises.conftest import cell

pytestmark = pytest.mark.timeout(60)

# Each is the body of a function of any arguments.
BODIES = {
    "loops for ever": "while True: pass",
    "sleeps for ever": "import time; time.sleep(1000)",
    "ignores signals and loops": (
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "forks daemons": (
        "import os, time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(1000)\n"
        "        os._exit(0)\n"
        "return None"
    ),
    "exits at once": "import os; os._exit(0)",
    "raises SystemExit": "raise SystemExit(0)",
    "raises KeyboardInterrupt": "raise KeyboardInterrupt",
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "kills its parents": (
        "import os\n"
        "for pid in (os.getppid(), 1, -1):\n"
        "    try: os.kill(pid, 9)\n"
        "    except OSError: pass\n"
        "return None"
    ),
    "prints megabytes": (
        "import os\n"
        "for _ in range(200): os.write(1, b'x' * 65536)\n"
        "for _ in range(200): os.write(2, b'y' * 65536)"
    ),
    "crashes": "import ctypes; ctypes.string_at(0)",
    "raises what cannot be shown": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\n    __repr__ = __str__\nraise Odd"
    ),
    "returns what cannot be shown": (
        "class Odd:\n"
        "    def __repr__(self): raise ValueError\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = None\n"
        "return Odd()"
    ),
    "returns an int that equals everything": (
        "class Odd(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\nreturn Odd(7)"
    ),
    "returns far too much": "return ['x' * 1000] * 100000",
    "returns itself in itself": "value = []; value.append(value); return value",
    "closes everything": "import os; os.closerange(0, 1000); return None",
    "writes noise on every descriptor": (
        "import os\n"
        "for number in range(3, 50):\n"
        "    for noise in (b'{', b'[1]', b'{\"say\": \"broken\"}', b'{\"call\": 3}', b'{\"say\": [], \"data\": {}}'):\n"
        "        try: os.write(number, noise)\n"
        "        except OSError: pass\n"
        "return None"
    ),
    "floods the line": (
        "import os\n"
        "while True:\n"
        "    for number in range(3, 10):\n"
        "        try: os.write(number, b'{\"say\": \"x\", \"data\": {}}')\n"
        "        except OSError: pass"
    ),
    "forges its score": (
        "import os, json\n"
        "answer = {'seen': [], 'stop': '', 'lost': '', 'unavailable': '', 'output': ''}\n"
        "for number in range(3, 50):\n"
        "    try: os.write(number, json.dumps(answer).encode())\n"
        "    except OSError: pass\n"
        "os._exit(0)"
    ),
    "prints control characters and markup": "print('\\x1b[2J<script>alert(1)</script>'); raise ValueError('<b>\\x1b')",
}  # fmt: skip
CHECKS = {item.id: items.get(item.id)[1] for item in items.all_items()}
# The stages differ most between these: a call in the subject, a program under it, a process that must be PID 1.
CHOSEN = ("lab01-exit_status", "lab01-run", "lab02-isolate", "lab02-init")


def _make(body: str):
    indented = "\n".join("    " + line for line in body.splitlines())
    return cell(f"def attempt(*arguments):\n{indented}\n", "attempt")


def _below() -> set[int]:
    """All our descendants but the fork server's child that waits for the next request: it changes with each."""
    return {
        each.pid
        for each in proc.descendants(os.getpid())
        if each.state != "Z" and each.name != forkserver.SPARE
    }


@pytest.fixture
def nothing_left(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No process, no directory, no mount, not one word on stdout or stderr."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    checks.lab01.exit_status(lambda status: 0)  # starts the fork server, which stays
    before, mounts = _below(), os.listdir("/proc/self/fd")
    yield
    deadline = time.monotonic() + 2
    while _below() - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _below() - before == set()
    assert len(os.listdir("/proc/self/fd")) == len(mounts)
    assert os.listdir(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("identity", CHOSEN)
def test_hostile_function_costs_only_its_points(identity: str, body: str, nothing_left, monkeypatch) -> None:
    monkeypatch.setenv("MINICONTAINER_TIME_SCALE", "0.3")
    begun = time.monotonic()
    report = CHECKS[identity](_make(BODIES[body]))
    assert time.monotonic() - begun < 25
    assert report.score == 0, str(report)
    assert report.rows and not any(row.passed for row in report.rows)
    assert all(row.got for row in report.rows)
    html, text = report._repr_html_(), str(report)
    assert "<script" not in html and "\x1b" not in html + text
    assert len(html) < 40_000


def test_endless_function_is_told_so(monkeypatch) -> None:
    monkeypatch.setenv("MINICONTAINER_TIME_SCALE", "0.2")
    report = checks.lab01.exit_status(_make("while True: pass"))
    assert "did not return within 1 seconds" in report.note


def test_interrupting_a_check_leaves_nothing(nothing_left) -> None:
    """The stop button of the notebook while a check waits for an endless function."""
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        checks.lab01.exit_status(_make("while True: pass"))
    timer.join()


def test_a_row_shows_the_learners_own_line() -> None:
    report = checks.lab01.exit_status(cell("def broken(status):\n    return status / 0  # here\n", "broken"))
    assert "ZeroDivisionError" in report.rows[0].got
    assert "return status / 0  # here" in report.output


def test_what_is_no_function_is_told_so() -> None:
    for value in (None, 3, "exit_status", [len]):
        report = checks.lab01.exit_status(value)
        assert report.score == 0 and "not a function" in report.note


def test_function_that_cannot_travel_is_told_so() -> None:
    lock = cell("import threading\nlock = threading.Lock()\ndef held(status):\n    return lock\n", "held")
    report = checks.lab01.exit_status(lock)
    assert report.score == 0 and "cannot be sent" in report.note


def test_same_seed_same_inputs() -> None:
    wrong = _make("return 0")
    first, second, other = (checks.lab01.exit_status(wrong, seed=seed) for seed in ("ana", "ana", "ben"))
    assert first.rows == second.rows != other.rows
    assert checks.lab01.exit_status(wrong, seed="ana", hidden=True).rows != first.rows
