"""Docker and Podman as clients of our runtime: what they ask of ``minicontainer-oci``, and what their users get."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from minicontainer.bench import peers

OURS = os.path.join(os.path.dirname(sys.executable), "minicontainer-oci")
SCHEMAS = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")


class Client:
    """A real engine that runs its containers with our runtime."""

    def __init__(self, peer: peers.Peer) -> None:
        self.peer = peer
        self.docker = peer.name == "docker"
        self.before = [] if self.docker else ["--runtime", OURS]
        self.options = ["--runtime", "minicontainer"] if self.docker else []

    def __call__(self, *words: str, status: int = 0):
        done = self.peer.run(*self.before, *words)
        assert done.status == status, (done.status, done.stdout, done.stderr)
        return done

    def run(self, *words: str, status: int = 0):
        first, *rest = self.peer.container()
        return self(first, *self.options, *rest, *words, status=status)


@pytest.fixture
def client(peer: peers.Peer):
    made = Client(peer)
    yield made
    peer.remove_all()


def test_run_returns_output_and_status(client):
    done = client.run(
        "--rm", "--hostname", "there", peers.IMAGE, "sh", "-c", "echo $$; hostname; exit 7", status=7
    )
    assert done.stdout.split() == ["1", "there"]


def test_standard_input_and_error_are_kept_apart(client):
    first, *rest = client.peer.container("--rm", "-i", peers.IMAGE, "sh", "-c", "cat; echo problem >&2")
    done = client.peer.run(*client.before, first, *client.options, *rest, input="typed\n")
    assert (done.status, done.stdout) == (0, "typed\n")
    assert "problem" in done.stderr


def test_missing_and_unusable_programs_have_their_statuses(client):
    assert "nowhere" in client.run("--rm", peers.IMAGE, "nowhere", status=127).stderr
    client.run("--rm", peers.IMAGE, "/etc", status=126)


def test_life_of_a_detached_container(client):
    client.run(
        "-d",
        "--name",
        "one",
        peers.IMAGE,
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done",
    )
    assert "one" in client("ps", "--format", "{{.Names}}").stdout
    wanted = "minicontainer" if client.docker else OURS
    field = "{{.HostConfig.Runtime}}" if client.docker else "{{.OCIRuntime}}"
    assert client("inspect", "-f", field, "one").stdout.strip() == wanted
    assert client("exec", "one", "sh", "-c", "exit 9", status=9)
    assert "sleep" in client("exec", "one", "ps").stdout
    client("exec", "-d", "one", "touch", "/tmp/made")
    deadline = time.monotonic() + 10
    while client.peer.run(*client.before, "exec", "one", "test", "-e", "/tmp/made").status != 0:
        assert time.monotonic() < deadline, "the detached exec did nothing"
        time.sleep(0.1)
    client("pause", "one")
    assert client("inspect", "-f", "{{.State.Status}}", "one").stdout.strip() == "paused"
    client("unpause", "one")
    assert client("exec", "one", "echo", "awake").stdout == "awake\n"
    client("stop", "--time", "10", "one")
    assert client("inspect", "-f", "{{.State.ExitCode}}", "one").stdout.strip() == "5"
    assert client("logs", "one").stdout == "up\n"
    client("start", "one")
    client("kill", "one")
    assert client("wait", "one").stdout.strip() == "137"
    client("rm", "one")


def test_terminal(client):
    done = client.run("--rm", "-t", peers.IMAGE, "sh", "-c", "tty; test -t 1 && echo yes")
    lines = done.stdout.replace("\r", "").split()
    assert lines[0].startswith("/dev/") and lines[1] == "yes"


def test_limits_of_the_engine_reach_the_kernel(client):
    words = ["--rm", "--memory", "64m", "--pids-limit", "50", peers.IMAGE, "sh", "-c"]
    look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null ||"
    look += " cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    assert client.run(*words, look).stdout.split() == [str(64 << 20), "50"]


def test_user_environment_and_working_directory(client):
    done = client.run(
        "--rm", "--user", "33:33", "--env", "COLOUR=blue", "--workdir", "/tmp", peers.IMAGE,
        "sh", "-c", "id -u; id -g; echo $COLOUR; pwd",
    )  # fmt: skip
    assert done.stdout.split() == ["33", "33", "blue", "/tmp"]


@pytest.mark.skipif(
    not SCHEMAS.is_dir(), reason="no JSON schemas here (Debian: golang-github-opencontainers-specs-dev)"
)
def test_what_we_write_is_valid_by_the_specifications_schemas(workspace, tmp_path):
    import jsonschema
    import referencing
    from referencing.jsonschema import DRAFT4

    registry = referencing.Registry()
    for path in SCHEMAS.glob("*.json"):
        contents = json.loads(path.read_text())
        for name in (
            path.name,
            f"https://opencontainers.org/schema/{path.name}",
            contents.get("id", path.name),
        ):
            registry = registry.with_resource(name, DRAFT4.create_resource(contents))

    def validate(document: dict, name: str) -> None:
        schema = json.loads((SCHEMAS / name).read_text())
        jsonschema.Draft4Validator(schema, registry=registry).validate(document)

    from minicontainer import Engine
    from minicontainer.runtime import spec
    from minicontainer.runtime.hooks import state_of

    validate(
        spec.default_spec() | {"process": spec.default_spec()["process"] | {"args": ["sh"]}},
        "config-schema.json",
    )
    validate(spec.example(), "config-schema.json")
    engine = Engine(root=f"{workspace.directory}/data", run_root=f"{workspace.directory}/run")
    handle = engine.run(peers.IMAGE, ["sleep", "100"], detach=True)
    try:
        config = json.loads(
            Path(f"{workspace.directory}/data/containers/{handle.id}/config.json").read_text()
        )
    finally:
        handle.remove(force=True)
    validate(config, "config-schema.json")
    validate(state_of("x", tmp_path, config, status="running", pid=5), "state-schema.json")
    with pytest.raises(jsonschema.ValidationError):
        validate({"ociVersion": 1}, "config-schema.json")
