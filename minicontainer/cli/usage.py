"""Usage: the help texts, made from the table of verbs and laid out as Docker's."""

from __future__ import annotations

from minicontainer.cli.flags import Flag, Verb
from minicontainer.cli.verbs import GLOBAL, GUESTS, VERBS


def line(verb: Verb) -> str:
    """The usage line of a verb."""
    name = f"minicontainer {verb.name}".rstrip()
    return f"Usage:  {name} {verb.arguments}"


def more(verb: Verb | None = None) -> str:
    """Where to read on, for the end of an error message."""
    name = f"minicontainer {verb.name}" if verb else "minicontainer"
    return f"Run '{name} --help' for more information"


def options(flags: tuple[Flag, ...]) -> str:
    """The table of flags, ordered by name."""
    rows = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        letter = f"-{flag.letter}, " if flag.letter else "    "
        rows.append((f"  {letter}--{flag.name} {flag.kind}".rstrip(), flag.help))
    width = max(len(left) for left, _ in rows) + 3
    return "Options:\n" + "".join(f"{left:{width}}{text}\n" for left, text in rows)


def of(verb: Verb) -> str:
    """The help text of one verb."""
    text = f"{line(verb)}\n\n{verb.summary}\n"
    return f"{text}\n{options(verb.flags)}" if verb.flags else text


def overview() -> str:
    """The help text of the whole command."""
    width = max(len(name) for name in [*GUESTS, *(verb.name for verb in VERBS)]) + 2
    verbs = "".join(f"  {verb.name:{width}}{verb.summary}\n" for verb in VERBS)
    guests = "".join(f"  {name:{width}}{summary}\n" for name, (_, summary) in GUESTS.items())
    return (
        f"{line(GLOBAL)}\n\n"
        f"{GLOBAL.summary}\n\n"
        f"Commands:\n{verbs}\nThe lab:\n{guests}\nGlobal {options(GLOBAL.flags)}\n"
        "Run 'minicontainer COMMAND --help' for more information on a command.\n"
    )
