"""The tar reader and writer against Python's tarfile, and against damaged and hostile headers."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.image import tar
from minicontainer.image.pack import TarWriter
from minicontainer.image.tar import BadArchive, Entry, TarReader

KINDS = {
    tar.FILE: tarfile.REGTYPE, tar.LINK: tarfile.LNKTYPE, tar.SYMLINK: tarfile.SYMTYPE, tar.CHAR: tarfile.CHRTYPE,
    tar.BLOCK_DEVICE: tarfile.BLKTYPE, tar.DIRECTORY: tarfile.DIRTYPE, tar.FIFO: tarfile.FIFOTYPE,
}  # fmt: skip


def read(data: bytes, chunk: int = 1000, **options) -> list[tuple[Entry, bytes]]:
    """All entries with their content, out of chunks of an odd size."""
    reader = TarReader((data[at : at + chunk] for at in range(0, len(data), chunk)), **options)
    return [(entry, b"".join(reader.content())) for entry in reader]


def with_tarfile(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in fields.items():
        setattr(made, key, value)
    return made


part = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=90
)
names = st.lists(part, min_size=1, max_size=4).map("/".join).filter(lambda name: name.strip("/.") != "")
ascii_names = st.from_regex(r"[a-z]{1,20}(/[a-z]{1,20}){0,12}", fullmatch=True)
entries = st.builds(
    lambda name, kind, target, content, xattrs, **fields: (
        Entry(
            name.encode(),
            kind,
            linkname=target.encode() if kind in (tar.LINK, tar.SYMLINK) else b"",
            xattrs={f"user.{key}".encode(): value for key, value in xattrs.items()},
            **fields,
        ),
        content if kind == tar.FILE else b"",
    ),
    names,
    st.sampled_from(sorted(KINDS)),
    names,
    st.binary(max_size=2000),
    st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), st.binary(max_size=40), max_size=2),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**40), 2**40 * 10**9),
)


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(entries, max_size=5), st.integers(1, 3000))
def test_what_is_written_is_read_back(items, chunk):
    file = io.BytesIO()
    writer = TarWriter(file)
    for entry, content in items:
        writer.add(entry, content)
    writer.close()
    found = read(file.getvalue(), chunk)
    assert [content for _, content in found] == [content for _, content in items]
    for (wanted, _), (got, _) in zip(items, found, strict=True):
        for field in ("kind", "mode", "uid", "gid", "mtime", "linkname", "xattrs", "size"):
            assert getattr(got, field) == getattr(wanted, field), field
        assert got.name.rstrip(b"/") == wanted.name.rstrip(b"/")


@settings(max_examples=80, deadline=None, database=None)
@given(st.lists(entries, max_size=4))
def test_tarfile_understands_what_is_written(items):
    file = io.BytesIO()
    writer = TarWriter(file)
    for entry, content in items:
        writer.add(entry, content)
    writer.close()
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        members = archive.getmembers()
        assert len(members) == len(items)
        for member, (entry, content) in zip(members, items, strict=True):
            assert member.name.rstrip("/") == entry.name.decode().rstrip("/")
            assert (member.uid, member.gid, member.mode) == (entry.uid, entry.gid, entry.mode)
            assert member.type == KINDS[entry.kind]
            assert member.linkname == entry.linkname.decode()
            if entry.kind == tar.FILE:
                assert archive.extractfile(member).read() == content


@settings(max_examples=100, deadline=None, database=None)
@given(
    ascii_names,
    st.binary(max_size=600),
    st.integers(0, 2**21 - 1),
    st.integers(0, 2**31),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_all_of_tarfiles_formats_are_read(name, content, uid, mtime, format):
    try:
        data = with_tarfile(
            (info(name, uid=uid, gid=uid // 2, mtime=mtime, mode=0o4751), content), format=format
        )
    except ValueError:
        return  # ustar has no room for this name
    ((entry, got),) = read(data)
    assert (entry.name, got, entry.uid, entry.gid) == (name.encode(), content, uid, uid // 2)
    assert (entry.mtime, entry.mode) == (mtime * 10**9, 0o4751)


def test_large_numbers_of_gnu_and_pax():
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        ((entry, _),) = read(
            with_tarfile((info("x", uid=2**32 - 2, gid=2**21, mtime=2**34), b""), format=format)
        )
        assert (entry.uid, entry.gid, entry.mtime) == (2**32 - 2, 2**21, 2**34 * 10**9)


def test_times_keep_their_nanoseconds():
    member = info("x", pax_headers={"mtime": "1700000000.123456789"})
    assert read(with_tarfile((member, b"")))[0][0].mtime == 1700000000123456789
    member = info("x", pax_headers={"mtime": "-1.5"})
    assert read(with_tarfile((member, b"")))[0][0].mtime == -1_500_000_000


def test_global_headers_hold_for_all_that_follow_and_own_ones_win():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "7"}) as archive:
        archive.addfile(info("a"))
        archive.addfile(info("b", pax_headers={"uid": "9"}))
        archive.addfile(info("c"))
    assert [entry.uid for entry, _ in read(file.getvalue())] == [7, 9, 7]


def test_content_of_links_is_never_expected():
    """POSIX gives links no content, whatever the size field says; Go's and GNU's readers agree."""
    link = bytearray(tar.header(Entry(b"link", tar.LINK, linkname=b"x")))
    link[124:136] = b"00000001000\0"
    link[148:156] = b"%06o\0 " % (sum(link) - sum(link[148:156]) + 8 * 32)
    data = bytes(link) + tar.header(Entry(b"after")) + bytes(1024)
    assert [entry.name for entry, _ in read(data)] == [b"link", b"after"]


def test_v7_directory_is_a_file_whose_name_ends_in_a_slash():
    old = bytearray(tar.header(Entry(b"dir", tar.DIRECTORY)))
    old[156:157] = b"\0"
    old[148:156] = b"%06o\0 " % (sum(old) - sum(old[148:156]) + 8 * 32)
    assert read(bytes(old) + bytes(1024))[0][0].kind == tar.DIRECTORY


def test_missing_end_blocks_are_accepted_and_nothing_after_them_is_read():
    one = tar.header(Entry(b"a"))
    assert len(read(one)) == 1
    assert len(read(one + bytes(1024) + one)) == 1
    assert read(b"") == []


def pax(records: bytes, then: bytes = b"") -> bytes:
    return tar._block(b"p", b"x", b"%011o\0" % len(records)) + records + bytes(-len(records) % 512) + then


ENTRY = tar.header(Entry(b"a"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"this is no tar archive".ljust(512), "not a tar archive"),
        (ENTRY[:300], "ends in the middle"),
        (tar.header(Entry(b"a", size=600)) + bytes(512), "ends in the middle"),
        (b"b" + ENTRY[1:], "checksum is wrong"),
        (tar._block(b"p", b"x", b"%011o\0" % (1 << 30)), "larger than the limit"),
        (tar._block(b"p", b"L", b"%011o\0" % (1 << 30)), "larger than the limit"),
        (tar._block(b"p", b"g", b"%011o\0" % (1 << 30)), "larger than the limit"),
        (pax(b"10 a=b\n", ENTRY), "damaged"),
        (pax(b"-7 a=b\n", ENTRY), "no length"),
        (pax(b"99999999999999999 a=b\n", ENTRY), "no length"),
        (pax(b"0 a=b\n", ENTRY), "damaged"),
        (pax(b"5 ab\n", ENTRY), "damaged"),
        (pax(tar._record(b"path", b"a\0b"), ENTRY), "NUL"),
        (pax(tar._record(b"size", b"-5"), ENTRY), "not a number"),
        (pax(tar._record(b"size", b"9" * 20), ENTRY), "impossible"),
        (pax(tar._record(b"uid", b"4294967295"), ENTRY), "impossible owner"),
        (pax(tar._record(b"gid", b"4294967296"), ENTRY), "impossible owner"),
        (pax(tar._record(b"mtime", b"1e9"), ENTRY), "not a number"),
        (pax(tar._record(b"mtime", b"9" * 18), ENTRY), "impossible time"),
        (pax(tar._record(b"path", b"b")), "before the entry"),
        (tar._block(b"s", b"S", b"%011o\0" % 0), "type that layers do not use"),
        (pax(tar._record(b"GNU.sparse.major", b"1"), ENTRY), "type that layers do not use"),
        (tar._block(b"q", b"Q", b"%011o\0" % 0), "type that layers do not use"),
    ],
)
def test_damaged_and_hostile_headers_are_refused(data, reason):
    with pytest.raises(BadArchive, match=reason):
        read(data)


def test_number_of_entries_is_bounded():
    data = b"".join(tar.header(Entry(b"%d" % number)) for number in range(50))
    assert len(read(data, max_entries=50)) == 50
    with pytest.raises(BadArchive, match="more entries than the limit of 49"):
        read(data, max_entries=49)


def test_extended_headers_count_as_entries():
    with pytest.raises(BadArchive, match="more entries"):
        read(pax(tar._record(b"path", b"x")) * 60, max_entries=50)


@settings(max_examples=300, deadline=None, database=None)
@given(st.data())
def test_reader_never_fails_otherwise(data):
    """Flip bytes of a good archive: it is read, or refused as a BadArchive, and nothing else happens."""
    good = bytearray(with_tarfile((info("dir/file", pax_headers={"mtime": "1.5"}, uid=3), b"x" * 700)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    for start in range(0, min(len(good), 3072), 512):  # give the damage a chance to be looked at
        if data.draw(st.booleans()) and good[start : start + 512] != bytes(512):
            block = good[start : start + 512]
            total = sum(block) - sum(block[148:156]) + 8 * 32
            good[start + 148 : start + 156] = b"%06o\0 " % total
    try:
        read(bytes(good))
    except BadArchive:
        return
