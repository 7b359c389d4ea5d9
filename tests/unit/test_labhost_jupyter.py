"""How JupyterLab is started: its port, its page, its token."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from minicontainer.errors import MinicontainerError
from minicontainer.labhost import jupyter


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(taken: int):
    with pytest.raises(
        MinicontainerError, match=f"cannot use port {taken}: Address already in use"
    ) as caught:
        jupyter.choose_port(taken)
    assert "--port" in caught.value.hint


def test_the_next_free_port_is_taken_where_none_was_asked_for(taken: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jupyter, "FIRST_PORT", taken)
    assert taken < jupyter.choose_port(None) < taken + 100


def test_opens_the_first_lesson(tmp_path: Path):
    assert jupyter.first_page(tmp_path) == "/lab"
    (tmp_path / "notebooks").mkdir()
    for name in ("01_b.ipynb", "00_a.ipynb", "README.md"):
        (tmp_path / "notebooks" / name).touch()
    assert jupyter.first_page(tmp_path) == "/lab/tree/notebooks/00_a.ipynb"


def test_the_token_is_not_on_the_command_line():
    assert not any("token" in word.lower() for word in jupyter.command(Path("/course"), 8888, "/lab"))
    assert jupyter.environment("secret")["JUPYTER_TOKEN"] == "secret"


def test_listens_on_loopback_only(tmp_path: Path):
    assert "--ServerApp.ip=127.0.0.1" in jupyter.command(tmp_path, 8888, "/lab")


def test_no_browser_is_started_without_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    jupyter.open_browser("http://127.0.0.1:1/lab")
    assert "open the address in a browser yourself" in capsys.readouterr().out
