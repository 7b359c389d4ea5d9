"""Frozen: immutable records declared like dataclasses, without the 8 ms that importing `dataclasses` costs.

The command line reads records on every call (`minicontainer ps`), so the time to import is part of its interface.
A subclass lists its fields as annotations, with defaults; the type checker reads it as a frozen dataclass
(PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_options: object) -> Any:
        return lambda target: target


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Frozen:
    """Base of immutable records with keyword arguments.

    >>> class Point(Frozen):
    ...     x: int
    ...     y: int = 0
    >>> Point(x=1).replace(y=2)
    Point(x=1, y=2)
    """

    _fields: tuple[str, ...] = ()
    _defaults: dict[str, Any] = {}

    def __init_subclass__(cls) -> None:
        own = [name for name in cls.__annotations__ if not name.startswith("_")]
        cls._fields = (*cls._fields, *own)
        cls._defaults = cls._defaults | {name: cls.__dict__[name] for name in own if name in cls.__dict__}

    def __init__(self, **values: Any) -> None:
        unknown = values.keys() - set(self._fields)
        missing = [name for name in self._fields if name not in values and name not in self._defaults]
        if unknown or missing:
            problem = f"unknown {sorted(unknown)}" if unknown else f"missing {missing}"
            raise TypeError(f"{type(self).__name__}: {problem}; it has {list(self._fields)}")
        self.__dict__.update(self._defaults)
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed: use replace()")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # fields may hold lists

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
        return f"{type(self).__name__}({inside})"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data for JSON; nested records too."""
        return {
            name: value.to_dict() if isinstance(value, Frozen) else value
            for name, value in ((name, self.__dict__[name]) for name in self._fields)
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """From :meth:`to_dict`'s form; a field this version does not know is left out, a missing one is its default."""
        return cls(**{name: _settled(data[name]) for name in cls._fields if name in data})


def _settled(value: Any) -> Any:
    """JSON's lists as tuples: a record does not change."""
    return tuple(value) if isinstance(value, list) else value
