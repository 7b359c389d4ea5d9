"""Frames, logs and the relay, with plain processes in the place of containers. No privileges needed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.engine import logs
from minicontainer.engine.attach import Attachment
from minicontainer.engine.frames import CONTROL, STDERR, STDOUT, FrameReader, control, frame
from minicontainer.engine.process import Streams
from minicontainer.engine.stdio import Client, Relay

# -- frames ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40))), st.integers(1, 50))
def test_frames_survive_any_cutting(messages, size):
    stream = b"".join(frame(kind, data) for kind, data in messages)
    reader = FrameReader()
    received = []
    for start in range(0, len(stream), size):
        received += reader.feed(stream[start : start + size])
    assert received == messages


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.1\r\n", frame(1, b"")[:4] + b"\xff\xff\xff\xff"])
def test_what_is_no_frame_is_refused(nonsense):
    with pytest.raises(ValueError, match="not a frame"):
        FrameReader().feed(nonsense)


# -- logs ------------------------------------------------------------------------------------------------------------


def written(path, *pieces: tuple[int, bytes]) -> list[logs.Entry]:
    log = logs.LogWriter(str(path))
    for kind, data in pieces:
        log.write(kind, data)
    log.close()
    return list(logs.read(str(path)))


def test_a_line_is_one_entry_however_it_arrives(tmp_path):
    entries = written(tmp_path / "log", (1, b"he"), (2, b"err\n"), (1, b"llo\nwor"), (1, b"ld"))
    assert [(entry.stream, entry.data) for entry in entries] == [
        ("stderr", b"err\n"),
        ("stdout", b"hello\n"),
        ("stdout", b"world"),
    ]


def test_long_lines_are_cut(tmp_path):
    entries = written(tmp_path / "log", (1, b"x" * 40_000 + b"\n"))
    assert [len(entry.data) for entry in entries] == [16384, 16384, 40_000 - 2 * 16384 + 1]


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=60)), max_size=12))
def test_no_byte_is_lost_or_moved_between_streams(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("log") / "log"
    entries = written(path, *pieces)
    for kind, name in ((1, "stdout"), (2, "stderr")):
        assert b"".join(entry.data for entry in entries if entry.stream == name) == b"".join(
            data for piece_kind, data in pieces if piece_kind == kind
        )
    for line in path.read_text().splitlines():
        assert set(json.loads(line)) == {"log", "stream", "time"}


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200_000))
def test_tail_is_the_end_of_everything(tmp_path_factory, lines, tail, length):
    path = tmp_path_factory.mktemp("log") / "log"
    log = logs.LogWriter(str(path))
    for number in range(lines):
        log.write(1, b"%d:" % number + b"y" * (length // max(1, lines) % 9000) + b"\n")
    log.close()
    everything = [entry.data for entry in logs.read(str(path))]
    assert [entry.data for entry in logs.read(str(path), tail=tail)] == everything[max(0, lines - tail) :]


def test_a_line_cut_short_by_a_crash_is_passed_over(tmp_path):
    path = tmp_path / "log"
    written(path, (1, b"good\n"))
    with open(path, "ab") as file:
        file.write(b'{"log":"half')
    assert [entry.data for entry in logs.read(str(path))] == [b"good\n"]
    with open(path, "ab") as file:
        file.write(b"\nnot json\n")
    written(path, (1, b"after\n"))
    assert [entry.data for entry in logs.read(str(path))] == [b"good\n", b"after\n"]


def test_a_log_that_does_not_exist_is_empty(tmp_path):
    assert list(logs.read(str(tmp_path / "none"), tail=5)) == []


def test_a_full_disk_loses_output_and_says_so():
    log = logs.LogWriter("/dev/full")
    log.write(1, b"lost\n")
    assert "No space left" in log.error
    log.close()


def test_following_takes_what_was_written_with_the_last_word(tmp_path):
    path = str(tmp_path / "log")
    log = logs.LogWriter(path)
    log.write(1, b"one\n")

    def wait() -> bool:
        log.write(1, b"last\n")
        return False

    assert [entry.data for entry in logs.read(path, wait=wait)] == [b"one\n", b"last\n"]
    log.close()


# -- the relay -------------------------------------------------------------------------------------------------------


class Bench:
    """A relay in a thread, with a plain process as its program and one client."""

    def __init__(self, *command: str, stdin_once: bool = False) -> None:
        self.streams = Streams(stdin_open=True)
        stdin, stdout, stderr = self.streams.stdio
        self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr)
        self.streams.close_theirs()
        self.pidfd = os.pidfd_open(self.process.pid)
        self.relay = Relay(sources=self.streams.sources, sink=self.streams.sink, stdin_once=stdin_once)
        ours, theirs = socket.socketpair()
        self.attachment = Attachment(ours, "x")
        self.relay.add(Client(theirs, output=True, owner=True))
        self.status: int | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.status = self.relay.run(self.process.pid, self.pidfd)
        self.process.returncode = self.status
        self.relay.finish(control(exit=self.status))
        os.close(self.pidfd)

    def close(self) -> None:
        self.attachment.close()
        try:
            if self.status is None:
                os.kill(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # reaped just now
        self.thread.join(10)


@pytest.fixture
def bench():
    made: list[Bench] = []

    def make(*command: str, **options) -> Bench:
        made.append(Bench(*command, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_streams_are_kept_apart_and_the_status_comes_last(bench):
    attachment = bench("sh", "-c", "echo out; echo err >&2; exit 3").attachment
    assert attachment.collect() == (3, b"out\n", b"err\n")


def test_status_of_a_killed_program(bench):
    assert bench("sh", "-c", "kill -9 $$").attachment.collect()[0] == 137


def test_a_lot_of_input_and_output_at_once(bench):
    data = os.urandom(6_000_000)
    assert bench("cat").attachment.collect(data, timeout=60) == (0, data, b"")


def test_output_that_came_before_the_wait_is_not_lost(bench):
    attachment = bench("echo", "early").attachment
    time.sleep(0.3)
    attachment.started = 0
    while attachment.status is None:  # everything arrives in one piece, the end with it
        attachment._early += attachment._receive()
    assert attachment.collect() == (0, b"early\n", b"")


def test_program_that_does_not_read_its_input_can_still_end(bench):
    assert (
        bench("sh", "-c", "exec <&-; sleep 0.2; exit 4").attachment.collect(bytes(5_000_000), timeout=20)[0]
        == 4
    )


def test_client_that_leaves_does_not_end_the_program(bench):
    one = bench(sys.executable, "-c", "import time; time.sleep(0.5); print('x' * 100000)")
    one.attachment.close()
    one.thread.join(10)
    assert one.status == 0


def test_input_ends_with_its_owner(bench):
    one = bench("cat", stdin_once=True)
    one.attachment.send(b"x")
    one.attachment.close()
    one.thread.join(10)
    assert one.status == 0


def test_client_that_talks_nonsense_is_dropped(bench):
    one = bench("sleep", "0.5")
    one.attachment._socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert one.attachment.receive() == []
    assert one.attachment.lost
    one.thread.join(10)
    assert one.status == 0


@pytest.mark.parametrize("message", ['{"resize": 5}', '{"attach": 1}', "[]", "{", '"x"', '{"signal": "a"}'])
def test_bad_control_frames_do_not_hurt(bench, message):
    one = bench("sleep", "0.4")
    one.attachment._socket.sendall(frame(CONTROL, message.encode()))
    one.thread.join(10)
    assert one.status == 0


def test_slow_client_makes_the_program_wait(bench):
    one = bench("sh", "-c", "yes 0123456789 | head -c 20000000; echo end >&2")
    time.sleep(0.7)
    assert one.thread.is_alive()
    assert len(one.relay.clients[0].backlog) < 2_000_000
    status, stdout, stderr = one.attachment.collect(timeout=30)
    assert (status, len(stdout), stderr) == (0, 20_000_000, b"end\n")


def test_signal_through_the_relay(bench):
    one = bench("sleep", "100")
    one.attachment.signal(15)
    assert one.attachment.collect(timeout=10)[0] == 143


def test_background_process_that_holds_the_output_does_not_hold_the_end(bench):
    start = time.monotonic()
    assert bench("sh", "-c", "sleep 3 & echo hi").attachment.collect() == (0, b"hi\n", b"")
    assert time.monotonic() - start < 2


def test_detaching_by_keys(bench):
    one = bench("cat")
    reader, writer = os.pipe()
    os.write(writer, b"\x10\x11")
    assert one.attachment.pump(lambda kind, data: None, stdin=reader, on_input=lambda data: None) is None
    os.close(reader)
    os.close(writer)


def test_error_of_the_other_side_is_raised():
    from minicontainer.errors import StepError

    ours, theirs = socket.socketpair()
    attachment = Attachment(ours, "x")
    theirs.sendall(control(error=StepError("exec: 'x': not found", exit_code=127).to_dict()))
    with pytest.raises(StepError, match="not found") as caught:
        attachment.wait_started()
    assert caught.value.exit_code == 127
    attachment.close()
    theirs.close()


def test_the_other_side_that_goes_without_a_word_is_noticed():
    ours, theirs = socket.socketpair()
    attachment = Attachment(ours, "x")
    theirs.sendall(frame(STDOUT, b"a") + frame(STDERR, b"b"))
    theirs.close()
    assert attachment.collect() == (137, b"a", b"b")
    assert attachment.lost
    attachment.close()
