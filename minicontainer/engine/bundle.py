"""From a container's record to an OCI bundle: the config.json and the small files that the runtime mounts.

The bundle is the contract between the engine and the runtime: everything the engine decided is in it. Labs 02, 03
and 05 read it. Specification: OCI runtime-spec config.md; Docker's choices: moby daemon/oci_linux.go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from minicontainer.cgroup.group import Group, parent_path
from minicontainer.engine import lookup, record, users
from minicontainer.engine.options import merge_environment
from minicontainer.errors import MinicontainerError
from minicontainer.linux.namespace import in_user_namespace
from minicontainer.runtime import overlay, spec

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
ETC = ("hosts", "hostname", "resolv.conf")

ReadFiles = Callable[[list[str]], dict[str, "bytes | None"]]


def environment(config: record.Config, home: str) -> list[str]:
    """The variables of a process in the container: PATH, HOSTNAME, TERM with a terminal, then the image's and the
    user's, which replace them, and HOME at the end where nobody set it: Docker's order."""
    base = [PATH, f"HOSTNAME={config.hostname}"]
    if config.tty:
        base.append("TERM=xterm")
    merged = merge_environment(base, config.env)
    if not any(entry.startswith("HOME=") for entry in merged):
        merged.append(f"HOME={home}")
    return merged


def network_settings() -> dict[str, str]:
    """What Docker allows in a container's own network namespace: every port, and ping without a capability.

    A user namespace need not have all the groups of the second one; there it is left as it is.
    """
    settings = {"net.ipv4.ip_unprivileged_port_start": "0"}
    if not in_user_namespace():
        settings["net.ipv4.ping_group_range"] = "0 2147483647"
    return settings


def process_user(user: users.User) -> dict[str, Any]:
    """The OCI ``process.user`` object.

    In a user namespace only mapped ids exist: others cannot be taken on, and other supplementary groups are left out;
    all of them where groups cannot be set at all (man 7 user_namespaces).

    :raises MinicontainerError: the user or its group is not mapped.
    """
    for kind, number in (("uid", user.uid), ("gid", user.gid)):
        if number and not _mapped(kind, number):
            raise MinicontainerError(
                f"{kind} {number} does not exist in this user namespace",
                hint="give it a range of subordinate ids (newuidmap, /etc/subuid), or run as root inside it",
            )
    groups = [gid for gid in user.groups if not gid or _mapped("gid", gid)]
    with open("/proc/self/setgroups", "rb") as file:
        if file.read().strip() == b"deny":
            groups = []
    return {"uid": user.uid, "gid": user.gid, "additionalGids": groups}


def _mapped(kind: str, number: int) -> bool:
    with open(f"/proc/self/{kind}_map") as file:
        for line in file:
            inside, _, count = (int(field) for field in line.split())
            if inside <= number < inside + count:
                return True
    return False


def compose(
    config: record.Config, user: users.User, directory: str, layers: list[str], cgroup: str
) -> dict[str, Any]:
    """The OCI config.json of a container.

    :param directory: the container's directory, which is the bundle.
    :param layers: absolute paths, topmost first, with the lowest layer of every container last.
    :param cgroup: its control group.
    """
    bundle: dict[str, Any] = spec.default_spec()
    process = bundle["process"]
    process["args"] = config.arguments
    process["env"] = environment(config, user.home)
    process["cwd"] = config.workdir or "/"
    process["user"] = process_user(user)
    process["terminal"] = config.tty
    bundle["root"] = {"path": "rootfs", "readonly": config.read_only}
    bundle["hostname"] = config.hostname
    if config.domainname:
        bundle["domainname"] = config.domainname
    bundle["annotations"] = {"org.minicontainer.name": config.name, "org.minicontainer.image": config.image}
    linux = bundle["linux"]
    linux["cgroupsPath"] = cgroup
    if config.network == "host":
        # The host's network is the host's name space too: Docker gives such a container the host's name.
        linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
    else:
        linux["sysctl"] = network_settings()
    etc = [_etc_mount(directory, name) for name in ETC]
    bundle["mounts"] = [
        overlay.as_mount(layers, f"{directory}/upper", f"{directory}/work"),
        *bundle["mounts"],
        *etc,
    ]
    if config.host:
        from minicontainer.engine import limits, privileges

        limits.apply(bundle, config.host)
        privileges.apply(bundle, config.host)
    return bundle


def _etc_mount(directory: str, name: str) -> dict[str, Any]:
    source, options = f"{directory}/{name}", ["bind", "rprivate", "rw"]
    return {"destination": f"/etc/{name}", "type": "bind", "source": source, "options": options}


def write_etc(config: record.Config, directory: str) -> None:
    """The container's hosts, hostname and resolv.conf, anew at each start."""
    hosts, resolver = HOSTS, ""
    if config.network == "host":
        hosts = _host_file("/etc/hosts") or HOSTS
    resolver = _host_file("/etc/resolv.conf")
    for name, text in (("hosts", hosts), ("hostname", f"{config.hostname}\n"), ("resolv.conf", resolver)):
        _write(f"{directory}/{name}", text)


def _write(path: str, text: str) -> None:
    # In place: the file may be bind-mounted, and a renamed one would be another file.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(text.encode(errors="surrogateescape"))
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _host_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def init_layer(data_root: str) -> str:
    """The lowest layer of every container: the mount points that an image may lack. Made once.

    :returns: its directory.
    """
    target = f"{data_root}/layers/init"
    if os.path.isdir(f"{target}/etc"):
        return target
    making = f"{data_root}/layers/.init-{os.getpid()}-{os.urandom(4).hex()}"
    os.makedirs(f"{making}/etc", 0o755)
    os.chmod(making, 0o755)
    for name in ("dev", "proc", "sys"):
        os.mkdir(f"{making}/{name}", 0o755)
    for name in ETC:
        _write(f"{making}/etc/{name}", "")
    try:
        os.rename(making, target)
    except OSError:
        from minicontainer.engine.tree import remove_tree

        remove_tree(making)  # another process was quicker
        if not os.path.isdir(f"{target}/etc"):
            raise
    return target


def absolute_layers(config: record.Config, data_root: str) -> list[str]:
    """The paths of the container's layers, topmost first, the lowest one of every container last.

    :raises MinicontainerError: one is missing.
    """
    layers = [layer if layer.startswith("/") else f"{data_root}/{layer}" for layer in config.layers]
    for layer in layers:
        if not os.path.isdir(layer):
            raise MinicontainerError(
                f"layer {os.path.basename(layer)[:12]} of image {config.image} is missing",
                hint="load or make the image again, then create the container anew",
            )
    return [*layers, init_layer(data_root)]


def find_user(text: str, read_files: ReadFiles) -> users.User:
    """Resolve the container's user in its own files."""
    contents = read_files(["/etc/passwd", "/etc/group"])
    return users.resolve(text, contents["/etc/passwd"], contents["/etc/group"])


def cgroup_path(container_id: str) -> str:
    """The container's control group, relative to the hierarchies' roots."""
    return f"{parent_path()}/{container_id}"


def oom_killed(cgroup: str) -> bool:
    """Whether the kernel killed a process of this group for want of memory (cgroup-v2.rst memory.events; v1
    memory.oom_control)."""
    for directory in Group(cgroup).directories:
        for name in ("memory.events", "memory.oom_control"):
            try:
                with open(f"{directory}/{name}") as file:
                    counts = dict(line.split() for line in file)
            except (OSError, ValueError):
                continue  # this hierarchy does not count memory
            if int(counts.get("oom_kill", 0)):
                return True
    return False


def write_bundle(config: record.Config, directory: str, data_root: str, cgroup: str) -> dict[str, Any]:
    """Write config.json and the files it refers to; the bundle is then complete."""
    layers = absolute_layers(config, data_root)

    def read_files(paths: list[str]) -> dict[str, bytes | None]:
        try:
            return {path: lookup.read_layered([f"{directory}/upper", *layers], path) for path in paths}
        except lookup.Undecided:
            return lookup.read_mounted(
                layers, f"{directory}/upper", f"{directory}/work", f"{directory}/rootfs", paths
            )

    user = find_user(config.user, read_files)
    bundle = compose(config, user, directory, layers, cgroup)
    try:
        write_etc(config, directory)
        _write(
            f"{directory}/config.json", json.dumps(bundle)
        )  # with indent= it would take five times as long
    except OSError as error:
        raise record.storage_error(error, directory) from error
    return bundle
