"""The table of promises, the description of the machine, and the command's words."""

import json
import time

import pytest

from minicontainer.bench import __main__ as command
from minicontainer.bench import machine, stats
from minicontainer.bench.lines import Line, Row, table

LINE = Line("ours : theirs", 0.6)


def row(low: float, high: float, line: Line = LINE, **more) -> Row:
    blocks = [{"ours": 0.010, "theirs": 0.020}] * 3
    return Row(line, stats.Estimate((low + high) / 2, low, high, 3), blocks, arms=("ours", "theirs"), **more)


def test_only_a_binding_promise_fails():
    assert row(0.7, 0.8).fails
    assert not row(0.5, 0.8).fails
    assert not row(0.7, 0.8, Line("for information", 0.6, extra=True)).fails
    assert not Row(LINE, note="skipped: crun not found").fails


def test_table_tells_ratio_interval_limit_verdict_and_medians():
    text = table([row(0.4, 0.5, dropped=2, noise=0.031)])
    first, second = text.splitlines()[1:]
    assert first.split("  ")[0] == "ours : theirs"
    assert "0.45 x" in first and "[0.40, 0.50]" in first and "0.6 x" in first and first.endswith("holds")
    assert second.strip() == "10.0 ms : 20.0 ms, 3 blocks, 2 disturbed ones dropped, noise floor 3.1%"


def test_table_never_leaves_a_line_out_silently():
    text = table([Row(LINE, note="skipped: podman not found"), row(0.1, 0.2)])
    assert "ours : theirs" in text and "skipped: podman not found" in text


def test_a_busy_machine_is_told():
    assert "counted all the same" in row(0.4, 0.5, dropped=5, busy=True).detail()


def test_report_is_json_with_every_block():
    report = json.loads(json.dumps(row(0.4, 0.5).as_dict()))
    assert report["estimate"] == {"value": pytest.approx(0.45), "low": 0.4, "high": 0.5, "blocks": 3}
    assert len(report["blocks"]) == 3 and report["verdict"] == stats.HOLDS and report["binding"]


def test_machine_is_described():
    described = machine.describe("/var/tmp")
    assert described["cpus"] >= 1 and described["memory_bytes"] > 1 << 20
    assert json.loads(json.dumps(described)) == described
    assert described["kernel"] in machine.summary(described)


def test_watch_sees_what_others_take():
    watch = machine.Watch(lambda: -time.process_time())  # takes our own seconds for somebody else's
    disturbed = watch.begin()
    begin = time.process_time()
    while time.process_time() - begin < 0.3:
        pass
    assert disturbed()
    assert watch.foreign > 0.2


@pytest.mark.parametrize(
    "words", [["start", "--blocks", "0"], ["start", "--full", "--quick"], ["nonsense"], []]
)
def test_wrong_words_are_refused(words, capsys):
    with pytest.raises(SystemExit) as ending:
        command.main(words)
    assert ending.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_check_turns_a_broken_promise_into_a_status(monkeypatch, capsys, tmp_path):
    from minicontainer.bench import start

    described = machine.describe("/var/tmp") | {"foreign_cpu_seconds": 0.0, "stolen_cpu_seconds": 0.0}
    rows = [row(0.7, 0.8)]
    monkeypatch.setattr(start, "run", lambda **_: (described, rows))
    report = tmp_path / "report.json"
    assert command.main(["start", "--json", str(report)]) == 0
    assert command.main(["start", "--check"]) == 1
    assert "FAILS" in capsys.readouterr().out
    assert json.loads(report.read_text())["rows"][0]["verdict"] == stats.FAILS
    rows[:] = [row(0.5, 0.7)]
    assert command.main(["start", "--check"]) == 0
