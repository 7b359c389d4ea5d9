"""Real container runtimes, each run privately: the least it needs to work, and nothing of the machine's own.

Each is a context manager over a :class:`~minicontainer.bench.place.Place`. crun, runc and bwrap get a bundle of our
root file system; Podman a storage directory of its own; Docker a whole daemon with its own data, sockets and network
namespace, since a second daemon in the machine's network would take the first one's bridge away. Manuals: crun(1),
runc(8), bwrap(1), podman(1), podman-run(1), dockerd(8), docker-run(1).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from minicontainer.bench.machine import find
from minicontainer.bench.place import Outcome, Place
from minicontainer.cgroup.hierarchy import detect
from minicontainer.errors import MinicontainerError

IMAGE = "busybox"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DAEMON_PATIENCE = 30.0  # seconds for dockerd to answer


class Missing(MinicontainerError):
    """A peer cannot be used on this machine; the message says which and why."""


@dataclass(frozen=True)
class Workspace:
    """What the peers share.

    :ivar directory: where each gets a directory of its own.
    :ivar rootfs: the root file system that all run, as a tree.
    :ivar archive: the same as a tar file.
    """

    directory: str
    rootfs: str
    archive: str


def prepare(directory: str, layer: str | os.PathLike[str]) -> Workspace:
    """Copy the image's only layer for the peers, as a tree and as an archive."""
    rootfs, archive = f"{directory}/rootfs", f"{directory}/rootfs.tar"
    shutil.copytree(layer, rootfs, symlinks=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(rootfs, arcname=".")
    return Workspace(directory, rootfs, archive)


def program(name: str) -> str:
    """The path of a peer's program.

    :raises Missing: it is not installed, or we may not use it.
    """
    path = find(name)
    if path is None:
        raise Missing(f"{name} not found")
    if os.geteuid() != 0:
        raise Missing(f"{name} here needs root")
    return path


def environment(place: Place) -> dict[str, str]:
    """A small, fixed environment: a peer must not find the user's configuration."""
    return {"PATH": _PATH, "HOME": place.directory, "TMPDIR": place.directory, "LANG": "C.UTF-8"}


class Peer:
    """A command line in a place, to which arguments are added.

    :ivar place: where it runs.
    :ivar name: its name, for messages.
    """

    def __init__(self, name: str, place: Place, prefix: Sequence[str], env: dict[str, str]) -> None:
        self.name, self.place, self.prefix, self.env = name, place, list(prefix), env

    def run(self, *arguments: str, timeout: float = 60.0, input: str = "") -> Outcome:
        """Run it to its end, whatever its exit status."""
        return self.place.run([*self.prefix, *arguments], self.env, timeout=timeout, input=input)

    def check(self, *arguments: str, timeout: float = 60.0) -> Outcome:
        """Run it to its end.

        :raises Missing: with what it said, for an exit status other than 0.
        """
        done = self.run(*arguments, timeout=timeout)
        if done.status != 0:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise Missing(f"{self.name} fails here: exit status {done.status}: {said}")
        return done

    def container(self, *options: str) -> list[str]:
        """Arguments of ``run`` for a container without a network, up to the options."""
        return ["run", "--network", "none", "--cgroup-parent", f"/{self.place.cgroup}", *options]

    def true(self) -> float:
        """Seconds for `true` in a new container that is removed at the end."""
        return self.check(*self.container("--rm", IMAGE, "true")).seconds

    def start(self) -> float:
        """Seconds until one more container runs in the background."""
        return self.check(*self.container("-d", IMAGE, "sleep", "10000")).seconds

    def remove_all(self) -> None:
        """Remove every container."""
        found = self.check("ps", "-aq").stdout.split()
        if found:
            now = (
                ["--time", "0"] if self.name == "podman" else []
            )  # it would ask politely first, for 10 seconds
            self.check("rm", "-f", *now, *found, timeout=300)


class OciRuntime(Peer):
    """crun or runc on a bundle: its own default specification, our root, a control group below ours."""

    def __init__(self, name: str, place: Place, workspace: Workspace) -> None:
        path = program(name)
        self.bundle = f"{place.directory}/bundle"
        os.mkdir(self.bundle)
        state = f"{place.directory}/state"
        super().__init__(name, place, [path, "--root", state], environment(place))
        place.run([path, "spec", "--bundle", self.bundle], self.env)
        try:
            with open(f"{self.bundle}/config.json") as file:
                config = json.load(file)
        except FileNotFoundError:
            raise Missing(f"{name} fails here: `{name} spec` wrote no config.json") from None
        config["process"]["terminal"] = False
        config["process"]["args"] = ["true"]
        config["root"]["path"] = workspace.rootfs
        config["linux"]["cgroupsPath"] = f"/{place.cgroup}/{name}"
        with open(f"{self.bundle}/config.json", "w") as file:
            json.dump(config, file)

    def true(self) -> float:
        return self.check("run", "--bundle", self.bundle, "bench").seconds


class Bubblewrap(Peer):
    """bwrap: namespaces and mounts, no control group, no state."""

    def __init__(self, place: Place, workspace: Workspace) -> None:
        words = [program("bwrap"), "--unshare-all", "--ro-bind", workspace.rootfs, "/"]
        super().__init__("bwrap", place, [*words, "--proc", "/proc", "--dev", "/dev"], environment(place))

    def true(self) -> float:
        return self.check("true").seconds


def _v2_beside_v1() -> list[str]:
    """The v2 hierarchy's mount point on a machine that also has v1 ones: crun refuses the mixture."""
    found = detect()
    return [found.v2] if found.version == "hybrid" and found.v2 else []


@contextmanager
def crun(workspace: Workspace) -> Iterator[Peer]:
    """crun, which sees only the v1 hierarchies where both kinds are mounted."""
    program("crun")
    with Place("crun", workspace.directory, unmounted=_v2_beside_v1()) as place:
        yield OciRuntime("crun", place, workspace)


@contextmanager
def runc(workspace: Workspace) -> Iterator[Peer]:
    """runc."""
    program("runc")
    with Place("runc", workspace.directory) as place:
        yield OciRuntime("runc", place, workspace)


@contextmanager
def bwrap(workspace: Workspace) -> Iterator[Peer]:
    """bubblewrap."""
    program("bwrap")
    with Place("bwrap", workspace.directory) as place:
        yield Bubblewrap(place, workspace)


# Podman asks for more open files and processes than a root without CAP_SYS_RESOURCE may give; the defaults of its
# packages differ, so that it gets what every machine allows.
_CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
"""


@contextmanager
def podman(workspace: Workspace) -> Iterator[Peer]:
    """Podman with storage of its own, and our root file system as its image ``busybox``."""
    path = program("podman")
    with Place("podman", workspace.directory, unmounted=_v2_beside_v1()) as place:
        env = environment(place) | {"CONTAINERS_CONF": f"{place.directory}/containers.conf"}
        with open(env["CONTAINERS_CONF"], "w") as file:
            file.write(_CONTAINERS_CONF)
        words = [path, "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        for option, name in (("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")):
            words += [option, f"{place.directory}/{name}"]
        peer = Peer("podman", place, words, env)
        peer.check("import", "--change", 'CMD ["sh"]', workspace.archive, IMAGE)
        peer.true()  # a machine on which it cannot run a container is told now, and its caches are warm
        try:
            yield peer
        finally:
            peer.remove_all()


@contextmanager
def docker(workspace: Workspace) -> Iterator[Peer]:
    """A Docker daemon of our own, without bridge and packet filter, and our root file system as ``busybox``."""
    client, daemon = program("docker"), program("dockerd")
    program("containerd")
    with Place("docker", workspace.directory, network=True) as place:
        # A socket's path may have 107 bytes (man 7 unix); the place's own /run is as good as its directory.
        address = "unix:///run/docker.sock"
        env = environment(place) | {"DOCKER_HOST": address}
        log = f"{place.directory}/dockerd.log"
        words = [
            daemon, "--host", address, "--data-root", f"{place.directory}/data", "--exec-root", "/run/docker",
            "--pidfile", "/run/docker.pid", "--bridge", "none", "--iptables=false", "--ip6tables=false",
            "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false",
            "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{place.cgroup}",
            # Our own runtime for those who ask for it with --runtime; the default stays the daemon's.
            "--add-runtime", f"minicontainer={os.path.join(os.path.dirname(sys.executable), 'minicontainer-oci')}",
        ]  # fmt: skip
        pid = place.start(words, env, log)
        peer = Peer("docker", place, [client], env)
        try:
            _await_daemon(peer, log)
            peer.check("import", "--change", 'CMD ["sh"]', workspace.archive, IMAGE)
            peer.true()
            yield peer
            peer.remove_all()
        finally:
            place.stop(pid)


def _await_daemon(peer: Peer, log: str) -> None:
    deadline = time.monotonic() + _DAEMON_PATIENCE
    while peer.run("version", timeout=10).status != 0:
        if time.monotonic() > deadline:
            with open(log, errors="replace") as file:
                last = " ".join(file.read().split())[-300:]
            raise Missing(f"docker fails here: its daemon does not answer: {last}")
        time.sleep(0.1)
