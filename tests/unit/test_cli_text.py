"""Durations, sizes, quoting and tables look as Docker's do; recorded from Docker 20.10 with client 28.2."""

from __future__ import annotations

import pytest

from minicontainer.cli.text import duration, ellipsis, quote, size, table, visible

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"),
        (0, "Less than a second"),
        (0.999, "Less than a second"),
        (1, "1 second"),
        (1.9, "1 second"),
        (2, "2 seconds"),
        (59.9, "59 seconds"),
        (MINUTE, "About a minute"),
        (2 * MINUTE - 1, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (89 * MINUTE, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1500, "1.5kB"),
        (1984000, "1.98MB"),
        (4261550, "4.26MB"),
        (187_000_000, "187MB"),
        (999_600, "1MB"),
        (1_090_000_000, "1.09GB"),
        (5 * 10**15, "5e+03TB"),
    ],
)
def test_sizes(number, text):
    assert size(number) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain ünïcode 語", "plain ünïcode 語"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x00\x7f\x9b", r"\x00\x7f\u009b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\U000e0041", r"\U000e0041"),
        (b"\xff\xfe".decode("utf-8", "surrogateescape"), r"\xff\xfe"),
    ],
)
def test_nothing_that_steers_a_terminal_gets_through(raw, shown):
    assert visible(raw) == shown
    assert visible(raw).isprintable()


def test_quote_is_gos():
    assert quote("sh -c 'echo \"x y\"'") == '"sh -c \'echo \\"x y\\"\'"'
    assert quote("a\\b\x1b") == r'"a\\b\x1b"'


def test_ellipsis_keeps_the_width():
    assert ellipsis("a" * 20, 20) == "a" * 20
    assert ellipsis("sh -c 'echo hello world'", 20) == "sh -c 'echo hello w…"
    assert len(ellipsis("x" * 100, 20)) == 20


def test_table_is_dockers():
    rows = [
        ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"),
        ("8223d5afe651", "busybox", '"sleep 100"', "1 second ago", "Up Less than a second", "", "aa"),
    ]
    assert table(rows) == (
        "CONTAINER ID   IMAGE     COMMAND       CREATED        STATUS                  PORTS     NAMES\n"
        '8223d5afe651   busybox   "sleep 100"   1 second ago   Up Less than a second             aa\n'
    )


def test_table_of_a_header_alone():
    assert (
        table([("CONTAINER ID", "IMAGE", "STATUS", "NAMES")]) == "CONTAINER ID   IMAGE     STATUS    NAMES\n"
    )


def test_table_of_one_column():
    assert table([("NAMES",), ("a",)]) == "NAMES\na\n"
