"""Layers become directories: trees come back whole, and nothing hostile gets out or runs away."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import stat
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer.errors import MinicontainerError
from minicontainer.image import overlay, tar
from minicontainer.image.config import BadImage
from minicontainer.image.layers import unpack
from minicontainer.image.limits import Limits, clean
from minicontainer.image.pack import TarWriter, pack
from minicontainer.image.remove import remove_tree
from minicontainer.image.tar import BadArchive, Entry

ROOT = os.geteuid() == 0


def archive(*items) -> io.BytesIO:
    """A tar file of entries; (entry, content) gives a file its content, a bare string is an empty file."""
    file = io.BytesIO()
    writer = TarWriter(file)
    for item in items:
        entry, content = item if isinstance(item, tuple) else (item, b"")
        writer.add(Entry(entry.encode()) if isinstance(entry, str) else entry, content)
    writer.close()
    file.seek(0)
    return file


def directory(name: str, **fields) -> Entry:
    return Entry(name.encode(), tar.DIRECTORY, **{"mode": 0o755, **fields})


def symlink(name: str, target: str) -> Entry:
    return Entry(name.encode(), tar.SYMLINK, linkname=target.encode())


def link(name: str, target: str) -> Entry:
    return Entry(name.encode(), tar.LINK, linkname=target.encode())


def text(name: str, content: str, **fields) -> tuple[Entry, bytes]:
    return Entry(name.encode(), **fields), content.encode()


def listing(root: Path) -> list[str]:
    """Everything below `root`, a whiteout with a minus sign and an opaque directory with an exclamation mark."""
    found = []
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        status = path.lstat()
        if overlay.is_whiteout(status):
            name = "-" + name
        elif stat.S_ISDIR(status.st_mode):
            descriptor = os.open(path, os.O_RDONLY)
            name += "/!" if overlay.is_opaque(descriptor) else "/"
            os.close(descriptor)
        found.append(name)
    return sorted(found)


@pytest.fixture
def room(tmp_path: Path):
    """A directory `root` to unpack into, beside things that must not change."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/sentinel").write_text("untouched")
    before = fingerprint(tmp_path / "outside")
    others = set(os.listdir(tmp_path))
    yield tmp_path / "root"
    assert fingerprint(tmp_path / "outside") == before
    assert set(os.listdir(tmp_path)) == others
    remove_tree(tmp_path / "root")


def fingerprint(path: Path) -> list[tuple]:
    return [
        (str(one), status.st_mode, status.st_mtime_ns, status.st_nlink, status.st_ino)
        for one in [path, *sorted(path.rglob("*"))]
        for status in [one.lstat()]
    ]


# Trees come back whole

name = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12
)
names = name.filter(lambda text: text not in (".", "..") and not text.startswith(".wh."))
modes = st.integers(0, 0o7777)
times = st.integers(-(10**17), 4 * 10**18)
leaves = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=3000), modes, times),
    st.tuples(st.just("symlink"), names, st.just(0o777), times),
    st.tuples(st.just("fifo"), st.just(b""), modes, times),
)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda below: st.dictionaries(
        names, st.one_of(leaves, st.tuples(st.just("dir"), below, modes, times)), max_size=4
    ),
    max_leaves=12,
)


def make(tree: dict, where: Path) -> None:
    for part, (kind, value, mode, mtime) in tree.items():
        path = where / part
        if kind == "dir":
            path.mkdir()
            make(value, path)
        elif kind == "file":
            path.write_bytes(value)
        elif kind == "symlink":
            path.symlink_to(value)
        else:
            os.mkfifo(path)
        if kind != "symlink":
            os.chmod(path, mode if ROOT else mode | 0o700)
        os.utime(path, ns=(0, mtime), follow_symlinks=False)


def seen(root: Path) -> dict[str, tuple]:
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content: object = b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(root))] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink, content,
        )  # fmt: skip
    return found


@settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trees, st.booleans())
def test_tree_packed_and_unpacked_is_the_same_tree(tmp_path, tree, compressed):
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        remove_tree(path)
        path.mkdir()
    make(tree, source)
    os.utime(source, ns=(0, 1234567890))
    first, second = io.BytesIO(), io.BytesIO()
    pack(source, first)
    pack(source, second)
    assert first.getvalue() == second.getvalue(), "packing is deterministic"
    data = gzip.compress(first.getvalue(), 1) if compressed else first.getvalue()
    result = unpack(io.BytesIO(data), target)
    assert seen(target) == seen(source)
    assert result.size == len(first.getvalue())
    assert result.left_out == {}


def test_packed_names_are_sorted_with_parents_first(tmp_path):
    for name in ("c", "a", "b/z", "b/y", "b.x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    file = io.BytesIO()
    pack(tmp_path, file)
    found = [entry.name for entry in tar.TarReader(iter([file.getvalue()]))]
    assert found == [b"./", b"a", b"b/", b"b/y", b"b/z", b"b.x", b"c"]


def test_hard_links_stay_one_file(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "z").mkdir(parents=True)
    target.mkdir()
    (source / "z/first").write_text("one")
    os.link(source / "z/first", source / "second")
    os.symlink("nowhere", source / "soft")
    os.link(source / "soft", source / "soft2", follow_symlinks=False)
    file = io.BytesIO()
    pack(source, file)
    file.seek(0)
    unpack(file, target)
    assert (target / "z/first").samefile(target / "second")
    assert (target / "soft2").lstat().st_ino == (target / "soft").lstat().st_ino
    assert seen(target) == seen(source)


def test_extended_attributes_return_but_not_those_that_steer_overlayfs(room):
    steering = {b"trusted.overlay.redirect": b"/x", b"user.overlay.opaque": b"y", b"security.evil": b"1"}
    result = unpack(
        archive(
            (Entry(b"f", xattrs={b"user.note": b"\0\xff=\n", **steering}), b"x"),
            directory("d", xattrs=steering),
        ),
        room,
    )
    assert os.listxattr(room / "f") == ["user.note"]
    assert os.getxattr(room / "f", "user.note") == b"\0\xff=\n"
    assert os.listxattr(room / "d") == []
    assert result.left_out["xattrs"] == 6


def test_zeros_become_a_hole(room):
    size = 64 << 20
    file = gzip.compress(
        archive((Entry(b"big"), bytes(size)), (Entry(b"end"), b"x" + bytes(1 << 20))).getvalue(), 1
    )
    unpack(io.BytesIO(file), room)
    assert (room / "big").stat().st_size == size
    assert (room / "big").stat().st_blocks * 512 < size // 16
    assert (room / "end").read_bytes() == b"x" + bytes(1 << 20)


def test_directories_keep_the_time_they_came_with_whatever_came_into_them_later(room):
    unpack(archive(directory("d", mtime=5 * 10**9 + 7, mode=0o555), "d/later"), room)
    assert (room / "d").stat().st_mtime_ns == 5 * 10**9 + 7
    assert stat.S_IMODE((room / "d").stat().st_mode) == 0o555


def test_setuid_survives_the_change_of_owner(room):
    unpack(archive((Entry(b"su", mode=0o4755, uid=1 if ROOT else 0), b"x")), room)
    assert stat.S_IMODE((room / "su").stat().st_mode) == 0o4755


def test_later_entry_replaces_an_earlier_one(room):
    unpack(
        archive(
            directory("a"), "a/x", text("a", "file now"),
            text("b", "1"), text("b", "2"),
            text("c", "file"), directory("c"), "c/x",
            symlink("d", "c"), directory("d"), "d/own",
            directory("e", mode=0o700), "e/stays", directory("e", mode=0o711),
        ),
        room,
    )  # fmt: skip
    assert listing(room) == ["a", "b", "c/", "c/x", "d/", "d/own", "e/", "e/stays"]
    assert ((room / "a").read_text(), (room / "b").read_text()) == ("file now", "2")
    assert stat.S_IMODE((room / "e").stat().st_mode) == 0o711


def test_replacing_a_file_leaves_its_hard_links_alone(room):
    unpack(archive(text("a", "old"), link("b", "a"), text("a", "new"), link("b", "b")), room)
    assert ((room / "a").read_text(), (room / "b").read_text()) == ("new", "old")


def test_entry_of_the_root_gives_the_root_its_attributes(room):
    unpack(archive(directory("./", mode=0o711, mtime=10**9), "./x"), room)
    assert stat.S_IMODE(room.stat().st_mode) == 0o711
    assert room.stat().st_mtime_ns == 10**9


def test_root_without_an_entry_is_0755(room):
    room.chmod(0o2700)
    unpack(archive("x"), room)
    assert stat.S_IMODE(room.stat().st_mode) == 0o755


@pytest.mark.skipif(not ROOT, reason="only root may give a directory to another group")
def test_group_of_the_directory_above_is_not_inherited(room):
    os.chown(room, -1, 5)
    room.chmod(0o2700)
    unpack(archive("f", directory("d"), "d/g"), room)
    assert [path.stat().st_gid for path in (room / "f", room / "d", room / "d/g")] == [0, 0, 0]
    assert not (room / "d").stat().st_mode & stat.S_ISGID


@pytest.mark.skipif(ROOT, reason="root can give files away")
def test_ordinary_user_keeps_what_belongs_to_others(room):
    result = unpack(
        archive(Entry(b"f", uid=os.getuid() + 1), Entry(b"null", tar.CHAR, major=1, minor=3)), room
    )
    assert (room / "f").stat().st_uid == os.getuid()
    assert result.left_out == {"owners": 1, "devices": 1}


# Deletions


@pytest.mark.parametrize("order", [1, -1])
def test_whiteouts_hide_only_what_is_below(room, order):
    items = [
        directory("d"), "d/.wh.gone", "d/.wh.stays", "d/stays",
        directory("opaque"), "opaque/.wh..wh..opq", "opaque/own", "opaque/.wh.useless",
        "both/.wh..wh..opq", ".wh.swapped", directory("swapped"), "swapped/new",
    ]  # fmt: skip
    unpack(archive(*items[::order]), room)
    assert listing(room) == [
        "-d/gone", "both/!", "d/", "d/stays", "opaque/!", "opaque/own", "swapped/!", "swapped/new",
    ]  # fmt: skip


def test_content_below_a_whiteout_makes_an_opaque_directory(room):
    unpack(archive(".wh.a", "a/b/c"), room)
    assert listing(room) == ["a/!", "a/b/", "a/b/c"]


def test_bookkeeping_of_aufs_is_left_out(room):
    unpack(archive(".wh..wh.aufs", directory(".wh..wh.plnk"), ".wh..wh.plnk/1.2", "real"), room)
    assert listing(room) == ["real"]


@pytest.mark.parametrize("bad", [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b", "x/.wh.a/b/c"])
def test_whiteouts_of_nothing_are_refused(room, bad):
    (room.parent / "root.sibling").mkdir()
    try:
        with pytest.raises(BadArchive, match="whiteout"):
            unpack(archive(directory("a"), bad), room)
        assert room.is_dir()
    finally:
        (room.parent / "root.sibling").rmdir()


def test_whiteout_through_a_link_stays_inside(room):
    unpack(archive(directory("real"), symlink("way", "../../../real"), "way/.wh.x"), room)
    assert "-real/x" in listing(room)


# Layers that lean on those below


def stack(room: Path, *layers: io.BytesIO) -> tuple[list[Path], list]:
    """Unpack layers on one another, the lowest first; returns their directories (topmost first) and the results."""
    paths: list[Path] = []
    results = []
    for number, file in enumerate(layers):
        path = room / str(number)
        path.mkdir()
        results.append(unpack(file, path, lower=paths))
        paths.insert(0, path)
    return paths, results


def test_missing_parent_is_taken_from_below(room):
    lower = archive(directory("tmp", mode=0o1777, mtime=3 * 10**9), directory("a", mode=0o750), "a/x")
    (top, _), (first, second) = stack(room, lower, archive("tmp/f", "a/b/c"))
    assert (first.leans, second.leans) == (False, True)
    assert stat.S_IMODE((top / "tmp").stat().st_mode) == 0o1777
    assert (top / "tmp").stat().st_mtime_ns == 3 * 10**9
    assert stat.S_IMODE((top / "a").stat().st_mode) == 0o750
    assert stat.S_IMODE((top / "a/b").stat().st_mode) == 0o755


def test_parent_that_is_a_link_below_is_followed_inside(room):
    lower = archive(
        directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), symlink("out", "../../../usr")
    )
    (top, _), _ = stack(room, lower, archive("lib/new", "out/x/y", "lib/sub/new"))
    assert listing(top) == [
        "usr/",
        "usr/lib/",
        "usr/lib/new",
        "usr/lib/sub/",
        "usr/lib/sub/new",
        "usr/x/",
        "usr/x/y",
    ]


def test_hard_link_into_a_lower_layer_becomes_a_copy(room):
    lower = archive(directory("d"), text("d/f", "content", mode=0o640, mtime=9))
    (top, _), (_, result) = stack(room, lower, archive(link("copy", "d/f")))
    assert result.leans
    assert (top / "copy").read_text() == "content"
    assert stat.S_IMODE((top / "copy").stat().st_mode) == 0o640
    assert (top / "copy").stat().st_mtime_ns == 9
    assert listing(top) == ["copy"]


def test_hard_link_to_what_a_middle_layer_deleted_is_refused(room):
    with pytest.raises(BadArchive, match="does not exist"):
        stack(room, archive(text("f", "x")), archive(".wh.f"), archive(link("copy", "f")))


def test_hard_link_to_what_an_opaque_directory_hides_is_refused(room):
    with pytest.raises(BadArchive, match="does not exist"):
        stack(room, archive("d/f"), archive(directory("d"), "d/.wh..wh..opq"), archive(link("copy", "d/f")))


def test_hard_link_below_what_a_file_hides_is_refused(room):
    with pytest.raises(BadArchive, match="does not exist"):
        stack(room, archive("d/f"), archive("d"), archive(link("copy", "d/f")))


def test_whiteout_of_what_is_not_below_is_left_out(room):
    paths, results = stack(
        room, archive("there", ".wh.nothing"), archive(".wh.there", ".wh.nothing", "d/.wh.x")
    )
    assert [listing(path) for path in paths] == [["-there"], ["there"]]
    assert results[1].leans


def test_opaque_root_hides_name_by_name(room):
    paths, _ = stack(
        room, archive("a", "b/c", directory("d"), "d/old"), archive("a", "d/new", ".wh..wh..opq")
    )
    assert listing(paths[0]) == ["-b", "a", "d/!", "d/new"]


def test_layer_with_all_its_parents_leans_on_nothing(room):
    _, results = stack(room, archive(directory("d"), "d/f"), archive(directory("d"), "d/g", "d/.wh.f"))
    assert [result.leans for result in results] == [False, False]


# Attacks: nothing outside may change (the fixture looks), and what is refused is refused clearly

CHAIN = [symlink("l0", ".")] + [symlink(f"l{n}", "/".join([f"l{n - 1}"] * 60)) for n in range(1, 20)]
ATTACKS = {
    "dot dot": ["../outside/evil"],
    "dot dot inside": ["a/../../outside/evil"],
    "absolute dot dot": ["/../outside/evil"],
    "dot dot directory": [directory("..")],
    "dot dot at the end": [directory("a"), directory("a/../..", mode=0)],
    "hard link out": [link("h", "../outside/sentinel")],
    "hard link out, then written": [link("h", "../outside/sentinel"), text("h", "evil")],
    "absolute hard link": [link("h", "/etc/passwd")],
    "hard link through a symlink": [symlink("s", "../outside"), link("h", "s/sentinel")],
    "hard link to a directory": [directory("d"), link("h", "d")],
    "hard link to the root": [link("h", ".")],
    "hard link to nothing": [link("h", "nothing")],
    "hard link below a file": ["f", link("h", "f/x")],
    "file as a parent": ["f", "f/x"],
    "root is a file": [Entry(b".", tar.FILE)],
    "symlinks beyond PATH_MAX": [*CHAIN, "l19/evil"],
    "symlinks to symlinks to symlinks": [*CHAIN, "l1/evil"],
    "root is a symlink": [symlink(".", "../outside")],
    "whiteout out": ["../outside/.wh.sentinel"],
    "whiteout of the parent": [".wh..."],
    "opaque out": ["../outside/.wh..wh..opq"],
    "symlink to itself": [symlink("s", "s"), "s/x"],
    "symlinks in a circle": [symlink("a", "b"), symlink("b", "a"), "a/x"],
    "component too long": ["x" * 256],
    "name too long": ["/".join(["x" * 200] * 30)],
    "too deep": ["/".join(["x"] * 300)],
    "too deep by links": [
        item
        for start in range(4)
        for deep in [f"s{start}" + "/d" * 100]
        for item in (directory(deep), symlink(f"s{start + 1}", deep))
    ],
    "long link target": [symlink("s", "x" * 5000)],
    "long hard link target": [link("s", "x/" * 3000)],
    "empty symlink": [symlink("s", "")],
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused(room, attack):
    with pytest.raises(BadArchive) as caught:
        unpack(archive(*ATTACKS[attack]), room)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


STAYS_INSIDE = {
    "absolute name": (["/outside/evil"], "outside/evil"),
    "symlinked parent": ([symlink("s", "../outside"), directory("outside"), "s/evil"], "outside/evil"),
    "symlinked parent, missing": ([symlink("s", "../outside"), "s/evil"], "outside/evil"),
    "absolute symlinked parent": ([symlink("s", "/outside"), "s/evil"], "outside/evil"),
    "symlink replaced by a file": ([symlink("s", "../outside/sentinel"), text("s", "evil")], "s"),
    "symlink replaced by a directory": ([symlink("s", "../outside"), directory("s", mode=0), "s/evil"], "s"),
    "symlink with a mode and time": ([symlink("s", "../outside/sentinel"), Entry(b"s", tar.FIFO, mode=0)], "s"),
    "hard link to a symlink": ([symlink("s", "../outside/sentinel"), link("h", "s"), text("h", "evil")], "h"),
    "symlinks to symlinks": ([symlink("a", ".."), symlink("b", "a/.."), symlink("c", "b/../outside"), "c/evil"],
                             "outside/evil"),
    "magic link": ([symlink("s", "/proc/self/cwd"), "s/evil"], "proc/self/cwd/evil"),
    "parent changed to a symlink": (
        [directory("d"), "d/one", symlink("d", "../outside"), "d/evil"], "outside/evil"),
    "name not in UTF-8": ([Entry(b"\xff\xfe")], "\udcff\udcfe"),
    "inner dot dot": (["a/b/../c"], "a/c"),
}  # fmt: skip


@pytest.mark.parametrize("attack", STAYS_INSIDE)
def test_attack_stays_inside(room, attack):
    items, made = STAYS_INSIDE[attack]
    unpack(archive(*items), room)
    assert os.path.lexists(room / made)


def test_fifo_in_place_of_a_parent_does_not_block(room):
    with pytest.raises(BadArchive):
        unpack(archive(Entry(b"p", tar.FIFO), "p/x"), room)
    with pytest.raises(BadArchive):
        unpack(archive(Entry(b"q", tar.FIFO), link("h", "q/x")), room)


def test_sizes_and_counts_are_bounded(room):
    bomb = gzip.compress(archive((Entry(b"zeros"), bytes(8 << 20))).getvalue())
    with pytest.raises(BadImage, match="more than the limit of 1048576 bytes"):
        unpack(io.BytesIO(bomb), room, limits=Limits(size=1 << 20))
    many = archive(*(f"f{number}" for number in range(200)))
    with pytest.raises(BadArchive, match="more entries than the limit of 100"):
        unpack(many, room, limits=Limits(entries=100))


def test_gzip_bomb_is_inflated_in_small_steps(room):
    import tracemalloc

    bomb = gzip.compress(archive((Entry(b"zeros"), bytes(256 << 20))).getvalue(), 1)
    tracemalloc.start()
    unpack(io.BytesIO(bomb), room)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("cut", [1, 20, 300, 2000])
def test_truncated_gzip_is_refused(room, cut):
    data = gzip.compress(archive((Entry(b"f"), os.urandom(4000))).getvalue())
    with pytest.raises(BadImage):
        unpack(io.BytesIO(data[:-cut]), room)


def test_gzip_of_several_members_and_padding(room):
    data = archive((Entry(b"f"), b"x" * 5000)).getvalue()
    unpack(io.BytesIO(gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(3000)), room)
    assert (room / "f").read_bytes() == b"x" * 5000


def test_damaged_gzip_is_refused(room):
    data = bytearray(gzip.compress(archive((Entry(b"f"), os.urandom(4000))).getvalue()))
    data[2000] ^= 0xFF
    with pytest.raises(BadImage, match="damaged"):
        unpack(io.BytesIO(bytes(data)), room)


def test_reader_that_fails_is_reported_and_its_thread_ends(room):
    import threading

    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 1000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(600)

    before = threading.active_count()
    with pytest.raises(MinicontainerError, match="Input/output error"):
        unpack(Broken(archive((Entry(b"f"), b"x" * 9000)).getvalue()), room)
    assert threading.active_count() == before


def test_tee_sees_every_byte_of_the_archive(room):
    data = gzip.compress(archive("a", "b").getvalue()) + bytes(700)
    seen: list[bytes] = []
    unpack(io.BytesIO(data), room, tee=seen.append)
    assert b"".join(seen) == data


def test_no_descriptor_is_leaked(room):
    before = len(os.listdir("/proc/self/fd"))
    unpack(archive(*(f"d{number}/f" for number in range(300))), room)
    with pytest.raises(BadArchive):
        unpack(archive("x/y", "../z"), room)
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_directories_are_not_mixed_up(room):
    """More parents than are kept open at once, each used again after it was closed, with links across them."""
    items = [directory(f"d{n}") for n in range(300)]
    items += [text(f"d{n}/f", str(n)) for n in range(300)]
    items += [link(f"d{(n * 7) % 300}/l{n}", f"d{n}/f") for n in range(300)]
    unpack(archive(*items), room)
    for n in range(300):
        assert (room / f"d{n}/f").read_text() == (room / f"d{(n * 7) % 300}/l{n}").read_text() == str(n)


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_random_hostile_archives_never_get_out(tmp_path, data):
    """Names, links and whiteouts thrown together from a few parts that collide all the time."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    remove_tree(root)
    root.mkdir()
    outside.mkdir(exist_ok=True)
    (outside / "sentinel").write_text("untouched")
    os.utime(outside / "sentinel", ns=(1, 1))
    os.utime(outside, ns=(1, 1))
    before = fingerprint(outside)
    piece = st.sampled_from(
        ["a", "b", "outside", "sentinel", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..."]
    )
    path = st.lists(piece, min_size=1, max_size=5).map("/".join)
    target = st.one_of(path, st.just("../outside"), st.just(str(outside)), st.just(str(outside / "sentinel")))
    kind = st.sampled_from([tar.FILE, tar.DIRECTORY, tar.SYMLINK, tar.LINK, tar.FIFO])
    items = data.draw(
        st.lists(st.tuples(path, kind, target, st.sampled_from([0, 0o777, 0o4755])), max_size=9)
    )
    made = [Entry(n.encode(), k, mode=m, linkname=t.encode()) for n, k, t, m in items]
    try:
        unpack(archive(*((entry, b"evil" if entry.kind == tar.FILE else b"") for entry in made)), root)
    except BadArchive:
        assert True, "refusing is always allowed"
    assert fingerprint(outside) == before
    assert set(os.listdir(tmp_path)) == {"root", "outside"}
    assert not any(path.name.startswith(".wh.") for path in root.rglob("*"))


def test_clean_resolves_names_before_anything_else():
    assert clean(b"./a//b/../c/") == b"a/c"
    assert clean(b"/") == clean(b".") == b""


def test_remove_tree_does_not_follow_links(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("x")
    (tmp_path / "tree/closed").mkdir(parents=True)
    (tmp_path / "tree/closed/f").write_text("x")
    (tmp_path / "tree/link").symlink_to("../outside")
    (tmp_path / "tree/closed").chmod(0)
    remove_tree(tmp_path / "tree")
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside/f").exists()


def _reads_zstd() -> bool:
    return any(
        find_spec(name)
        for name in ("zstandard", "backports.zstd", "compression.zstd")
        if _parent_exists(name)
    )


def _parent_exists(name: str) -> bool:
    return "." not in name or find_spec(name.partition(".")[0]) is not None


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.skipif(not _reads_zstd(), reason="no zstd module in this Python")
@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd program to compress with")
def test_zstd_of_several_frames_is_read_and_damage_noticed(room):
    data = archive((Entry(b"f"), os.urandom(300_000))).getvalue()
    compressed = zstd(data[:1000]) + zstd(data[1000:])
    seen: list[bytes] = []
    result = unpack(io.BytesIO(compressed), room, tee=seen.append)
    assert (room / "f").stat().st_size == 300_000
    assert (result.size, b"".join(seen)) == (len(data), compressed)
    assert result.media_type.endswith("tar+zstd")
    (room / "f").unlink()
    with pytest.raises(BadImage):
        unpack(io.BytesIO(compressed[:1000] + b"\xff" * 50 + compressed[1050:]), room)
    with pytest.raises(BadImage):
        unpack(io.BytesIO(compressed[:-5000]), room)


@pytest.mark.skipif(_reads_zstd(), reason="this Python reads zstd")
def test_zstd_without_a_module_says_what_to_install(room):
    with pytest.raises(BadImage, match="zstd") as caught:
        unpack(io.BytesIO(b"\x28\xb5\x2f\xfd" + bytes(100)), room)
    assert "zstandard" in caught.value.hint
