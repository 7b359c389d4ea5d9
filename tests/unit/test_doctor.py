"""The doctor: what it says of a machine, and that every lab's needs are things it examines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.errors import MinicontainerError, UsageError
from minicontainer.labhost import doctor, idmap, probe
from minicontainer.labhost.doctor import Finding


def findings(*, broken: str = "") -> list[Finding]:
    """A machine where all is well but for the finding `broken`."""
    names = ["python", *probe.PROBES]
    return [
        Finding(name, name != broken, "as seen", "do this", doctor._labs_that_need(name)) for name in names
    ]


def test_examines_all_that_any_lab_needs():
    assert {need for lab in doctor.LABS.values() for need in lab.needs} <= set(probe.PROBES)


def test_real_examination_has_an_answer_for_every_probe():
    found = {finding.name: finding for finding in doctor.examine()}
    assert set(found) == {"python", *probe.PROBES}
    assert all(finding.detail for finding in found.values())
    assert found["python"].ok


def test_names_the_labs_that_a_missing_thing_affects():
    text = doctor.report(findings(broken="overlay"))
    assert "✗ overlay" in text and "what to do: do this" in text
    assert "✗ lab 02  Namespaces: PID, UTS, IPC: does not run here: overlay" in text
    assert "✓ lab 01" in text


def test_what_no_lab_needs_is_marked_otherwise():
    text = doctor.report(findings(broken="busybox"))
    assert "○ busybox" in text and "✗" not in text


def test_diagnosis_of_a_lab_tells_the_cure():
    sick = doctor.Diagnosis("02", findings(broken="overlay"))
    assert not sick.ok
    assert repr(sick).splitlines()[1:] == ["  overlay: as seen", "    what to do: do this"]
    assert doctor.Diagnosis("01", findings(broken="overlay")).ok


def test_an_unknown_lab_is_refused():
    with pytest.raises(UsageError, match="there is no lab '99'"):
        doctor.for_lab("99")


def test_a_misspelt_need_does_not_pass_silently():
    with pytest.raises(UsageError, match="'overlai'"):
        doctor.missing(["overlai"], findings())


def test_missing_tells_only_what_is_asked_for():
    assert doctor.missing(["mount"], findings(broken="overlay")) == ""
    assert doctor.missing(["mount", "overlay"], findings(broken="overlay")) == "overlay: as seen"


def test_exit_status_says_whether_all_labs_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(doctor, "examine", lambda: findings(broken="overlay"))
    assert doctor.main([]) == 1
    monkeypatch.setattr(doctor, "examine", lambda: findings(broken="busybox"))
    assert doctor.main([]) == 0
    capsys.readouterr()
    assert doctor.main(["--json"]) == 0
    by_name = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert (by_name["busybox"]["ok"], by_name["mount"]["ok"]) == (False, True)


def test_a_failing_probe_is_a_finding_with_its_cause():
    def fails() -> str:
        raise FileNotFoundError(2, "No such file or directory", "/nowhere")

    assert probe.outcome(fails) == {
        "ok": False,
        "detail": "/nowhere: No such file or directory",
        "cure": "",
    }


def test_a_hanging_probe_ends():
    with pytest.raises(MinicontainerError, match=r"no answer in 0\.2 seconds"):
        probe.in_child(lambda: subprocess.run(["sleep", "60"]).args[0], limit=0.2)


def test_a_probe_that_dies_is_told():
    with pytest.raises(MinicontainerError, match="the probe died"):
        probe.in_child(lambda: os._exit(3))


def test_probes_leave_nothing():
    base = Path(probe.existing(os.environ["MINICONTAINER_ROOT"]))
    before = sorted(base.iterdir())
    probe.run_all()
    assert sorted(base.iterdir()) == before


def test_tells_a_static_program_from_one_that_needs_a_loader():
    assert probe.is_dynamic(os.path.realpath("/bin/sh"))
    with pytest.raises(MinicontainerError, match="not an ELF"):
        probe.is_dynamic(__file__)


def test_range_is_found_by_name_or_number(tmp_path: Path):
    file = tmp_path / "subuid"
    file.write_text("# lent\nalice:100000:65536\n1001:165536:1000\nbroken:x:1\n")
    assert idmap.subordinate_range(str(file), ("alice", "1000")) == (100000, 65536)
    assert idmap.subordinate_range(str(file), ("bob", "1001")) == (165536, 1000)
    assert idmap.subordinate_range(str(file), ("carol", "1002")) is None
    assert idmap.subordinate_range(str(tmp_path / "none"), ("alice",)) is None


def test_works_inside_a_process_with_threads():
    """A notebook's kernel has a dozen: the probes must not fork it."""
    script = (
        "import threading, warnings; warnings.simplefilter('error')\n"
        "stop = threading.Event(); thread = threading.Thread(target=stop.wait); thread.start()\n"
        "from minicontainer.labhost import doctor\n"
        "try: print(len(doctor.examine()))\n"
        "finally: stop.set(); thread.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(len(probe.PROBES) + 1)
