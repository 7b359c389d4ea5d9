"""Flags: Docker's flag grammar, read from a table.

Docker's client uses Go's pflag, whose rules differ from argparse's in the ways that matter for a container tool:
options of ``run`` end at the first positional argument (the image), so that ``run busybox ls -l`` needs no ``--``;
``-it`` groups short switches, ``-eA=1`` and ``-e=A=1`` carry a value, and a switch takes ``=false``. This parser is
shorter than teaching argparse those rules, and importing argparse would cost as much as a bare Python takes to start.
"""

from __future__ import annotations

from minicontainer.errors import UsageError

SWITCH, STRING, NUMBER, LIST = "", "string", "int", "list"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Flag:
    """One option: its letter (or ""), its long name, what kind of value it takes, its help.

    :param check: looks at a value and returns it, or raises ValueError saying why not.
    :param default: the value of a switch when it is not given.
    """

    __slots__ = ("check", "default", "help", "kind", "letter", "name")

    def __init__(
        self,
        letter: str,
        name: str,
        kind: str,
        help: str,
        check: Callable[[str], object] | None = None,
        *,
        default: bool = False,
    ) -> None:
        self.letter = letter
        self.name = name
        self.kind = kind
        self.help = help
        self.check = check
        self.default = default

    @property
    def shown(self) -> str:
        """The flag as Docker names it in messages: ``-e, --env``."""
        return f"-{self.letter}, --{self.name}" if self.letter else f"--{self.name}"


class Verb:
    """One command: its arguments, its summary, where its function is, and its flags.

    :param where: "module:function", imported when the verb is used.
    :param least: the fewest positional arguments; `most` the largest number, or None for any number.
    :param until_argument: options end at the first positional argument.
    """

    __slots__ = ("arguments", "flags", "least", "most", "name", "summary", "until_argument", "where")

    def __init__(
        self,
        name: str,
        arguments: str,
        summary: str,
        where: str,
        flags: tuple[Flag, ...] = (),
        *,
        least: int = 0,
        most: int | None = None,
        until_argument: bool = False,
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.summary = summary
        self.where = where
        self.flags = flags
        self.least = least
        self.most = most
        self.until_argument = until_argument


class Parsed:
    """The values by flag name (dashes as underscores) and the positional arguments.

    A flag that was not given is False, None or [] by its kind; ``"--entrypoint ''"`` is thus told from none at all.
    """

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.arguments: list[str] = []
        self.help = False
        for flag in verb.flags:
            empty: object = flag.default if flag.kind is SWITCH else [] if flag.kind is LIST else None
            setattr(self, attribute(flag), empty)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class FlagError(UsageError):
    """A flag or a number of arguments that the verb does not take; the usage line follows the message."""


def attribute(flag: Flag) -> str:
    return flag.name.replace("-", "_")


def boolean(text: str) -> bool:
    """A switch's value as Go's strconv.ParseBool reads it.

    :raises ValueError: for any other word.
    """
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError("it is neither true nor false")


def parse(verb: Verb, words: list[str]) -> Parsed:
    """Read the words after the verb.

    :raises FlagError: for an unknown flag, a missing or wrong value, or a wrong number of arguments.
    """
    parsed = Parsed(verb)
    by_name = {flag.name: flag for flag in verb.flags}
    by_letter = {flag.letter: flag for flag in verb.flags if flag.letter}
    queue = list(reversed(words))
    while queue:
        word = queue.pop()
        if word == "--":
            parsed.arguments.extend(reversed(queue))
            break
        if word.startswith("--"):
            _long(parsed, by_name, word, queue)
        elif word.startswith("-") and word != "-":
            _short(parsed, by_letter, word, queue)
        else:
            parsed.arguments.append(word)
            if verb.until_argument:
                parsed.arguments.extend(reversed(queue))
                break
        if parsed.help:
            return parsed
    _count(parsed)
    return parsed


def _long(parsed: Parsed, by_name: dict[str, Flag], word: str, queue: list[str]) -> None:
    name, equals, value = word[2:].partition("=")
    if name == "help":
        parsed.help = True
        return
    flag = by_name.get(name)
    if flag is None:
        raise FlagError(f"unknown flag: --{name}", hint=_similar(name, by_name))
    if flag.kind is SWITCH:
        _store(parsed, flag, value if equals else "true")
    elif equals or queue:
        _store(parsed, flag, value if equals else queue.pop())
    else:
        raise FlagError(f"flag needs an argument: --{name}")


def _short(parsed: Parsed, by_letter: dict[str, Flag], word: str, queue: list[str]) -> None:
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        flag = by_letter.get(letter)
        if flag is None and letter == "h":
            parsed.help = True
            return
        if flag is None:
            raise FlagError(f"unknown shorthand flag: {letter!r} in {word}")
        if flag.kind is SWITCH:
            if not rest.startswith("="):
                _store(parsed, flag, "true")
                continue
            value = rest[1:]
        elif rest:
            value = rest.removeprefix("=")
        elif queue:
            value = queue.pop()
        else:
            raise FlagError(f"flag needs an argument: {letter!r} in {word}")
        _store(parsed, flag, value)
        return


def _store(parsed: Parsed, flag: Flag, text: str) -> None:
    value: object = text
    try:
        if flag.kind is SWITCH:
            value = boolean(text)
        elif flag.kind is NUMBER:
            value = _number(text)
        elif flag.check:
            value = flag.check(text)
    except ValueError as error:
        raise FlagError(f'invalid argument "{text}" for "{flag.shown}" flag: {error}') from None
    if flag.kind is LIST:
        getattr(parsed, attribute(flag)).append(value)
    else:
        setattr(parsed, attribute(flag), value)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("it is not a whole number") from None


def _count(parsed: Parsed) -> None:
    """Refuse a wrong number of positional arguments in Docker's words."""
    verb, number = parsed.verb, len(parsed.arguments)
    if number >= verb.least and (verb.most is None or number <= verb.most):
        return
    name = f"'minicontainer {verb.name}'"
    if verb.most == 0:
        problem = f"{name} accepts no arguments"
    else:
        exactly = verb.least == verb.most
        bound = verb.least if number < verb.least else verb.most
        how = "" if exactly else "at least " if number < verb.least else "at most "
        problem = f"{name} requires {how}{bound} argument{'' if bound == 1 else 's'}"
    # Docker ends with 1 here, and with 125 for a wrong flag; `run` keeps 125 for whatever is not the container's own.
    raise FlagError(problem, exit_code=125 if verb.name == "run" else 1)


def _similar(name: str, known: dict[str, Flag]) -> str:
    from difflib import get_close_matches  # only a mistake pays for this import

    found = get_close_matches(name, [*known, "help"], 1)
    return f"did you mean --{found[0]}?" if found else ""
