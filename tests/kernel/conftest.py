"""What the kernel tests share: a root file system made of a static busybox, and OCI bundles on it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from minicontainer.runtime import container, spec


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a static busybox, its applets, and the files that name users."""
    binary = shutil.which("busybox")
    if binary is None:
        pytest.skip("no busybox on this machine (Debian: busybox-static)")
    root = tmp_path_factory.mktemp("busybox-root")
    for directory in ("bin", "etc", "tmp", "root", "home/guest"):
        (root / directory).mkdir(parents=True)
    root.chmod(0o755)
    (root / "tmp").chmod(0o1777)
    shutil.copy(binary, root / "bin/busybox")
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nguest:x:1000:\nwheel:x:10:root\n")
    return root


class Bundle:
    """An OCI bundle whose config.json a test changes before it runs it."""

    def __init__(self, directory: Path, lower: Path) -> None:
        self.directory = directory
        self.upper = directory / "upper"
        for name in ("rootfs", "upper", "work"):
            (directory / name).mkdir()
        self.id = uuid.uuid4().hex
        self.config = copy.deepcopy(spec.default_spec())
        self.config["hostname"] = self.id[:12]
        parent = os.environ.get("MINICONTAINER_CGROUP_PARENT", f"minicontainer-test-{os.getpid()}")
        self.config["linux"]["cgroupsPath"] = f"/{parent}/{self.id}"
        layers = [f"lowerdir={lower}", f"upperdir={self.upper}", f"workdir={directory}/work"]
        overlay = {"destination": "/", "type": "overlay", "source": "overlay", "options": layers}
        self.config["mounts"].insert(0, overlay)
        self.created: list[container.Process] = []

    def write(self) -> None:
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def create(self, *args: str, stdio: tuple[int, int, int] = (0, 1, 2), **options) -> container.Process:
        """Create the container with the command `args`."""
        self.config["process"]["args"] = list(args)
        self.write()
        process = container.create(self.id, self.directory, stdio, **options)
        self.created.append(process)
        return process

    def run(self, *args: str, timeout: float = 20) -> tuple[int, str, str]:
        """Run to the end; returns (exit status, standard output, standard error)."""
        out, err = (open(self.directory / name, "w+") for name in ("out", "err"))
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            process = self.create(*args, stdio=(null, out.fileno(), err.fileno()))
            process.start()
            status = self.wait(process, timeout)
            container.delete(self.directory)
            out.seek(0)
            err.seek(0)
            return status, out.read(), err.read()
        finally:
            os.close(null)
            out.close()
            err.close()

    def wait(self, process: container.Process, timeout: float = 20) -> int:
        """The exit status, as a shell says it."""
        import select

        if not select.select([process.pidfd], [], [], timeout)[0]:
            process.kill()
            os.waitpid(process.pid, 0)
            pytest.fail(f"the container did not end within {timeout} s")
        _, status = os.waitpid(process.pid, 0)
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def close(self) -> None:
        """End what a failed test left."""
        for process in self.created:
            process.kill()
            try:
                os.waitpid(process.pid, 0)
            except ChildProcessError:
                pass
            os.close(process.pidfd)
            process.channel.close()
        container.delete(self.directory, config=self.config)


@pytest.fixture
def bundle(tmp_path: Path, busybox_root: Path):
    made = Bundle(tmp_path, busybox_root)
    yield made
    made.close()
