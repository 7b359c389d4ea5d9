"""What goes wrong ends in one clear line, the right status, and nothing left behind; never in a traceback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from minicontainer.image.store import Store
from minicontainer.linux import mount

from .conftest import COMMAND, Cli, need_user

ORDINARY = 65534


def one_line(done: subprocess.CompletedProcess[str], status: int, pattern: str) -> None:
    """Exactly one line that begins with our name, and at most one more with the hint."""
    assert done.returncode == status, done
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, lines
    assert lines[0].startswith("minicontainer: ")
    assert re.search(pattern, done.stderr), done.stderr


def as_ordinary_user(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    need_user(ORDINARY)
    if not os.access(sys.prefix, os.R_OK | os.X_OK):
        pytest.skip("another user cannot read this Python")
    return subprocess.run(
        [*COMMAND, *words],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=20,
        user=ORDINARY,
        group=ORDINARY,
        extra_groups=[],
        cwd="/",
    )


@pytest.mark.parametrize("words", [["ps"], ["run", "busybox", "true"], ["images"]])
def test_without_permission_it_says_how_to_get_it(mc, words):
    mc.good("create", "busybox")
    os.chmod(mc.root, 0o700)
    done = as_ordinary_user(*words, MINICONTAINER_ROOT=str(mc.root), MINICONTAINER_RUN="/nonexistent/run")
    what_to_do = "--root" if words[0] == "ps" else "`minicontainer lab -- …`"
    one_line(done, 125 if words[0] == "run" else 1, rf"(?i)permission denied\n.*{what_to_do}")


@pytest.mark.needs("overlay")
def test_without_permission_to_make_namespaces_it_says_how_to_get_it(mc, tmp_path_factory):
    need_user(ORDINARY)
    root = tmp_path_factory.mktemp("ordinary")
    for directory in (root, *root.parents):
        mode = directory.stat().st_mode
        if not mode & 0o001:  # one of the test run's own, made for one user
            os.chmod(directory, mode & 0o7777 | 0o111)
    shutil.copytree(mc.root / "images", root / "images")
    for path in (root, *root.rglob("*")):
        os.chown(path, ORDINARY, ORDINARY)
    done = as_ordinary_user(
        "run", "--rm", "busybox", "true", MINICONTAINER_ROOT=str(root), MINICONTAINER_RUN=str(root / "run")
    )
    one_line(done, 125, r"(?i)operation not permitted\n.*`minicontainer lab -- …`")
    assert os.listdir(root / "containers") == []


@pytest.fixture
def small_disk(mc, tmp_path):
    """A root on a file system that its image nearly fills."""
    mount.mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=8m")
    try:
        root = tmp_path / "root"
        shutil.copytree(mc.root, root, symlinks=True, ignore=shutil.ignore_patterns("run"))
        yield root
    finally:
        mount.umount(str(tmp_path), mount.MNT_DETACH)


def fill(directory) -> None:
    with open(directory / "filler", "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return


@pytest.mark.needs("mount")
@pytest.mark.parametrize(
    "words", [["run", "--rm", "busybox", "true"], ["create", "busybox"], ["run", "-d", "busybox"]]
)
def test_a_full_disk_is_named_and_nothing_is_left(mc, small_disk, words):
    cli = Cli(small_disk, mc.environment["MINICONTAINER_CGROUP_PARENT"])
    fill(small_disk)
    done = cli(*words)
    one_line(done, 125 if words[0] == "run" else 1, r"(?i)no space left on device")
    assert done.stdout == ""
    os.unlink(small_disk / "filler")
    assert cli("ps", "-aq").stdout == ""
    assert [name for name in os.listdir(small_disk / "containers") if not name.endswith(".removing")] == []


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"config": {}}', b"\xff\xfe", b'{"config": 5, "state": 6}']
)
def test_a_damaged_record_is_named_and_can_be_removed(mc, damage):
    identifier = mc.good("create", "--name", "broken", "busybox").strip()
    mc.good("create", "--name", "fine", "busybox")
    (mc.root / "containers" / identifier / "record.json").write_bytes(damage)
    listing = mc.good("ps", "-a", "--format", "{{.ID}} {{.Names}} {{.Status}}")
    assert f"{identifier[:12]}  Dead\n" in listing
    assert " fine Created\n" in listing
    for words in (["start", "broken"], ["inspect", "broken"], ["logs", "broken"], ["exec", "broken", "true"]):
        done = mc(*words)
        assert done.returncode in (1, 126)
        assert re.match(r"minicontainer: .*record\.json is damaged: .*\n.*rm -f", done.stderr), done.stderr
    mc.good("rm", "-f", "broken")
    assert mc.good("ps", "-a", "--format", "{{.Names}}") == "fine\n"


def test_a_damaged_image_is_named_beside_the_good_ones(mc, tmp_path):
    shutil.copytree(mc.root / "images", tmp_path / "images")
    Store(tmp_path).add("broken", [], {"config": {"Cmd": ["x"]}})
    broken = Store(tmp_path).resolve("broken")
    (tmp_path / "images/blobs/sha256" / broken.id.removeprefix("sha256:")).write_text("{}")
    done = mc("--root", str(tmp_path), "images", "--format", "{{.Repository}}")
    assert (done.returncode, done.stdout) == (1, "busybox\n")
    one_line(done, 1, "damaged|digest|content")


def test_a_record_of_another_version_is_read_as_far_as_it_goes(mc):
    import json

    identifier = mc.good("create", "--name", "old", "busybox").strip()
    path = mc.root / "containers" / identifier / "record.json"
    data = json.loads(path.read_text())
    data["config"]["future"] = 1
    del data["config"]["labels"], data["state"]["oom_killed"]
    path.write_text(json.dumps(data))
    assert mc.good("ps", "-a", "--format", "{{.Names}}") == "old\n"


def test_nothing_can_steer_the_terminal_of_who_lists(mc):
    evil = "\x1b[2J\x9b31m\u202e\x07\r\n"
    mc.good("create", "--name", "evil", "-l", f"k={evil}", "busybox", "echo", evil)
    for words in (
        ["ps", "-a"],
        ["ps", "-a", "--no-trunc"],
        ["ps", "-a", "--format", '{{.Labels}} {{.Label "k"}} {{.Command}}'],
        ["ps", "-a", "--format", 'table {{.Labels}}\t{{.Label "k"}}\t{{.Command}}'],
        ["ps", "-a", "--format", "json"],
        ["ps", "-a", "--format", "{{json .Labels}}"],
        ["inspect", "evil"],
        ["inspect", "-f", "{{json .}}", "evil"],
    ):
        shown = mc.good(*words)
        assert all(character.isprintable() for character in shown.replace("\n", "")), words
        assert shown.count("\n") <= 2 or words == ["inspect", "evil"]


def test_errors_cannot_steer_the_terminal_either(mc):
    for words in (
        ["rm", "\x1b[2J"],
        ["run", "\x1b[2J"],
        ["\x1b[2J"],
        ["run", "--\x1b[2J"],
        ["ps", "-f", "\x1b[2J=1"],
    ):
        done = mc(*words)
        assert done.returncode != 0
        assert "\x1b" not in done.stderr
        assert "x1b[2J" in done.stderr


def test_inspect_on_a_terminal_shows_control_characters(mc):
    mc.good("create", "--name", "evil", "-l", "k=\x1b[2J", "busybox")
    assert (
        mc.good("inspect", "-f", '{{index .Config.Labels "k"}}', "evil") == "\x1b[2J\n"
    )  # a script gets the bytes
    terminal = mc.on_terminal("inspect", "-f", '{{index .Config.Labels "k"}}', "evil")
    terminal.expect(r"\\x1b\[2J\r\n")
    assert terminal.wait() == 0


def test_debug_shows_where_it_happened_and_nothing_else_does(mc):
    quiet = mc("run", "nosuch")
    assert "Traceback" not in quiet.stderr
    for done in (
        mc("--debug", "run", "nosuch"),
        mc("-D", "run", "nosuch"),
        mc("run", "nosuch", MINICONTAINER_DEBUG="1"),
    ):
        assert done.returncode == quiet.returncode
        assert done.stderr.startswith("Traceback (most recent call last)")
        assert done.stderr.endswith(quiet.stderr)


def test_a_fault_of_ours_is_one_line_too(mc):
    """A root that is a file: whatever comes of it, no traceback."""
    done = mc("--root", "/etc/passwd", "run", "busybox", "true")
    assert done.returncode == 125
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("minicontainer: ")


def test_the_data_root_can_be_chosen_on_the_command_line(mc, tmp_path):
    done = mc("--root", str(tmp_path / "data"), "--run-root", str(tmp_path / "run"), "images", "-q")
    assert (done.returncode, done.stdout) == (0, "")
    assert mc.good("--root", str(mc.root), "images", "-q", MINICONTAINER_ROOT="/nonexistent") != ""
