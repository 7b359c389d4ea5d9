"""A small process that forks, so that the notebook's kernel never does.

A Jupyter kernel has a dozen threads and hundreds of megabytes: forking it costs tens of milliseconds and copies locks
that other threads hold. The fork server is started once through posix_spawn, imports what containers need, stays
single-threaded, and forks a child for each request in about a millisecond. It ends when its owner does: the owner's end
of the request socket closes then. Lab 02. Man pages: fork(2), unix(7), prctl(2) (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from minicontainer.errors import MinicontainerError
from minicontainer.linux.process import set_process_name
from minicontainer.runtime import steps
from minicontainer.runtime.travel import pack, unpack

_HEADER = struct.Struct("!II")  # length of the JSON, length of the bytes behind it
_MOST_DESCRIPTORS = 16
SERVER = "mc-forkserver"
SPARE = "mc-spare"  # the name, in ps(1), of the child that waits for the next request
_lock = threading.Lock()
_shared: ForkServer | None = None


class ForkServer:
    """The owner's side of a fork server.

    :param preload: modules for the server to import before its first fork, beside the runtime's own.
    """

    def __init__(self, preload: Iterable[str] = ()) -> None:
        import subprocess

        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from minicontainer.runtime.forkserver import serve;"
            f" serve({theirs.fileno()}, {list(preload)!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()

    @property
    def pid(self) -> int:
        """The server's PID."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the server still runs and belongs to this process (not to the one we were forked from)."""
        return self._owner == os.getpid() and self._process.poll() is None

    def call(
        self,
        function: str,
        args: dict[str, Any],
        fds: Iterable[int] = (),
        functions: dict[str, Any] | None = None,
        preload: Iterable[str] = (),
    ) -> int:
        """Fork a child of the server that runs ``module:function(args, fds)`` and ends with what it returns.

        :param fds: descriptors that the child gets copies of, in this order.
        :param preload: modules for the server to import first, where it has not yet, so that all children share them.
        :param functions: learner's steps to be in force there; by default those in force here.
        :returns: the child's PID in the server's PID namespace, which is ours.
        :raises MinicontainerError: where the server is gone or cannot fork.
        """
        active = steps.active() if functions is None else functions
        payload = pack(active, active.values()) if active else b""
        data = json.dumps({"function": function, "args": args, "preload": list(preload)}).encode()
        with self._lock:
            try:
                socket.send_fds(self._socket, [_HEADER.pack(len(data), len(payload))], list(fds))
                self._socket.sendall(data + payload)
                answer = json.loads(_receive(self._socket, struct.unpack("!I", _receive(self._socket, 4))[0]))
            except (OSError, EOFError) as error:
                raise MinicontainerError(
                    f"the fork server (PID {self.pid}) is gone: {error}",
                    hint="try again: a new one is started",
                ) from error
        if "error" in answer:
            raise MinicontainerError(f"the fork server cannot fork: {answer['error']}")
        pid: int = answer["pid"]
        return pid

    def close(self) -> None:
        """End the server; its children go on."""
        self._socket.close()
        self._process.wait(5)


def shared(preload: Iterable[str] = ()) -> ForkServer:
    """This process's fork server, started on first use and started again should it have died."""
    global _shared
    with _lock:
        if _shared is None or not _shared.alive():
            _shared = ForkServer(preload)
        return _shared


def _receive(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = end.recv(count - len(data))
        if not part:
            raise EOFError("the other end closed")
        data += part
    return data


class Request:
    """One request as it came over the wire: what to run, with which descriptors, and the learner's steps as bytes."""

    def __init__(self, text: bytes, payload: bytes, fds: list[int]) -> None:
        self.text = text
        self.payload = payload
        self.fds = fds

    @classmethod
    def read(cls, end: socket.socket) -> Request | None:
        """The next request; None once the other side is gone."""
        try:
            header, fds, _, _ = socket.recv_fds(end, _HEADER.size, _MOST_DESCRIPTORS)
            if not header:
                return None
            header += _receive(end, _HEADER.size - len(header))
            text_length, payload_length = _HEADER.unpack(header)
            return cls(_receive(end, text_length), _receive(end, payload_length), fds)
        except (EOFError, ConnectionResetError):
            return None

    def write(self, end: socket.socket) -> None:
        """Pass it on as it is."""
        socket.send_fds(end, [_HEADER.pack(len(self.text), len(self.payload))], self.fds)
        end.sendall(self.text + self.payload)

    def close(self) -> None:
        """Close our copies of its descriptors."""
        for descriptor in self.fds:
            os.close(descriptor)


class _Server:
    """The server's life: wait for requests, hand each to a child, end with the owner.

    One child is always forked ahead of its request and waits: making it, and its first touch of the pages it shares
    with us, then costs nobody any time.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.spare: tuple[int, socket.socket] | None = None

    def run(self) -> None:
        wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poll = select.poll()
        poll.register(self.end, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for ready, _ in poll.poll():
                if ready == wake:
                    os.read(wake, 4096)
                    _reap()
                elif not self._serve_one():
                    return

    def _serve_one(self) -> bool:
        """One request; False once the owner is gone."""
        request = Request.read(self.end)
        if request is None:
            return False
        try:
            answer: dict[str, Any] = {"pid": self._hand_over(request)}
        except (OSError, ImportError) as error:
            answer = {"error": str(error)}
        request.close()
        data = json.dumps(answer).encode()
        try:
            self.end.sendall(struct.pack("!I", len(data)) + data)
        except BrokenPipeError:
            return False
        if self.spare is None and "pid" in answer:
            try:
                self.spare = self._fork()
            except OSError:
                self.spare = (
                    None  # the limit on processes is reached: the next request is told if it still is
                )
        return True

    def _hand_over(self, request: Request) -> int:
        """Give the request to the waiting child, or to a new one; returns its PID."""
        wanted = json.loads(request.text)
        missing = [
            name for name in (*wanted["preload"], _module(wanted["function"])) if name not in sys.modules
        ]
        for name in missing:
            __import__(name)  # once, here, so that no child has to
        spare, self.spare = self.spare, None
        if spare is not None and missing:
            spare[1].close()  # forked before those modules were here: it sees the end of its socket and ends
            spare = None
        pid, channel = spare or self._fork()
        try:
            request.write(channel)
        except BrokenPipeError:  # somebody killed the waiting child
            channel.close()
            pid, channel = self._fork()
            request.write(channel)
        channel.close()
        return pid

    def _fork(self) -> tuple[int, socket.socket]:
        """A child that waits for its request on the socket whose other end is returned."""
        ours, theirs = socket.socketpair()
        set_process_name(SPARE)  # inherited, so that the child is never seen under another name
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid:
            set_process_name(SERVER)
        if pid == 0:
            ours.close()
            self.end.close()
            _child(theirs)
        theirs.close()
        return pid, ours


def _module(function: str) -> str:
    return function.partition(":")[0]


def serve(descriptor: int, preload: list[str]) -> None:
    """Be the fork server on the socket `descriptor`; returns when the owner is gone."""
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    for module in ("minicontainer.runtime.container", "minicontainer.runtime.execute", *preload):
        __import__(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner; children set their own
    import gc

    from minicontainer.runtime.seccomp import compiled
    from minicontainer.runtime.spec import default_spec

    profile = default_spec()["linux"].get("seccomp")
    if profile:
        compiled(profile)  # the usual filter, once for all children
    gc.collect()
    gc.freeze()  # long-lived objects are left alone by the collector, so that children share their pages
    set_process_name(SERVER)
    _Server(end).run()


def _reap() -> None:
    """Collect children that have ended, so that none stays a zombie."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def _child(end: socket.socket) -> None:
    """The forked child: wait for the request, then a session of its own, the function, and out."""
    status = 0
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        request = Request.read(end)
        if request is None:
            return  # never needed; the finally below ends the process
        set_process_name("mc-child")
        status = 1
        end.close()
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        wanted = json.loads(request.text)
        module, _, name = wanted["function"].partition(":")
        function: Callable[..., int | None] = getattr(sys.modules[module], name)
        functions = unpack(request.payload) if request.payload else {}
        with steps.only(functions):
            status = function(wanted["args"], request.fds) or 0
    except BaseException:  # printed here: the caller only learns of it by the end of its own pipe
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)
