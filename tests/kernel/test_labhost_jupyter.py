"""JupyterLab in the lab host: it answers to its token only, its kernels are root in there, Ctrl-C ends all of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (pip install minicontainer[lab])")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str, token: str = "", data: bytes | None = None):
    headers = {"Authorization": f"token {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers, data=data)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        return json.loads(response.read())


@pytest.mark.needs("mount", "process namespaces")
def test_answers_to_its_token_and_ends_with_ctrl_c():
    port = free_port()
    program = [sys.executable, "-m", "minicontainer.labhost.jupyter", "--no-browser", "--port", str(port)]
    # A process group of its own, as a terminal gives to a job, so that Ctrl-C reaches all of it.
    server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stdout is not None
        address = ""
        for line in server.stdout:
            if found := re.search(r"http://\S+token=(\S+)", line):
                address, token = found.group(), found.group(1)
                break
        assert f"http://127.0.0.1:{port}/lab" in address
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(port, "/api/kernels")
        kernel = ask(port, "/api/kernels", token, b"{}")
        assert ask(port, f"/api/kernels/{kernel['id']}", token)["name"] == "python3"
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait(timeout=30) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        server.stdout.close()
