"""Records, locks, removal and lookups on plain directories. No privileges needed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from minicontainer.engine import bundle, create, lookup, names, record, tree
from minicontainer.engine.frozen import Frozen
from minicontainer.engine.users import User
from minicontainer.errors import MinicontainerError


def config(**changes) -> record.Config:
    fields = {
        "id": "1" * 64,
        "name": "web",
        "created": "2024",
        "image": "i",
        "image_id": "sha256:2",
        "layers": ("l",),
    }
    return record.Config(**{**fields, **changes})


# -- frozen records --------------------------------------------------------------------------------------------------


def test_frozen_record_cannot_be_changed():
    one = record.State()
    with pytest.raises(AttributeError):
        one.pid = 3  # type: ignore[misc]
    assert one.replace(pid=3).pid == 3 and one.pid == 0


def test_frozen_record_checks_its_fields():
    with pytest.raises(TypeError, match="missing"):
        record.Config(id="x")
    with pytest.raises(TypeError, match="unknown"):
        record.State(statsu="x")


def test_frozen_records_inherit_fields_and_compare():
    class Base(Frozen):
        a: int
        b: int = 2

    class More(Base):
        c: int = 3

    assert More(a=1).to_dict() == {"a": 1, "b": 2, "c": 3}
    assert More(a=1) == More.from_dict({"a": 1, "from the future": 9})
    assert More(a=1) != Base(a=1)


# -- records ---------------------------------------------------------------------------------------------------------


def test_record_survives_being_written(tmp_path):
    one = record.Record(config=config(labels={"a": "é\n"}), state=record.State(error="x"))
    record.write(str(tmp_path), one)
    assert record.read(str(tmp_path)) == one
    assert os.listdir(tmp_path) == ["record.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"config": {}}', '{"config": {"id": 1}, "state": {}}', "null"]
)
def test_damaged_record_is_a_clear_error(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(MinicontainerError, match="damaged"):
        record.read(str(tmp_path))


def test_record_is_never_seen_half_written(tmp_path):
    directory = str(tmp_path)
    record.write(directory, record.Record(config=config()))
    stop = threading.Event()

    def keep_writing() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            record.write(directory, record.Record(config=config(image="x" * (number % 50_000))))

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(300):
            assert record.read(directory).config.name == "web"
    finally:
        stop.set()
        writer.join()


def running() -> record.Record:
    return record.Record(config=config(), state=record.State(status="running", pid=os.getpid()))


def test_running_without_a_supervisor_is_repaired(tmp_path):
    directory = str(tmp_path)
    record.write(directory, running())
    (tmp_path / "config.json").write_text("{}")
    state = record.current(directory).state
    assert (state.status, state.exit_code, state.error, state.pid) == ("exited", 137, "supervisor lost", 0)
    assert record.read(directory).state == state


def test_the_end_is_known_on_a_full_disk_too(tmp_path, monkeypatch):
    directory = str(tmp_path)
    record.write(directory, running())

    def full(*_arguments, **_options) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record, "write_whole", full)
    assert record.current(directory).state.status == "exited"


def test_running_with_a_supervisor_is_believed(tmp_path):
    directory = str(tmp_path)
    record.write(directory, running())
    holder = record.hold_alive(directory)
    assert record.current(directory).state.running
    os.close(holder)
    (tmp_path / "config.json").write_text("{}")
    assert not record.current(directory).state.running


def test_supervisor_that_is_killed_lets_go(tmp_path):
    code = (
        "import sys, time\n"
        "from minicontainer.engine import record\n"
        "record.hold_alive(sys.argv[1])\n"
        "print(1, flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.read(1)
    assert record.supervised(str(tmp_path))
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert not record.supervised(str(tmp_path))


def test_lock_of_a_removed_container_is_not_taken(tmp_path):
    directory = tmp_path / "one"
    directory.mkdir()
    holder = record.acquire(str(directory))
    with pytest.raises(BlockingIOError):
        record.acquire(str(directory), blocking=False)
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            os.close(record.acquire(str(directory)))
        except FileNotFoundError as error:
            outcome.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    directory.rename(tmp_path / "gone")
    os.close(holder)
    waiting.join(5)
    assert len(outcome) == 1


# -- making ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path):
    for name in ("names", "containers"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "containers"), str(tmp_path / "names")


def test_making_a_container(places):
    before = os.umask(0o077)
    try:
        lock = create.make(config(name=""), *places)
    finally:
        os.umask(before)
    directory = f"{places[0]}/{'1' * 64}"
    with pytest.raises(BlockingIOError):
        record.acquire(directory, blocking=False)
    os.close(lock)
    name = record.read(directory).config.name
    assert names.owner(places[1], name) == "1" * 64
    assert os.stat(directory).st_mode & 0o777 == 0o700
    assert os.stat(f"{directory}/upper").st_mode & 0o777 == 0o755


def test_failed_making_leaves_nothing(places, monkeypatch):
    def full(*_arguments) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(create.record, "write", full)
    with pytest.raises(OSError, match="No space"):
        create.make(config(), *places)
    assert os.listdir(places[0]) == os.listdir(places[1]) == []


# -- removing --------------------------------------------------------------------------------------------------------


def test_tree_deeper_than_any_path_is_removed(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("top", dir_fd=here)
    inner = os.open("top", os.O_RDONLY, dir_fd=here)
    for _ in range(3000):
        os.mkdir("d" * 20, dir_fd=inner)
        with open(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=inner), "w"):
            pass
        deeper = os.open("d" * 20, os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner = deeper
    os.close(inner)
    os.close(here)
    tree.remove_tree(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == []


def test_removal_does_not_follow_links(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    inside = tmp_path / "inside"
    (inside / "upper/sub").mkdir(parents=True)
    (inside / "upper/link").symlink_to(outside)
    (inside / "upper/sub/link").symlink_to("../../../outside")
    os.mkfifo(inside / "upper/fifo")
    tree.remove_tree(str(inside))
    assert (outside / "kept").read_text() == "x" and not inside.exists()


def test_removal_of_a_link_is_refused(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(OSError):
        tree.remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "target").exists()


def test_directories_that_deny_themselves_are_removed(tmp_path):
    code = (
        "import os, sys\n"
        "from minicontainer.engine.tree import remove_tree\n"
        "os.getuid() or (os.chown(sys.argv[1], 12345, 12345), os.setresuid(12345, 12345, 12345))\n"
        "os.makedirs(sys.argv[1] + '/t/work/work/inner')\n"
        "os.chmod(sys.argv[1] + '/t/work/work', 0)\n"
        "os.chmod(sys.argv[1] + '/t/work', 0o500)\n"
        "remove_tree(sys.argv[1] + '/t')\n"
        "print(os.listdir(sys.argv[1]))\n"
    )
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents[:2]:
        os.chmod(parent, 0o755)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# -- looking into layers ---------------------------------------------------------------------------------------------


@pytest.fixture
def layers(tmp_path):
    top, middle, low = (tmp_path / name for name in ("top", "middle", "low"))
    for layer in (top, middle, low):
        layer.mkdir()
    return top, middle, low


def read(layers, path="/etc/passwd"):
    return lookup.read_layered([str(layer) for layer in layers], path)


def test_the_topmost_file_wins(layers):
    top, middle, low = layers
    for layer, text in ((middle, "middle"), (low, "low")):
        (layer / "etc").mkdir()
        (layer / "etc/passwd").write_text(text)
    (top / "etc").mkdir()
    assert read(layers) == b"middle"
    assert read(layers, "/etc/group") is None
    assert read(layers, "/nowhere/x") is None


def test_a_file_in_the_place_of_a_directory_hides_it(layers):
    top, _, low = layers
    (low / "etc").mkdir()
    (low / "etc/passwd").write_text("low")
    (top / "etc").write_text("a file")
    assert read(layers) is None


def test_an_opaque_directory_hides_what_is_below(layers):
    top, _, low = layers
    for layer in (top, low):
        (layer / "etc").mkdir()
    (low / "etc/passwd").write_text("low")
    try:
        os.setxattr(top / "etc", "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("this file system has no user.* extended attributes")
    assert read(layers) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="mknod(2) needs root")
@pytest.mark.parametrize("where", ["etc", "etc/passwd"])
def test_a_whiteout_hides_what_is_below(layers, where):
    top, _, low = layers
    (low / "etc").mkdir()
    (low / "etc/passwd").write_text("low")
    (top / where).parent.mkdir(exist_ok=True)
    try:
        os.mknod(top / where, 0o20000, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("this user namespace cannot make a whiteout")
    assert read(layers) is None


@pytest.mark.parametrize("link", ["etc", "etc/passwd"])
def test_links_are_left_to_the_kernel(layers, link):
    top, _, low = layers
    (low / "etc").mkdir()
    (top / link).parent.mkdir(exist_ok=True)
    (top / link).symlink_to("/proc/self/environ")
    with pytest.raises(lookup.Undecided):
        read(layers)


def test_only_regular_files_of_a_sane_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    with open(tmp_path / "big", "wb") as file:
        file.truncate(lookup.LARGEST + 1)
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to("loop")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in ("fifo", "directory", "out", "loop", "none"):
            assert lookup.read_in_root(root, f"/{name}") is None
        with pytest.raises(MinicontainerError, match="larger"):
            lookup.read_in_root(root, "/big")
    finally:
        os.close(root)


# -- the bundle ------------------------------------------------------------------------------------------------------


def composed(**changes):
    return bundle.compose(
        config(hostname="box", command=("id",), workdir="/w", **changes),
        User(uid=5, gid=6, groups=(6, 7), home="/h"),
        "/d",
        ["/l/top", "/l/init"],
        "parent/x",
    )


def test_bundle_says_everything():
    made = composed(env=("A=1",))
    process = made["process"]
    assert process["args"] == ["id"] and process["cwd"] == "/w" and process["terminal"] is False
    assert process["env"] == [bundle.PATH, "HOSTNAME=box", "A=1", "HOME=/h"]
    assert (process["user"]["uid"], process["user"]["gid"]) == (5, 6)
    assert made["hostname"] == "box" and made["linux"]["cgroupsPath"] == "parent/x"
    assert made["mounts"][0] == {
        "destination": "/",
        "type": "overlay",
        "source": "overlay",
        "options": ["lowerdir=/l/top:/l/init", "upperdir=/d/upper", "workdir=/d/work"],
    }
    assert {mount["destination"]: mount.get("source") for mount in made["mounts"]}["/etc/hosts"] == "/d/hosts"


def test_terminal_and_host_network():
    made = composed(tty=True, network="host")
    assert "TERM=xterm" in made["process"]["env"] and made["process"]["terminal"] is True
    assert "network" not in [entry["type"] for entry in made["linux"]["namespaces"]]


def test_missing_layer_is_a_clear_error(tmp_path):
    with pytest.raises(MinicontainerError, match="is missing"):
        bundle.absolute_layers(config(layers=("layers/gone",)), str(tmp_path))


def test_lowest_layer_is_made_once_with_all_mount_points(tmp_path):
    (tmp_path / "layers").mkdir()
    made = bundle.init_layer(str(tmp_path))
    assert made == bundle.init_layer(str(tmp_path))
    assert sorted(os.listdir(made)) == ["dev", "etc", "proc", "sys"]
    assert sorted(os.listdir(f"{made}/etc")) == ["hostname", "hosts", "resolv.conf"]
    assert os.listdir(tmp_path / "layers") == ["init"]
