"""The words of the command line beside Docker's: exit statuses, messages' kinds, `ps`, environment, output."""

from __future__ import annotations

import re

import pytest

# Arguments after the options of `run` that each runtime needs, and what is compared: always the exit status.
RUNS = {
    "success": ["--rm", "busybox", "true"],
    "its own status": ["--rm", "busybox", "sh", "-c", "exit 7"],
    "killed by a signal": ["--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"],
    "first process kills itself": ["--rm", "busybox", "sh", "-c", "kill -9 $$"],
    "command not found": ["--rm", "busybox", "no-such-command"],
    "path not found": ["--rm", "busybox", "/no/such/command"],
    "not executable": ["--rm", "busybox", "/etc/passwd"],
    "a directory": ["--rm", "busybox", "/etc"],
    "unknown flag": ["--no-such-flag", "busybox", "true"],
    "bad reference": ["--rm", "Bad/Reference", "true"],
    "unknown user": ["--rm", "-u", "nobody-here", "busybox", "true"],
    "relative working directory": ["--rm", "-w", "relative", "busybox", "true"],
    "bad name": ["--rm", "--name", "-bad-", "busybox", "true"],
    "working directory is a file": ["--rm", "-w", "/etc/passwd", "busybox", "true"],
}

# Verbs on containers that do not exist.
VERBS = [
    ["stop", "nobody"],
    ["start", "nobody"],
    ["kill", "nobody"],
    ["rm", "nobody"],
    ["logs", "nobody"],
    ["inspect", "nobody"],
    ["exec", "nobody", "true"],
    ["wait", "nobody"],
    ["restart", "nobody"],
    ["rmi", "nobody"],
    ["nonsense"],
    ["ps", "--no-such-flag"],
]

# Where we keep to something else, and why.
EXPLAINED: dict[tuple[str, str], str] = {}


def compare(name: str, ours, theirs, peer: str) -> None:
    if ours != theirs and (peer, name) in EXPLAINED:
        print(f"{name}: ours {ours!r}, {peer}'s {theirs!r}: {EXPLAINED[peer, name]}")
        return
    assert ours == theirs, f"{name}: ours {ours!r}, {peer}'s {theirs!r}"


@pytest.mark.parametrize("name", RUNS)
def test_exit_status_of_run(mine, docker, name):
    outcomes = [runtime.run(*runtime.container(*RUNS[name])) for runtime in (mine, docker)]
    compare(name, *(outcome.status for outcome in outcomes), "docker")
    ours, theirs = outcomes
    assert ours.stdout == theirs.stdout
    assert bool(ours.stderr) == bool(theirs.stderr), (ours.stderr, theirs.stderr)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_exit_status_of_verbs_on_nobody(mine, docker, words):
    outcomes = [runtime.run(*words) for runtime in (mine, docker)]
    compare(" ".join(words), *(outcome.status for outcome in outcomes), "docker")
    assert all(outcome.stderr for outcome in outcomes)


def test_environment_is_in_dockers_order(mine, docker):
    options = [
        "--rm",
        "-e",
        "ZED=1",
        "-e",
        "ALPHA=2",
        "-e",
        "PATH=/bin:/usr/bin",
        "--hostname",
        "box",
        "busybox",
    ]
    ours, theirs = (
        runtime.check(*runtime.container(*options, "env")).stdout.splitlines() for runtime in (mine, docker)
    )
    assert ours == theirs


@pytest.mark.parametrize("user", ["0", "1", "12345", "1:5", "daemon", "0:12345"])
def test_identity_of_a_user(mine, docker, user):
    options = ["--rm", "-u", user, "busybox", "sh", "-c", "id -u; id -g; id -G; echo $HOME"]
    ours, theirs = (runtime.run(*runtime.container(*options)) for runtime in (mine, docker))
    assert (ours.status, ours.stdout) == (theirs.status, theirs.stdout)


def test_output_keeps_its_two_streams(mine, docker):
    options = ["--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]
    for runtime in (mine, docker):
        done = runtime.run(*runtime.container(*options))
        assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_input_reaches_the_container_only_with_i(mine, docker):
    for flags, expected in ((["-i"], "hello\n"), ([], "")):
        options = ["--rm", *flags, "busybox", "cat"]
        seen = [runtime.run(*runtime.container(*options), input="hello\n") for runtime in (mine, docker)]
        assert [done.stdout for done in seen] == [expected, expected]


@pytest.fixture(scope="module")
def three(mine, docker):
    """The same three containers in both: one runs, one has ended with 3, one was only created."""
    for runtime in (mine, docker):
        runtime.check(*runtime.container("-d", "--name", "runs", "busybox", "sleep", "10000"))
        runtime.run(*runtime.container("--name", "ended", "busybox", "sh", "-c", "exit 3"))
        options = [
            word for word in runtime.container("--name", "made", "busybox", "echo", "a b") if word != "run"
        ]
        runtime.check("create", *options)
    yield mine, docker
    for runtime in (mine, docker):
        runtime.remove_all()


def normal(text: str) -> list[str]:
    """A table with ids and ages taken out, and columns one blank apart."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"(\d+ (seconds?|minutes?)|Less than a second|About a minute)", "AGE", text)
    return [re.sub(r" {2,}", "  ", line.rstrip()) for line in text.splitlines()]


@pytest.mark.parametrize(
    "words", [["ps"], ["ps", "-a"], ["ps", "-a", "--no-trunc", "--format", "{{.Command}}"]]
)
def test_ps_prints_what_dockers_does(three, words):
    ours, theirs = (normal(runtime.check(*words).stdout) for runtime in three)
    assert ours == theirs


@pytest.mark.parametrize(
    "template",
    [
        "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}",
        "{{.Name}} {{.Path}} {{.Args}}",
        "{{.Config.Image}} {{.Config.Cmd}} {{.HostConfig.NetworkMode}}",
        "{{json .Config.Entrypoint}} {{json .State.OOMKilled}} {{.RestartCount}}",
        "{{len .Id}} {{.Config.Tty}} {{.Config.User}} {{.Config.WorkingDir}}",
    ],
)
@pytest.mark.parametrize("name", ["runs", "ended", "made"])
def test_inspect_answers_with_dockers_fields(three, name, template):
    ours, theirs = (runtime.check("inspect", "--format", template, name).stdout for runtime in three)
    assert ours == theirs


def test_statuses_of_exec(three):
    for words in (["true"], ["sh", "-c", "exit 9"], ["sh", "-c", "kill -9 $$"]):
        ours, theirs = (runtime.run("exec", "runs", *words).status for runtime in three)
        assert ours == theirs, words
    ours, theirs = (runtime.run("exec", "ended", "true").status for runtime in three)
    assert ours == theirs


def test_conflicts_end_alike(three):
    for words in (["rm", "runs"], ["rm", "-f", "nobody"], ["rmi", "busybox"]):
        ours, theirs = (runtime.run(*words).status for runtime in three)
        assert ours == theirs, words
    taken = [
        runtime.run(*runtime.container("--rm", "--name", "runs", "busybox", "true")) for runtime in three
    ]
    assert [done.status for done in taken] == [125, 125]


def test_stop_kill_wait_and_logs(three):
    mine, docker = three
    seen = []
    for runtime in (mine, docker):
        script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
        identity = runtime.check(*runtime.container("-d", "--name", "trap", "busybox", "sh", "-c", script))
        steps = [len(identity.stdout)]
        for _ in range(100):
            if "ready" in runtime.run("logs", "trap").stdout:
                break
        for words in (
            ["stop", "trap"],
            ["wait", "trap"],
            ["logs", "trap"],
            ["stop", "trap"],
            ["kill", "trap"],
        ):
            done = runtime.run(*words)
            steps.append((words[0], done.status, done.stdout))
        runtime.check("rm", "trap")
        seen.append(steps)
    assert seen[0] == seen[1]
