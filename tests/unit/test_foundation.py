"""The ground everything stands on: errors that travel, files written whole, paths, wait statuses, steps."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import subprocess
import sys

import pytest

from minicontainer import errors, paths, steps
from minicontainer.cgroup.group import Group
from minicontainer.cgroup.hierarchy import detect
from minicontainer.linux import capability, hints, path
from minicontainer.linux.libc import SyscallError
from minicontainer.linux.mount import mount
from minicontainer.runtime.channel import Channel, step_error
from minicontainer.runtime.wait import exit_status


@pytest.mark.parametrize(
    "error",
    [
        errors.ImageNotFound("No such image: x", hint="look"),
        errors.ContainerNotFound("No such container: x"),
        errors.StepError(
            "mount: no", step="mount", syscall="mount", errno=1, path="/x", exit_code=126, traceback="T"
        ),
        errors.MinicontainerError("plain", exit_code=42),
    ],
)
def test_errors_survive_the_trip_through_a_pipe(error):
    back = errors.from_dict(error.to_dict())
    assert type(back) is type(error)
    assert back.to_dict() == error.to_dict()


def test_system_call_errors_name_the_call_and_the_path():
    with pytest.raises(SyscallError) as caught:
        mount("none", "/no/such/place", "tmpfs")
    assert caught.value.syscall == "mount"
    assert caught.value.filename == "/no/such/place"
    assert hints.describe(caught.value).startswith("mount /no/such/place: ")


def test_permission_errors_get_a_hint_that_says_what_to_do():
    error = step_error("isolate", _os_error("unshare", errno.EPERM))
    assert "minicontainer lab" in error.hint and error.errno == errno.EPERM


def _os_error(call: str, number: int) -> OSError:
    error = SyscallError(number, os.strerror(number))
    error.syscall = call
    return error


def test_whole_file_is_replaced_at_once_and_private(tmp_path):
    target = tmp_path / "record.json"
    paths.write_whole(target, "one")
    paths.write_whole(target, b"two", durable=True)
    assert target.read_text() == "two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path, monkeypatch):
    target = tmp_path / "record.json"
    paths.write_whole(target, "old")

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        paths.write_whole(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_lock_keeps_others_out_until_its_holder_dies(tmp_path):
    code = (
        "import sys,os; from minicontainer.paths import lock\n"
        "with lock(sys.argv[1]):\n print('held',flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        import fcntl

        with open(tmp_path / "lock") as file:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.stdin.close()
        holder.wait(10)
        with paths.lock(tmp_path / "lock"):
            pass


def test_directory_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(errors.MinicontainerError, match="refusing"):
        paths.private_directory(tmp_path)


@pytest.mark.parametrize(("ending", "status"), [(0, 0), (3, 3), (255, 255)])
def test_exit_codes_are_reported_as_they_are(ending, status):
    pid = os.fork()
    if pid == 0:
        os._exit(ending)
    assert exit_status(os.waitpid(pid, 0)[1]) == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_reported_as_128_plus_their_number(number):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(0)
    assert exit_status(os.waitpid(pid, 0)[1]) == 128 + number


def test_messages_and_descriptors_cross_the_channel():
    ours, theirs = Channel.pair()
    ours.send({"hello": "ü"})
    reader, writer = os.pipe()
    ours.send({"file": True}, descriptor=reader)
    assert theirs.receive() == ({"hello": "ü"}, None)
    message, descriptor = theirs.receive()
    assert message == {"file": True} and descriptor is not None
    os.write(writer, b"x")
    assert os.read(descriptor, 1) == b"x"
    assert not os.get_inheritable(descriptor)
    ours.close()
    assert theirs.receive() == (None, None)
    theirs.close()
    for open_file in (reader, writer, descriptor):
        os.close(open_file)


def test_huge_message_is_shortened_not_lost():
    ours, theirs = Channel.pair()
    ours.send({"printed": "a" + "x" * 5_000_000 + "z"})
    message, _ = theirs.receive()
    assert message is not None and message["printed"].startswith("a") and message["printed"].endswith("z")
    ours.close()
    theirs.close()


def test_every_step_of_the_table_that_has_a_default_really_has_one_with_its_signature():
    filled = [step for step in steps.TABLE.values() if step.default]
    assert {"isolate", "enter_root", "stack", "mount", "mask", "drop_capabilities"} <= {
        step.name for step in filled
    }
    for step in filled:
        parameters = [
            p
            for p in inspect.signature(steps.default(step.name)).parameters.values()
            if p.kind is not p.KEYWORD_ONLY
        ]
        required = [p for p in parameters if p.default is p.empty]
        assert len(required) == step.signature.split("->")[0].count(":"), step.name


def test_steps_hold_for_the_block_only_and_nest():
    with steps.use(mask=print):
        with steps.use(stack=print, mask=len):
            assert steps.active() == {"stack": print, "mask": len}
        assert steps.get("mask") is print
    assert steps.active() == {}
    steps.use(mask=print)
    steps.reset()
    assert steps.active() == {}


@pytest.mark.parametrize("bad", ["", "/", "../x", "a/../../b"])
def test_group_path_cannot_leave_the_hierarchy(bad):
    with pytest.raises(ValueError, match="not a path of a control group"):
        Group(bad)


def _mountinfo(tmp_path, *mounts: str) -> str:
    file = tmp_path / "mountinfo"
    file.write_text("".join(f"{n} 1 0:{n} / {mount}\n" for n, mount in enumerate(mounts)))
    return str(file)


def test_hierarchies_are_told_apart_by_mountinfo(tmp_path):
    v2 = "/sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    v1 = [
        "/sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        "/cg/memory rw - cgroup cgroup rw,memory",
    ]
    unified = "/sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    assert detect(_mountinfo(tmp_path, v2)).version == "v2"
    found = detect(_mountinfo(tmp_path, *v1))
    assert found.version == "v1"
    assert found.directories() == ["/sys/fs/cgroup/cpu,cpuacct", "/cg/memory"]
    assert detect(_mountinfo(tmp_path, *v1, unified)).version == "hybrid"
    assert detect(_mountinfo(tmp_path)).version == "none"


def test_capability_masks():
    assert capability.mask(("CAP_CHOWN", "CAP_KILL", "CAP_NOT_YET")) == 1 | 1 << 5
    assert capability.NUMBER["CAP_CHECKPOINT_RESTORE"] == 40


@pytest.mark.parametrize(
    ("given", "expected"), [("//proc/sys", "/proc/sys"), ("a/../b/./c", "/b/c"), ("../../x", "/x"), ("", "/")]
)
def test_paths_are_normalised_without_a_double_slash(given, expected):
    assert path.normal(given) == expected


def test_paths_are_made_inside_the_root_only(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "absolute").symlink_to(outside)
    (root / "up").symlink_to("../outside")
    (root / "dangling").symlink_to("deep/er")
    handle = os.open(root, os.O_PATH)
    for target in ("/absolute/a", "/up/b", "/dangling/c", "../../d", "/x/y/z"):
        os.close(path.make_in_root(handle, target, directory=True))
    os.close(path.make_in_root(handle, "/f/file", directory=False))
    os.close(handle)
    assert list(outside.iterdir()) == []
    assert (root / "deep/er/c").is_dir() and (root / "d").is_dir() and (root / "x/y/z").is_dir()
    assert (root / "outside/b").is_dir() and (root / "f/file").is_file()
    assert not (tmp_path / "d").exists()


def test_link_loop_is_an_error_not_a_hang(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    handle = os.open(tmp_path, os.O_PATH)
    with pytest.raises(OSError) as caught:
        path.make_in_root(handle, "/a/x", directory=True)
    os.close(handle)
    assert caught.value.errno == errno.ELOOP


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("ctypes", "pyroute2", "rich", "subprocess")
    code = f"import sys, minicontainer; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=_top()
    )
    assert out.stdout.strip() == "[]"


def _top() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.parametrize("name", ["plain", "with:colon", "with,comma", "back\\slash", "a:b,c\\:d"])
def test_layer_paths_survive_their_way_through_a_mount_option(name):
    from minicontainer.runtime import overlay

    layers = [f"/data/{name}/top", f"/data/{name}/low"]
    entry = overlay.as_mount(layers, "/data/upper", "/data/work")
    assert overlay.from_mount(entry) == (layers, "/data/upper", "/data/work")
