"""The command does what Docker does: statuses and words as recorded from Docker 20.10 with client 28.2.

A row: the command line, the exit status, a pattern for all of standard output, a pattern within standard error ("" for
an empty one). Containers: aa runs, bb ended with 1, cc ended with 0 and has labels, dd was created only.
"""

from __future__ import annotations

import json
import re
import shlex

import pytest

from .conftest import need_user

ID = r"[0-9a-f]{64}"
SHORT = r"[0-9a-f]{12}"
AGO = r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes) ago"
UP = r"Up (Less than a second|\d+ seconds?|About a minute|\d+ minutes)"
HEAD = r"CONTAINER ID   IMAGE     COMMAND +CREATED +STATUS +PORTS     NAMES\n"


def row(command: str, status: str, name: str) -> str:
    return rf"{SHORT}   busybox   {re.escape(command)} +{AGO} +{status} +{name}\n"


ROWS = {
    "aa": row('"sleep 1000"', UP, "aa"),
    "bb": row('"false"', rf"Exited \(1\) {AGO}", "bb"),
    "cc": row('"echo \'hello world t…"', rf"Exited \(0\) {AGO}", "cc"),
    "dd": row('"sh -c \'echo \\"x y\\"; …"', "Created", "dd"),
}

RUNNING = [
    # what a program's end makes of the exit status
    ("run --rm busybox sh -c 'echo $$'", 0, "1\n", ""),
    ("run --rm busybox hostname", 0, f"{SHORT}\n", ""),
    ("run --rm busybox sh -c 'exit 7'", 7, "", ""),
    ("run --rm busybox sh -c 'kill -9 $$'", 0, "", ""),
    ("run --rm busybox sh -c 'sleep 9 & kill -9 $!; wait $!'", 137, "", "^Killed\n$"),
    ("run --rm busybox nosuch", 127, "", "exec: .nosuch.: executable file not found in \\$PATH"),
    ("run --rm busybox /nosuch", 127, "", "no such file or directory"),
    ("run --rm busybox /etc/passwd", 126, "", "permission denied"),
    ("run --rm busybox /etc", 126, "", "/etc"),
    ("run --rm busybox --help", 127, "", "exec: .--help."),
    ("run --rm busybox -- ls", 127, "", "exec: .--."),
    ("run --rm -- busybox echo x", 0, "x\n", ""),
    ("run --rm --name=x1 busybox -d", 127, "", "exec: .-d."),
    # streams
    ("run --rm busybox sh -c 'echo out; echo err >&2'", 0, "out\n", "^err\n$"),
    ("run --rm -a stdout busybox sh -c 'echo out; echo err >&2'", 0, "out\n", ""),
    ("run --rm -a stderr busybox sh -c 'echo out; echo err >&2'", 0, "", "^err\n$"),
    ("run --rm -t busybox sh -c 'echo out; echo err >&2'", 0, "out\r\nerr\r\n", ""),
    ("run --rm -t busybox tty", 0, "/dev/pts/0\r\n", ""),
    ("run --rm -it busybox sh", 1, "", "the input device is not a TTY"),
    ("exec -it aa sh", 1, "", "the input device is not a TTY"),
    (
        "run -d -a stdout busybox true",
        1,
        "",
        "conflicting options: cannot specify both --attach and --detach",
    ),
    # options
    ("run --rm -h foo busybox hostname", 0, "foo\n", ""),
    ("run --rm -w /a/b busybox pwd", 0, "/a/b\n", ""),
    ("run --rm -w relative busybox pwd", 125, "", "the working directory 'relative' is invalid"),
    ("run --rm -u 1234 busybox id -u", 0, "1234\n", ""),
    (
        "run --rm -u nosuch busybox id",
        125,
        "",
        "unable to find user nosuch: no matching entries in passwd file",
    ),
    ("run --rm --entrypoint echo busybox hi", 0, "hi\n", ""),
    ("run --rm --entrypoint '' busybox echo hi", 0, "hi\n", ""),
    ("run --rm --entrypoint '' busybox", 125, "", "no command specified"),
    ("run --rm --stop-signal FOO busybox true", 125, "", "Invalid signal: FOO"),
    ("run --rm --network none busybox ls /sys/class/net", 0, "lo\n", ""),
    ("run --rm --network foo busybox true", 125, "", "network foo not found"),
    # what the command itself refuses
    ("run nosuch:1", 125, "", "Unable to find image 'nosuch:1' locally\n.*minicontainer base"),
    ("run --pull never nosuch", 125, "", "nosuch:latest"),
    ("run --pull=foo busybox", 125, "", "invalid pull option: 'foo': must be one of"),
    ("run UPPER", 125, "", "invalid reference format: repository name .* must be lowercase"),
    ("run --bogus busybox", 125, "", "unknown flag: --bogus\n\nUsage:  minicontainer run "),
    ("run", 125, "", "requires at least 1 argument\n\nUsage:  minicontainer run "),
    (
        "run --name aa busybox true",
        125,
        "",
        f'The container name "/aa" is already in use by container "{ID}"',
    ),
    ("run --name a/b busybox true", 125, "", "Invalid container name"),
    ("run --name ../x busybox true", 125, "", "Invalid container name"),
    ("run --env-file /nonexistent busybox", 125, "", "/nonexistent: no such file or directory"),
    ("create --name a/b busybox", 1, "", "Invalid container name"),
    ("create nosuch", 1, "", "Unable to find image 'nosuch:latest' locally"),
]

EXISTING = [
    ("ps", 0, HEAD + ROWS["aa"], ""),
    ("ps -a", 0, HEAD + ROWS["dd"] + ROWS["cc"] + ROWS["bb"] + ROWS["aa"], ""),
    ("ps -aq", 0, f"({SHORT}\n){{4}}", ""),
    ("ps -aq --no-trunc", 0, f"({ID}\n){{4}}", ""),
    ("ps -l", 0, HEAD + ROWS["dd"], ""),
    ("ps -n 2 -q", 0, f"({SHORT}\n){{2}}", ""),
    ("ps -a --no-trunc --format {{.Command}}", 0, "(?s).*\"echo 'hello world this is long'\"\n.*", ""),
    ("ps -a --format '{{.Names}} {{.State}}'", 0, "dd created\ncc exited\nbb exited\naa running\n", ""),
    (
        "ps -a --format 'table {{.Names}}\\t{{.Label \"k\"}}\\t{{.State}}'",
        0,
        "NAMES     k         STATE\ndd                  created\ncc        v         exited\n"
        "bb                  exited\naa                  running\n",
        "",
    ),
    ("ps -a -f label=k --format '{{.Names}} {{.Labels}}'", 0, "cc k=v,z=\n", ""),
    ("ps -f label=k=w -aq", 0, "", ""),
    ("ps -f status=exited -f exited=1 --format {{.Names}}", 0, "bb\n", ""),
    ("ps -f name=^/aa$ --format {{.Names}}", 0, "aa\n", ""),
    ("ps -a -f name=a -f name=b --format {{.Names}}", 0, "bb\naa\n", ""),
    ("ps -a -f ancestor=busybox:latest -q", 0, f"({SHORT}\n){{4}}", ""),
    ("ps -a -f ancestor=nosuch -q", 0, "", ""),
    ("ps -a -f foo=x", 1, "", "Invalid filter 'foo'"),
    ("ps -a -f status=foo", 1, "", "Invalid filter 'status=foo'"),
    ("ps --format {{.Foo}}", 1, "", "failed to execute template: .*<.Foo>"),
    ("ps --format {{.ID", 1, "", "failed to parse template: unclosed action"),
    ("ps -q --format {{.Names}}", 0, f"{SHORT}\n", "^WARNING: Ignoring custom format"),
    ("ps x", 1, "", "'minicontainer ps' accepts no arguments"),
    # exec
    ("exec aa sh -c 'exit 5'", 5, "", ""),
    ("exec aa sh -c 'echo out; echo err >&2'", 0, "out\n", "^err\n$"),
    ("exec -e A=1 aa sh -c 'echo $A'", 0, "1\n", ""),
    ("exec -w /tmp aa pwd", 0, "/tmp\n", ""),
    ("exec -u 1234:5 aa id -u", 0, "1234\n", ""),
    ("exec -t aa tty", 0, "/dev/pts/\\d\r\n", ""),
    ("exec aa nosuch", 127, "", "executable file not found"),
    ("exec -u nosuch aa id", 126, "", "unable to find user nosuch"),
    ("exec bb ls", 1, "", f"{ID} is not running"),
    ("exec nosuch ls", 1, "", "No such container: nosuch"),
    ("exec -d aa sleep 0", 0, "", ""),
    # logs
    ("logs cc", 0, "hello world this is long\n", ""),
    ("logs -t cc", 0, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z hello world this is long\n", ""),
    ("logs --tail 0 cc", 0, "", ""),
    ("logs --tail=x cc", 0, "hello world this is long\n", ""),
    ("logs -n 1 --since 1h cc", 0, "hello world this is long\n", ""),
    ("logs --until 1h cc", 0, "", ""),
    ("logs --since bogus cc", 1, "", 'invalid value for "since": '),
    ("logs nosuch", 1, "", "No such container: nosuch"),
    ("logs dd", 0, "", ""),
    # inspect
    (
        "inspect -f '{{.State.Status}} {{.Name}} {{.Config.Cmd}}' cc",
        0,
        r"exited /cc \[echo hello .* long\]\n",
        "",
    ),
    ("inspect -f '{{json .Config.Labels}}' cc", 0, '{"k":"v","z":""}\n', ""),
    ("inspect -f '{{index .Config.Labels \"k\"}} {{index .Config.Cmd 0}}' cc", 0, "v echo\n", ""),
    ("inspect -f '{{.Nope}}' cc", 1, "", 'template parsing error: .*map has no entry for key "Nope"'),
    ("inspect -f '{{.State.Pid' cc", 64, "", "template parsing error: template: unclosed action"),
    ("inspect nosuch", 1, r"\[\]\n", "No such object: nosuch"),
    ("inspect -f '{{.Name}}' nosuch cc", 1, "/cc\n", "No such object: nosuch"),
    ("inspect -f '{{.RepoTags}}' busybox", 0, r"\[busybox:latest\]\n", ""),
    ("inspect --type image cc", 1, r"\[\]\n", "No such image: cc:latest"),
    ("inspect --type foo cc", 1, "", 'unknown type: "foo": must be one of'),
    # the end of them
    ("rm aa", 1, "", "container is running: stop the container before removing or force remove"),
    ("rm nosuch", 1, "", "No such container: nosuch"),
    ("rm -f nosuch", 0, "", "No such container: nosuch"),
    ("kill bb", 1, "", f"Cannot kill container: bb: .*{ID} is not running"),
    ("kill nosuch", 1, "", "No such container: nosuch"),
    ("kill -s FOO aa", 1, "", "Invalid signal: FOO"),
    ("kill -s USR1 aa", 0, "aa\n", ""),
    ("stop bb", 0, "bb\n", ""),
    ("stop nosuch bb", 1, "bb\n", "No such container: nosuch"),
    ("start aa", 0, "aa\n", ""),
    ("start nosuch", 1, "", "No such container: nosuch"),
    ("start -a bb", 1, "", ""),
    ("start -a cc dd", 1, "", "you cannot start and attach multiple containers at once"),
    ("wait bb cc", 0, "1\n0\n", ""),
    ("wait nosuch bb", 1, "1\n", "No such container: nosuch"),
    # images
    (
        "images",
        0,
        rf"REPOSITORY   TAG       IMAGE ID       CREATED +SIZE\nbusybox      latest    {SHORT}   .*MB\n",
        "",
    ),
    ("images -q", 0, f"{SHORT}\n", ""),
    ("images -q --no-trunc", 0, f"sha256:{ID}\n", ""),
    ("images nosuch", 0, "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n", ""),
    ("images --format '{{.Repository}}:{{.Tag}}' busybox", 0, "busybox:latest\n", ""),
    ("rmi nosuch", 1, "", "No such image: nosuch:latest"),
    ("rmi busybox", 1, "", 'conflict: unable to remove repository reference "busybox" .*must force'),
    # the rest
    ("version -f {{.Client.Version}}", 0, r"\d+\.\d+\.\d+\n", ""),
    ("info -f '{{.Containers}} {{.ContainersRunning}} {{.Images}}'", 0, "4 1 1\n", ""),
    ("--version", 0, r"minicontainer version \d+\.\d+\.\d+\n", ""),
    ("nosuch", 1, "", "unknown command: minicontainer nosuch"),
]


def check(mc, line: str, status: int, stdout: str, stderr: str) -> None:
    if "-u 1234" in line:
        need_user(1234)
    done = mc(*shlex.split(line))
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done
    assert re.fullmatch(stdout, done.stdout), done.stdout
    if stderr:
        assert re.search(stderr, done.stderr), done.stderr
    else:
        assert done.stderr == ""


@pytest.mark.needs("overlay")
@pytest.mark.parametrize(("line", "status", "stdout", "stderr"), RUNNING, ids=[row[0] for row in RUNNING])
def test_running_something(world, line, status, stdout, stderr):
    check(world, line, status, stdout, stderr)
    assert world("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["dd", "cc", "bb", "aa"], (
        "it left something"
    )


@pytest.mark.needs("overlay")
@pytest.mark.parametrize(("line", "status", "stdout", "stderr"), EXISTING, ids=[row[0] for row in EXISTING])
def test_dealing_with_what_is_there(world, line, status, stdout, stderr):
    check(world, line, status, stdout, stderr)


@pytest.mark.needs("overlay")
def test_json_of_ps_has_dockers_fields(world):
    rows = [json.loads(line) for line in world.good("ps", "-a", "--format", "json").splitlines()]
    assert [row["Names"] for row in rows] == ["dd", "cc", "bb", "aa"]
    assert (
        rows[1].items()
        >= {
            "Command": '"echo \'hello world t…"',
            "Image": "busybox",
            "Labels": "k=v,z=",
            "State": "exited",
            "Ports": "",
            "Mounts": "",
        }.items()
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} \S+", rows[0]["CreatedAt"])


@pytest.mark.needs("overlay")
def test_inspect_is_json_of_all_that_was_named(world):
    found = json.loads(world.good("inspect", "aa", "cc", "busybox"))
    assert [entry.get("Name", entry.get("RepoTags")) for entry in found] == ["/aa", "/cc", ["busybox:latest"]]
    assert found[0]["State"]["Running"] and found[0]["State"]["Pid"] > 0
