"""Names, times, options and users: what the engine reads from people and from images. No privileges needed."""

from __future__ import annotations

import doctest
import importlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.engine import names, options, times, users
from minicontainer.errors import ContainerNotFound, MinicontainerError, NameConflict, UsageError

# -- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path):
    for name in ("names", "containers"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "names"), str(tmp_path / "containers")


@pytest.mark.parametrize("name", ["a", "ab", "web", "0x", "a.b-c_d", "/slash", "A" * 255])
def test_good_names(name):
    assert names.check(name) == name.removeprefix("/")


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "../x", "a/b", "a b", "a\n", "é-e", "_a", "//ab", "a" * 256, "a\0b"]
)
def test_bad_names(name):
    with pytest.raises(UsageError):
        names.check(name)


def test_random_names_are_good_and_differ():
    made = {names.random_name() for _ in range(200)}
    assert len(made) > 150
    assert all(names.check(name) == name for name in made)
    assert names.random_name(2)[-1].isdigit()


def test_name_is_claimed_once_and_released_by_its_owner_only(places):
    where, _ = places
    names.claim(where, "web", "1" * 64)
    with pytest.raises(NameConflict) as caught:
        names.claim(where, "web", "2" * 64)
    assert str(caught.value) == (
        f'Conflict. The container name "/web" is already in use by container "{"1" * 64}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    names.release(where, "web", "2" * 64)
    assert names.owner(where, "web") == "1" * 64
    names.release(where, "web", "1" * 64)
    assert names.owner(where, "web") == ""


def test_resolving(places):
    where, containers = places
    first, second = "ab" + "0" * 62, "ab" + "1" * 62
    for container_id in (first, second):
        os.mkdir(f"{containers}/{container_id}")
    names.claim(where, "ab1", first)  # a name that is also the beginning of another one's id
    assert names.resolve(where, containers, first) == first
    assert names.resolve(where, containers, "ab1") == first
    assert names.resolve(where, containers, "/ab1") == first
    assert names.resolve(where, containers, "ab11") == second
    with pytest.raises(MinicontainerError, match="Multiple IDs"):
        names.resolve(where, containers, "ab")
    for nobody in ("nobody", "abc", "../names", "", "..", "a" * 65):
        with pytest.raises(ContainerNotFound):
            names.resolve(where, containers, nobody)


# -- times -----------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=0, max_value=4_000_000_000 * 10**9))
def test_time_survives_being_written(nanoseconds):
    assert times.parse(times.timestamp(nanoseconds)) == nanoseconds


@given(*[st.integers(min_value=0, max_value=4_000_000_000 * 10**9)] * 2)
def test_written_times_sort_as_times(first, second):
    assert (first < second) == (times.timestamp(first) < times.timestamp(second))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 400),
        ("1h30m", -4400),
        ("90s", 910),
        ("0.5s", 999.5),
        ("123", 123),
        ("1970-01-01T00:01:00+00:01", 0),
    ],
)
def test_moments(text, seconds):
    assert times.moment(text, now=1000 * 10**9) == seconds * 10**9


@pytest.mark.parametrize("text", ["yesterday", "", "10x", "m", "2024-13-01", "2024-01-01T00:00:00.x"])
def test_bad_moments(text):
    with pytest.raises(ValueError):
        times.moment(text)


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "given_entrypoint", "given_command", "expected"),
    [
        (None, ["sh"], None, None, ["sh"]),
        (None, ["sh"], None, ["ls", "-l"], ["ls", "-l"]),
        (["/e"], ["d"], None, None, ["/e", "d"]),
        (["/e"], ["d"], None, ["x"], ["/e", "x"]),
        (["/e"], ["d"], None, [], ["/e", "d"]),
        (["/e"], ["d"], "/f", None, ["/f"]),
        (["/e"], ["d"], "/f", ["x"], ["/f", "x"]),
        (["/e"], ["d"], "", ["x"], ["x"]),
        (["/e"], ["d"], ["/f", "-v"], ["x"], ["/f", "-v", "x"]),
        ((), (), None, "sh -c 'a b'", ["sh", "-c", "a b"]),
    ],
)
def test_command_line(entrypoint, cmd, given_entrypoint, given_command, expected):
    first, rest = options.command_line(entrypoint, cmd, given_entrypoint, given_command)
    assert first + rest == expected


@pytest.mark.parametrize("case", [(None, None, None, None), (["/e"], ["d"], "", None), (None, ["d"], "", [])])
def test_nothing_to_run(case):
    with pytest.raises(MinicontainerError, match="no command specified"):
        options.command_line(*case)


def test_command_with_nul_is_refused():
    with pytest.raises(UsageError):
        options.command_line(None, None, None, ["a\0b"])


def test_environment(monkeypatch):
    monkeypatch.setenv("SET", "from caller")
    monkeypatch.delenv("UNSET", raising=False)
    assert options.environment(["A=1", "B=", "SET", "UNSET"]) == ["A=1", "B=", "SET=from caller"]
    for bad in (["=x"], [""], ["A=\0"]):
        with pytest.raises(UsageError):
            options.environment(bad)


def test_merge_keeps_places_and_later_values():
    assert options.merge_environment(["A=1", "B=2"], ["A=3", "C=4", "A=5"]) == ["A=5", "B=2", "C=4"]


@pytest.mark.parametrize(
    ("name", "number"), [("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("9", 9), (1, 1), ("rtmin+3", 37)]
)
def test_signals(name, number):
    assert options.signal_number(name) == number


@pytest.mark.parametrize(
    "name", ["", "NOPE", "0", "-9", "65", "SIG", "_DFL", "SIG_IGN", "9x", "RTMIN+99", "BLOCK"]
)
def test_bad_signals(name):
    with pytest.raises(UsageError, match="Invalid signal"):
        options.signal_number(name)


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "a/b", "-a", "a" * 65, "a:", "é"])
def test_bad_hostnames(name):
    with pytest.raises(UsageError):
        options.check_hostname(name)


def test_unknown_option_is_refused():
    with pytest.raises(TypeError, match="nonsense"):
        options.ContainerOptions(nonsense=1)


# -- users -----------------------------------------------------------------------------------------------------------

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# comment:x:7:7::/:
www:x:33:33:www:/var/www:/bin/sh
1000:x:0:0:named like a number:/evil:/bin/sh
4294967296:x:0:0::/evil:/bin/sh
-1:x:0:0::/evil:/bin/sh
negative:x:-5:0::/:
huge:x:99999999999:0::/:
hex:x:0x0:0::/:
short:x:5
nogid:x:5:
noshell:x:44:45
norpath:x:46:47::
nul\0root:x:0:0::/:
guest:x:1001:1002::/home/guest:/bin/sh
guest:x:0:0:second of its name:/root:/bin/sh
"""
GROUP = b"""root:x:0:
wheel:x:10:root,guest
staff:x:50:guest, www
broken:x:oops:guest
huge:x:4294967295:guest
www:x:33:
"""


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 10), "/root"),
        ("root", 0, 0, (0, 10), "/root"),
        ("0", 0, 0, (0, 10), "/root"),
        ("www", 33, 33, (33, 50), "/var/www"),
        ("33", 33, 33, (33, 50), "/var/www"),
        ("1000", 1000, 0, (0,), "/"),  # the entry of that name is not asked
        ("1000:1000", 1000, 1000, (1000,), "/"),
        ("guest", 1001, 1002, (1002, 10, 50), "/home/guest"),
        ("guest:wheel", 1001, 10, (10,), "/home/guest"),
        ("guest:", 1001, 1002, (1002, 10, 50), "/home/guest"),
        (":wheel", 0, 10, (10,), "/root"),
        ("noshell", 44, 45, (45,), "/"),
        ("norpath", 46, 47, (47,), "/"),
        ("2147483647:2147483647", 2147483647, 2147483647, (2147483647,), "/"),
        ("007", 7, 0, (0,), "/"),
    ],
)
def test_users(text, uid, gid, groups, home):
    found = users.resolve(text, PASSWD, GROUP)
    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


@pytest.mark.parametrize(
    "text",
    [
        "nobody", "2147483648", "4294967296", "4294967295", "18446744073709551616", "0x0", "1000 ", " 0", "+0", "0.0",
        "negative", "huge", "hex", "short", "nogid", "nul", "root:nogroup", "root:4294967296", "root:-1", "root:broken",
        "root:huge", "#", "１０", "root\n", "-2",
    ],
)  # fmt: skip
def test_hostile_users(text):
    with pytest.raises(MinicontainerError) as caught:
        users.resolve(text, PASSWD, GROUP)
    assert caught.value.exit_code == 125


def test_users_without_files():
    assert users.resolve("", None, None) == users.User(uid=0, gid=0, groups=(0,), home="/")
    assert users.resolve("5:6", None, None).gid == 6
    with pytest.raises(MinicontainerError):
        users.resolve("root", None, None)


@given(st.binary(max_size=300), st.text(alphabet="root0123:-x é", max_size=8))
def test_no_file_makes_the_resolver_crash_or_leave_the_bounds(content, text):
    try:
        found = users.resolve(text, content, content)
    except MinicontainerError:
        return
    assert all(0 <= number <= users.LARGEST_ID for number in (found.uid, found.gid, *found.groups))
    number = text.partition(":")[0]
    if number.isascii() and number.isdigit():
        assert found.uid == int(number)


@pytest.mark.parametrize("module", ["frames", "frozen", "names", "options", "times", "users"])
def test_examples_of_the_documentation(module):
    result = doctest.testmod(importlib.import_module(f"minicontainer.engine.{module}"))
    assert result.failed == 0 and result.attempted > 0
