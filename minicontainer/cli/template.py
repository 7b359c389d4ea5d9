"""Templates: the part of Go's text/template that people use with ``--format``.

``{{.State.Pid}}``, ``{{json .Config}}``, ``{{index .Config.Labels "k"}}``, ``{{range}}``, ``{{with}}``, ``{{if}}`` with
``{{else}}``, pipelines, variables, comments and trim markers; the functions are Docker's (json, join, split,
lower, upper, title, truncate, println) and text/template's (len, index, slice, eq, ne, lt, le, gt, ge, and, or, not,
print, printf). Values print as Go prints them: ``[a b]`` for a list, ``map[k:v]`` for an object.
Source: pkg.go.dev/text/template.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ACTION = re.compile(r"\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<field>(?:\.[A-Za-z_]\w*)+|\.)
    |(?P<variable>\$\w*)|(?P<word>[A-Za-z_]\w*)|(?P<sign>:=|[=|(),]))""",
    re.VERBOSE,
)


class TemplateError(ValueError):
    """The template cannot be parsed, or does not fit the value (`parsing` tells which)."""

    def __init__(self, message: str, *, parsing: bool) -> None:
        super().__init__(message)
        self.parsing = parsing


class Template:
    """A parsed template.

    >>> Template("{{.Name}}: {{range $i, $c := .Cmd}}{{if $i}} {{end}}{{$c}}{{end}}")({"Name": "a", "Cmd": ["x", "y"]})
    'a: x y'

    :raises TemplateError: when the text is not a template.
    """

    def __init__(self, text: str) -> None:
        self._pieces = _split(text)
        self._position = 0
        self._else_rest: list[Any] = []
        self._body, ended_by = self._block()
        if ended_by:
            raise _broken(f"unexpected {{{{{ended_by}}}}}")

    def __call__(self, value: object) -> str:
        """The text for `value`, a dict or any object with a ``field(name)`` method.

        :raises TemplateError: a field or an argument does not fit.
        """
        output: list[str] = []
        _run(self._body, value, {"$": value}, output)
        return "".join(output)

    def _block(self) -> tuple[list[Any], str]:
        """Nodes up to ``end`` or ``else`` (returned with what follows it) or the template's end."""
        nodes: list[Any] = []
        while self._position < len(self._pieces):
            piece = self._pieces[self._position]
            self._position += 1
            if isinstance(piece, str):
                nodes.append(piece)
                continue
            word = piece[0][1] if piece[0][0] == "word" else ""
            if word == "end":
                return nodes, "end"
            if word == "else":
                # `{{else if x}}` is an else block that holds just that if, and shares its end.
                self._else_rest = piece[1:]
                return nodes, "else"
            nodes.append(
                self._control(word, piece[1:]) if word in ("if", "with", "range") else _action(piece)
            )
        return nodes, ""

    def _control(self, word: str, tokens: list[Any]) -> tuple[Any, ...]:
        names, pipeline = _action(tokens)[1:]
        body, ended_by = self._block()
        otherwise: list[Any] = []
        if ended_by == "else":
            rest = self._else_rest
            if rest and rest[0][1] not in ("if", "with"):
                raise _broken(f"unexpected {rest[0][1]!r} in else")
            if rest:
                return (word, names, pipeline, body, [self._control(rest[0][1], rest[1:])])
            otherwise, ended_by = self._block()
        if ended_by != "end":
            raise _broken(f"unclosed {{{{{word}}}}}")
        return (word, names, pipeline, body, otherwise)


def _broken(problem: str) -> TemplateError:
    return TemplateError(problem, parsing=True)


def _split(text: str) -> list[Any]:
    """Text pieces and, as lists of tokens, the actions between them."""
    pieces: list[Any] = []
    position, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trim else before
        pieces.append(before.rstrip() if match[1] else before)
        inside = match[2].strip()
        if not (inside.startswith("/*") and inside.endswith("*/")):
            pieces.append(_tokens(inside))
        position, trim = match.end(), bool(match[3])
    rest = text[position:]
    if "{{" in rest:
        raise _broken("unclosed action")
    pieces.append(rest.lstrip() if trim else rest)
    return pieces


def _tokens(text: str) -> list[Any]:
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            raise _broken(f"unexpected {text[position:]!r} in command")
        tokens.append((match.lastgroup, match[match.lastgroup or 0]))
        position = match.end()
    if not tokens:
        raise _broken("missing value for command")
    return tokens


def _action(tokens: list[Any]) -> tuple[str, list[str], list[Any]]:
    """("show" or "set", variables before ``:=`` or ``=``, pipeline): a pipeline is a list of commands."""
    names: list[str] = []
    for index, (kind, text) in enumerate(tokens):
        if kind == "sign" and text in (":=", "="):
            names = [token[1] for token in tokens[:index] if token[0] == "variable"]
            tokens = tokens[index + 1 :]
            break
        if kind not in ("variable", "sign") or text in "|(":
            break
    queue = list(tokens)
    pipeline = _pipeline(queue)
    if queue:
        raise _broken(f"unexpected {queue[0][1]!r} in command")
    return ("set" if names else "show", names, pipeline)


def _pipeline(queue: list[Any]) -> list[Any]:
    commands: list[list[Any]] = [[]]
    while queue and queue[0][1] != ")":
        kind, text = queue.pop(0)
        if (kind, text) == ("sign", "|"):
            commands.append([])
        elif (kind, text) == ("sign", "("):
            inner = _pipeline(queue)
            if not queue:
                raise _broken("unclosed left paren")
            queue.pop(0)
            path = queue.pop(0)[1] if queue and queue[0][0] == "field" and queue[0][1] != "." else ""
            commands[-1].append(("pipeline", inner, path))
        else:
            commands[-1].append((kind, _literal(kind, text)))
            if kind == "variable" and queue and queue[0][0] == "field" and queue[0][1] != ".":
                commands[-1][-1] = ("variable", text, queue.pop(0)[1])
            if kind == "word" and text not in FUNCTIONS and text not in _CONSTANTS:
                raise _broken(f'function "{text}" not defined')
    if not all(commands):
        raise _broken("missing value for command")
    return commands


def _literal(kind: str, text: str) -> Any:
    if kind == "text" and text[0] == "`":
        return text[1:-1]
    if kind == "text":
        try:
            return json.loads(text)  # JSON's escapes are those of Go that anybody types here
        except ValueError:
            raise _broken(f"bad string {text}") from None
    if kind == "number":
        return float(text) if "." in text else int(text)
    return text


def _run(nodes: list[Any], dot: Any, variables: dict[str, Any], output: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            output.append(node)
            continue
        word, names, pipeline = node[:3]
        value = _evaluate(pipeline, dot, variables)
        if word == "show":
            output.append(show(value))
        elif word == "set":
            variables[names[0]] = value
        elif word == "range":
            _range(node, value, dot, variables, output)
        else:
            inner = {**variables, **({names[0]: value} if names else {})}
            if _true(value):
                _run(node[3], value if word == "with" else dot, inner, output)
            else:
                _run(node[4], dot, inner, output)


def _range(node: Any, value: Any, dot: Any, variables: dict[str, Any], output: list[str]) -> None:
    names = node[1]
    if isinstance(value, dict):
        items = sorted(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    elif value is None:
        items = []
    else:
        raise TemplateError(f"range can't iterate over {show(value)}", parsing=False)
    for key, item in items:
        inner = dict(variables)
        inner.update(zip(names, (key, item) if len(names) > 1 else (item,), strict=False))
        _run(node[3], item, inner, output)
    if not items:
        _run(node[4], dot, variables, output)


def _evaluate(pipeline: list[Any], dot: Any, variables: dict[str, Any]) -> Any:
    """Each command's result is the last argument of the next one."""
    piped: tuple[Any, ...] = ()
    for command in pipeline:
        first = command[0]
        arguments = [_operand(operand, dot, variables) for operand in command[1:]] + list(piped)
        if first[0] == "word" and first[1] in FUNCTIONS:
            result = _call(first[1], FUNCTIONS[first[1]], arguments)
        else:
            result = _operand(first, dot, variables)
            if callable(result):
                result = _call(str(first[1]), result, arguments)
            elif arguments:
                raise TemplateError(f"can't give argument to non-function {first[1]}", parsing=False)
        piped = (result,)
    return piped[0]


def _call(name: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return function(*arguments)
    except TemplateError:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise TemplateError(f"error calling {name}: {error}", parsing=False) from None


def _operand(operand: Any, dot: Any, variables: dict[str, Any]) -> Any:
    kind, value = operand[:2]
    if kind == "field":
        return _follow(dot, value)
    if kind == "variable":
        if value not in variables:
            raise TemplateError(f'undefined variable "{value}"', parsing=True)
        return _follow(variables[value], operand[2]) if len(operand) > 2 else variables[value]
    if kind == "pipeline":
        result = _evaluate(value, dot, variables)
        return _follow(result, operand[2]) if operand[2] else result
    if kind == "word":
        return FUNCTIONS[value]() if value in FUNCTIONS else _CONSTANTS[value]
    return value


def _follow(value: Any, path: str) -> Any:
    for name in path.split(".")[1:] if path != "." else ():
        if isinstance(value, dict):
            if name not in value:
                raise TemplateError(
                    f'executing "" at <{path}>: map has no entry for key "{name}"', parsing=False
                )
            value = value[name]
        elif hasattr(value, "field"):
            value = value.field(name)
        else:
            kind = "nil data" if value is None else f"type {type(value).__name__}"
            raise TemplateError(f'executing "" at <{path}>: no field "{name}" in {kind}', parsing=False)
    return value


def _true(value: Any) -> bool:
    return bool(value)


def show(value: Any) -> str:
    """A value as Go's fmt prints it with ``%v``."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(show(item) for item in value) + "]"
    if hasattr(value, "fields"):
        return show(value.fields())
    return str(value)


def to_json(value: Any) -> str:
    """A value as Go's encoding/json writes it: compact, and <, > and & escaped."""
    if hasattr(value, "fields"):
        value = value.fields()
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return (
        text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    )


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, dict) else value[key]
    return value


def _printf(form: str, *values: Any) -> str:
    form = re.sub(r"%([-+ 0#]*\d*(?:\.\d+)?)[vsq]", r"%\1s", form)
    return form % tuple(value if isinstance(value, (int, float)) else show(value) for value in values)


def _and(*values: Any) -> Any:
    return next((value for value in values if not _true(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if _true(value)), values[-1])


_CONSTANTS = {"true": True, "false": False, "nil": None}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "index": _index,
    "len": len,
    "slice": lambda value, *bounds: value[slice(*bounds) if len(bounds) > 1 else slice(bounds[0], None)],
    "join": lambda values, separator: separator.join(show(value) for value in values),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: show(text).lower(),
    "upper": lambda text: show(text).upper(),
    "title": lambda text: show(text).title(),
    "truncate": lambda text, length: show(text)[:length],
    "print": lambda *values: "".join(show(value) for value in values),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "and": _and,
    "or": _or,
    "not": lambda value: not _true(value),
}
