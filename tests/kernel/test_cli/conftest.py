"""What the command line's kernel tests share: the real command as a process, in directories and groups of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer.cgroup.group import Group
from minicontainer.engine import Engine
from minicontainer.image.base import find_busybox, make_busybox
from minicontainer.image.store import Store

COMMAND = [sys.executable, "-m", "minicontainer.cli.main"]
PATIENCE = 20.0  # seconds; only a failing test waits so long


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def need_user(number: int) -> None:
    """Skip where this user namespace has no such user (man 7 user_namespaces)."""
    with open("/proc/self/uid_map") as mapping:
        ranges = [tuple(map(int, line.split())) for line in mapping]
    if not any(first <= number < first + count for first, _, count in ranges):
        pytest.skip(f"user {number} does not exist in this user namespace, which was given too few ids")


class Cli:
    """`minicontainer` as a person calls it."""

    def __init__(self, root: Path, cgroup: str) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "MINICONTAINER_ROOT": str(root),
            "MINICONTAINER_RUN": str(root / "run"),
            "MINICONTAINER_CGROUP_PARENT": cgroup,
        }
        self.environment.pop("MINICONTAINER_DEBUG", None)
        self.started: list[subprocess.Popen] = []
        self.terminals: list[Terminal] = []

    def __call__(
        self, *words: str, input: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end, output captured; standard input is empty unless given."""
        done = subprocess.run(
            [*COMMAND, *words],
            env={**self.environment, **environment},
            input=(input or "").encode(),
            capture_output=True,
            timeout=PATIENCE,
        )
        # Not text=True, which would turn a terminal's CRLF into LF.
        output, errors = (stream.decode(errors="surrogateescape") for stream in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(words, done.returncode, output, errors)

    def good(self, *words: str, **options: str) -> str:
        """Run what must succeed quietly; returns its output."""
        done = self(*words, **options)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def start(self, *words: str, **options) -> subprocess.Popen[str]:
        """Start, with pipes on all three streams."""
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([*COMMAND, *words], env=self.environment, text=True, **streams)
        self.started.append(process)
        return process

    def on_terminal(self, *words: str, rows: int = 33, columns: int = 101) -> Terminal:
        """Start on a terminal of its own."""
        terminal = Terminal([*COMMAND, *words], self.environment, rows, columns)
        self.terminals.append(terminal)
        return terminal

    def state(self, name: str) -> str:
        """A container's status, "" when it is not there."""
        done = self("inspect", "--type", "container", "-f", "{{.State.Status}}", name)
        return done.stdout.strip()

    def is_running(self, name: str) -> bool:
        return self.state(name) == "running"

    def close(self) -> None:
        for terminal in self.terminals:
            terminal.close()
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Terminal:
    """A process on a pseudo-terminal, seen from the person who sits in front of it."""

    def __init__(self, command: list[str], environment: dict[str, str], rows: int, columns: int) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.screen = ""
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.master)
                os.login_tty(slave)
                os.execve(command[0], command, environment)
            finally:
                os._exit(1)
        self._slave = slave  # kept open, so that its settings can be looked at after the process has gone
        self._status: int | None = None

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Read until the pattern appears; what comes up to its end is then read and gone."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.screen)
            if match:
                self.screen = self.screen[match.end() :]
                return match
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.screen!r}"
            ready, _, _ = select.select([self.master], [], [], 0.05)
            if ready:
                self.screen += os.read(self.master, 65536).decode(errors="replace")

    def settings(self) -> list:
        return termios.tcgetattr(self._slave)

    def is_raw(self) -> bool:
        return not self.settings()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def poll(self) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self) -> int:
        """Read on until the process ends; returns its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.poll() is None:
            assert time.monotonic() < deadline, f"still running after {self.screen!r}"
            ready, _, _ = select.select([self.master], [], [], 0.02)
            if ready:
                self.screen += os.read(self.master, 65536).decode(errors="replace")
        assert self._status is not None
        return self._status

    def close(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._slave)
        os.close(self.master)


@pytest.fixture(scope="session")
def cli_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the image busybox:latest, its layer unpacked."""
    if find_busybox() is None:
        pytest.skip("no static busybox on this machine (Debian: busybox-static)")
    root = tmp_path_factory.mktemp("cli")
    store = Store(root)
    store.layer_paths(make_busybox(store))
    return root


def _command(root: Path) -> Iterator[Cli]:
    cgroup = f"minicontainer-cli-{os.getpid()}-{time.monotonic_ns()}"
    cli = Cli(root, cgroup)
    yield cli
    cli.close()
    left = cli("ps", "-aq", "--no-trunc").stdout.split()
    if left:
        cli("rm", "-f", *left)
    Engine(root, root / "run").gc()  # what a killed supervisor leaves
    for name in ("containers", "names", "run/containers"):
        directory = root / name
        assert not directory.exists() or os.listdir(directory) == [], name
    left = [directory for directory in Group(cgroup).directories if os.path.exists(directory)]
    assert left == []


@pytest.fixture
def mc(cli_root: Path) -> Iterator[Cli]:
    """The command on a root without containers; what a test leaves is removed, and must leave nothing itself."""
    yield from _command(cli_root)


@pytest.fixture(scope="module")
def world(cli_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A command on a root of its own with four containers, as they were when Docker was recorded.

    aa runs, bb ended with 1, cc ended with 0 and has labels, dd was created only.
    """
    root = tmp_path_factory.mktemp("world")
    store = Store(root)
    store.layer_paths(make_busybox(store))
    for cli in _command(root):
        cli.good("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
        assert cli("run", "--name", "bb", "busybox", "false").returncode == 1
        cli.good("run", "--name", "cc", "-l", "k=v", "-l", "z", "busybox", "echo", "hello world this is long")
        cli.good("create", "--name", "dd", "busybox", "sh", "-c", 'echo "x y"; sleep 5')
        yield cli


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    return until
