"""What a container sees and how its end is reported."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from minicontainer.engine import CommandFailed, TimedOut
from minicontainer.errors import ImageNotFound, MinicontainerError, StepError, UsageError
from minicontainer.linux.namespace import in_user_namespace


def test_output_and_status_come_back(engine):
    result = engine.run("busybox", ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.status, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert len(result.id) == 64


def test_container_has_its_own_pids_hostname_and_root(engine):
    result = engine.run("busybox", ["sh", "-c", "echo $$; hostname; ls /; ls /home"])
    lines = result.stdout.split()
    assert lines[0] == "1"
    assert lines[1] == result.id[:12]
    assert "guest" in lines and "usr" not in lines


def test_container_cannot_see_host_processes(engine):
    result = engine.run("busybox", ["sh", "-c", f"ls -d /proc/[0-9]*; kill -0 {os.getpid()}"])
    assert result.stdout.split() == ["/proc/1", *[p for p in result.stdout.split() if p != "/proc/1"]]
    assert len(result.stdout.split()) <= 3
    assert result.status != 0


def test_only_the_three_standard_descriptors_are_open(engine):
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        container = engine.run("busybox", ["sleep", "100"], detach=True)
        container.exec(["sleep", "100"], detach=True)
        found = container.exec(["sh", "-c", "for p in $(pidof sleep); do ls /proc/$p/fd; done"]).stdout
    finally:
        os.close(read)
        os.close(write)
    assert found.split() == ["0", "1", "2", "0", "1", "2"]


def test_environment_order_and_precedence(engine):
    result = engine.run("busybox", ["env"], env=["A=1", "HOME=/tmp", "B=x=y"], hostname="box")
    assert result.stdout.split() == ["PATH=/bin", "HOSTNAME=box", "A=1", "HOME=/tmp", "B=x=y"]


def test_environment_without_value_copies_the_callers(engine, monkeypatch):
    monkeypatch.setenv("MC_COPIED", "yes")
    monkeypatch.delenv("MC_ABSENT", raising=False)
    result = engine.run("busybox", ["env"], env=["MC_COPIED", "MC_ABSENT"])
    assert "MC_COPIED=yes" in result.stdout and "MC_ABSENT" not in result.stdout


def test_missing_working_directory_is_made(engine):
    assert engine.run("busybox", ["pwd"], workdir="/a/new/place").stdout == "/a/new/place\n"


def test_hosts_hostname_and_resolver_files(engine):
    result = engine.run(
        "busybox", ["sh", "-c", "cat /etc/hostname; grep 127.0.0.1 /etc/hosts; cat /etc/resolv.conf"]
    )
    lines = result.stdout.splitlines()
    assert lines[:2] == [result.id[:12], "127.0.0.1\tlocalhost"]
    assert result.status == 0


def test_writes_stay_in_the_container(engine):
    first = engine.run("busybox", ["sh", "-c", "echo changed > /etc/passwd; cat /etc/passwd"])
    assert first.stdout == "changed\n"
    assert "guest" in engine.run("busybox", ["cat", "/etc/passwd"]).stdout


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root),10(wheel)"),
        ("guest", "uid=1000(guest) gid=1000(guest) groups=10(wheel),50(staff),1000(guest)"),
        ("1000", "uid=1000(guest) gid=1000(guest) groups=10(wheel),50(staff),1000(guest)"),
        ("guest:wheel", "uid=1000(guest) gid=10(wheel) groups=10(wheel)"),
        ("12345", "uid=12345 gid=0(root) groups=0(root)"),
        ("12345:54321", "uid=12345 gid=54321 groups=54321"),
        ("guest:0", "uid=1000(guest) gid=0(root) groups=0(root)"),
        ("2147483647", "uid=2147483647 gid=0(root) groups=0(root)"),
    ],
)
def test_user(engine, user, expected):
    if user == "2147483647" and in_user_namespace():
        pytest.skip("this user namespace does not have that id")
    assert engine.run("busybox", ["id"], user=user).stdout.strip() == expected


@pytest.mark.parametrize(
    "user",
    [
        "nobody-here",
        "guest:nogroup",
        "2147483648",
        "4294967296",
        "-1",
        "0x0",
        "1000 ",
        " root",
        "0:4294967296",
    ],
)
def test_hostile_user_is_refused(engine, user):
    with pytest.raises(MinicontainerError) as caught:
        engine.run("busybox", ["id"], user=user)
    assert caught.value.exit_code == 125
    assert engine.containers(all=True) == []


def test_home_comes_from_the_images_passwd(engine):
    assert engine.run("busybox", ["sh", "-c", "echo $HOME"], user="guest").stdout == "/home/guest\n"
    assert engine.run("busybox", ["sh", "-c", "echo $HOME"], user="homeless").stdout == "/\n"


def test_input_is_fed_and_ended(engine):
    data = os.urandom(300_000).hex()
    assert engine.run("busybox", ["cat"], input=data).stdout == data


def test_large_input_and_output_at_once_do_not_deadlock(engine):
    data = "0123456789abcde\n" * 300_000
    result = engine.run("busybox", ["cat"], input=data, timeout=30)
    assert len(result.stdout) == len(data)


def test_without_input_the_program_reads_an_end(engine):
    assert engine.run("busybox", ["wc", "-c"]).stdout.strip() == "0"


@pytest.mark.parametrize(
    ("command", "code"),
    [(["no-such-program"], 127), (["/no/such/path"], 127), (["/bin/not-executable"], 126), (["/etc"], 126)],
)
def test_program_that_cannot_be_executed(engine, command, code):
    with pytest.raises(StepError) as caught:
        engine.run("busybox", command)
    assert caught.value.exit_code == code
    assert engine.containers(all=True) == []


def test_failed_start_leaves_a_created_container_with_the_reason(engine):
    container_id = engine.create("busybox", ["no-such-program"], name="unstartable")
    with pytest.raises(StepError):
        engine.start(container_id)
    state = engine.get("unstartable").state
    assert (state.status, state.exit_code) == ("created", 127)
    assert "no-such-program" in state.error


def test_death_by_signal_is_128_and_its_number(engine):
    result = engine.run("busybox", ["sh", "-c", "sh -c 'kill -9 $$'; echo $?"])
    assert result.stdout == "137\n"
    container = engine.run("busybox", ["sleep", "100"], detach=True)
    container.kill("KILL")
    assert container.wait() == 137


def test_pid_1_ignores_signals_it_does_not_handle(engine):
    assert engine.run("busybox", ["sh", "-c", "kill -9 $$; echo alive"]).stdout == "alive\n"


def test_check_raises_with_the_output(engine):
    with pytest.raises(CommandFailed) as caught:
        engine.run("busybox", ["sh", "-c", "echo why >&2; exit 4"], check=True)
    assert caught.value.result.stderr == "why\n"
    assert caught.value.exit_code == 4


def test_timeout_kills_and_removes(engine):
    start = time.monotonic()
    with pytest.raises(TimedOut):
        engine.run("busybox", ["sleep", "100"], timeout=0.3)
    assert time.monotonic() - start < 5
    assert engine.containers(all=True) == []


def test_ctrl_c_while_waiting_kills_and_removes(engine):
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        engine.run("busybox", ["sleep", "100"])
    assert engine.containers(all=True) == []


def test_kept_container_can_be_read_and_started_again(engine):
    result = engine.run("busybox", ["sh", "-c", "echo x >> /count; wc -l < /count"], remove=False)
    container = engine.get(result.id)
    assert container.status == "exited"
    for expected in ("1\n2\n", "1\n2\n3\n"):
        container.start()
        container.wait()
        assert container.logs() == expected


def test_entrypoint_and_command(engine):
    assert engine.run("busybox", ["a", "b"], entrypoint="echo").stdout == "a b\n"
    assert engine.run("busybox", ["c"], entrypoint=["echo", "a", "b"]).stdout == "a b c\n"
    with pytest.raises(MinicontainerError, match="no command"):
        engine.run("busybox", entrypoint="")


def test_unknown_image_and_bad_options(engine):
    with pytest.raises(ImageNotFound):
        engine.run("no-such-image", ["true"])
    for options in ({"workdir": "relative"}, {"hostname": "a b"}, {"network": "bridge9"}, {"nonsense": 1}):
        with pytest.raises(UsageError):
            engine.run("busybox", ["true"], **options)
    assert engine.containers(all=True) == []


def test_terminal_merges_streams_and_translates_newlines(engine):
    result = engine.run("busybox", ["sh", "-c", "tty; echo err >&2; test -t 0"], tty=True, stdin_open=True)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.endswith("err\r\n") and result.stdout.startswith("/dev/")


def test_terminal_has_the_size_it_was_given(engine):
    container_id = engine.create("busybox", ["stty", "size"], tty=True, stdin_open=True, remove=True)
    with engine.start(container_id, attach=True, size=(33, 101)) as attachment:
        assert attachment.collect()[1] == b"33 101\r\n"


def test_the_network_is_only_a_loopback_device_or_the_hosts(engine):
    inside = engine.run(
        "busybox", ["sh", "-c", "ls /sys/class/net; ping -c1 -W1 127.0.0.1 > /dev/null && echo up"]
    )
    assert inside.stdout.split() == ["lo", "up"]
    hosts = engine.run("busybox", ["readlink", "/proc/self/ns/net"], network="host")
    assert hosts.stdout.strip() == os.readlink("/proc/self/ns/net")


def test_threads_may_run_containers_at_the_same_time(engine):
    results: list[str] = []

    def one(number: int) -> None:
        results.append(engine.run("busybox", ["echo", str(number)]).stdout)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [f"{number}\n" for number in range(8)]


def test_hostile_symbolic_link_for_passwd_stays_inside(engine, tmp_path, engine_root):
    """The layers alone cannot tell what /etc/passwd is then: the stack is mounted where nobody sees it."""
    import tarfile

    from minicontainer.image.store import Store

    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        entry = tarfile.TarInfo("etc/passwd")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/../../data/users"
        archive.addfile(entry)
        import io

        for name, text in (("data/users", b"inner:x:77:78::/inner:/bin/sh\n"),):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    store = Store(engine_root)
    base = store.layer_paths(store.resolve("busybox"))[0]
    assert base.is_dir()
    from .conftest import busybox_layer

    lower = busybox_layer(tmp_path / "base.tar")
    store.add("linked", [lower, tmp_path / "link.tar"], {"config": {"Env": ["PATH=/bin"], "User": "inner"}})
    try:
        assert engine.run("linked", ["id", "-u"]).stdout == "77\n"
        with pytest.raises(MinicontainerError, match="unable to find user guest"):
            engine.run("linked", ["id"], user="guest")
    finally:
        store.remove("linked")


def test_read_only_root(engine):
    script = "touch /x; touch /dev/shm/x && echo shm; echo $?"
    result = engine.run("busybox", ["sh", "-c", script], read_only=True)
    assert "Read-only file system" in result.stderr and result.stdout == "shm\n0\n"


def test_wide_output_of_a_terminal_keeps_its_bytes(engine):
    result = engine.run(
        "busybox", ["sh", "-c", "stty -opost; head -c 200000 /dev/zero | tr '\\0' x"], tty=True
    )
    assert result.stdout == "x" * 200_000


def test_a_program_that_closes_its_output_goes_on(engine):
    result = engine.run("busybox", ["sh", "-c", "echo before; exec >&- 2>&-; sleep 0.3; exit 8"])
    assert (result.status, result.stdout) == (8, "before\n")
