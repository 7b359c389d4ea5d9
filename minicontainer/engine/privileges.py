"""Privileges in a container's bundle: capabilities, seccomp, no_new_privs, devices, tmpfs, --privileged. Lab 06.

Sources: OCI runtime-spec config-linux.md; moby oci/caps/utils.go (names), daemon/oci_linux.go (what privileged means),
profiles/seccomp (the form of a profile file). Man pages: capabilities(7), seccomp(2), mknod(2).
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from minicontainer.cgroup.devices import is_real_root
from minicontainer.engine.hostconfig import Host
from minicontainer.errors import MinicontainerError, UsageError
from minicontainer.linux.capability import NAMES
from minicontainer.runtime.seccomp import default_profile
from minicontainer.runtime.spec import DEFAULT_CAPABILITIES

_NOT_DEVICES = ("pts", "shm", "fd", "mqueue", "console")  # made anew in each container, or no devices at all


def capability_name(text: str) -> str:
    """The kernel's name for a capability as people write it, or "ALL".

    >>> capability_name("net_admin")
    'CAP_NET_ADMIN'

    :raises UsageError: there is none of this name.
    """
    name = text.upper()
    if name in ("ALL", "CAP_ALL"):
        return "ALL"
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in NAMES:
        raise UsageError(f"invalid capability: {text}", hint="man 7 capabilities lists them")
    return name


def capabilities(host: Host) -> list[str]:
    """The capabilities a container gets: the default ones, without the dropped, with the added.

    >>> capabilities({"CapDrop": ["ALL"], "CapAdd": ["CAP_CHOWN"]})
    ['CAP_CHOWN']
    """
    add, drop = host.get("CapAdd") or [], host.get("CapDrop") or []
    if host.get("Privileged"):
        return list(NAMES)
    start = set() if "ALL" in drop else set(NAMES) if "ALL" in add else set(DEFAULT_CAPABILITIES)
    if "ALL" in add and "ALL" in drop:
        start = set(NAMES)
    chosen = (start - set(drop)) | set(add)
    return [name for name in NAMES if name in chosen]


def security_option(text: str) -> str:
    """A ``--security-opt`` as the record keeps it: of a seccomp profile the whole text, since the file may change.

    :raises UsageError: an option that there is not, or a file that is no profile.
    """
    name, equals, value = text.partition("=")
    if not equals:
        name, equals, value = text.partition(":")
    if name == "no-new-privileges" and value in ("", "true", "false"):
        return f"no-new-privileges={value or 'true'}"
    if name == "systempaths" and value == "unconfined":
        return "systempaths=unconfined"
    if name == "seccomp" and value in ("unconfined", "builtin"):
        return f"seccomp={value}"
    if name == "seccomp" and value:
        return f"seccomp={_profile_text(value)}"
    hint = "there are: seccomp=unconfined, seccomp=FILE, no-new-privileges, systempaths=unconfined"
    raise UsageError(f'invalid --security-opt: "{text}"', hint=hint)


def _profile_text(value: str) -> str:
    if value.startswith("{"):
        return value  # the API may give the profile itself
    try:
        with open(value, encoding="utf-8") as file:
            profile = json.load(file)
        if not isinstance(profile, dict) or "defaultAction" not in profile:
            raise ValueError("it has no defaultAction")
    except OSError as error:
        problem = f"opening seccomp profile ({value}) failed: {os.strerror(error.errno or 0).lower()}"
        raise UsageError(problem) from None
    except ValueError as error:
        raise UsageError(f"decoding seccomp profile ({value}) failed: {error}") from None
    return json.dumps(profile, separators=(",", ":"))


def apply(bundle: dict[str, Any], host: Host) -> None:
    """Put the privileges into the bundle.

    :raises MinicontainerError: a device that is not there.
    """
    options = dict(option.split("=", 1) for option in host.get("SecurityOpt") or [])
    process, linux = bundle["process"], bundle["linux"]
    privileged = host.get("Privileged", False)
    held = capabilities(host)
    if privileged or host.get("CapAdd") or host.get("CapDrop"):
        process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), held)
        _set(linux, "seccomp", default_profile(held))
    seccomp = options.get("seccomp", "unconfined" if privileged else "builtin")
    if seccomp == "unconfined":
        linux.pop("seccomp", None)
    elif seccomp != "builtin":
        linux["seccomp"] = profile(json.loads(seccomp), held)
    if options.get("no-new-privileges") == "true":
        process["noNewPrivileges"] = True
    if privileged or options.get("systempaths") == "unconfined":
        linux["maskedPaths"], linux["readonlyPaths"] = [], []
    if privileged:
        _open_up(bundle)
    for path, given in (host.get("Tmpfs") or {}).items():
        words = ["noexec", "nosuid", "nodev", *(word for word in given.split(",") if word)]
        bundle["mounts"].append({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": words})
    for entry in host.get("Devices") or []:
        node = device_node(entry["PathOnHost"], entry["PathInContainer"])
        linux.setdefault("devices", []).append(node)
        if is_real_root() and not privileged:
            numbers = {name: node[name] for name in ("type", "major", "minor")}
            rule = {"allow": True, **numbers, "access": entry["CgroupPermissions"]}
            linux["resources"]["devices"].append(rule)


def _set(holder: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        holder.pop(name, None)
    else:
        holder[name] = value


def _open_up(bundle: dict[str, Any]) -> None:
    """``--privileged``: every device, and /sys for writing."""
    linux = bundle["linux"]
    for mount in bundle["mounts"]:
        if mount["type"] in ("sysfs", "cgroup"):
            mount["options"] = [option for option in mount["options"] if option != "ro"]
    if is_real_root():
        linux.setdefault("resources", {})["devices"] = [{"allow": True, "access": "rwm"}]
    linux["devices"] = all_devices("/dev")


def all_devices(directory: str) -> list[dict[str, Any]]:
    """Every device node of the host's /dev."""
    found = []
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.name in _NOT_DEVICES or entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False):
            found += all_devices(entry.path)
        elif stat.S_IFMT(entry.stat().st_mode) in (stat.S_IFCHR, stat.S_IFBLK):
            found.append(device_node(entry.path, entry.path))
    return found


def device_node(path: str, inside: str) -> dict[str, Any]:
    """An OCI ``linux.devices`` entry for the host's node at `path`.

    :raises MinicontainerError: there is none.
    """
    what = f'error gathering device information while adding custom device "{path}"'
    try:
        found = os.stat(path)
    except OSError as error:
        raise MinicontainerError(f"{what}: {os.strerror(error.errno or 0).lower()}") from error
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        raise MinicontainerError(f"{what}: not a device node")
    number = found.st_rdev
    return {
        "path": inside,
        "type": kind,
        "major": os.major(number),
        "minor": os.minor(number),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def profile(given: dict[str, Any], held: list[str]) -> dict[str, Any]:
    """A profile file, in Docker's form or the specification's, as OCI ``linux.seccomp`` for this machine.

    Docker's has rules that hold only with or without some capabilities, on some architectures, or from some kernel on.
    """
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    version = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])

    def answers(condition: dict[str, Any]) -> list[bool]:
        found = [name in held for name in condition.get("caps") or []]
        if condition.get("arches"):
            found.append(machine in condition["arches"])
        if condition.get("minKernel"):
            found.append(version >= tuple(int(part) for part in condition["minKernel"].split(".")[:2]))
        return found

    rules = []
    for rule in given.get("syscalls") or []:
        if all(answers(rule.get("includes") or {})) and not any(answers(rule.get("excludes") or {})):
            kept = {key: rule[key] for key in ("action", "args", "errnoRet") if rule.get(key) is not None}
            rules.append({**kept, "names": rule.get("names") or [rule["name"]]})
    architectures = list(given.get("architectures") or [])
    for entry in given.get("archMap") or []:
        if entry["architecture"] == f"SCMP_ARCH_{os.uname().machine.upper()}":
            architectures += [entry["architecture"], *(entry.get("subArchitectures") or [])]
    keep = {
        key: given[key] for key in ("defaultAction", "defaultErrnoRet", "flags") if given.get(key) is not None
    }
    return {**keep, "architectures": architectures, "syscalls": rules}
