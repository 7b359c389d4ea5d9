"""References: the names people give to images, by Docker's rules.

``busybox`` means ``docker.io/library/busybox:latest``. The first part is a registry when it holds a dot or a colon,
is ``localhost``, or has a capital letter; without one it is Docker Hub, where an unqualified name lies under
``library/``. Used in lab 04. Source: distribution/reference's grammar, and Docker's normalisation of it.
"""

from __future__ import annotations

import re

from minicontainer.errors import UsageError

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255  # characters of registry/repository, distribution/reference's NameTotalLengthMax

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}
# Compiled on first use (re keeps them): compiling takes longer than resolving an image by its usual name.
_SPLIT = rf"(?s:(.*?))(?::({_TAG}))?(?:@({_DIGEST}))?"


class Value:
    """Base of small immutable objects: a frozen dataclass without the 8 ms that importing `dataclasses` costs."""

    __slots__ = ()

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")


class Reference(Value):
    """A normalised image name; immutable, hashable, equal by value.

    >>> reference = Reference.parse("busybox")
    >>> reference.registry, reference.repository, reference.tag
    ('docker.io', 'library/busybox', 'latest')
    >>> str(reference), reference.familiar()
    ('docker.io/library/busybox:latest', 'busybox:latest')
    """

    __slots__ = ("digest", "registry", "repository", "tag")

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def __init__(
        self, registry: str, repository: str, tag: str | None = None, digest: str | None = None
    ) -> None:
        self._set(registry=registry, repository=repository, tag=tag, digest=digest)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as a person writes it; the tag is "latest" where neither tag nor digest is given.

        :raises UsageError: "invalid reference format…" where Docker would refuse it.
        """
        if re.fullmatch("[a-f0-9]{64}", text):
            raise UsageError(
                f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings",
                hint="64 hexadecimal digits always mean an image id; choose another name",
            )
        match = re.fullmatch(_SPLIT, text)
        assert match is not None  # the first group matches anything
        name, tag, digest = match.groups()
        first, slash, rest = name.partition("/")
        if slash and (any(mark in first for mark in ".:") or first == "localhost" or first != first.lower()):
            registry, repository = first, rest
        else:
            registry, repository = DEFAULT_REGISTRY, name
        if registry == "index.docker.io":
            registry = DEFAULT_REGISTRY
        if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
            repository = "library/" + repository
        if repository != repository.lower():
            raise _invalid(text, f": repository name ({repository}) must be lowercase")
        if not re.fullmatch(rf"{_COMPONENT}(?:/{_COMPONENT})*", repository) or not re.fullmatch(
            _REGISTRY, registry
        ):
            raise _invalid(text)
        if len(registry) + 1 + len(repository) > NAME_LIMIT:
            raise _invalid(text, f": repository name must not be more than {NAME_LIMIT} characters")
        if digest:
            check_digest(digest, text)
        return cls(registry, repository, tag or (None if digest else DEFAULT_TAG), digest)

    @property
    def name(self) -> str:
        """Registry and repository: ``docker.io/library/busybox``."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The repository as Docker prints it: ``busybox``, ``user/app``, ``ghcr.io/user/app``."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        parts = self.repository.split("/")
        return parts[1] if len(parts) == 2 and parts[0] == "library" else self.repository

    def familiar(self) -> str:
        """The whole reference in its short form: ``busybox:latest``."""
        return self.familiar_name + self._suffix()

    def with_tag(self, tag: str) -> Reference:
        """The same repository under another tag, without a digest."""
        return Reference(self.registry, self.repository, tag)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def check_digest(digest: str, text: str = "") -> str:
    """Return `digest` when it is well formed, with a registered algorithm and lower-case hexadecimal digits.

    :param text: what the person wrote, for the message.
    :raises UsageError: for anything else; a digest becomes a file name, so nothing unchecked may pass.
    """
    algorithm, _, digits = digest.partition(":")
    if algorithm not in _HEX_LENGTH:
        raise _invalid(text or digest, ": unsupported digest algorithm")
    if not re.fullmatch(f"[a-f0-9]{{{_HEX_LENGTH[algorithm]}}}", digits):
        raise _invalid(text or digest, ": invalid checksum digest length or digits")
    return digest


def _invalid(text: str, why: str = "") -> UsageError:
    shown = "" if why else f": {text!r}"
    return UsageError(
        f"invalid reference format{why}{shown}",
        hint="a reference is [registry[:port]/]repository[:tag][@sha256:…], the repository in lower case",
    )
