"""Making a container: its configuration from image and options, its directory, its name. All of it or nothing.

Lab 10. A maker that is killed leaves a directory without a record whose lock nobody holds; the next one to want its
name, or `gc`, clears it away.
"""

from __future__ import annotations

import os

from minicontainer.engine import names, record
from minicontainer.engine import options as option_rules
from minicontainer.engine.removal import remove_container
from minicontainer.engine.times import timestamp
from minicontainer.engine.tree import remove_tree
from minicontainer.errors import NameConflict, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minicontainer.image.store import Store

_ATTEMPTS = 20  # random names tried before giving up


def configure(
    container_id: str,
    images: Store,
    root: str,
    image: str,
    command: Sequence[str] | str | None,
    given: dict[str, Any],
    warnings: list[str],
) -> record.Config:
    """The configuration of a new container. Its name is "" where it may be any.

    :param warnings: gets what of `given` has no effect on this machine.

    :raises ImageNotFound: no such image.
    :raises UsageError: an option makes no sense.
    """
    try:
        others = {name: given[name] for name in given if name not in option_rules.ContainerOptions._fields}
        options = option_rules.ContainerOptions(**{name: given[name] for name in given if name not in others})
        host = _host(others, warnings) if others else {}
    except TypeError as error:
        raise UsageError(str(error)) from None
    name = names.check(options.name) if options.name else ""
    hostname = option_rules.check_hostname(options.hostname) if options.hostname else container_id[:12]
    network = option_rules.check_network(options.network)
    if network == "host" and not options.hostname:
        hostname = os.uname().nodename
    environment = option_rules.environment(options.env)
    if options.stop_signal is not None:
        option_rules.signal_number(options.stop_signal)
    found = images.resolve(image)
    base = found.config
    entrypoint, arguments = option_rules.command_line(base.entrypoint, base.cmd, options.entrypoint, command)
    workdir = options.workdir if options.workdir else base.working_dir or "/"
    prefix = f"{root}/"
    return record.Config(
        id=container_id,
        name=name,
        created=timestamp(),
        image=image,
        image_id=found.id,
        layers=tuple(str(path).removeprefix(prefix) for path in images.layer_paths(found)),
        entrypoint=tuple(entrypoint),
        command=tuple(arguments),
        env=tuple(option_rules.merge_environment(base.env or (), environment)),
        workdir=option_rules.check_workdir(workdir),
        user=options.user if options.user is not None else base.user or "",
        hostname=hostname,
        domainname=options.domainname or "",
        labels={**(base.labels or {}), **option_rules.parse_labels(options.labels)},
        network=network,
        tty=options.tty,
        stdin_open=options.stdin_open,
        auto_remove=options.remove,
        read_only=options.read_only,
        stop_signal=str(options.stop_signal or base.stop_signal or "SIGTERM"),
        stop_timeout=10 if options.stop_timeout is None else options.stop_timeout,
        exposed_ports=tuple(sorted(base.exposed_ports or ())),
        volumes=tuple(sorted(base.volumes or ())),
        host=host,
    )


def _host(options: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Limits and privileges; a container that asks for none does not pay for reading them."""
    from minicontainer.engine import hostconfig

    host, found = hostconfig.settle(hostconfig.parse(options))
    warnings += found
    return host


def make(config: record.Config, containers: str, names_directory: str) -> int:
    """Put a new container on the disk; returns a descriptor that holds its lock.

    :raises NameConflict: its name belongs to another container.
    :raises OSError: no space, no permission.
    """
    directory = f"{containers}/{config.id}"
    claimed = ""
    lock = -1
    try:
        os.mkdir(directory, 0o700)
        lock = record.acquire(directory)
        for name, mode in (("upper", 0o755), ("work", 0o700), ("rootfs", 0o755)):
            os.mkdir(f"{directory}/{name}", mode)
        # The upper directory's mode is that of the container's "/", whatever the caller's umask.
        os.chmod(f"{directory}/upper", 0o755)
        claimed = _claim(config, containers, names_directory)
        record.write(directory, record.Record(config=config.replace(name=claimed)))
        return lock  # in here, since an interruption just before the return must be undone too
    except BaseException:
        # Also for Ctrl-C: the link is released by what it points to, so one made a moment ago is found too.
        for name in (claimed, config.name):
            if name:
                names.release(names_directory, name, config.id)
        remove_tree(directory)
        if lock >= 0:
            os.close(lock)
        raise


def _claim(config: record.Config, containers: str, names_directory: str) -> str:
    """Take the container's name, or any free one."""
    for attempt in range(_ATTEMPTS):
        name = config.name or names.random_name(attempt)
        try:
            names.claim(names_directory, name, config.id)
            return name
        except NameConflict:
            holder = names.owner(names_directory, name)
            if not half_made(containers, names_directory, holder, name) and config.name:
                raise
    raise NameConflict(f"no free name was found in {_ATTEMPTS} attempts", hint="give one with --name")


def half_made(containers: str, names_directory: str, container_id: str, name: str) -> bool:
    """Clear away what a killed maker left under `name`; whether there was such a thing."""
    directory = f"{containers}/{container_id}"
    if not container_id or os.path.exists(f"{directory}/{record.RECORD}"):
        return False
    try:
        lock = record.acquire(directory, blocking=False)
    except BlockingIOError:
        return False  # its maker is at work
    except FileNotFoundError:
        # No container at all. Nobody can make one of this id again, so the link is ours to remove.
        names.release(names_directory, name, container_id)
        return True
    try:
        if os.path.exists(f"{directory}/{record.RECORD}"):
            return False
        remove_container(os.path.dirname(containers), container_id, name)
        return True
    finally:
        os.close(lock)
