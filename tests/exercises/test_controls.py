"""Negative controls: each wrong solution loses exactly the points it should, and the right one none."""

from __future__ import annotations

import pytest

from minicontainer.course import items
from tests.exercises.conftest import answer, cell, notebook_answers
from tests.exercises.near_misses import WRONG, Wrong

ALL = {item.id: item for item in items.all_items()}
pytestmark = pytest.mark.timeout(60)


def _lost(report) -> set[str]:
    return {
        behaviour.key
        for behaviour, row in zip(report.item.behaviours, report.rows, strict=True)
        if not row.passed
    }


def _check(identity: str, function, **options):
    _, check = items.get(identity)
    report = check(function, **options)
    if not report.gradable:
        pytest.skip(f"{identity} {report.note}")
    return report


@pytest.mark.parametrize("identity", ALL)
@pytest.mark.parametrize("hidden", [False, True], ids=["open", "hidden"])
@pytest.mark.parametrize("seed", range(2))
def test_solution_scores_full(identity: str, hidden: bool, seed: int) -> None:
    item = ALL[identity]
    report = _check(identity, answer("solutions", item.lab, item.name), hidden=hidden, seed=seed)
    assert report.passed, str(report)
    assert repr(report) == str(item.points)


@pytest.mark.parametrize("identity", ALL)
def test_untouched_stub_scores_nothing(identity: str, record) -> None:
    item = ALL[identity]
    report = _check(identity, answer("exercises", item.lab, item.name))
    assert report.score == 0 and repr(report) == "0"
    assert "not attempted" in report.note and not report.output
    record(identity, "the untouched stub", item.points, item.points, "not attempted")


@pytest.mark.parametrize("identity", ALL)
@pytest.mark.parametrize("value", ["None", "0", "True"])
def test_stub_that_returns_a_constant_scores_nothing(identity: str, value: str, record) -> None:
    item = ALL[identity]
    report = _check(identity, cell(f"def {item.name}(*arguments):\n    return {value}\n", item.name))
    assert report.score == 0, str(report)
    assert not report.note
    record(identity, f"returns {value}", item.points, item.points, "all")


@pytest.mark.parametrize("identity", ALL)
def test_another_items_solution_scores_nothing(identity: str, record) -> None:
    order = list(ALL.values())
    previous = order[order.index(ALL[identity]) - 1]
    report = _check(identity, answer("solutions", previous.lab, previous.name))
    assert report.score == 0, str(report)
    record(identity, f"the solution of {previous.id}", report.points, report.points, "all")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.item}: {wrong.name}")
def test_near_miss_loses_exactly_its_points(wrong: Wrong, record) -> None:
    item = ALL[wrong.item]
    setup, answers = notebook_answers("solutions", item.lab)
    source = answers[item.name]
    changed = source.replace(wrong.old, wrong.new)
    assert changed != source, "the edit does not fit the solution any more"
    report = _check(wrong.item, cell(changed, item.name, setup=setup))
    assert _lost(report) == set(wrong.lost.split()), str(report)
    record(wrong.item, wrong.name, report.points - report.score, report.points, wrong.lost.replace(" ", ", "))


def test_every_behaviour_is_lost_by_some_near_miss() -> None:
    """A behaviour that no wrong solution loses alone or with others is not shown to be checked."""
    lost = {(wrong.item, key) for wrong in WRONG for key in wrong.lost.split()}
    assert lost == {(item.id, behaviour.key) for item in ALL.values() for behaviour in item.behaviours}
