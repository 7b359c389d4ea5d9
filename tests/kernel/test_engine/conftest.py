"""What the engine's kernel tests share: an engine on directories of its own with a small busybox image in it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from minicontainer.cgroup.group import Group
from minicontainer.engine import Engine
from minicontainer.image.store import Store

PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n"
    "guest:x:1000:1000::/home/guest:/bin/sh\n"
    "4294967296:x:0:0:an ambush::/bin/sh\n"
    "homeless:x:1001:1001:::/bin/sh\n"
)
GROUP = "root:x:0:\nguest:x:1000:\nwheel:x:10:root,guest\nstaff:x:50:guest\n"


def add_file(archive: tarfile.TarFile, name: str, data: bytes = b"", mode: int = 0o644, **fields) -> None:
    """One entry of an archive."""
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(data)
    for field, value in fields.items():
        setattr(entry, field, value)
    archive.addfile(entry, io.BytesIO(data))


def busybox_layer(path: Path) -> Path:
    """A layer archive with a static busybox, its applets and the files that name users."""
    binary = shutil.which("busybox")
    if binary is None:
        pytest.skip("no busybox on this machine (Debian: busybox-static)")
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(path, "w") as archive:
        for name, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("tmp", 0o1777),
            ("root", 0o700),
            ("home/guest", 0o755),
        ):
            add_file(archive, name, mode=mode, type=tarfile.DIRTYPE)
        add_file(archive, "bin/busybox", Path(binary).read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox":
                add_file(archive, f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
        add_file(archive, "bin/not-executable", b"#!/bin/sh\n", 0o644)
        add_file(archive, "etc/passwd", PASSWD.encode())
        add_file(archive, "etc/group", GROUP.encode())
    return path


@pytest.fixture(scope="session")
def engine_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the image "busybox"."""
    root = tmp_path_factory.mktemp("engine")
    layer = busybox_layer(root / "layer.tar")
    config = {"config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}, "created": "2024-01-01T00:00:00Z"}
    Store(root).add("busybox:latest", [layer], config)
    layer.unlink()
    return root


@pytest.fixture
def cgroup_parent(monkeypatch: pytest.MonkeyPatch) -> str:
    """A control group of the test's own."""
    name = f"minicontainer-test-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("MINICONTAINER_CGROUP_PARENT", name)
    return name


@pytest.fixture
def engine(engine_root: Path, cgroup_parent: str):
    """An engine with no containers; whatever a test leaves is removed, and must leave nothing itself."""
    made = Engine(engine_root, engine_root / "run")
    yield made
    for container in made.containers(all=True):
        made.remove(container.id, force=True)
    made.gc()
    left = engine_root / "containers"
    assert not left.exists() or os.listdir(left) == []
    assert os.listdir(engine_root / "names") == []
    assert os.listdir(engine_root / "run/containers") == []
    left = [directory for directory in Group(cgroup_parent).directories if os.path.exists(directory)]
    assert left == []


def until(condition, seconds: float = 5.0) -> bool:
    """Wait until `condition()` holds; whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(name="until")
def _until():
    return until


@pytest.fixture(scope="session", autouse=True)
def _fork_server_ends_with_the_tests():
    yield
    from minicontainer.runtime import forkserver

    forkserver.shared().close()
