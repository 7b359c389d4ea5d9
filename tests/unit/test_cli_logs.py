"""The verb ``logs`` writes a long log in blocks, in order, and hands each line out at once to who follows."""

from types import SimpleNamespace

import pytest

from minicontainer.cli import attach, containers
from minicontainer.engine.logs import Entry

LINES = [("stdout", b"a\n")] * 5000 + [("stderr", b"b\n")] * 3 + [("stdout", b"c\n")] * 2


@pytest.fixture
def written(monkeypatch):
    entries = [Entry(time="2024-05-01T12:00:00Z", stream=stream, data=data) for stream, data in LINES]
    monkeypatch.setattr(containers, "engine", lambda: SimpleNamespace(logs=lambda *_, **__: iter(entries)))
    calls = []
    monkeypatch.setattr(attach, "write_all", lambda descriptor, data: calls.append((descriptor, data)))
    return calls


def parsed(follow=False, timestamps=False):
    return SimpleNamespace(
        arguments=["x"], follow=follow, timestamps=timestamps, tail=None, since=None, until=None
    )


def test_a_long_log_is_written_in_blocks_and_its_streams_stay_in_order(written):
    assert containers.logs(parsed()) == 0
    blocks = [call for call in written if call[1]]
    assert blocks == [(1, b"a\n" * 5000), (2, b"b\n" * 3), (1, b"c\n" * 2)]


def test_a_block_does_not_grow_without_end(written):
    containers.logs(parsed(timestamps=True))  # 5000 lines of 23 bytes
    assert max(len(data) for _, data in written) < 70_000
    assert b"".join(data for _, data in written).count(b"2024-05-01T12:00:00Z ") == len(LINES)


def test_who_follows_gets_each_line_at_once(written):
    containers.logs(parsed(follow=True))
    assert [data for _, data in written if data] == [data for _, data in LINES]
