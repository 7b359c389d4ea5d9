"""Real Docker and Podman, each in a private place for the whole session, beside our command line on the same image."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from minicontainer.bench import ours, peers
from minicontainer.bench.start import busybox_layer
from minicontainer.errors import MinicontainerError


@pytest.fixture(scope="session")
def workspace() -> Iterator[peers.Workspace]:
    """A directory for all of them, with a busybox as tree, as archive, and as image in a data root of ours."""
    directory = tempfile.mkdtemp(prefix="minicontainer-peers-", dir="/var/tmp")
    os.chmod(directory, 0o755)
    try:
        try:
            layer = busybox_layer(f"{directory}/data")
        except MinicontainerError as error:
            pytest.skip(f"{error}: {error.hint}")
        yield peers.prepare(directory, layer)
    finally:
        shutil.rmtree(directory)


def _private(make, workspace: peers.Workspace) -> Iterator[peers.Peer]:
    try:
        manager = make(workspace)
        peer = manager.__enter__()
    except peers.Missing as error:
        pytest.skip(str(error))
    try:
        yield peer
    finally:
        manager.__exit__(None, None, None)


@pytest.fixture(scope="session")
def docker(workspace: peers.Workspace) -> Iterator[peers.Peer]:
    yield from _private(peers.docker, workspace)


@pytest.fixture(scope="session")
def podman(workspace: peers.Workspace) -> Iterator[peers.Peer]:
    yield from _private(peers.podman, workspace)


@pytest.fixture(scope="session", params=["docker", "podman"])
def peer(request: pytest.FixtureRequest) -> peers.Peer:
    """Each of the two in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def mine(workspace: peers.Workspace) -> Iterator[peers.Peer]:
    """Our command line."""
    with ours.command_line(workspace, f"{workspace.directory}/data") as command:
        yield command
