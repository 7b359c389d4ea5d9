"""``minicontainer-oci`` as an engine above it calls it: one short process a command, nothing remembered but on disk."""

from __future__ import annotations

import array
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicontainer.cgroup.group import Group
from minicontainer.linux.namespace import in_user_namespace
from minicontainer.runtime import spec


class Oci:
    """The command with a state directory of its own, and one bundle."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory = directory
        self.state_root = directory / "state"
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        self.config = spec.default_spec()
        self.config["root"] = {"path": str(root), "readonly": True}
        parent = os.environ.get("MINICONTAINER_CGROUP_PARENT", f"minicontainer-test-{os.getpid()}")
        self.config["linux"]["cgroupsPath"] = f"/{parent}/{directory.name}"
        self.log = directory / "log.json"

    def command(self, *words: str) -> list[str]:
        head = [sys.executable, "-m", "minicontainer.cli.oci", "--root", str(self.state_root)]
        return [*head, "--log", str(self.log), "--log-format", "json", *words]

    def __call__(self, *words: str, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
        options = {"stdin": subprocess.DEVNULL, "capture_output": True} | options
        done = subprocess.run(self.command(*words), text=True, timeout=30, **options)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def write(self, *args: str) -> None:
        self.config["process"]["args"] = list(args)
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def create(self, name: str, *args: str, **options) -> subprocess.CompletedProcess[str]:
        """Create with output to files: the container inherits them, so a pipe would stay open."""
        self.write(*args)
        words = ["create", "--bundle", str(self.bundle), "--pid-file", str(self.directory / "pid")]
        words += options.pop("words", [])
        with open(self.directory / "out", "w") as out, open(self.directory / "err", "w") as err:
            done = self(*words, name, capture_output=False, stdout=out, stderr=err, check=False, **options)
        done.stderr = (self.directory / "err").read_text()
        return done

    def status(self, name: str) -> str:
        state: dict[str, str] = json.loads(self("state", name).stdout)
        return state["status"]

    def await_status(self, name: str, wanted: str) -> None:
        deadline = time.monotonic() + 10
        while self.status(name) != wanted:
            assert time.monotonic() < deadline, f"{name} is {self.status(name)}, not {wanted}"
            time.sleep(0.02)

    def output(self) -> str:
        return (self.directory / "out").read_text()


@pytest.fixture
def oci(tmp_path, busybox_root):
    for name in ("dev", "proc", "sys"):
        (busybox_root / name).mkdir(exist_ok=True)
    made = Oci(tmp_path, busybox_root)
    yield made
    if made.state_root.exists():
        for name in os.listdir(made.state_root):
            made("delete", "--force", name)
    parent = Path(made.config["linux"]["cgroupsPath"]).parent
    for directory in Group(str(parent)).directories:
        if os.path.isdir(directory) and not any(path.is_dir() for path in list(Path(directory).iterdir())):
            os.rmdir(directory)


def test_a_life_in_single_commands(oci):
    assert oci.create("c1", "sh", "-c", "echo started; exit 3").returncode == 0
    pid = int((oci.directory / "pid").read_text())
    state = json.loads(oci("state", "c1").stdout)
    assert state["status"] == "created" and state["pid"] == pid and state["bundle"] == str(oci.bundle)
    assert state["id"] == "c1" and state["ociVersion"]
    assert oci.output() == ""
    oci("start", "c1")
    oci.await_status("c1", "stopped")
    assert oci.output() == "started\n"
    oci("delete", "c1")
    assert oci("state", "c1", check=False).returncode == 1
    assert os.listdir(oci.state_root) == []


def test_maker_is_gone_and_init_belongs_to_the_subreaper(oci):
    oci.create("c1", "sleep", "100")
    oci("start", "c1")
    pid = int((oci.directory / "pid").read_text())
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert "minicontainer.cli.oci" not in Path(f"/proc/{parent}/cmdline").read_text()
    oci("kill", "c1", "KILL")
    oci.await_status("c1", "stopped")


def test_run_waits_and_returns_the_programs_status(oci):
    oci.write("sh", "-c", "echo $$; cat; exit 7")
    done = oci("run", "--bundle", str(oci.bundle), "c1", check=False, stdin=None, input="from stdin\n")
    assert (done.returncode, done.stdout) == (7, "1\nfrom stdin\n")
    assert not oci.state_root.exists() or os.listdir(oci.state_root) == []


def test_later_edits_of_the_configuration_have_no_effect(oci):
    oci.create("c1", "echo", "as created")
    oci.write("echo", "edited")
    oci("start", "c1")
    oci.await_status("c1", "stopped")
    assert oci.output() == "as created\n"


def test_ids_are_unique_and_cannot_leave_the_directory(oci):
    oci.create("c1", "sleep", "100")
    again = oci.create("c1", "sleep", "100")
    assert again.returncode == 1 and "already exists" in again.stderr
    assert oci.status("c1") == "created"
    for bad in ("../x", "a/b", "", "."):
        assert oci.create(bad, "true").returncode != 0


def test_wrong_order_is_refused_in_words(oci):
    oci.create("c1", "sleep", "100")
    oci("start", "c1")
    twice = oci("start", "c1", check=False)
    assert twice.returncode == 1 and "running" in twice.stderr
    running = oci("delete", "c1", check=False)
    assert running.returncode == 1 and "not stopped" in running.stderr
    oci("kill", "c1", "9")
    oci.await_status("c1", "stopped")
    late = oci("kill", "c1", check=False)
    assert late.returncode == 1 and "not running" in late.stderr
    oci("delete", "c1")
    assert oci("delete", "c1", check=False).returncode == 1
    oci("delete", "--force", "c1")


def test_failed_create_leaves_nothing_and_logs_for_the_engine(oci):
    done = oci.create("c1", "nowhere")
    assert done.returncode == 1 and "executable file not found in $PATH" in done.stderr
    assert os.listdir(oci.state_root) == []
    entry = json.loads(oci.log.read_text().splitlines()[-1])
    assert entry["level"] == "error" and "executable file not found" in entry["msg"]
    assert not any(os.path.isdir(d) for d in Group(oci.config["linux"]["cgroupsPath"]).directories)


def test_exec_runs_beside_init(oci):
    oci.create("c1", "sleep", "100")
    assert oci("exec", "c1", "true", check=False).returncode == 1  # only created
    oci("start", "c1")
    done = oci("exec", "c1", "sh", "-c", "ps -o pid,args | head -2; exit 9", check=False)
    assert done.returncode == 9 and done.stdout.split("\n")[1].split() == ["1", "sleep", "100"]
    process = oci.directory / "process.json"
    process.write_text(
        json.dumps({"args": ["env"], "env": ["PATH=/bin", "X=1"], "cwd": "/tmp", "user": {"uid": 5}})
    )
    done = oci("exec", "--process", str(process), "c1")
    assert sorted(done.stdout.split()) == ["HOME=/", "PATH=/bin", "X=1"]


@pytest.mark.needs("cgroups")
def test_detached_exec_leaves_a_pid_that_ps_knows(oci):
    oci.create("c1", "sleep", "100")
    oci("start", "c1")
    with open(oci.directory / "exec-out", "w") as out:
        words = ["exec", "--detach", "--pid-file", str(oci.directory / "exec-pid"), "c1", "sleep", "50"]
        oci(*words, capture_output=False, stdout=out, stderr=out)
    assert int((oci.directory / "exec-pid").read_text()) in json.loads(
        oci("ps", "--format", "json", "c1").stdout
    )


@pytest.mark.needs("cgroups")
def test_pause_and_resume(oci):
    oci.create("c1", "sh", "-c", "while :; do echo x; sleep 0.01; done")
    oci("start", "c1")
    time.sleep(0.2)
    oci("pause", "c1")
    assert oci.status("c1") == "paused"
    before = len(oci.output())
    time.sleep(0.2)
    assert len(oci.output()) == before > 0
    oci("resume", "c1")
    assert oci.status("c1") == "running"
    time.sleep(0.2)
    assert len(oci.output()) > before
    oci("pause", "c1")
    oci("delete", "--force", "c1")


def test_terminal_goes_to_the_console_socket(oci, tmp_path):
    oci.config["process"]["terminal"] = True
    path = str(tmp_path / "console.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(1)
        assert (
            oci.create("c1", "sh", "-c", "tty; stty size", words=["--console-socket", path]).returncode == 0
        )
        connection, _ = server.accept()
        _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_LEN(4))
        connection.close()
    master = array.array("i", ancillary[0][2][:4])[0]
    oci("start", "c1")
    text = os.read(master, 100).decode()
    os.close(master)
    assert text.startswith(("/dev/console", "/dev/pts/"))
    assert oci.create("c2", "true").returncode == 1  # a terminal and no socket for it


def test_hooks_run_in_their_order_with_the_state_on_standard_input(oci, tmp_path):
    book = tmp_path / "hooks.log"
    script = tmp_path / "hook.sh"
    script.write_text(
        "#!/bin/sh\nstate=$(cat)\n"
        f'echo "$1 $(echo "$state" | sed "s/.*\\"status\\": \\"\\([a-z]*\\)\\".*/\\1/")" >> {book}\n'
    )
    script.chmod(0o755)
    host_side = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    oci.config["hooks"] = {kind: [{"path": str(script), "args": ["hook", kind]}] for kind in host_side}
    oci.config["root"]["readonly"] = False
    oci.config["hooks"]["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/null; echo in-hook"]}
    ]
    oci.create("c1", "echo", "program")
    assert [line.split()[0] for line in book.read_text().splitlines()] == [
        "prestart",
        "createRuntime",
        "createContainer",
    ]
    oci("start", "c1")
    oci.await_status("c1", "stopped")
    assert oci.output() == "in-hook\nprogram\n"
    oci("delete", "c1")
    assert [line.split()[0] for line in book.read_text().splitlines()][3:] == ["poststart", "poststop"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_failing_hook_stops_the_creation(oci, kind):
    oci.config["hooks"] = {kind: [{"path": "/bin/false"}]}
    done = oci.create("c1", "true")
    assert done.returncode == 1 and kind in done.stderr
    assert os.listdir(oci.state_root) == []


def test_hook_that_takes_too_long_is_killed(oci):
    oci.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}
    before = time.monotonic()
    done = oci.create("c1", "true")
    assert done.returncode == 1 and "longer than its 1 s" in done.stderr
    assert time.monotonic() - before < 10


def test_poststop_hook_that_fails_is_only_a_warning(oci):
    oci.config["hooks"] = {"poststop": [{"path": "/bin/false"}]}
    oci.create("c1", "true")
    oci("start", "c1")
    oci.await_status("c1", "stopped")
    assert "warning" in oci("delete", "c1").stderr
    assert os.listdir(oci.state_root) == []


def test_namespaces_by_path_are_entered(oci):
    oci.create("one", "sleep", "100")
    oci("start", "one")
    pid = json.loads(oci("state", "one").stdout)["pid"]
    for entry in oci.config["linux"]["namespaces"]:
        if entry["type"] in ("pid", "ipc", "network", "uts"):
            entry["path"] = f"/proc/{pid}/ns/" + {"network": "net"}.get(entry["type"], entry["type"])
    oci.config["linux"]["cgroupsPath"] += "-two"
    oci.write("sh", "-c", "ps -o args; for n in pid ipc net uts mnt; do readlink /proc/self/ns/$n; done")
    done = oci("run", "--bundle", str(oci.bundle), "two")
    lines = done.stdout.splitlines()
    assert "sleep 100" in lines
    shared = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "ipc", "net", "uts")]
    assert lines[-5:-1] == shared
    assert lines[-1] != os.readlink(f"/proc/{pid}/ns/mnt")


@pytest.mark.skipif(
    in_user_namespace(), reason="only the machine's own root has ids to spare for another map"
)
def test_user_namespace_maps_its_ids(oci, busybox_root):
    oci.config["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    oci.config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
    copy = oci.directory / "rootfs"
    shutil.copytree(busybox_root, copy, symlinks=True)
    for directory in (oci.directory, *oci.directory.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(directory.stat().st_mode | stat.S_IXOTH)
        if directory == Path("/tmp"):
            break
    subprocess.run(["chown", "-hR", "100000:100000", str(copy)], check=True)
    oci.config["root"] = {"path": str(copy)}
    oci.create(
        "c1", "sh", "-c", "id -u; cat /proc/self/uid_map; ls -ln /bin/busybox; echo x > /tmp/x; sleep 100"
    )
    oci("start", "c1")
    pid = json.loads(oci("state", "c1").stdout)["pid"]
    deadline = time.monotonic() + 5
    while oci.output().count("\n") < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert oci.output().split()[:4] == ["0", "0", "100000", "65536"]
    assert os.stat(f"/proc/{pid}").st_uid in (0, 100000) and os.stat(copy / "tmp/x").st_uid == 100000
    oci("kill", "c1", "KILL")
    oci.await_status("c1", "stopped")


def test_time_namespace_has_its_offsets(oci):
    oci.config["linux"]["namespaces"].append({"type": "time"})
    oci.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000, "nanosecs": 0}}
    oci.write("cat", "/proc/uptime")
    done = oci("run", "--bundle", str(oci.bundle), "c1")
    assert float(done.stdout.split()[0]) > 1_000_000


def test_descriptors_are_preserved_only_when_asked(oci):
    for count, expected in (("0", ["0", "1", "2"]), ("1", ["0", "1", "2", "3"])):
        oci.write("sh", "-c", "ls /proc/1/fd; true")
        command = oci.command("run", "--bundle", str(oci.bundle), "--preserve-fds", count, "c1")
        with_third = ["sh", "-c", 'exec "$@" 3< /etc/passwd', "sh", *command]
        done = subprocess.run(with_third, capture_output=True, text=True, timeout=30)
        assert done.stdout.split() == expected, done.stderr


def test_list_features_and_spec(oci):
    oci.create("c1", "sleep", "100")
    assert [entry["id"] for entry in json.loads(oci("list", "--format", "json").stdout)] == ["c1"]
    assert oci("list", "-q").stdout == "c1\n"
    assert oci("list").stdout.splitlines()[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    features = json.loads(oci("features").stdout)
    assert "rbind" in features["mountOptions"] and features["linux"]["seccomp"]["enabled"]
    empty = oci.directory / "empty"
    empty.mkdir()
    oci("spec", "--bundle", str(empty))
    assert json.loads((empty / "config.json").read_text())["process"]["args"] == ["sh"]
    assert oci("spec", "--bundle", str(empty), check=False).returncode == 1


def test_killed_create_is_cleaned_up_by_forced_delete(oci, tmp_path):
    told = tmp_path / "hook-pid"
    script = f"echo $$ > {told}.new; mv {told}.new {told}; exec sleep 30"
    oci.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    oci.write("true")
    words = oci.command("create", "--bundle", str(oci.bundle), "c1")
    with open(os.devnull, "w") as null:
        maker = subprocess.Popen(words, stdout=null, stderr=null)
        deadline = time.monotonic() + 10
        while not told.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        maker.send_signal(signal.SIGKILL)
        maker.wait()
    os.kill(
        int(told.read_text()), signal.SIGKILL
    )  # the hook is the administrator's program, not the container's
    oci("delete", "--force", "c1")
    assert os.listdir(oci.state_root) == []


def test_unknown_words_are_errors_with_a_list(oci):
    done = oci("frobnicate", check=False)
    assert done.returncode != 0 and "create" in done.stderr
    assert oci("create", "--nonsense", "c1", check=False).returncode != 0
    assert "Traceback" not in oci("kill", "nobody", "NOSIG", check=False).stderr
