"""`exec`: one more process in a running container, with a small relay process of its own as its parent. Lab 10.

The relay enters nothing itself: the runtime has a child born inside. The user is resolved in the container's own files,
opened below its root as the container sees it now. Man pages: setns(2), openat2(2), proc(5) (/proc/PID/root).
"""

from __future__ import annotations

import os
import socket
from typing import Any

from minicontainer.engine import bundle, lookup, users
from minicontainer.engine.frames import STDOUT, control
from minicontainer.engine.options import merge_environment
from minicontainer.engine.process import Streams, leave
from minicontainer.engine.stdio import Client, Relay
from minicontainer.errors import MinicontainerError, NotRunning
from minicontainer.linux.process import set_child_subreaper, set_process_name, start_time
from minicontainer.runtime import container, execute
from minicontainer.runtime.channel import step_error


def main(arguments: dict[str, Any], descriptors: list[int]) -> int:
    """Run one command in a container and stay until it ends.

    :param arguments: id, directory, pid, pid_started, command, env, workdir, user, tty, stdin_open, size, output.
    :param descriptors: the client's socket.
    """
    leave(descriptors)
    set_process_name("mc-exec")
    set_child_subreaper()
    client = Client(socket.socket(fileno=descriptors[0]), output=arguments["output"], owner=True)
    try:
        relay, process = _launch(arguments, client)
    except BaseException as error:  # whatever it was, the client is told
        relay = Relay(sources={}, sink=None)
        relay.add(client)
        relay.finish(control(error=step_error("exec", error).to_dict()))
        return 1
    printed = {"printed": process.printed} if process.printed else {}
    client.send(control(started=process.pid, **printed))
    relay.finish(control(exit=relay.run(process.pid, process.pidfd)))
    return 0


def _launch(arguments: dict[str, Any], client: Client) -> tuple[Relay, container.Process]:
    directory, pid = arguments["directory"], arguments["pid"]
    config = container.read_config(directory)
    process = _process(config["process"], arguments)
    if process["terminal"]:
        streams, stdio = None, (0, 1, 2)
    else:
        streams = Streams(stdin_open=arguments["stdin_open"])
        stdio = streams.stdio
    child = execute.execute(pid, directory, process, stdio, config=config)
    # Only now is it sure that the namespaces were those of our container, and not of a process that got its PID.
    if start_time(pid) != arguments["pid_started"]:
        child.abandon()
        raise NotRunning(f"container {arguments['id']} is not running")
    if streams is not None:
        streams.close_theirs()
        relay = Relay(sources=streams.sources, sink=streams.sink)
    else:
        if child.console is None:
            raise MinicontainerError("the runtime made no terminal for the command")
        relay = Relay(sources={child.console: STDOUT}, sink=child.console, console=child.console)
    relay.stdin_once = True
    relay.add(client)
    child.start()
    return relay, child


def _process(base: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The OCI process: the container's own, with what was asked for in its place."""
    process = {**base, "args": arguments["command"], "terminal": arguments["tty"]}
    process.pop("consoleSize", None)
    if arguments["size"] and arguments["tty"]:
        process["consoleSize"] = {"height": arguments["size"][0], "width": arguments["size"][1]}
    environment = list(base.get("env", []))
    if arguments["user"]:
        user = _user(arguments["pid"], arguments["pid_started"], arguments["user"])
        process["user"] = bundle.process_user(user)
        environment = merge_environment(environment, [f"HOME={user.home}"])
    if arguments["tty"]:
        environment = merge_environment(["TERM=xterm"], environment)
    process["env"] = merge_environment(environment, arguments["env"])
    if arguments["workdir"]:
        process["cwd"] = arguments["workdir"]
    return process


def _user(pid: int, pid_started: int, text: str) -> users.User:
    """Resolve a user in the files of the running container."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotRunning("the container is not running") from error
    try:
        if start_time(pid) != pid_started:
            raise NotRunning("the container is not running")
        return bundle.find_user(text, lambda paths: {path: lookup.read_in_root(root, path) for path in paths})
    finally:
        os.close(root)
