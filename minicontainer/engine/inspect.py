"""`inspect`, `info` and `version`, with the field names of Docker's Engine API: templates written for it work."""

from __future__ import annotations

import os
import platform

from minicontainer import __version__
from minicontainer.engine.hostconfig import DEFAULTS
from minicontainer.engine.logs import LOG
from minicontainer.engine.record import Record
from minicontainer.engine.times import timestamp
from minicontainer.errors import MinicontainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.engine.engine import Engine


def inspect(record: Record, directory: str, root: str) -> dict[str, Any]:
    """A container as `docker inspect` shows it."""
    config, state = record.config, record.state
    arguments = config.arguments
    layers = [layer if layer.startswith("/") else f"{root}/{layer}" for layer in config.layers]
    return {
        "Id": config.id,
        "Created": config.created,
        "Path": arguments[0] if arguments else "",
        "Args": arguments[1:],
        "State": {
            "Status": state.shown,
            "Running": state.running,
            "Paused": state.running and state.paused,
            "Restarting": False,
            "OOMKilled": state.oom_killed,
            "Dead": state.status == "dead",
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": state.started_at,
            "FinishedAt": state.finished_at,
        },
        "Image": config.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": f"{directory}/{LOG}",
        "Name": f"/{config.name}",
        "RestartCount": state.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": {
            "Binds": None,
            "ContainerIDFile": "",
            "LogConfig": {"Type": "json-file", "Config": {}},
            "NetworkMode": config.network,
            "PortBindings": {},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": config.auto_remove,
            "Init": False,
            "ReadonlyRootfs": config.read_only,
            "Runtime": "minicontainer",
            **DEFAULTS,
            **config.host,
        },
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                "LowerDir": ":".join(layers),
                "UpperDir": f"{directory}/upper",
                "WorkDir": f"{directory}/work",
                "MergedDir": f"{directory}/rootfs",
            },
        },
        "Mounts": [],
        "Config": {
            "Hostname": config.hostname,
            "Domainname": config.domainname,
            "User": config.user,
            "AttachStdin": False,
            "AttachStdout": False,
            "AttachStderr": False,
            "ExposedPorts": {port: {} for port in config.exposed_ports},
            "Tty": config.tty,
            "OpenStdin": config.stdin_open,
            "StdinOnce": False,
            "Env": list(config.env),
            "Cmd": list(config.command) or None,
            "Image": config.image,
            "Volumes": {path: {} for path in config.volumes} or None,
            "WorkingDir": "" if config.workdir == "/" else config.workdir,
            "Entrypoint": list(config.entrypoint) or None,
            "Labels": dict(config.labels),
            "StopSignal": config.stop_signal,
            "StopTimeout": config.stop_timeout,
        },
        "NetworkSettings": {"Ports": {}, "IPAddress": "", "Gateway": "", "MacAddress": "", "Networks": {}},
    }


def info(engine: Engine) -> dict[str, Any]:
    """The machine and the store, as `docker info` shows them."""
    from minicontainer.cgroup.hierarchy import detect

    containers = engine.containers(all=True)
    running = sum(container.state.running for container in containers)
    paused = sum(container.state.shown == "paused" for container in containers)
    hierarchies = detect()
    try:
        images = len(engine.images.images())
    except MinicontainerError:
        images = 0
    return {
        "ID": "",
        "Containers": len(containers),
        "ContainersRunning": running - paused,
        "ContainersPaused": paused,
        "ContainersStopped": len(containers) - running,
        "Images": images,
        "Driver": "overlay",
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs" if hierarchies.version != "none" else "none",
        "CgroupVersion": hierarchies.version.removeprefix("v"),
        "KernelVersion": os.uname().release,
        "OperatingSystem": _operating_system(),
        "OSType": "linux",
        "Architecture": os.uname().machine,
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "Name": os.uname().nodename,
        "DockerRootDir": engine.root,
        "RunRoot": engine.run_root,
        "DefaultRuntime": "minicontainer",
        "SystemTime": timestamp(),
        "ServerVersion": __version__,
    }


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def version() -> dict[str, Any]:
    """Versions, as `docker version` shows them; there is no daemon, so client and server are one."""
    one = {
        "Version": __version__,
        "ApiVersion": "1.43",
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "KernelVersion": os.uname().release,
        "PythonVersion": platform.python_version(),
    }
    return {"Client": dict(one), "Server": dict(one)}
