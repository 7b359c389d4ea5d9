"""A container made by the runtime, judged by what a program inside it meets."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from minicontainer.cgroup.group import Group
from minicontainer.errors import StepError
from minicontainer.runtime import container


def test_program_is_pid_1_with_the_hostname_and_root_of_the_bundle(bundle):
    status, out, _ = bundle.run("sh", "-c", "echo $$; hostname; ls /; exit 3")
    assert status == 3
    assert out.splitlines() == [
        "1",
        bundle.id[:12],
        *sorted(["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp"]),
    ]


def test_container_cannot_see_host_processes(bundle):
    _, out, _ = bundle.run("sh", "-c", "ls /proc | grep -c '^[0-9]'")
    assert int(out) <= 4  # sh, ls, grep


def test_every_namespace_is_its_own(bundle):
    names = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
    _, out, _ = bundle.run(
        "sh", "-c", "cd /proc/self/ns; for n in " + " ".join(names) + "; do readlink $n; done"
    )
    theirs = dict(line.split(":") for line in out.split())
    for name in names:
        assert theirs[name] != os.readlink(f"/proc/self/ns/{name}").split(":")[1], name


def test_writes_land_in_the_upper_directory_only(bundle, busybox_root):
    bundle.run("sh", "-c", "echo changed > /etc/passwd; echo new > /tmp/new")
    assert (bundle.upper / "etc/passwd").read_text() == "changed\n"
    assert (bundle.upper / "tmp/new").read_text() == "new\n"
    assert "root:x:0:0" in (busybox_root / "etc/passwd").read_text()


def test_nothing_is_mounted_on_the_host(bundle):
    before = Path("/proc/self/mountinfo").read_text()
    process = bundle.create("sleep", "100")
    process.start()
    assert Path("/proc/self/mountinfo").read_text() == before
    process.kill()


def test_loopback_is_up_and_nothing_else_is_there(bundle):
    _, out, _ = bundle.run("sh", "-c", "ip -o addr; ls /sys/class/net")
    assert "inet 127.0.0.1/8" in out
    assert out.splitlines()[-1] == "lo" or "lo" in out.splitlines()
    assert "eth0" not in out


def test_dev_has_the_standard_nodes_and_links(bundle):
    _, out, _ = bundle.run(
        "sh", "-c",
        "for d in null zero full random urandom tty; do stat -c '%n %t,%T %a' /dev/$d; done;"
        " for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done;"
        " echo x > /dev/null && head -c1 /dev/zero | wc -c",
    )  # fmt: skip
    assert out.splitlines() == [
        "/dev/null 1,3 666", "/dev/zero 1,5 666", "/dev/full 1,7 666", "/dev/random 1,8 666", "/dev/urandom 1,9 666",
        "/dev/tty 5,0 666", "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx", "1",
    ]  # fmt: skip


def test_mounts_have_dockers_options(bundle):
    _, out, _ = bundle.run("cat", "/proc/mounts")
    options = {line.split()[1]: set(line.split()[3].split(",")) for line in out.splitlines()}
    quiet = {"nosuid", "nodev", "noexec"}
    assert quiet <= options["/proc"]
    assert quiet | {"ro"} <= options["/sys"]
    assert quiet | {"ro"} <= options["/sys/fs/cgroup"]
    assert quiet <= options["/dev/shm"] and "size=65536k" in options["/dev/shm"]
    assert quiet <= options["/dev/mqueue"]
    assert {"nosuid", "noexec", "ptmxmode=666", "mode=620"} <= options["/dev/pts"]
    assert {"nosuid", "mode=755", "size=65536k"} <= options["/dev"]


@pytest.mark.parametrize(
    "path", ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper"]
)
def test_host_wide_files_cannot_be_written(bundle, path):
    status, out, err = bundle.run("sh", "-c", f"[ -e {path} ] || exit 42; : > {path}")
    assert status == 42 or "Read-only file system" in err or "Permission denied" in err, (status, err)


def test_masked_files_are_empty_and_masked_directories_too(bundle):
    command = "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware"
    status, out, _ = bundle.run("sh", "-c", command)
    assert (status, out) == (0, "0\n")


def test_capabilities_are_dockers_fourteen_and_nothing_is_inheritable(bundle):
    _, out, _ = bundle.run("grep", "-E", "^(Cap|Seccomp:|NoNewPrivs)", "/proc/self/status")
    found = dict(line.split(":\t") for line in out.splitlines())
    held = int(_own_status("CapPrm"), 16)
    expected = f"{0xA80425FB & held:016x}"
    assert found["CapPrm"] == found["CapEff"] == found["CapBnd"] == expected
    assert found["CapInh"] == found["CapAmb"] == "0" * 16
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == "0"


def test_user_other_than_root_has_no_capabilities_and_its_groups(bundle):
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [10], "umask": 0o077}
    _, out, _ = bundle.run(
        "sh",
        "-c",
        "id -u; id -g; id -G; grep CapEff /proc/self/status; umask; touch /tmp/x; stat -c %a /tmp/x",
    )
    lines = out.splitlines()
    assert lines[:3] == ["1000", "1000", "1000 10"]
    assert lines[3].split()[1] == "0" * 16
    assert lines[4:] == ["0077", "600"]


def test_no_new_privileges_is_set_when_asked(bundle):
    bundle.config["process"]["noNewPrivileges"] = True
    _, out, _ = bundle.run("grep", "-E", "NoNewPrivs|Seccomp:", "/proc/self/status")
    assert out.split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]


def test_seccomp_forbids_new_namespaces_and_mounts(bundle):
    status, _, err = bundle.run("sh", "-c", "unshare -m true; mount -t tmpfs x /tmp")
    assert status != 0
    assert err.count("Operation not permitted") + err.count("permission denied") == 2


def test_only_three_descriptors_are_open(bundle):
    _, out, _ = bundle.run("sh", "-c", "ls /proc/1/fd; true")
    assert out.split() == ["0", "1", "2"]


def test_signals_are_as_a_program_expects_them(bundle):
    _, out, _ = bundle.run("grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status")
    assert {line.split()[1] for line in out.splitlines()} == {"0" * 16}


def test_limits_of_the_bundle_apply(bundle):
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]
    _, out, _ = bundle.run("sh", "-c", "ulimit -n; ulimit -Hn")
    assert out.split() == ["64", "128"]


def test_missing_working_directory_is_made(bundle):
    bundle.config["process"]["cwd"] = "/srv/app"
    _, out, _ = bundle.run("pwd")
    assert out == "/srv/app\n"


def test_working_directory_that_is_a_file_is_refused(bundle):
    bundle.config["process"]["cwd"] = "/etc/passwd"
    with pytest.raises(StepError, match="not a directory") as caught:
        bundle.create("true")
    assert caught.value.exit_code == 125


def test_environment_is_the_bundles_and_a_home(bundle):
    bundle.config["process"]["env"] = ["PATH=/bin", "A=1", "A=2", "EMPTY="]
    _, out, _ = bundle.run("env")
    assert sorted(out.splitlines()) == ["A=1", "EMPTY=", "HOME=/root", "PATH=/bin"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["nowhere"], 127, "executable file not found in $PATH"),
        (["/no/where"], 127, "no such file or directory"),
        (["/etc/passwd"], 126, "permission denied"),
        (["/etc"], 126, "is a directory"),
    ],
)
def test_program_that_cannot_run_says_why_and_leaves_nothing(bundle, args, code, words):
    with pytest.raises(StepError) as caught:
        bundle.create(*args)
    assert caught.value.exit_code == code
    assert words in str(caught.value)
    assert not _groups(bundle)


def test_script_without_interpreter_is_127_and_without_magic_126(bundle):
    (bundle.upper / "s1").write_text("#!/no/such/interpreter\n")
    (bundle.upper / "s2").write_text("echo hi\n")
    for name in ("s1", "s2"):
        (bundle.upper / name).chmod(0o755)
    for name, code in (("/s1", 127), ("/s2", 126)):
        process = bundle.create(name)
        with pytest.raises(StepError) as caught:
            process.start()
        assert caught.value.exit_code == code
        container.delete(bundle.directory)


def test_error_in_the_child_comes_home_with_step_call_and_errno(bundle):
    bundle.config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "none", "options": []})
    with pytest.raises(StepError) as caught:
        bundle.create("true")
    error = caught.value
    assert (error.step, error.syscall, error.errno) == ("mount", "mount", 19)
    assert "nosuchfs" in str(error) and error.hint
    assert not _groups(bundle)


def test_container_dies_with_its_supervisor(bundle):
    reader, writer = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        process = bundle.create("sleep", "100", die_with_parent=True)
        process.start()
        os.write(writer, str(process.pid).encode())
        time.sleep(100)
        os._exit(0)
    os.close(writer)
    init = int(os.read(reader, 20))
    os.close(reader)
    pidfd = os.pidfd_open(init)
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    assert select.select([pidfd], [], [], 5)[0], "the container outlived its supervisor"
    os.close(pidfd)
    container.delete(bundle.directory)


def test_control_group_holds_the_container_and_goes_with_it(bundle):
    process = bundle.create("sleep", "100")
    group = Group(bundle.config["linux"]["cgroupsPath"])
    if not _groups(bundle):
        pytest.skip("no control group hierarchy is writable here")
    assert group.processes() == [process.pid]
    process.start()
    process.kill()
    bundle.wait(process)
    container.delete(bundle.directory)
    assert not _groups(bundle)
    container.delete(bundle.directory)  # twice is the same as once


def test_terminal_is_a_real_one_of_the_containers_own(bundle):
    bundle.config["process"]["terminal"] = True
    bundle.config["process"]["consoleSize"] = {"height": 33, "width": 99}
    process = bundle.create("sh", "-c", "tty; stty size; ls -l /dev/console; test -t 0 && echo yes")
    process.start()
    text = b""
    while True:
        try:
            part = os.read(process.console, 4096)
        except OSError:  # EIO: the last holder of the slave side is gone
            break
        text += part
    bundle.wait(process)
    os.close(process.console)
    lines = text.decode().split("\r\n")
    assert lines[0] == "/dev/console" or lines[0].startswith("/dev/pts/")
    assert lines[1] == "33 99"
    assert "136," in lines[2] and lines[3] == "yes"


def test_image_with_symlinked_proc_cannot_reach_the_host(bundle, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("proc", "sys", "dev"):
        (bundle.upper / name).symlink_to(outside)
    with pytest.raises(StepError):
        bundle.create("true")
    assert list(outside.iterdir()) == []


def test_mount_over_proc_through_a_link_is_refused_too(bundle, tmp_path):
    (bundle.upper / "innocent").symlink_to("/proc")
    bundle.config["mounts"].append(
        {"destination": "/innocent/sys", "type": "tmpfs", "source": "tmpfs", "options": []}
    )
    with pytest.raises(StepError, match="inside /proc"):
        bundle.create("true")


def test_bind_mount_target_behind_a_link_stays_inside(bundle, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("hello")
    (bundle.upper / "link").symlink_to(str(outside))
    bundle.config["mounts"].append(
        {
            "destination": "/link/data",
            "type": "bind",
            "source": str(source),
            "options": ["rbind", "ro", "rprivate"],
        }
    )
    status, out, err = bundle.run("sh", "-c", "cat /link/data/file; echo x > /link/data/new")
    assert out == "hello" and "Read-only" in err and status != 0
    assert list(outside.iterdir()) == []
    assert not (source / "new").exists()


def test_mount_over_proc_is_refused(bundle, tmp_path):
    bundle.config["mounts"].append(
        {"destination": "/proc/sys", "type": "bind", "source": str(tmp_path), "options": ["rbind"]}
    )
    with pytest.raises(StepError, match="inside /proc"):
        bundle.create("true")


def test_working_directory_outside_the_root_is_refused(bundle):
    for number in range(3, 12):
        bundle.config["process"]["cwd"] = f"/proc/self/fd/{number}"
        with pytest.raises(StepError):
            bundle.create("true")


def test_fake_null_device_is_not_used_for_masking(bundle):
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    (bundle.upper / "dev").mkdir()
    (bundle.upper / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    with pytest.raises(StepError, match="not the null device"):
        bundle.create("true")


def test_config_that_is_not_json_is_a_clear_error(bundle):
    (bundle.directory / "config.json").write_text("{")
    with pytest.raises(StepError, match=r"config\.json is not valid JSON"):
        container.create(bundle.id, bundle.directory, (0, 1, 2))


def _own_status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(field + ":"))


def _groups(bundle) -> list[str]:
    return [path for path in Group(bundle.config["linux"]["cgroupsPath"]).directories if os.path.isdir(path)]
