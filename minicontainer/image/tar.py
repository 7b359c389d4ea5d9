"""The tar format: blocks of 512 bytes, one header for each entry, pax records for what does not fit into it.

A layer is such an archive, and layers are hostile: Python's `tarfile` reads a pax header of any length into memory
and turns entries into files by rules of its own, so this is a reader that only reads: every header becomes an
:class:`Entry`, every length is checked first, and what to do with an entry is :mod:`minicontainer.image.layers`'
business. Used in lab 04. Source: POSIX pax, "ustar interchange format"; GNU tar manual, "Basic Tar Format";
OCI image-spec layer.md.
"""

from __future__ import annotations

from minicontainer.image.config import BadImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_FILE_TYPES = (b"0", b"\0", b"7")
_KNOWN = frozenset((FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO))
XATTR = b"SCHILY.xattr."
RECORDS_LIMIT = 1 << 20  # bytes of one pax header or GNU long name; Go's archive/tar takes as much
_ZEROS = bytes(BLOCK)
_ID_LIMIT = (1 << 32) - 2  # 4294967295 is -1, which chown(2) takes for "leave it as it is"
_SIZE_LIMIT = 1 << 62
_TIME_LIMIT = 1 << 40  # seconds either side of 1970, well inside what utimensat(2) takes


class BadArchive(BadImage):
    """The archive breaks the tar format, or a limit."""


class Entry:
    """One entry's metadata. Names are bytes: what they mean is the file system's business."""

    __slots__ = (
        "gid",
        "kind",
        "linkname",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        name: bytes,
        kind: bytes = FILE,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        linkname: bytes = b"",
        major: int = 0,
        minor: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode  # permissions with setuid, setgid and sticky, without the type
        self.uid = uid
        self.gid = gid
        self.size = size  # bytes; 0 for all but regular files
        self.mtime = mtime  # nanoseconds since 1970
        self.linkname = linkname
        self.major = major
        self.minor = minor
        self.xattrs = xattrs or {}

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.kind!r}, {self.mode:o}, {self.uid}:{self.gid}, {self.size})"


class TarReader:
    """Entries out of a stream of chunks: ``for entry in reader: … reader.content() …``.

    :raises BadArchive: while iterating: broken headers, an archive that ends early, more entries than `max_entries`.
    """

    def __init__(self, chunks: Iterator[bytes], *, max_entries: int = 1 << 62) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")
        self._left = 0  # bytes of the current entry's content not read yet
        self._padding = 0
        self._max_entries = max_entries
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        count = 0
        records: dict[bytes, bytes] = {}
        long_name = long_link = b""
        pending = False
        while True:
            self._skip()
            header = self._header()
            if header is None:
                if pending:
                    raise BadArchive(
                        "the archive ends after an extended header, before the entry it belongs to"
                    )
                return
            count += 1
            if count > self._max_entries:
                raise BadArchive(f"the archive has more entries than the limit of {self._max_entries}")
            kind = header[156:157]
            if kind in (b"x", b"g", b"L", b"K"):
                data = self._extended(_number(header[124:136], "size"))
                if kind == b"x":
                    records = _records(data)
                elif kind == b"g":
                    self._global = self._merge_global(_records(data))
                elif kind == b"L":
                    long_name = data.split(b"\0", 1)[0]
                else:
                    long_link = data.split(b"\0", 1)[0]
                pending = kind != b"g"
                continue
            entry = _entry(header, self._global | records if self._global else records, long_name, long_link)
            records, long_name, long_link, pending = {}, b"", b"", False
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            yield entry

    def content(self) -> Iterator[memoryview]:
        """The current entry's content, in pieces.

        :raises BadArchive: where the archive ends first.
        """
        while self._left:
            if not self._chunk:
                self._next()
            piece = self._chunk[: self._left]
            self._chunk = self._chunk[len(piece) :]
            self._left -= len(piece)
            yield piece

    def _merge_global(self, records: dict[bytes, bytes]) -> dict[bytes, bytes]:
        merged = self._global | records
        if sum(len(key) + len(value) for key, value in merged.items()) > RECORDS_LIMIT:
            raise BadArchive("the archive's global headers are larger than the limit")
        return merged

    def _next(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise BadArchive("the archive ends in the middle of an entry")
        self._chunk = memoryview(chunk)

    def _skip(self) -> None:
        """Pass over what nobody read of the last entry, and the padding after it."""
        count = self._left + self._padding
        self._left = self._padding = 0
        while count:
            if not self._chunk:
                self._next()
            step = min(count, len(self._chunk))
            self._chunk = self._chunk[step:]
            count -= step

    def _take(self, count: int) -> bytes:
        if len(self._chunk) >= count:
            data = bytes(self._chunk[:count])
            self._chunk = self._chunk[count:]
            return data
        parts = []
        while count:
            if not self._chunk:
                self._next()
            part = self._chunk[:count]
            parts.append(part)
            self._chunk = self._chunk[len(part) :]
            count -= len(part)
        return b"".join(parts)

    def _header(self) -> bytes | None:
        """The next header block; None at the end, which is a block of zeros or just the end of the data."""
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            self._chunk = memoryview(chunk)
        header = self._take(BLOCK)
        if header == _ZEROS:
            return None
        stored = _number(header[148:156], "checksum")
        if stored != sum(header) - sum(header[148:156]) + 8 * 0x20:
            raise BadArchive("not a tar archive: a header's checksum is wrong")
        return header

    def _extended(self, size: int) -> bytes:
        if size > RECORDS_LIMIT:
            raise BadArchive(
                f"an extended header of {size} bytes is larger than the limit of {RECORDS_LIMIT}"
            )
        data = self._take(size)
        self._padding = -size % BLOCK
        return data


def _entry(header: bytes, records: dict[bytes, bytes], long_name: bytes, long_link: bytes) -> Entry:
    """Put a header and what extends it together; pax wins over GNU's long names, and these over the header."""
    name, kind, linkname = _text(header[:100]), header[156:157], _text(header[157:257])
    if header[257:263] == b"ustar\0":
        prefix = _text(header[345:500])
        if prefix:
            name = prefix + b"/" + name
    name = records.get(b"path", long_name or name)
    linkname = records.get(b"linkpath", long_link or linkname)
    if b"\0" in name or b"\0" in linkname:
        raise BadArchive("an entry's name holds a NUL byte")
    if kind in _FILE_TYPES:
        kind = (
            DIRECTORY if name.endswith(b"/") else FILE
        )  # before ustar a directory was a file whose name ends in /
    if kind not in _KNOWN or any(key.startswith(b"GNU.sparse.") for key in records):
        raise BadArchive(
            f"entry {shown(name)} has a type that layers do not use ({shown(kind)})",
            hint="sparse and multi-volume archives have to be made again as plain tar",
        )
    size = _decimal(records[b"size"], "size") if b"size" in records else _number(header[124:136], "size")
    uid = _decimal(records[b"uid"], "uid") if b"uid" in records else _number(header[108:116], "uid")
    gid = _decimal(records[b"gid"], "gid") if b"gid" in records else _number(header[116:124], "gid")
    if not (0 <= uid <= _ID_LIMIT and 0 <= gid <= _ID_LIMIT and 0 <= size <= _SIZE_LIMIT):
        raise BadArchive(f"entry {shown(name)} has an impossible owner or size ({uid}:{gid}, {size} bytes)")
    if b"mtime" in records:
        mtime = _nanoseconds(records[b"mtime"])
    else:
        mtime = _number(header[136:148], "mtime") * 1_000_000_000
    if abs(mtime) > _TIME_LIMIT * 1_000_000_000:
        raise BadArchive(f"entry {shown(name)} has an impossible time")
    entry = Entry(name, kind, mode=_number(header[100:108], "mode") & 0o7777, uid=uid, gid=gid, mtime=mtime)
    entry.size = size if kind == FILE else 0  # POSIX: other types have no content, whatever the field says
    entry.linkname = linkname
    if kind in (CHAR, BLOCK_DEVICE):
        entry.major, entry.minor = _number(header[329:337], "major"), _number(header[337:345], "minor")
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
            raise BadArchive(f"entry {shown(name)} has an impossible device number")
    if records:
        entry.xattrs = {key[len(XATTR) :]: value for key, value in records.items() if key.startswith(XATTR)}
    return entry


def shown(name: bytes) -> str:
    """A hostile name for a message: printable, and not long."""
    text = ascii(name[:200].decode("utf-8", "replace"))
    return text if len(name) <= 200 else text + "…"


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes, what: str) -> int:
    """A header's number: octal digits, or base 256 where the first bit is set (GNU, for large ones)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise BadArchive(f"not a tar archive: a header's {what} is not a number")
    return int(digits, 8)


def _decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise BadArchive(f"a pax header's {what} is not a number")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    """A pax time, such as -12.345678901, as whole nanoseconds: a float would lose the last digits."""
    negative = text.startswith(b"-")
    whole, _, fraction = text.lstrip(b"-").partition(b".")
    if (fraction and not fraction.isdigit()) or len(text) > 64:
        raise BadArchive("a pax header's mtime is not a number")
    value = _decimal(whole or b"0", "mtime") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -value if negative else value


def _records(data: bytes) -> dict[bytes, bytes]:
    """Pax records: ``<length> <key>=<value>\\n``, the length in decimal and counting the whole record."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        length = data[position:space]
        if space < 0 or not length.isdigit():
            raise BadArchive("a pax header's record has no length")
        end = position + int(length)
        record = data[space + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or record[-1:] != b"\n" or not equals or not key:
            raise BadArchive("a pax header's record is damaged")
        if value or key.startswith(XATTR):
            records[key] = value
        else:
            records.pop(key, None)  # an empty value takes the key back
        position = end
    return records


def header(entry: Entry) -> bytes:
    """The blocks that begin an entry: a pax header where the plain one cannot hold everything, then that.

    The same entry always gives the same bytes.
    """
    records: dict[bytes, bytes] = {}
    name = entry.name + b"/" if entry.kind == DIRECTORY and not entry.name.endswith(b"/") else entry.name
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if len(entry.linkname) > 100 or not entry.linkname.isascii():
        records[b"linkpath"] = entry.linkname
    seconds, fraction = divmod(entry.mtime, 1_000_000_000)
    if fraction or not 0 <= seconds < 1 << 33:
        sign = b"-" if entry.mtime < 0 else b""
        whole, rest = divmod(abs(entry.mtime), 1_000_000_000)
        records[b"mtime"] = sign + b"%d" % whole + (b".%09d" % rest).rstrip(b"0").rstrip(b".")
        seconds = 0 if not 0 <= seconds < 1 << 33 else seconds
    fields = {"size": (entry.size, 11), "uid": (entry.uid, 7), "gid": (entry.gid, 7)}
    octal = {}
    for key, (value, digits) in fields.items():
        if value >= 8**digits:
            records[key.encode()] = b"%d" % value
            value = 0
        octal[key] = b"%0*o\0" % (digits, value)
    records |= {XATTR + key: value for key, value in entry.xattrs.items()}
    extension = b""
    if records:
        data = b"".join(_record(key, records[key]) for key in sorted(records))
        extension = (
            _block(b"PaxHeaders/entry", b"x", b"%011o\0" % len(data)) + data + bytes(-len(data) % BLOCK)
        )
    return extension + _block(
        name[:100], entry.kind, octal["size"], mode=b"%07o\0" % entry.mode, uid=octal["uid"], gid=octal["gid"],
        mtime=b"%011o\0" % seconds, linkname=entry.linkname[:100], major=entry.major, minor=entry.minor,
    )  # fmt: skip


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    total = length + len(b"%d" % length)
    total = length + len(b"%d" % total)
    return b"%d %s=%s\n" % (total, key, value)


def _block(
    name: bytes, kind: bytes, size: bytes, *, mode: bytes = b"0000644\0", uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0", mtime: bytes = b"00000000000\0", linkname: bytes = b"", major: int = 0, minor: int = 0,
) -> bytes:  # fmt: skip
    """One ustar header with its checksum."""
    device = b"%07o\0%07o\0" % (major, minor)
    block = (
        name.ljust(100, b"\0")
        + mode
        + uid
        + gid
        + size
        + mtime
        + b" " * 8
        + kind
        + linkname.ljust(100, b"\0")
    )
    block += b"ustar\x0000" + bytes(64) + device
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
