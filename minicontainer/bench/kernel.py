"""A process like a busy notebook's kernel, for starting containers from: large, with threads, and an event loop.

It touches 300 MB and keeps several threads, as numpy and Jupyter's channels do, then serves requests on a socket: run
one container, start one that stays, remove them. Times are taken here, around the API's call, since that is what a
cell waits for. Run by :mod:`minicontainer.bench.start` as ``python -m minicontainer.bench.kernel DESCRIPTOR``.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from typing import Any

from minicontainer.engine import Engine

MEGABYTES = 300
THREADS = 8
_PAGE = 4096


def _fill() -> bytearray:
    """Memory that really is there: each page written."""
    held = bytearray(MEGABYTES << 20)
    held[::_PAGE] = b"\1" * (len(held) // _PAGE)
    return held


class Kernel:
    """The requests, by name."""

    def __init__(self) -> None:
        self.held = _fill()
        self.ends = threading.Event()
        self.threads = [threading.Thread(target=self.ends.wait, daemon=True) for _ in range(THREADS)]
        for thread in self.threads:
            thread.start()
        self.engine = Engine()
        self.started: list[str] = []

    def true(self) -> dict[str, Any]:
        """`true` in a new container, removed at the end."""
        start = time.perf_counter()
        result = self.engine.run("busybox", ["true"], network="none")
        seconds = time.perf_counter() - start
        if result.status != 0:
            raise RuntimeError(f"`true` ended with {result.status}: {result.stderr}")
        return {"seconds": seconds}

    def start(self) -> dict[str, Any]:
        """One more container in the background."""
        start = time.perf_counter()
        container = self.engine.run("busybox", ["sleep", "10000"], detach=True, network="none")
        seconds = time.perf_counter() - start
        self.started.append(container.id)
        return {"seconds": seconds}

    def remove_all(self) -> dict[str, Any]:
        """Remove what :meth:`start` started."""
        while self.started:
            self.engine.remove(self.started.pop(), force=True)
        return {}


def main(descriptor: int) -> None:
    """Serve one request a line until the other end closes."""
    with socket.socket(fileno=descriptor) as end, end.makefile("rw") as lines:
        kernel = Kernel()
        requests = {"true": kernel.true, "start": kernel.start, "remove_all": kernel.remove_all}
        for line in lines:
            try:
                answer = requests[line.strip()]()
            except Exception as error:  # told to whoever measures, who decides
                answer = {"error": f"{type(error).__name__}: {error}"}
            lines.write(json.dumps(answer) + "\n")
            lines.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
