"""Where the machine makes no namespaces: what needs none is checked all the same, the rest says why it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.course import items

ROOT = Path(__file__).parents[2]
# A user namespace whose limits are all 0, as an administrator may set them: clone(2) answers ENOSPC.
_SCRIPT = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from minicontainer.linux import capability, namespace
user, group = os.geteuid(), os.getegid()
namespace.unshare(namespace.CLONE_NEWUSER)
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    open(f"/proc/self/{name}", "w").write(text)
for kind in ("user", "pid", "mnt", "uts", "ipc"):
    open(f"/proc/sys/user/max_{kind}_namespaces", "w").write("0")
if sys.argv[2] == "ordinary":
    capability.drop_bounding(0)
    capability.assign(0, 0, 0)
from tests.exercises.conftest import answer, cell
from minicontainer.course import checks, items, proc
reports = {}
for item in items.all_items():
    reports[item.id] = items.get(item.id)[1](answer("solutions", item.lab, item.name)).to_dict()
wild = cell('''
def wild(argv, env):
    import os, time
    for _ in range(10):
        if os.fork() == 0:
            os.setsid()
            os.fork()
            time.sleep(600)
    while True: pass
''', "wild")
os.environ["MINICONTAINER_TIME_SCALE"] = "0.2"
reports["wild"] = checks.lab01.run(wild).to_dict()
left = [each.name for each in proc.descendants(os.getpid()) if each.state != "Z"]
print(json.dumps({"reports": reports, "left": left}))
"""


@pytest.fixture(scope="module", params=["root", "ordinary"])
def answers(request: pytest.FixtureRequest) -> tuple[str, dict]:
    command = [sys.executable, "-c", _SCRIPT, str(ROOT), request.param]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0 and ("unshare" in done.stderr or "max_" in done.stderr):
        pytest.skip(f"no user namespace can be made here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout)


def test_items_that_need_no_namespaces_are_checked(answers: tuple[str, dict]) -> None:
    who, answer = answers
    checked = {name for name, report in answer["reports"].items() if report["gradable"] and report["score"]}
    expected = {item.id for item in items.all_items() if not item.needs}
    if who == "root":
        expected |= {item.id for item in items.all_items() if item.needs == ("chroot",)}
    assert checked == expected
    assert all(answer["reports"][name]["score"] == answer["reports"][name]["points"] for name in expected)


def test_the_others_say_why_and_are_outside_the_total(answers: tuple[str, dict]) -> None:
    _, answer = answers
    for item in items.all_items():
        report = answer["reports"][item.id]
        if "namespaces" in item.needs:
            assert not report["gradable"] and report["rows"] == [] and report["score"] == 0
            assert "not gradable here: new namespaces cannot be made" in report["note"]


def test_nothing_is_left_without_namespaces_either(answers: tuple[str, dict]) -> None:
    _, answer = answers
    assert answer["reports"]["wild"]["score"] == 0
    assert sorted(answer["left"]) == ["mc-forkserver", "mc-spare"], (
        "only the fork server and its waiting child stay"
    )
