"""Open JupyterLab on the course, inside a lab host: what `./lab` ends in.

The notebooks act as root of the private machine that :mod:`minicontainer.labhost.lab` makes; the browser stays
outside, with the person. One line tells the address, with the token that keeps other users of the machine out.
JupyterLab: https://jupyter-server.readthedocs.io/en/latest/other/full-config.html
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from minicontainer import paths
from minicontainer.errors import MinicontainerError

FIRST_PORT = 8888
START_LIMIT = 120.0  # seconds: a first start on a slow disk compiles hundreds of files


def course_directory() -> Path:
    """The repository with the notebooks, or the working directory where the package stands alone."""
    repository = Path(__file__).resolve().parents[2]
    return repository if (repository / "notebooks").is_dir() else Path.cwd()


def first_page(directory: Path) -> str:
    """The address of the page to open: the first lesson, or the list of files."""
    lessons = sorted((directory / "notebooks").glob("[0-9]*.ipynb"))
    return f"/lab/tree/{lessons[0].relative_to(directory)}" if lessons else "/lab"


def choose_port(wanted: int | None) -> int:
    """`wanted`, or the first free port from 8888 on.

    :raises MinicontainerError: where none is free.
    """
    for port in [wanted] if wanted else range(FIRST_PORT, FIRST_PORT + 100):
        with socket.socket() as probe:
            # As the server does: without it a port would count as taken for a minute after its last use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                reason = error.strerror
                continue
            return port
    what = f"port {wanted}" if wanted else f"every port from {FIRST_PORT} to {FIRST_PORT + 99}"
    raise MinicontainerError(f"cannot use {what}: {reason}", hint="choose another one with --port")


def command(directory: Path, port: int, page: str) -> list[str]:
    """The server's command line."""
    return [
        sys.executable, "-m", "jupyterlab",
        "--no-browser",
        "--allow-root",  # root of the lab host
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={directory}",
        f"--ServerApp.default_url={page}",
        "--JupyterApp.answer_yes=True",  # Ctrl-C ends it, without a question
        "--Application.log_level=WARN",
        # The kernels' sockets are on loopback; encrypted where the library can, which also quiets its warning.
        "--KernelManager.transport_encryption=auto",
    ]  # fmt: skip


def environment(token: str) -> dict[str, str]:
    """Variables for the server: the token (not on the command line, where all users see it), own directories."""
    state = paths.data_root() / "jupyter"
    return {
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(state / "config"),
        "JUPYTER_DATA_DIR": str(state / "data"),
        "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
        "JUPYTER_RUNTIME_DIR": "/run/jupyter",  # the lab host's own /run: gone when it closes
        "IPYTHONDIR": str(state / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the debugger's remark on frozen modules
    }


def answers(address: str, token: str) -> bool:
    """Whether the server at `address` answers to the token."""
    request = urllib.request.Request(f"{address}/api/status", headers={"Authorization": f"token {token}"})
    try:
        # Straight to loopback, whatever proxy the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def wait_until_ready(process: subprocess.Popen[bytes], address: str, token: str) -> None:
    """Return when the server answers.

    :raises MinicontainerError: where it ended instead, or did not answer in time.
    """
    deadline = time.monotonic() + START_LIMIT
    while not answers(address, token):
        if process.poll() is not None:
            raise MinicontainerError(
                f"JupyterLab did not start (exit status {process.returncode})", hint="its own words are above"
            )
        if time.monotonic() > deadline:
            raise MinicontainerError(f"JupyterLab did not answer within {START_LIMIT:.0f} seconds")
        time.sleep(0.1)


def open_browser(address: str) -> None:
    """Open the person's browser, where there is a screen to show it."""
    screen = any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "BROWSER")
    )
    if not screen:
        print("There is no screen here: open the address in a browser yourself.", flush=True)
        return
    import webbrowser

    if not webbrowser.open(address):
        print("No browser could be started: open the address yourself.", flush=True)


def end(process: subprocess.Popen[bytes]) -> int:
    """See the server and all it started out: it has got Ctrl-C already, or gets SIGTERM; then SIGKILL."""
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            process.send_signal(number)
        try:
            return process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
    return process.wait()


def lab_host_works() -> str:
    """Why no lab host can be opened here, in one line; "" where one can."""
    done = subprocess.run(
        [sys.executable, "-m", "minicontainer.labhost.lab", "--", "true"], capture_output=True, text=True
    )
    return "" if done.returncode == 0 else " ".join(done.stderr.split())


def serve(port: int, *, browser: bool) -> int:
    """Run JupyterLab until it ends or the person presses Ctrl-C; returns the exit status."""
    directory = course_directory()
    page = first_page(directory)
    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_urlsafe(24)
    server = command(directory, port, page)
    problem = lab_host_works()
    if problem:
        print(f"! no lab host here: {problem}", flush=True)
        print("! going on without: labs that need the kernel will say so in their first cell", flush=True)
    else:
        server = [sys.executable, "-m", "minicontainer.labhost.lab", "--", *server]
    extra = environment(token)
    if problem:
        extra["JUPYTER_RUNTIME_DIR"] = str(paths.data_root() / "jupyter" / "runtime")

    def stop(_number: int, _frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    print("· JupyterLab is starting", flush=True)
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(server, env={**os.environ, **extra}, cwd=directory)
    try:
        wait_until_ready(process, address, token)
        full = f"{address}{page}?token={token}"
        print(f"✓ JupyterLab: {full}", flush=True)
        print("  Ctrl-C here ends it, and everything that was started in it.", flush=True)
        if browser:
            open_browser(full)
        return process.wait()
    except KeyboardInterrupt:
        print("\n· closing", flush=True)
        return end(process)
    finally:
        if process.poll() is None:
            process.terminate()
            end(process)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m minicontainer.labhost.jupyter [--no-browser] [--port N]`."""
    import argparse

    parser = argparse.ArgumentParser(prog="./lab", description="Open JupyterLab on the course.")
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--port", type=int)
    options = parser.parse_args(arguments)
    try:
        return serve(choose_port(options.port), browser=not options.no_browser)
    except MinicontainerError as error:
        print(f"✗ {error}" + (f"\n  {error.hint}" if error.hint else ""), flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
