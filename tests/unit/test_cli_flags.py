"""The flag grammar is Docker's. The messages and values were recorded from Docker's client 28.2."""

from __future__ import annotations

import pytest

from minicontainer.cli.flags import FlagError, boolean, parse
from minicontainer.cli.verbs import VERBS

BY_NAME = {verb.name: verb for verb in VERBS}


def parsed(line: str | list[str]):
    words = line.split() if isinstance(line, str) else line
    return parse(BY_NAME[words[0]], words[1:])


def test_options_of_run_end_at_the_image():
    result = parsed("run --rm busybox ls -l --rm -d")
    assert result.arguments == ["busybox", "ls", "-l", "--rm", "-d"]
    assert result.rm and not result.detach


def test_options_of_rm_may_follow_the_names():
    result = parsed("rm a -f b")
    assert result.arguments == ["a", "b"] and result.force


def test_double_dash_ends_options_and_is_not_an_argument():
    assert parsed("run -- busybox echo").arguments == ["busybox", "echo"]
    assert parsed("rm -- -f").arguments == ["-f"]
    assert parsed("run busybox -- ls").arguments == ["busybox", "--", "ls"]


@pytest.mark.parametrize("words", ["-it", "-ti", "-i -t", "--interactive --tty", "-i=true -t=1", "-dit"])
def test_short_switches_may_be_grouped(words):
    result = parsed(f"run {words} busybox")
    assert (result.interactive, result.tty) == (True, True)
    assert result.detach == (words == "-dit")


@pytest.mark.parametrize(
    "words", ["-h foo", "-hfoo", "-h=foo", "--hostname foo", "--hostname=foo", "-ith foo", "-ithfoo"]
)
def test_every_way_to_give_a_value(words):
    assert parsed(f"run {words} busybox").hostname == "foo"


def test_a_value_may_look_like_an_option():
    assert parsed(["run", "--name", "-x", "busybox"]).name == "-x"
    assert parsed(["run", "-e", "-d", "busybox"]).env == ["-d"]


def test_a_list_collects_and_the_last_string_wins():
    result = parsed("run -e A=1 --env=B=2 -eC=3 --name one --name two busybox")
    assert result.env == ["A=1", "B=2", "C=3"]
    assert result.name == "two"


def test_empty_value_differs_from_none():
    assert parsed(["run", "--entrypoint", "", "busybox"]).entrypoint == ""
    assert parsed(["run", "--entrypoint=", "busybox"]).entrypoint == ""
    assert parsed("run busybox").entrypoint is None


def test_a_switch_can_be_turned_off():
    assert parsed("run --rm=false busybox").rm is False
    assert parsed("run -it=false busybox").tty is False
    assert parsed("run --sig-proxy=0 busybox").sig_proxy is False


@pytest.mark.parametrize(
    ("line", "message", "status"),
    [
        ("run --bogus x", "unknown flag: --bogus", 125),
        ("ps --bogus", "unknown flag: --bogus", 125),
        ("exec --bogus", "unknown flag: --bogus", 125),
        ("run -z x", "unknown shorthand flag: 'z' in -z", 125),
        ("run -itz x", "unknown shorthand flag: 'z' in -itz", 125),
        ("run --name", "flag needs an argument: --name", 125),
        ("run -e", "flag needs an argument: 'e' in -e", 125),
        ("run --rm=maybe x", 'invalid argument "maybe" for "--rm" flag: it is neither true nor false', 125),
        ("stop -t x a", 'invalid argument "x" for "-t, --timeout" flag: it is not a whole number', 125),
        (
            "run -e =x x y",
            'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x',
            125,
        ),
        (
            "run -l =v x",
            'invalid argument "=v" for "-l, --label" flag: invalid label \'=v\': empty name',
            125,
        ),
        (
            "run -a foo x y",
            'invalid argument "foo" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR',
            125,
        ),
        (
            "ps --filter foo",
            'invalid argument "foo" for "-f, --filter" flag: bad format of filter (expected name=value)',
            125,
        ),
        ("run", "'minicontainer run' requires at least 1 argument", 125),
        ("run -d", "'minicontainer run' requires at least 1 argument", 125),
        ("create", "'minicontainer create' requires at least 1 argument", 1),
        ("exec a", "'minicontainer exec' requires at least 2 arguments", 1),
        ("ps x", "'minicontainer ps' accepts no arguments", 1),
        ("logs", "'minicontainer logs' requires 1 argument", 1),
        ("logs a b", "'minicontainer logs' requires 1 argument", 1),
        ("images a b", "'minicontainer images' requires at most 1 argument", 1),
        ("stop", "'minicontainer stop' requires at least 1 argument", 1),
    ],
)
def test_mistakes_are_named_in_dockers_words(line, message, status):
    with pytest.raises(FlagError) as caught:
        parsed(line)
    assert (caught.value.message, caught.value.exit_code) == (message, status)


def test_a_near_miss_gets_a_suggestion():
    with pytest.raises(FlagError) as caught:
        parsed("run --detatch busybox")
    assert caught.value.hint == "did you mean --detach?"


@pytest.mark.parametrize(
    "line", ["ps --help", "ps -h", "rm a --help", "run --help", "run --rm --help busybox", "exec -h"]
)
def test_help_is_recognised(line):
    assert parsed(line).help


def test_help_after_the_image_belongs_to_the_command():
    result = parsed("run busybox --help")
    assert not result.help and result.arguments == ["busybox", "--help"]


def test_h_of_run_is_the_hostname():
    assert parsed("run -h box busybox").hostname == "box"


@pytest.mark.parametrize("word", ["1", "t", "T", "true", "TRUE", "True"])
def test_true_words(word):
    assert boolean(word) is True


@pytest.mark.parametrize("word", ["yes", "on", "tRUE", "", "2"])
def test_words_that_are_no_truth_value(word):
    with pytest.raises(ValueError, match="neither"):
        boolean(word)


def test_no_verb_uses_a_letter_or_name_twice():
    for verb in VERBS:
        letters = [flag.letter for flag in verb.flags if flag.letter]
        names = [flag.name for flag in verb.flags]
        assert len(letters) == len(set(letters)), verb.name
        assert len(names) == len(set(names)), verb.name
