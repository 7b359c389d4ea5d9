"""Who the program runs as: Docker's ``USER`` and ``-u``, resolved in the image's own passwd and group files.

The files come from the image and are hostile until shown otherwise: they are parsed here, from bytes, never through
the C library's lookups, which would load modules from the container. A text of decimal digits is always an id, bounded
by Docker's limits, and never a name; an entry that is called "4294967296" gains nothing by it (CVE-2024-40635 and its
kind). Lab 06. Man pages: passwd(5), group(5). Source: moby/sys user.GetExecUser.
"""

from __future__ import annotations

from minicontainer.engine.frozen import Frozen
from minicontainer.errors import MinicontainerError

LARGEST_ID = 2**31 - 1


class User(Frozen):
    """A resolved user.

    :ivar groups: supplementary groups, the primary one first (CVE-2022-36109: a process that drops its primary group
        must not escape a rule that denies that group).
    """

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


class Passwd(Frozen):
    """One line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str


class Group(Frozen):
    """One line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...]


def _number(text: str) -> int | None:
    """The id that `text` spells in plain decimal digits within bounds, else None."""
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= LARGEST_ID:
        return int(text)
    return None


def _lines(content: bytes | None) -> list[list[str]]:
    lines = (content or b"").decode(errors="surrogateescape").split("\n")
    return [
        line.split(":") for line in lines if line.strip() and not line.startswith("#") and "\0" not in line
    ]


def parse_passwd(content: bytes | None) -> list[Passwd]:
    """The well-formed lines of a passwd file.

    >>> parse_passwd(b"root:x:0:0:root:/root:/bin/sh\\nbad:x:-1:0::/:\\n")
    [Passwd(name='root', uid=0, gid=0, home='/root')]
    """
    found = []
    for fields in _lines(content):
        if len(fields) >= 4 and fields[0]:
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None:
                found.append(
                    Passwd(name=fields[0], uid=uid, gid=gid, home=fields[5] if len(fields) > 5 else "")
                )
    return found


def parse_group(content: bytes | None) -> list[Group]:
    """The well-formed lines of a group file."""
    found = []
    for fields in _lines(content):
        if len(fields) >= 3 and fields[0]:
            gid = _number(fields[2])
            if gid is not None:
                members = fields[3].split(",") if len(fields) > 3 else []
                found.append(
                    Group(name=fields[0], gid=gid, members=tuple(name.strip() for name in members if name))
                )
    return found


def _given_id(text: str) -> int | None:
    """The id in `text` if it is a number at all.

    :raises MinicontainerError: a number outside of the bounds.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    number = _number(text)
    if number is None:
        raise MinicontainerError(f"uids and gids must be in range 0-{LARGEST_ID}: {text[:40]}")
    return number


def resolve(user: str, passwd: bytes | None, group: bytes | None) -> User:
    """The user that "name", "uid", "uid:gid" or "name:group" means in an image; "" is root.

    :param passwd: content of the image's /etc/passwd, None where it has none.
    :param group: content of its /etc/group.
    :raises MinicontainerError: a name that is not in the file, a number out of range.
    """
    user_text, _, group_text = user.partition(":")
    user_text = user_text or "0"
    uid = _given_id(user_text)
    accounts = parse_passwd(passwd)
    if uid is None:
        account = next((entry for entry in accounts if entry.name == user_text), None)
        if account is None:
            raise MinicontainerError(
                f"unable to find user {user_text}: no matching entries in passwd file",
                hint="use a name from the image's /etc/passwd, or a number",
            )
    else:
        account = next((entry for entry in accounts if entry.uid == uid), None)
    uid = account.uid if account is not None else int(user_text)
    gid = account.gid if account is not None else 0
    extra: list[int] = []
    groups = parse_group(group)
    if group_text:
        gid = _resolve_group(group_text, groups)
    elif account is not None:
        extra = [entry.gid for entry in groups if account.name in entry.members]
    home = (account.home if account is not None else "") or "/"
    return User(uid=uid, gid=gid, groups=tuple(dict.fromkeys([gid, *extra])), home=home)


def _resolve_group(text: str, groups: list[Group]) -> int:
    gid = _given_id(text)
    if gid is not None:
        return gid
    for entry in groups:
        if entry.name == text:
            return entry.gid
    raise MinicontainerError(
        f"unable to find group {text}: no matching entries in group file",
        hint="use a name from the image's /etc/group, or a number",
    )
