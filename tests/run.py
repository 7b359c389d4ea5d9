"""Run the test suites: each in the place it needs, under the leak audit, with its seconds and its skips told.

    ./lab test [SUITE...] [--all] [--long]        (sets up first; this file is what it then runs)

A suite that needs the kernel runs inside a lab host (private mount, PID, UTS, IPC and network namespaces, own /run),
with data root and cgroup parent of its own, so that nothing of the machine is touched even by a test that fails.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import audit
import size

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENCE = 5.0  # seconds for what is just ending, before it counts as left
LIMIT = 1200  # seconds for one suite: a hang must not eat the whole run
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Result:
    """What a suite, or a part of one, came to."""

    name: str
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skips: list[tuple[str, str]] = field(default_factory=list)  # (test, reason)
    seconds: float = 0.0


@dataclass
class Options:
    """What the person asked for."""

    long: bool = False
    extra: tuple[str, ...] = ()  # further arguments for pytest


class Place:
    """A private data root, and the variables that lead everything there; removed at the end."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"mc-test-{os.getpid()}-", dir="/var/tmp"))
        # Other users get through it, and see the repository in it (show_repository).
        self.directory.chmod(0o711)
        self.repository = self.directory / "repository"
        self.repository.mkdir()
        # The directory's random name: PIDs repeat where several PID namespaces share the control groups.
        self.cgroup = self.directory.name

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        # In a lab host an ordinary user may remove the files of the subordinate ids, and is not kept out by the
        # directories without any permissions that overlayfs leaves.
        command = ["rm", "-rf", "--one-file-system", str(self.directory)]
        if os.geteuid() != 0:
            command = [sys.executable, "-m", "minicontainer.labhost.lab", "--", *command]
        subprocess.run(command, cwd=REPOSITORY, capture_output=True)
        if self.directory.exists():  # no lab host here: then none has made such files
            shutil.rmtree(self.directory)
        remove_cgroups(self.cgroup)

    def environment(self, *, in_lab: bool) -> dict[str, str]:
        inside = {key: value for key, value in os.environ.items() if not key.startswith("MINICONTAINER_")}
        inside |= {
            "MINICONTAINER_ROOT": f"{self.disk(in_lab=in_lab)}/data",
            "MINICONTAINER_RUN": str(self.directory / "run"),
            "MINICONTAINER_CGROUP_PARENT": self.cgroup,
            "JUPYTER_CONFIG_DIR": str(self.directory / "jupyter/config"),
            "JUPYTER_DATA_DIR": str(self.directory / "jupyter/data"),
            "JUPYTER_RUNTIME_DIR": str(self.directory / "jupyter/runtime"),
            "IPYTHONDIR": str(self.directory / "ipython"),
            "TMPDIR": str(self.directory),
            "MPLCONFIGDIR": str(self.directory / "matplotlib"),
            # Every program that a suite starts finds this tree, wherever it is seen.
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return inside

    def disk(self, *, in_lab: bool) -> str:
        """Where containers' files go. An overlay cannot lie on another one, as in many containers; the lab host's
        own /run, a tmpfs, can hold one."""
        return "/run/minicontainer-test" if in_lab and on_overlay(self.directory) else str(self.directory)


def on_overlay(path: Path) -> bool:
    """Whether `path` lies on an overlay file system."""
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        target = before.split()[4]
        if os.path.commonpath([target, path]) == target and len(target) >= len(best):
            best, kind = target, after.split()[0]
    return kind == "overlay"


def remove_cgroups(parent: str) -> None:
    """Remove what a failed test left of the suite's control groups (the audit has told by now)."""
    from minicontainer.labhost.lab import remove_cgroups as remove

    remove(parent)


# ------------------------------------------------------------------------------------------------- running pytest


def run_pytest(
    name: str, paths: list[str], options: Options, *, in_lab: bool, arguments: tuple[str, ...] = ()
) -> Result:
    """Run pytest on those of `paths` that exist; in a lab host where asked."""
    result = Result(name)
    present = [path for path in paths if (REPOSITORY / path).exists()]
    if not present:
        result.skips.append((name, f"there is nothing in {', '.join(paths)}"))
        return result
    with Place() as place:
        environment = place.environment(in_lab=in_lab)
        report, leaks = place.directory / "junit.xml", place.directory / "leaks.json"
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
            f"--basetemp={place.disk(in_lab=in_lab)}/tmp",
            *([] if options.long else ["-m", "not long"]), *arguments, *options.extra, *present,
        ]  # fmt: skip
        audited = [sys.executable, str(REPOSITORY / "tests/run.py"), "--audit", str(leaks)]
        if in_lab:
            lab = [sys.executable, "-m", "minicontainer.labhost.lab", "--network", "none", "--"]
            problem = subprocess.run(
                [*lab, "true"], env=environment, capture_output=True, text=True, cwd=REPOSITORY
            )
            if problem.returncode != 0:
                result.skips.append((name, f"no lab host here: {' '.join(problem.stderr.split())}"))
                return result
            keep = os.pathsep.join([str(place.repository), str(place.directory), os.path.expanduser("~")])
            # The second one is for what runs before the first is there.
            environment["PYTHONPATH"] = os.pathsep.join([str(place.repository), str(REPOSITORY)])
            command = [word.replace(str(REPOSITORY), str(place.repository)) for word in command]
            command = [*lab, *audited, keep, *command]
        else:
            command = [*audited, "", *command]
        status = run_limited(command, environment)
        read_junit(report, status, result)
        if leaks.exists():
            result.failures += [f"{name}: {line}" for line in json.loads(leaks.read_text())]
    return result


def run_limited(command: list[str], environment: dict[str, str]) -> int:
    """Run `command` with at most LIMIT seconds; an exit status as the shell's."""
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY)
    try:
        return process.wait(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        print(f"✗ still running after {LIMIT} seconds: ended", flush=True)
        process.terminate()
        return process.wait(timeout=30)
    except BaseException:
        process.terminate()  # it may have got Ctrl-C already: once more does no harm
        process.wait(timeout=30)
        raise


def read_junit(report: Path, status: int, result: Result) -> None:
    """Take pytest's counts from its JUnit report; an end without one is a failure."""
    if not report.exists():
        result.failures.append(f"{result.name}: pytest ended with {status} and without a report")
        return
    failed = 0
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname', '')}::{case.get('name', '')}".removeprefix("::")
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            result.failures.append(f"{result.name}: {test}")
            failed += 1
        elif skipped is not None:
            result.skips.append((test, skipped.get("message", "no reason given")))
        else:
            result.passed += 1
    if status == 5:
        result.skips.append((result.name, "no test was found"))
    elif status != 0 and not failed:
        result.failures.append(f"{result.name}: pytest ended with {status}")


# ------------------------------------------------------------------------------------------------- the suites


def lint(options: Options) -> Result:
    """ruff's rules, ruff's format, mypy."""
    result = Result("lint")
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True
        )
        if done.returncode == 0:
            result.passed += 1
        else:
            print(done.stdout + done.stderr, flush=True)
            result.failures.append(f"lint: {' '.join(command)}")
    return result


def unit(options: Options) -> Result:
    """Plain values, no privileges."""
    return run_pytest("unit", ["tests/unit"], options, in_lab=False)


def kernel(options: Options) -> Result:
    """Each step by its effect on the kernel."""
    return run_pytest("kernel", ["tests/kernel"], options, in_lab=True)


def exercises(options: Options) -> Result:
    """Solutions score everything, stubs nothing, near-misses lose the right points."""
    return run_pytest("exercises", ["tests/exercises"], options, in_lab=True)


def notebooks(options: Options) -> Result:
    """Every notebook and every solution, from top to bottom."""
    arguments = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=60")
    return run_pytest(
        "notebooks", ["notebooks", "solutions", "tests/notebooks"], options, in_lab=True, arguments=arguments
    )


def peers(options: Options) -> Result:
    """Real programs of other people, used with ours."""
    return run_pytest("peers", ["tests/peers"], options, in_lab=True)


def rootless(options: Options) -> Result:
    """The suites that need the kernel once more, as an ordinary user."""
    result = Result("rootless")
    if os.geteuid() != 0:
        reason = "run by an ordinary user: kernel, exercises and notebooks were without root already"
        result.skips.append(("rootless", reason))
        return result
    import ordinary_user

    arguments = ["kernel", "exercises", "notebooks", *["--long"] * options.long, *options.extra]
    try:
        with ordinary_user.OrdinaryUser(REPOSITORY) as user:
            report = user.home / "results.json"
            command = [sys.executable, "tests/run.py", "--report", str(report), *arguments]
            status = user.run(command, limit=LIMIT)
            if not report.exists():
                result.failures.append(f"rootless: ended with {status} and without a report")
                return result
            parts = json.loads(report.read_text())
    except ordinary_user.Unavailable as reason:
        result.skips.append(("rootless", str(reason)))
        return result
    for part in parts:
        result.passed += part["passed"]
        result.failures += [f"rootless {line}" for line in part["failures"]]
        result.skips += [(f"rootless {test}", reason) for test, reason in part["skips"]]
    return result


SUITES: dict[str, Callable[[Options], Result]] = {
    "lint": lint,
    "unit": unit,
    "kernel": kernel,
    "exercises": exercises,
    "notebooks": notebooks,
    "rootless": rootless,
    "peers": peers,
}
HEAVY = ("peers",)  # only with --all, or by name


def run_suite(name: str, options: Options) -> Result:
    """Run one suite; what it left on the machine is a failure, beside what it left in its private place."""
    print(f"\n━━ {name}: {(SUITES[name].__doc__ or '').splitlines()[0]}", flush=True)
    start = time.monotonic()
    before = audit.snapshot(os.getpid())
    try:
        result = SUITES[name](options)
    except Exception as error:
        traceback.print_exc()
        result = Result(name, failures=[f"{name}: {type(error).__name__}: {error}"])
    result.failures += [f"{name}: {line}" for line in audit.settle(before, os.getpid(), patience=PATIENCE)]
    result.failures = list(dict.fromkeys(result.failures))  # the inner and the outer audit may see the same
    result.seconds = time.monotonic() - start
    return result


def become_subreaper() -> None:
    """Become the parent of every orphan below us, so that the audit finds it (man 2 prctl)."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def run_audited(report: Path, private: list[str], command: list[str]) -> int:
    """Run `command` as its subreaper, and write to `report` what it left.

    :param private: inside a lab host, where to show the repository, and what to keep when /tmp, /var/tmp and /dev/shm
        become private; empty to leave all as it is.
    """
    if private:
        show_repository(private[0])
        private_temporary_directories(private[1:])
        os.chdir(private[0])
    become_subreaper()
    before = audit.snapshot(os.getpid())
    process = subprocess.Popen(command)
    # Handlers, unlike SIG_IGN, are not inherited: Ctrl-C ends the tests, and we stay to look at what is left.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = reap_until(process.pid)
    report.write_text(json.dumps(audit.settle(before, os.getpid(), tick=reap)))
    for line in audit.processes(os.getpid()):
        os.kill(int(line.split()[0]), signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def reap_until(wanted: int) -> int:
    """Wait for process `wanted`, and for every orphan: as its new parent we must, or it stays a zombie."""
    while True:
        pid, status = os.wait()
        if pid == wanted:
            return status


def reap() -> None:
    """Reap what has ended, without waiting."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def show_repository(place: str) -> None:
    """Let every user of the lab host reach the repository, wherever it lies: in /root, only root could."""
    from minicontainer.linux import mount

    mount.mount(str(REPOSITORY), place, None, mount.MS_BIND | mount.MS_REC)
    # Our commands name the interpreter and the package where they were installed, which may not be seen from here.
    for name in ("minicontainer", "minicontainer-oci"):
        command = Path(place, ".venv/bin", name)
        if command.exists():
            moved = Path(f"{place}-{name}")
            head = f"#!{place}/.venv/bin/python\nimport sys\nsys.path.insert(0, {place!r})\n"
            moved.write_text(head + command.read_text().partition("\n")[2])
            moved.chmod(0o755)
            mount.mount(str(moved), str(command), None, mount.MS_BIND)


def private_temporary_directories(keep: list[str]) -> None:
    """Empty /tmp, /var/tmp and /dev/shm for this mount namespace, in which only the directories `keep` are seen.

    Other programs of the machine use the real ones meanwhile; in private ones, whatever is left is ours.
    """
    from minicontainer.linux import mount

    flags = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | mount.AT_RECURSIVE
    for directory in ("/tmp", "/var/tmp", "/dev/shm"):
        kept = [path for path in keep if path.startswith(directory + "/")]
        kept = [path for path in kept if not any(path.startswith(f"{other}/") for other in kept)]
        trees = [(path, mount.open_tree(mount.AT_FDCWD, path, flags)) for path in kept]
        mount.mount("tmpfs", directory, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=1777")
        for path, tree in trees:
            os.makedirs(path)
            mount.move_mount(tree, "", mount.AT_FDCWD, path, mount.MOVE_MOUNT_F_EMPTY_PATH)
            os.close(tree)


def summarize(results: list[Result]) -> int:
    """Print the table, every failure, every skip with its reason, the size of the code, and the closing line."""
    print(f"\n{'suite':12} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for result in results:
        counts = f"{result.passed:7} {len(result.failures):7} {len(result.skips):8} {result.seconds:8.1f}"
        print(f"{result.name:12} {counts}")
    print("\nCode lines (without blank lines, comments and docstrings):")
    print(size.table(REPOSITORY / "minicontainer"))
    reasons: dict[str, list[str]] = {}
    for result in results:
        for test, reason in result.skips:
            reasons.setdefault(reason, []).append(test)
    if reasons:
        print("\n! NOT TESTED HERE:")
    for reason, tests in sorted(reasons.items(), key=lambda item: -len(item[1])):
        print(f"  {len(tests)} × {reason}")
        for test in tests:
            print(f"      {test}")
    failures = [line for result in results for line in result.failures]
    if failures:
        print("\n✗ FAILED:")
        print("\n".join(f"  {line}" for line in failures))
    passed, skipped = sum(result.passed for result in results), sum(len(result.skips) for result in results)
    print(f"\n{passed} passed, {len(failures)} failed, {skipped} skipped", flush=True)
    return 1 if failures or not passed else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./lab test", description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(HEAVY)}")
    parser.add_argument("--long", action="store_true", help="also what runs for minutes")
    parser.add_argument("--report", type=Path, help="write the results here instead of a summary")
    parser.add_argument("-k", metavar="EXPRESSION", help="only the tests that match, as pytest's -k")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"there is no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    names = options.suites or [name for name in SUITES if options.all or name not in HEAVY]
    # ./lab may be ended by a signal other than Ctrl-C; the same clean-up runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = Options(options.long, ("-k", options.k) if options.k else ())
    results = [run_suite(name, chosen) for name in names]
    if options.report:
        options.report.write_text(json.dumps([asdict(result) for result in results]))
        return 0
    return summarize(results)


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--audit"]:  # ourselves, around a suite: REPORT DIRECTORIES COMMAND...
            directories = [path for path in sys.argv[3].split(os.pathsep) if path]
            sys.exit(run_audited(Path(sys.argv[2]), directories, sys.argv[4:]))
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\n✗ interrupted", flush=True)
        sys.exit(130)
