"""Identifiers and names: 64 random hexadecimal digits, and two words that a person can remember.

A name is a symbolic link ``names/<name> -> <id>``. symlink(2) fails when the name exists, so of any number of
processes that want one name exactly one gets it, with no lock. Man page: symlink(2).
"""

from __future__ import annotations

import os
import re

from minicontainer.errors import ContainerNotFound, MinicontainerError, NameConflict, UsageError

# One character is enough, as for Podman; Docker asks for two.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_HEX = re.compile(r"[0-9a-f]{1,64}")

ADJECTIVES = (
    "agile amber ample apt bold brave breezy bright brisk calm candid careful cheerful clever cosmic cozy "
    "crisp curious daring dazzling deft eager earnest easy elegant epic exact fair festive fine fluent fond "
    "frank fresh gentle gifted glad golden graceful grand happy hardy humble ideal jolly jovial keen kind "
    "lively loyal lucid lucky mellow merry mighty modest neat nimble noble patient peppy placid polite "
    "proud quick quiet rapid rustic serene sharp shiny silent simple sleek smart snug sober solid spry "
    "stable steady sturdy sunny super swift tender tidy tranquil trusty upbeat vivid warm wise witty zesty"
).split()
SCIENTISTS = (
    "alhazen anning archimedes avogadro babbage banach bell bernoulli blackwell bohr boole borg bose brahe "
    "cantor carson cerf chandrasekhar chomsky clarke copernicus cori curie dalton darwin davy dijkstra "
    "dirac dyson eratosthenes euclid euler faraday fermat fermi feynman fleming floyd franklin gagarin "
    "galileo galois gauss germain goldberg goodall hamilton hawking heisenberg hertz hodgkin hoover hopper "
    "hubble hypatia jackson jemison joliot kepler kernighan khorana knuth kovalevskaya lamarr lamport "
    "lavoisier leavitt leibniz linnaeus liskov lovelace maxwell mayer mccarthy mcclintock meitner mendel "
    "mendeleev milner mirzakhani napier newton noether ochoa pascal pasteur pauling payne perlman planck "
    "poincare ptolemy ramanujan ride ritchie rubin sagan sammet shannon shockley sinoussi stallman tesla "
    "thompson torvalds turing volta wiles wing wozniak wright wu yalow yonath"
).split()


def new_id() -> str:
    """A container id, as Docker's: 256 random bits in hexadecimal."""
    return os.urandom(32).hex()


def random_name(attempt: int = 0) -> str:
    """Two words in Docker's manner; from the second attempt on with a digit, as there are only so many pairs.

    >>> "_" in random_name()
    True
    """
    # From the kernel, not from the random module: its state would be the same in every child of a fork server.
    drawn = int.from_bytes(os.urandom(8), "little")
    drawn, adjective = divmod(drawn, len(ADJECTIVES))
    drawn, scientist = divmod(drawn, len(SCIENTISTS))
    name = f"{ADJECTIVES[adjective]}_{SCIENTISTS[scientist]}"
    return f"{name}{drawn % 10 ** (attempt + 1)}" if attempt else name


def check(name: str) -> str:
    """The name without the leading slash that Docker's API shows.

    :raises UsageError: characters that a name may not have.
    """
    plain = name[1:] if name.startswith("/") else name
    if not _NAME.fullmatch(plain) or len(plain) > 255:
        raise UsageError(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="a name starts with a letter or a digit",
        )
    return plain


def claim(names: str, name: str, container_id: str) -> None:
    """Make `name` mean `container_id`, unless it means another container already.

    :raises NameConflict: it does.
    """
    try:
        os.symlink(container_id, f"{names}/{name}")
    except FileExistsError:
        holder = owner(names, name)
        raise NameConflict(
            f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        ) from None


def owner(names: str, name: str) -> str:
    """The id of the container called `name`, "" if there is none."""
    try:
        return os.readlink(f"{names}/{name}")
    except FileNotFoundError:
        return ""


def release(names: str, name: str, container_id: str) -> None:
    """Give `name` back if it belongs to `container_id`."""
    if owner(names, name) == container_id:
        try:
            os.unlink(f"{names}/{name}")
        except FileNotFoundError:
            return  # somebody else removing the same container was quicker


def resolve(names: str, containers: str, reference: str) -> str:
    """The id that a full id, a name or an unambiguous beginning of an id stands for, tried in this order.

    :raises ContainerNotFound: nothing matches.
    :raises MinicontainerError: the beginning fits several containers.
    """
    wanted = reference.removeprefix("/")
    is_hex = _HEX.fullmatch(wanted) is not None
    if is_hex and len(wanted) == 64 and os.path.isdir(f"{containers}/{wanted}"):
        return wanted
    if _NAME.fullmatch(wanted):
        named = owner(names, wanted)
        if named:
            return named
    if is_hex:
        found = [entry for entry in all_ids(containers) if entry.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise MinicontainerError(
                f"Multiple IDs found with provided prefix: {reference}",
                hint="give more characters",
                exit_code=1,
            )
    raise ContainerNotFound(f"No such container: {reference}", hint="`minicontainer ps -a` lists all of them")


def all_ids(containers: str) -> list[str]:
    """The ids of all containers, in no particular order."""
    try:
        entries = os.listdir(containers)
    except FileNotFoundError:
        return []
    except PermissionError:
        raise MinicontainerError(
            f"cannot look into {containers}: Permission denied",
            hint="it belongs to another user: run as that user, or choose a directory of your own with --root",
        ) from None
    return [entry for entry in entries if len(entry) == 64 and _HEX.fullmatch(entry)]
