"""The leak audit: what a suite, a notebook or a command left behind on the machine.

A snapshot before, a snapshot after, and what the second has more, less or different. Usable from Python
(:func:`snapshot`, :func:`compare`) and by hand:

    python tests/audit.py snapshot before.json
    python tests/audit.py compare before.json          # exit status 1 and a list, where something was left

Standard library only, so that it also runs in a bare machine.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable

PREFIXES = ("minicontainer", "mc-")
# Machine-wide settings that a container runtime is tempted to change.
SETTINGS = (
    "kernel/hostname",
    "kernel/core_pattern",
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv6/conf/all/forwarding",
    "user/max_user_namespaces",
)

# What only our own programs make, and take away again whenever they end: having less of it is no harm.
OWN = ("cgroup", "file", "process", "user")

Snapshot = dict[str, list[str]]


def mounts() -> list[str]:
    """Every mount of this mount namespace: where, what, and from where (man 5 proc, mountinfo)."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            found.append(f"{fields[4]} ({kind[0]} from {kind[1]}, root {fields[3]})")
    return found


def links() -> list[str]:
    """Network interfaces of this network namespace, and network namespaces that were given a name."""
    named = [f"netns {name}" for name in listing("/run/netns") + listing("/var/run/netns")]
    return [name for _, name in socket.if_nameindex()] + sorted(set(named))


def listing(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def packet_filter() -> list[str]:
    """Tables, chains and rules of nftables without their counters, where nft is there and may read them."""
    program = shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        return []
    done = subprocess.run([program, "--json", "list", "ruleset"], capture_output=True, text=True)
    if done.returncode != 0:
        return []
    found = []
    for entry in json.loads(done.stdout)["nftables"]:
        if "metainfo" not in entry:
            found.append(json.dumps(without_counters(entry), sort_keys=True))
    return found


def without_counters(value: object) -> object:
    """`value` without what changes by itself: packet and byte counts, handles."""
    if isinstance(value, dict):
        return {
            key: without_counters(item)
            for key, item in value.items()
            if key not in ("handle", "packets", "bytes", "counter")
        }
    return [without_counters(item) for item in value] if isinstance(value, list) else value


def cgroups(root: int | None = None) -> list[str]:
    """Control groups that carry our prefix, and everything below them, with their hierarchies (man 7 cgroups).

    :param root: leave out the trees in which processes run that are not descendants of this one: another program of
        ours is at work beside us. None: leave out nothing.
    """
    hierarchies = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if after.split()[0] in ("cgroup", "cgroup2"):
                hierarchies.append(before.split()[4])
    parents = parent_processes()
    found: dict[str, list[str]] = {}
    others = set()
    for hierarchy in hierarchies:
        for current, _, _ in os.walk(hierarchy):
            group = os.path.relpath(current, hierarchy)
            parts = group.split("/")
            ours = next((depth for depth, part in enumerate(parts) if part.startswith(PREFIXES)), None)
            if ours is None:
                continue
            found.setdefault(group, []).append(os.path.basename(hierarchy))
            for pid in read(f"{current}/cgroup.procs").split() if root is not None else ():
                if root not in lineage(int(pid), parents):  # "0" is a process outside of our PID namespace
                    others.add("/".join(parts[: ours + 1]))
    return [
        f"{group} in {' '.join(sorted(names))}"
        for group, names in found.items()
        if not any(group == other or group.startswith(f"{other}/") for other in others)
    ]


def parent_processes() -> dict[int, int]:
    """The parent of every process of this PID namespace that has not ended (man 5 proc, stat)."""
    parents = {}
    for name in listing("/proc"):
        if name.isdigit():
            status = read(f"/proc/{name}/stat").rpartition(")")[2].split()
            if status and status[0] not in "ZX":
                parents[int(name)] = int(status[1])
    return parents


def processes(root: int | None = None) -> list[str]:
    """Processes that a suite may have left, other than ourselves and our ancestors.

    :param root: the descendants of this process. With a subreaper as root (see tests/run.py) nothing that a suite
        started can get away from being one. None: the whole machine's processes whose command line or control group
        names us, for use by hand.
    """
    parents = parent_processes()
    own = set(lineage(os.getpid(), parents))
    found = []
    for pid in parents:
        text = (
            read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
            or f"[{read(f'/proc/{pid}/comm').strip()}]"
        )
        if root is None:
            suspicious = any(
                prefix in text + read(f"/proc/{pid}/cgroup") for prefix in ("minicontainer", "/mc-")
            )
        else:
            suspicious = pid != root and root in lineage(pid, parents)
        if suspicious and pid not in own:
            found.append(f"{pid} {text}")
    return found


def lineage(pid: int, parents: dict[int, int]) -> list[int]:
    """`pid`, its parent, and so on up."""
    line = []
    while pid:
        line.append(pid)
        pid = parents.get(pid, 0)
    return line


def read(path: str) -> str:
    """A small file's text; "" where it is gone or not for us."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def data_roots() -> list[str]:
    """Where an unconfigured minicontainer keeps its things for this user (see minicontainer.paths)."""
    share = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return ["/var/lib/minicontainer", f"{share}/minicontainer"]


def at_work(path: str, root: int | None, parents: dict[int, int]) -> bool:
    """Whether `path` is a directory or user (NAME-PID, NAME-PID-RANDOM) of another test run at work beside us."""
    named = re.search(r"-(\d+)(-\w{8})?$", path)
    if root is None or not named or int(named[1]) not in parents:
        return False
    return root not in lineage(int(named[1]), parents) and int(named[1]) not in lineage(root, parents)


def files(root: int | None = None) -> list[str]:
    """Our files in the places that all programs share, live containers, and what the data roots hold.

    The empty directories below a run root stay, as those of any program in /run do. A data root that was chosen with
    MINICONTAINER_ROOT may keep its images, but no container.
    """
    found = []
    for directory in ("/run", "/tmp", "/var/tmp", "/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "")):
        for prefix in PREFIXES if directory else ():
            found += glob.glob(f"{directory}/{prefix}*")
    parents = parent_processes()
    found = [path for path in found if path != "/run/minicontainer" and not at_work(path, root, parents)]
    found += glob.glob("/run/minicontainer/*/*")
    for directory in data_roots():
        for pattern in ("*", "*/*", "*/*/*"):
            found += glob.glob(f"{directory}/{pattern}")
    for chosen in {os.environ.get("MINICONTAINER_ROOT"), os.environ.get("MINICONTAINER_RUN")} - {None}:
        for pattern in ("containers/*", "names/*"):
            found += glob.glob(f"{chosen}/{pattern}")
    return sorted(set(found))


def settings() -> list[str]:
    return [f"{name} = {read(f'/proc/sys/{name}').strip()}" for name in SETTINGS]


def users(root: int | None = None) -> list[str]:
    """The machine's users that a test run made (see tests/ordinary_user.py); of other runs at work, none."""
    ours = [entry.pw_name for entry in pwd.getpwall() if entry.pw_name.startswith(PREFIXES)]
    parents = parent_processes()
    return [name for name in ours if not at_work(name, root, parents)]


CATEGORIES: dict[str, Callable[[], list[str]]] = {
    "mount": mounts,
    "link": links,
    "packet filter": packet_filter,
    "setting": settings,
}


def snapshot(root: int | None = None) -> Snapshot:
    """What there is now, by category. :param root: as for :func:`processes`."""
    taken = {name: sorted(look()) for name, look in CATEGORIES.items()}
    taken["user"] = sorted(users(root))
    taken["file"] = sorted(files(root))
    taken["cgroup"] = sorted(cgroups(root))
    taken["process"] = sorted(processes(root))
    return taken


def compare(before: Snapshot, after: Snapshot) -> list[str]:
    """What was left or taken away, one line each; empty where nothing was."""
    lines = []
    for category in before:
        old, new = before[category], after.get(category, [])
        lines += [f"left behind: {category} {item}" for item in surplus(new, old)]
        if category not in OWN:
            lines += [f"gone: {category} {item}" for item in surplus(old, new)]
    return lines


def surplus(items: list[str], known: list[str]) -> list[str]:
    """`items` without those in `known`, one for one: a second mount at the same place counts."""
    rest = list(known)
    extra = []
    for item in items:
        if item in rest:
            rest.remove(item)
        else:
            extra.append(item)
    return extra


def settle(
    before: Snapshot,
    root: int | None = None,
    *,
    patience: float = 5.0,
    tick: Callable[[], None] = lambda: None,
) -> list[str]:
    """Compare with now, giving what is just ending `patience` seconds to be gone; `tick` is called meanwhile."""
    deadline = time.monotonic() + patience
    while True:
        tick()
        lines = compare(before, snapshot(root))
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.1)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("snapshot", "compare"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    verb, path = arguments
    if verb == "snapshot":
        with open(path, "w") as file:
            json.dump(snapshot(), file, indent=1)
        return 0
    with open(path) as file:
        lines = settle(json.load(file))
    print("\n".join(lines) if lines else "nothing was left")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
