"""Reports: the score as a plain number, an accessible table, and nothing hostile in either."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from minicontainer.course import items
from minicontainer.course.items import Behaviour, Item
from minicontainer.course.report import Report, Row, shorten, show_value
from minicontainer.course.subject import Shown, decode, encode

_ITEM = Item(
    "lab99-thing", "99", "thing", "() -> int", "Do a thing", 1,
    (Behaviour("a", "does a", 2, "man 2 a"), Behaviour("b", "does b", 3, "/proc/PID/b")),
)  # fmt: skip


def _report(**changes) -> Report:
    rows = (
        Row("does a", "1", "1", "man 2 a", 2, True),
        Row("does b", "<b>7</b>", "</td><script>alert(1)</script>\x1b[2J", "/proc/PID/b", 3, False),
    )
    return Report(_ITEM, rows, **changes)


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_repr_is_the_score_as_nbgrader_reads_it() -> None:
    assert repr(_report()) == "2" and float(repr(_report())) == 2.0
    assert 0 <= float(_report()) <= _report().points == 5


def test_table_is_told_by_word_and_glyph_with_headers() -> None:
    page = _Tags(_report()._repr_html_())
    names = [name for name, _ in page.tags]
    assert names.count("caption") == 1
    assert sum(1 for name, attributes in page.tags if name == "th" and attributes.get("scope") == "col") == 6
    assert sum(1 for name, attributes in page.tags if name == "th" and attributes.get("scope") == "row") == 2
    assert "✓ passed" in page.words and "✗ lost" in page.words


def test_what_a_learner_made_is_escaped() -> None:
    report = _report(note="<i>note</i>", output="<img src=x onerror=alert(1)>")
    names = {name for name, _ in _Tags(report._repr_html_()).tags}
    assert not names & {"script", "img", "i", "b"}
    assert "\x1b" not in shorten("\x1b[2J") and "\\x1b" in shorten("\x1b[2J")


def test_text_says_expected_got_and_where() -> None:
    text = str(_report())
    assert "2 of 5 points" in text
    assert "expected: <b>7</b>" in text and "look at:  /proc/PID/b" in text


def test_item_that_cannot_be_checked_here_says_so() -> None:
    report = Report(_ITEM, (), "not gradable here: no namespaces", gradable=False)
    assert repr(report) == "0" and not report.passed
    assert "not gradable here" in str(report) and "not gradable here" in report._repr_html_()


def test_report_travels_as_json() -> None:
    data = json.loads(json.dumps(_report().to_dict()))
    assert (data["item"], data["score"], data["points"]) == ("lab99-thing", 2, 5)
    assert data["rows"][1]["where"] == "/proc/PID/b"


@pytest.mark.parametrize(
    "value", [None, True, 0, -5, 2.5, "text", [1, [2]], (1, "a"), {1, 2}, {"key": (1,)}, set(), "é\n"]
)
def test_plain_values_travel_as_themselves(value: object) -> None:
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value and type(back) is type(value)


def test_other_values_equal_nothing_that_a_check_expects() -> None:
    class Sly(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    back = decode(json.loads(json.dumps(encode(Sly(7)))))
    assert isinstance(back, Shown) and back != 7
    assert show_value(back) == "7"
    assert isinstance(decode({"$": "set", "of": {"not": "a list"}}), Shown)
    assert isinstance(decode({"$": "unknown"}), Shown)
    assert show_value(decode(encode(list(range(100_000))))) == "a list of 100000 elements"


def test_every_item_is_complete() -> None:
    known = items.all_items()
    assert len({item.id for item in known}) == len(known) >= 7
    for item in known:
        assert item.id == f"lab{item.lab}-{item.name}"
        assert 1 <= item.stars <= 3 and item.title and "->" in item.signature
        assert len(item.behaviours) >= 3 and len({each.key for each in item.behaviours}) == len(
            item.behaviours
        )
        assert all(each.points > 0 and each.text and each.where for each in item.behaviours)


def test_an_item_for_a_step_has_the_steps_signature() -> None:
    from minicontainer.runtime import steps

    tied = [item for item in items.all_items() if item.step]
    assert {"exit_status", "isolate"} <= {item.step for item in tied}
    for item in tied:
        assert (item.signature, item.lab) == (steps.TABLE[item.step].signature, steps.TABLE[item.step].lab)


def test_items_can_be_listed_from_a_terminal() -> None:
    command = [sys.executable, "-m", "minicontainer.course.check", "--list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    for item in items.all_items():
        assert item.id in listed.stdout
    total = sum(item.points for item in items.all_items())
    assert listed.stdout.splitlines()[-1] == f"{len(items.all_items())} items, {total} points"


def test_checking_does_not_load_the_heavy_packages() -> None:
    code = (
        "import sys; from minicontainer.course import check, checks; checks.lab01, checks.lab02;"
        "heavy = {'nbformat', 'IPython', 'matplotlib', 'ipywidgets', 'pyroute2', 'cloudpickle', 'jsonschema', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
