"""Base images: made from what the machine has, the same from the same, and quick when they are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicontainer.errors import MinicontainerError
from minicontainer.image import base
from minicontainer.image.elf import Elf, libraries
from minicontainer.image.store import Store
from minicontainer.image.tree import Tree

BUSYBOX = base.find_busybox()
needs_busybox = pytest.mark.skipif(
    BUSYBOX is None, reason="no static busybox on this machine (busybox-static)"
)
SHELL = os.path.realpath("/bin/sh")
needs_dynamic = pytest.mark.skipif(not Elf(SHELL).interpreter, reason="/bin/sh is static on this machine")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@needs_busybox
def test_same_binary_gives_the_same_image(store, tmp_path):
    copy = shutil.copy(BUSYBOX, tmp_path / "busybox")
    first = base.make_busybox(store, copy)
    second = base.make_busybox(Store(tmp_path / "other"), BUSYBOX)
    assert (first.id, first.manifest_digest) == (second.id, second.manifest_digest)
    assert first.references == ("busybox:latest",)
    assert first.config.cmd == ("sh",)
    assert first.config.env == ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


@needs_busybox
def test_busybox_image_has_what_programs_expect(store):
    (root,) = store.layer_paths(base.make_busybox(store))
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "root").stat().st_mode & 0o7777 == 0o700
    for directory in ("var/www", "home", "usr/bin", "usr/sbin", "proc", "sys", "dev", "run", "var/log"):
        assert (root / directory).is_dir(), directory
    users = dict(line.split(":")[::2][:2] for line in (root / "etc/passwd").read_text().splitlines())
    assert (users["root"], users["www-data"], users["nobody"]) == ("0", "33", "65534")
    groups = {line.split(":")[0] for line in (root / "etc/group").read_text().splitlines()}
    assert {"root", "www-data", "nogroup"} <= groups
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for place in ("bin", "sbin", "usr/bin", "usr/sbin"):
        for path in (root / place).iterdir():
            assert path.samefile(root / "bin/busybox"), "every name is busybox, by a relative link"
    names = {
        path.name for place in ("bin", "sbin", "usr/bin", "usr/sbin") for path in (root / place).iterdir()
    }
    assert set(applets) - names <= {"linuxrc"}
    assert {"sh", "ps", "ls", "httpd", "env"} <= names


@needs_dynamic
def test_dynamic_binary_is_refused_as_busybox(store):
    with pytest.raises(MinicontainerError, match="needs shared libraries"):
        base.make_busybox(store, SHELL)
    assert store.images() == []


def test_what_is_no_program_is_refused(store, tmp_path):
    for content in (b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + b"\xff" * 80):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(MinicontainerError, match="is not a readable ELF file"):
            base.make_busybox(store, tmp_path / "x")
    with pytest.raises(MinicontainerError, match="cannot read .*No such file"):
        base.make_busybox(store, tmp_path / "missing")


@needs_dynamic
def test_elf_header_tells_the_loader_and_the_loader_the_libraries():
    loader = Elf(SHELL).interpreter
    assert os.path.exists(loader)
    assert not Elf(SHELL).is_static
    found = libraries(SHELL, loader)
    assert any("libc.so" in path or "ld-musl" in path for path in found)
    assert all(os.path.isfile(path) for path in found)


def test_ensure_default_makes_the_image_once(store, monkeypatch):
    if BUSYBOX is None:
        monkeypatch.setattr(base, "make_host", lambda store: _tiny(store, "host"))
    image = base.ensure_default(store)
    monkeypatch.setattr(base, "make_busybox", None)  # a second making would fail
    monkeypatch.setattr(base, "make_host", None)
    started = time.perf_counter()
    assert base.ensure_default(store) == image
    assert time.perf_counter() - started < 0.05


def _tiny(store: Store, name: str):
    return base._add(store, name, Tree(), "nothing")


def test_machine_without_busybox_gets_an_image_that_says_so(store, monkeypatch):
    monkeypatch.setattr(base, "find_busybox", lambda: None)
    monkeypatch.setattr(base, "make_host", lambda store: _tiny(store, base.HOST))
    assert base.ensure_default(store).references == ("host:latest",)
    assert base.ensure_default(store).references == ("host:latest",)
    with pytest.raises(MinicontainerError, match="no static busybox"):
        base.make_busybox(store)


def _module(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MINICONTAINER_ROOT": str(root), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "minicontainer.image.base", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@needs_busybox
def test_command_makes_the_default_image_and_says_so_once(tmp_path):
    first = _module(tmp_path / "data", "--ensure")
    assert first.returncode == 0 and first.stdout.startswith("busybox:latest  "), first.stderr
    again = _module(tmp_path / "data", "--ensure", "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_command_reports_an_error_without_a_traceback(tmp_path):
    done = _module(tmp_path / "data", "--busybox", "/nonexistent")
    assert done.returncode == 125
    assert done.stderr.startswith("minicontainer: cannot read /nonexistent")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("files", "mirror"),
    [
        ({}, "http://deb.debian.org/debian"),
        ({"sources.list": "# deb http://no/debian x main\ndeb [signed-by=/k] http://one/debian bookworm main\n"},
         "http://one/debian"),
        ({"sources.list.d/debian.sources": "Types: deb\n# URIs: http://no/debian\nURIs: http://two/debian/\n"},
         "http://two/debian/"),
        ({"sources.list": "deb http://security/debian-security x main\n", "sources.list.d/off.list.disabled":
          "deb http://no/debian x main\n", "sources.list.d/x.list": "deb http://three/debian x main\n"},
         "http://three/debian"),
    ],
)  # fmt: skip
def test_mirror_is_that_of_apt(tmp_path, files, mirror):
    (tmp_path / "sources.list.d").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert base.apt_mirror(tmp_path) == mirror


def test_debian_as_an_ordinary_user_is_a_clear_error(store, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MinicontainerError, match="needs root"):
        base.make_debian(store)


def test_failing_bootstrap_is_reported_with_its_last_words(store, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tool = tmp_path / "mmdebstrap"
    tool.write_text("#!/bin/sh\necho E: no such suite >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(MinicontainerError, match="mmdebstrap failed for nosuch from .*: E: no such suite"):
        base.make_debian(store, "nosuch")
    assert store.images() == []
