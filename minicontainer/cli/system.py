"""Verbs about the whole: inspect, version, info."""

from __future__ import annotations

import json

from minicontainer.cli import output
from minicontainer.cli.text import visible
from minicontainer.errors import ContainerNotFound, ImageNotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.cli.flags import Parsed
    from minicontainer.image.config import Image

TYPES = ("container", "image")


def formatted(form: str | None) -> Callable[[Any], str] | None:
    """What ``-f`` makes of one value; None where it was not given.

    :raises UsageError: the template cannot be parsed (exit status 64, as Docker's).
    """
    if form is None:
        return None
    from minicontainer.cli import template

    if form == "json":
        return template.to_json
    try:
        return template.Template(form)
    except template.TemplateError as error:
        raise UsageError(f"template parsing error: template: {error}", exit_code=64) from None


def _shown(show: Callable[[Any], str], value: Any) -> str:
    from minicontainer.cli.template import TemplateError

    try:
        text = show(value)
    except TemplateError as error:
        raise UsageError(f"template parsing error: template: {error}", exit_code=1) from None
    # A script gets the bytes as they are; a terminal must not get escape sequences out of a label.
    return text if not output.to_terminal() else "\n".join(visible(line) for line in text.split("\n"))


def inspect(parsed: Parsed) -> int:
    """Print what is known about containers and images, as JSON or through a template."""
    if parsed.type is not None and parsed.type not in TYPES:
        raise UsageError(f'unknown type: "{parsed.type}": must be one of "container", "image"')
    show = formatted(parsed.format)
    status = 0
    found = []
    for name in parsed.arguments:
        try:
            found.append(_look_up(name, parsed.type))
        except (ContainerNotFound, ImageNotFound) as error:
            output.complain(error.message, error.hint)
            status = 1
    if show is None:
        output.write(json.dumps(found, indent=4, ensure_ascii=True) + "\n")
    elif parsed.format == "json":
        output.write(show(found) + "\n")
    else:
        for value in found:
            output.write(_shown(show, value) + "\n")
    return status


def _look_up(name: str, kind: str | None) -> dict[str, Any]:
    """A container's or an image's description; a container goes first, as in Docker."""
    from minicontainer.cli.containers import engine

    here = engine()
    if kind != "image":
        try:
            return here.inspect(name)
        except ContainerNotFound:
            if kind == "container":
                raise
    try:
        return _image(here.images.resolve(name))
    except (ImageNotFound, UsageError):
        if kind == "image":
            raise
    raise ContainerNotFound(
        f"No such object: {name}", hint="`minicontainer ps -a` and `minicontainer images` list them"
    )


def _image(image: Image) -> dict[str, Any]:
    """An image as `docker inspect` shows it."""
    raw = image.config.raw
    repositories = dict.fromkeys(name.rpartition(":")[0] for name in image.references)
    return {
        "Id": image.id,
        "RepoTags": list(image.references),
        "RepoDigests": [f"{repository}@{image.manifest_digest}" for repository in repositories],
        "Created": image.created,
        "Author": raw.get("author", ""),
        "Config": raw.get("config", {}),
        "Architecture": image.architecture,
        "Os": raw.get("os", "linux"),
        "Size": image.size,
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
    }


def version(parsed: Parsed) -> int:
    """Versions of minicontainer and of what it stands on."""
    from minicontainer.cli.containers import engine

    show = formatted(parsed.format)
    value = engine().version()
    if show is not None:
        output.write(_shown(show, value) + "\n")
        return 0
    for part, versions in value.items():
        output.write(
            f"{part}:\n" + "".join(f" {_words(name) + ':':18} {item}\n" for name, item in versions.items())
        )
    return 0


_INFO = (
    (" Containers", "Containers"),
    ("  Running", "ContainersRunning"),
    ("  Paused", "ContainersPaused"),
    ("  Stopped", "ContainersStopped"),
    (" Images", "Images"),
    (" Server Version", "ServerVersion"),
    (" Storage Driver", "Driver"),
    (" Logging Driver", "LoggingDriver"),
    (" Cgroup Driver", "CgroupDriver"),
    (" Cgroup Version", "CgroupVersion"),
    (" Default Runtime", "DefaultRuntime"),
    (" Kernel Version", "KernelVersion"),
    (" Operating System", "OperatingSystem"),
    (" OSType", "OSType"),
    (" Architecture", "Architecture"),
    (" CPUs", "NCPU"),
    (" Total Memory", "MemTotal"),
    (" Name", "Name"),
    (" Root Dir", "DockerRootDir"),
    (" Run Dir", "RunRoot"),
)


def info(parsed: Parsed) -> int:
    """How many containers and images there are, where they are kept, and what this machine can do."""
    from minicontainer.cli.containers import engine

    show = formatted(parsed.format)
    value = engine().info()
    if show is not None:
        output.write(_shown(show, value) + "\n")
        return 0
    value["MemTotal"] = f"{value['MemTotal'] / (1 << 30):.4g}GiB"
    lines = [f"{label}: {visible(str(value[key]))}\n" for label, key in _INFO if key in value]
    output.write("Server:\n" + "".join(lines))
    return 0


def _words(name: str) -> str:
    """CamelCase as words, of which only the first keeps its capital.

    >>> _words("PythonVersion"), _words("Os")
    ('Python version', 'Os')
    """
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in name[1:])
    return name[:1] + spaced
