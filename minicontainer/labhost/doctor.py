"""The doctor: what this machine can do, which labs run on it, and what to do where one does not.

`minicontainer doctor` prints the whole examination; a notebook's first cell asks :func:`for_lab`. The same findings
decide which tests are skipped, so that what the doctor says and what happens cannot drift apart.
Follows namespaces(7), cgroups(7) and the probes in :mod:`minicontainer.labhost.probe`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from minicontainer.errors import MinicontainerError, UsageError

# What every container of ours is made of.
CONTAINER = (
    "mount",
    "process namespaces",
    "network namespace",
    "cgroup namespace",
    "terminal",
    "overlay",
    "disk",
)


@dataclass(frozen=True)
class Lab:
    """A lab: its title, and the findings without which it does not run."""

    title: str
    needs: tuple[str, ...]


# The labs there are; each new one says here what it needs.
LABS: dict[str, Lab] = {
    "00": Lab("Why containers?", CONTAINER),
    "01": Lab("A process and its root", ("mount", "disk")),
    "02": Lab("Namespaces: PID, UTS, IPC", CONTAINER),
}


@dataclass(frozen=True)
class Finding:
    """One thing the machine can or cannot do.

    :ivar detail: what was seen, or why it failed.
    :ivar cure: what to do about a failure.
    :ivar labs: the labs that do not run without it; none for what is only good to have.
    """

    name: str
    ok: bool
    detail: str
    cure: str = ""
    labs: tuple[str, ...] = ()


def examine() -> list[Finding]:
    """Examine this machine as the calling user; takes about a fifth of a second.

    The probes run in a process of their own, so that this works in a Jupyter kernel too.

    :raises MinicontainerError: where the probes could not be run at all.
    """
    done = subprocess.run(
        [sys.executable, "-m", "minicontainer.labhost.probe"], capture_output=True, text=True, timeout=120
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise MinicontainerError(f"the doctor's probes failed: {last}", hint="run ./lab setup again")
    findings = [_python()]
    for result in json.loads(done.stdout):
        name = result["name"]
        findings.append(Finding(name, result["ok"], result["detail"], result["cure"], _labs_that_need(name)))
    return findings


def _labs_that_need(name: str) -> tuple[str, ...]:
    if name == "user namespace" and os.geteuid() != 0:
        return tuple(LABS)  # an ordinary user's labs all run inside one
    return tuple(number for number, lab in LABS.items() if name in lab.needs)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding(
        "python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer", tuple(LABS)
    )


def missing(names: Sequence[str], findings: Sequence[Finding] | None = None) -> str:
    """Why one of the findings `names` is not ok, in one line; "" where all are. For skipping a test.

    :raises UsageError: for a name that the doctor does not examine: a misspelt need must not pass silently.
    """
    by_name = {finding.name: finding for finding in (examine() if findings is None else findings)}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UsageError(f"the doctor does not examine {unknown[0]!r}", hint=f"it knows {', '.join(by_name)}")
    return "; ".join(f"{name}: {by_name[name].detail}" for name in names if not by_name[name].ok)


class Diagnosis:
    """Whether one lab runs here: text in a terminal and in a notebook, `ok` for a program."""

    def __init__(self, lab: str, findings: Sequence[Finding]) -> None:
        self.lab = lab
        self.problems = tuple(finding for finding in findings if not finding.ok and lab in finding.labs)

    @property
    def ok(self) -> bool:
        return not self.problems

    def __repr__(self) -> str:
        title = f"Lab {self.lab}, {LABS[self.lab].title}"
        if self.ok:
            return f"✓ {title}: this machine has all it needs."
        lines = [f"✗ {title}: does not run here as it is."]
        for problem in self.problems:
            lines.append(f"  {problem.name}: {problem.detail}")
            if problem.cure:
                lines.append(f"    what to do: {problem.cure}")
        return "\n".join(lines)


def for_lab(lab: str) -> Diagnosis:
    """Whether `lab` ("02") runs here, and what to do if not: a notebook's first cell.

    >>> for_lab("02")                                           # doctest: +SKIP
    ✓ Lab 02, Namespaces: PID, UTS, IPC: this machine has all it needs.

    :raises UsageError: for a lab that there is not.
    """
    if lab not in LABS:
        raise UsageError(f"there is no lab {lab!r}", hint=f"there are {', '.join(LABS)}")
    return Diagnosis(lab, examine())


def report(findings: Sequence[Finding]) -> str:
    """The whole examination as text: a line for each finding, what to do, and which labs run."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        # "○" is missing but not needed by any lab.
        sign = "✓" if finding.ok else "✗" if finding.labs else "○"
        lines.append(f"{sign} {finding.name:{width}}  {finding.detail}")
        if not finding.ok and finding.cure:
            lines.append(f"  {'':{width}}  what to do: {finding.cure}")
    lines.append("")
    for number, lab in LABS.items():
        problems = [finding.name for finding in findings if not finding.ok and number in finding.labs]
        verdict = "runs here" if not problems else f"does not run here: {', '.join(problems)}"
        lines.append(f"{'✗' if problems else '✓'} lab {number}  {lab.title}: {verdict}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """`minicontainer doctor [--json]`; exits 0 where every lab runs, 1 otherwise."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="minicontainer doctor",
        description="Say what this machine can run, and what to do where it cannot.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options = parser.parse_args(arguments)
    findings = examine()
    if options.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        print(report(findings))
    return 0 if all(finding.ok for finding in findings if finding.labs) else 1


if __name__ == "__main__":
    sys.exit(main())
