"""Unpacked layers under the real overlayfs: what the kernel shows is what the image format says."""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer.errors import MinicontainerError
from minicontainer.image import base, overlay, tar
from minicontainer.image.layers import unpack
from minicontainer.image.pack import TarWriter
from minicontainer.image.remove import remove_tree
from minicontainer.image.store import Store
from minicontainer.image.tar import Entry
from minicontainer.linux import mount as mounts
from minicontainer.linux.namespace import in_user_namespace

pytestmark = pytest.mark.needs("overlay")
REPOSITORY = Path(__file__).parents[2]
real_root = pytest.mark.skipif(
    os.geteuid() != 0 or in_user_namespace(), reason="only the machine's own root may do this"
)


def archive(*items) -> io.BytesIO:
    file = io.BytesIO()
    writer = TarWriter(file)
    for item in items:
        entry, content = item if isinstance(item, tuple) else (item, b"")
        if isinstance(entry, str):
            kind = tar.DIRECTORY if entry.endswith("/") else tar.FILE
            entry = Entry(entry.encode(), kind, mode=0o755 if kind == tar.DIRECTORY else 0o644)
        writer.add(entry, content if isinstance(content, bytes) else content.encode())
    writer.close()
    file.seek(0)
    return file


def unpacked(where: Path, *archives: io.BytesIO) -> list[Path]:
    """The archives, the lowest first, as layer directories, the topmost first."""
    paths: list[Path] = []
    for number, file in enumerate(archives):
        path = where / str(number)
        path.mkdir()
        unpack(file, path, lower=paths)
        paths.insert(0, path)
    return paths


@contextmanager
def stacked(where: Path, paths: list[Path]):
    """The layers as overlayfs shows them."""
    target = where / "merged"
    target.mkdir(exist_ok=True)
    (where / "empty").mkdir(exist_ok=True)  # one directory alone is no overlay
    options = "lowerdir=" + ":".join(map(str, [*paths, where / "empty"]))
    if in_user_namespace():
        options += ",userxattr"
    mounts.mount("overlay", str(target), "overlay", mounts.MS_RDONLY, options)
    try:
        yield target
    finally:
        mounts.umount(str(target))


def tree(root: Path) -> dict[str, tuple]:
    """Everything below `root` as listings show it, with type, mode and content."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        time = status.st_mtime_ns
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, time, content)
    return found


def test_whiteouts_and_opaque_directories_hide_what_they_should(tmp_path):
    lower = archive(
        "dir/", "dir/gone", "dir/stays", "old/", "old/a", "old/sub/", "old/sub/b", "file", "swap/", "swap/x"
    )
    upper = archive(
        ".wh.file",
        "dir/",
        "dir/.wh.gone",
        "dir/new",
        "old/.wh..wh..opq",
        "old/",
        "old/own",
        ".wh.swap",
        ("swap", "s"),
    )
    paths = unpacked(tmp_path, lower, upper)
    with stacked(tmp_path, paths[1:]) as merged:
        assert {"file", "dir/gone", "old/a", "old/sub/b", "swap/x"} <= set(tree(merged)), "they were there"
    with stacked(tmp_path, paths) as merged:
        assert sorted(tree(merged)) == ["dir", "dir/new", "dir/stays", "old", "old/own", "swap"]
        assert (merged / "swap").read_text() == "s"
        for hidden in ("file", "dir/gone", "old/a", "old/sub"):
            assert not os.path.lexists(merged / hidden)


def test_whiteout_never_shows_where_nothing_lies_below(tmp_path):
    """overlayfs lists a whiteout's name in a directory that it need not merge."""
    upper = archive(
        "only/", "only/.wh.ghost", "opaque/", "opaque/.wh.ghost", "opaque/.wh..wh..opq", ".wh.ghost"
    )
    with stacked(tmp_path, unpacked(tmp_path, archive("opaque/", "opaque/ghost"), upper)) as merged:
        assert sorted(tree(merged)) == ["only", "opaque"]


def test_opaque_root_hides_everything_below(tmp_path):
    lower = archive("a", "b/", "b/c", "d/", "d/old")
    with stacked(tmp_path, unpacked(tmp_path, lower, archive(".wh..wh..opq", "d/", "d/new"))) as merged:
        assert sorted(tree(merged)) == ["d", "d/new"]


def test_entry_of_another_type_replaces_what_is_below(tmp_path):
    lower = archive(
        "was_dir/", "was_dir/x", "was_file", (Entry(b"was_link", tar.SYMLINK, linkname=b"was_dir"), b"")
    )
    upper = archive(("was_dir", "file"), "was_file/", "was_file/y", "was_link/", "was_link/z")
    with stacked(tmp_path, unpacked(tmp_path, lower, upper)) as merged:
        assert sorted(tree(merged)) == ["was_dir", "was_file", "was_file/y", "was_link", "was_link/z"]


def test_orders_to_overlayfs_in_an_archive_are_not_obeyed(tmp_path):
    evil = {
        b"trusted.overlay.opaque": b"y",
        b"user.overlay.opaque": b"y",
        b"trusted.overlay.redirect": b"/secret",
    }
    lower = archive("dir/", "dir/x", "secret/", "secret/s")
    upper = archive((Entry(b"dir", tar.DIRECTORY, mode=0o755, xattrs=evil), b""))
    with stacked(tmp_path, unpacked(tmp_path, lower, upper)) as merged:
        assert sorted(tree(merged)) == ["dir", "dir/x", "secret", "secret/s"]


# apply(diff(a, b), a) == b, with a diff made from the format's rules and the kernel doing the applying

names = st.sampled_from(["a", "b", "c", "d"])
leaf = st.one_of(st.binary(max_size=4), st.sampled_from(["a", "../b"]))  # bytes: a file; str: a link's target
trees = st.recursive(
    st.dictionaries(names, leaf, max_size=4),
    lambda below: st.dictionaries(names, st.one_of(leaf, below), max_size=4),
)


def entries(root: dict, prefix: str = "") -> list:
    made: list = []
    for name, value in root.items():
        path = prefix + name
        if isinstance(value, dict):
            made += [path + "/", *entries(value, path + "/")]
        elif isinstance(value, str):
            made.append((Entry(path.encode(), tar.SYMLINK, linkname=value.encode()), b""))
        else:
            made.append((path, value))
    return made


def difference(old: dict, new: dict, draw, prefix: str = "") -> list:
    """What leads from `old` to `new`: changed entries, whiteouts, or an opaque directory with all of its entries."""
    if draw(st.booleans()) and old:
        whole = [prefix + ".wh..wh..opq", *entries(new, prefix)]
        return (
            draw(st.permutations(whole))
            if all(not isinstance(value, dict) for value in new.values())
            else whole
        )
    made: list = [prefix + ".wh." + name for name in old if name not in new]
    for name, value in new.items():
        if name not in old:
            made += entries({name: value}, prefix)
        elif isinstance(value, dict) and isinstance(old[name], dict):
            made += [prefix + name + "/", *difference(old[name], value, draw, prefix + name + "/")]
        elif value != old[name]:
            made += entries({name: value}, prefix)
    return made


def shape(root: Path) -> dict:
    return {
        path.name: os.readlink(path)
        if path.is_symlink()
        else shape(path)
        if path.is_dir()
        else path.read_bytes()
        for path in root.iterdir()
    }


@settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(trees, min_size=2, max_size=4), st.data())
def test_stack_of_differences_is_the_last_tree(tmp_path, versions, data):
    where = tmp_path / "case"
    remove_tree(where)
    where.mkdir()
    archives = [archive(*entries(versions[0]))]
    for old, new in zip(versions, versions[1:], strict=False):
        archives.append(archive(*difference(old, new, data.draw)))
    with stacked(where, unpacked(where, *archives)) as merged:
        assert shape(merged) == versions[-1]


# Privileges


@real_root
def test_owners_devices_and_file_capabilities_of_real_root(tmp_path):
    capability = struct.pack(
        "<IIIII", 0x02000000, 1 << 10, 0, 0, 0
    )  # VFS_CAP_REVISION_2, CAP_NET_BIND_SERVICE
    result = unpack(
        archive(
            (Entry(b"null", tar.CHAR, major=1, minor=3, mode=0o666, uid=5, gid=6, mtime=7), b""),
            (
                Entry(b"su", mode=0o6755, uid=1000, gid=1001, xattrs={b"security.capability": capability}),
                b"x",
            ),
            (Entry(b"link", tar.SYMLINK, linkname=b"su", uid=8, gid=9, mtime=10), b""),
            (Entry(b"dir", tar.DIRECTORY, mode=0o2775, uid=11, gid=12), b""),
        ),
        tmp_path,
    )
    assert result.left_out == {}
    null, su, link, directory = ((tmp_path / name).lstat() for name in ("null", "su", "link", "dir"))
    assert stat.S_ISCHR(null.st_mode) and null.st_rdev == os.makedev(1, 3)
    assert (null.st_mode & 0o7777, null.st_uid, null.st_gid, null.st_mtime_ns) == (0o666, 5, 6, 7)
    assert (su.st_mode & 0o7777, su.st_uid, su.st_gid) == (0o6755, 1000, 1001)
    assert os.getxattr(tmp_path / "su", "security.capability") == capability
    assert (link.st_uid, link.st_gid, link.st_mtime_ns) == (8, 9, 10)
    assert (directory.st_mode & 0o7777, directory.st_uid, directory.st_gid) == (0o2775, 11, 12)


IN_USER_NAMESPACE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from minicontainer.linux import mount, namespace
namespace.unshare(namespace.CLONE_NEWUSER | namespace.CLONE_NEWNS)
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"0 {sys.argv[3]} 1")
Path("/proc/self/gid_map").write_text(f"0 {sys.argv[4]} 1")
from minicontainer.image.layers import unpack
where = Path(sys.argv[2])
paths = []
left = {}
for number in (0, 1):
    path = where / str(number)
    path.mkdir()
    with open(where / f"{number}.tar", "rb") as file:
        left |= unpack(file, path, lower=paths).left_out
    paths.insert(0, path)
(where / "merged").mkdir()
mount.mount("overlay", str(where / "merged"), "overlay", mount.MS_RDONLY,
            f"lowerdir={paths[0]}:{paths[1]},userxattr")
print(sorted(str(p.relative_to(where / "merged")) for p in (where / "merged").rglob("*")), left)
"""


def test_layers_unpacked_in_a_user_namespace_work_there(tmp_path):
    (tmp_path / "0.tar").write_bytes(archive("d/", "d/gone", "d/stays", "o/", "o/old").getvalue())
    device = (Entry(b"null", tar.CHAR, major=1, minor=3), b"")
    owned = (Entry(b"owned", uid=1234), b"")
    upper = archive("d/", "d/.wh.gone", "o/", "o/.wh..wh..opq", "o/new", device, owned)
    (tmp_path / "1.tar").write_bytes(upper.getvalue())
    command = [sys.executable, "-c", IN_USER_NAMESPACE, str(REPOSITORY), str(tmp_path)]
    done = subprocess.run([*command, str(os.geteuid()), str(os.getegid())], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = ["d", "d/stays", "o", "o/new", "owned"]
    assert done.stdout.strip() == f"{expected} {{'devices': 1, 'owners': 1}}"


@real_root
def test_store_inside_another_overlay_still_deletes(tmp_path):
    """A container's own root is an overlay, where the kernel refuses the whiteout device."""
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 7):
        pytest.skip(f"whiteouts inside an overlay need Linux 6.7, this is {os.uname().release}")
    mounts.mount("tmpfs", str(tmp_path), "tmpfs", 0, "mode=755")
    try:
        for name in ("lower", "upper", "work", "outer"):
            (tmp_path / name).mkdir()
        options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        mounts.mount("overlay", str(tmp_path / "outer"), "overlay", 0, options)
        try:
            outer = tmp_path / "outer"
            lower = archive("d/", "d/gone", "d/stays", "file", "o/", "o/old")
            paths = unpacked(
                outer, lower, archive("d/", "d/.wh.gone", ".wh.file", "o/", "o/.wh..wh..opq", "o/new")
            )
            assert not overlay.is_whiteout((paths[0] / "file").lstat()), "this is the other form"
            with stacked(outer, paths) as merged:
                assert sorted(tree(merged)) == ["d", "d/stays", "o", "o/new"]
        finally:
            mounts.umount(str(tmp_path / "outer"))
    finally:
        mounts.umount(str(tmp_path))


def test_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    mounts.mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=3m,mode=755")
    try:
        store = Store(tmp_path / "data")
        (tmp_path / "layer.tar").write_bytes(gzip.compress(archive(("big", b"x" * (8 << 20))).getvalue()))
        image = store.add("big", [tmp_path / "layer.tar"], {})
        with pytest.raises(
            MinicontainerError, match="cannot unpack the layer at 'big': No space left"
        ) as caught:
            store.layer_paths(image)
        assert caught.value.hint
        assert [path.name for path in store.layers.iterdir() if path.is_dir()] == []
    finally:
        mounts.umount(str(tmp_path))


# Base images run


def run_in(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, preexec_fn=lambda: _enter(root), capture_output=True, text=True, env={})


def _enter(root: Path) -> None:
    os.chroot(root)
    os.chdir("/")


def test_busybox_image_runs_in_a_chroot(tmp_path):
    if base.find_busybox() is None:
        pytest.skip("no static busybox on this machine (busybox-static)")
    store = Store(tmp_path / "data")
    (root,) = store.layer_paths(base.make_busybox(store))
    done = run_in(
        root, "/bin/sh", "-c", "id -un; ls -d /var/www; env true; id -u nobody; ls -ld /tmp | cut -c1-10"
    )
    assert done.stdout.split() == ["root", "/var/www", "65534", "drwxrwxrwt"], done.stderr


@pytest.fixture(scope="module")
def host_root(tmp_path_factory: pytest.TempPathFactory):
    """host:latest unpacked, with a /proc for ps."""
    store = Store(tmp_path_factory.mktemp("host") / "data")
    (root,) = store.layer_paths(base.make_host(store))
    mounts.mount("/proc", str(root / "proc"), None, mounts.MS_BIND | mounts.MS_REC)
    yield root
    mounts.umount(str(root / "proc"), mounts.MNT_DETACH)


def test_host_image_has_the_tools_of_the_labs(host_root):
    script = """
        PATH=/bin:/usr/bin:/sbin:/usr/sbin
        set -e
        id -u
        hostname >/dev/null
        mkdir /tmp/d; ls -d /tmp/d; rm -r /tmp/d
        echo out | cat
        env A=1 true; sleep 0; ! false; kill -0 $$
        ps ax | grep -q ps
        echo end
    """
    done = run_in(host_root, "/bin/sh", "-c", script)
    assert done.stdout.split() == ["0", "/tmp/d", "out", "end"], done.stderr


def test_host_image_serves_http_with_python(host_root):
    (host_root / "srv/hello.txt").write_text("hello from inside")
    command = [
        "/usr/bin/python3",
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        "/srv",
    ]
    pipe = subprocess.PIPE
    server = subprocess.Popen(
        command,
        preexec_fn=lambda: _enter(host_root),
        env={},
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        first = server.stdout.readline()
        port = re.search(r"port (\d+)", first)
        assert port, first + server.stdout.read()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port[1]}/hello.txt", timeout=10) as answer:
            assert answer.read() == b"hello from inside"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        server.stdout.close()
        (host_root / "srv/hello.txt").unlink()
