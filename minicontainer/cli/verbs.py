"""Verbs: the command line's grammar as one table, in Docker's words.

Reading this table is the quickest way to learn what ``minicontainer`` can do; the help texts are made from it.
"""

from __future__ import annotations

from minicontainer.cli.flags import LIST, NUMBER, STRING, SWITCH, Flag, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _filter(text: str) -> str:
    if "=" not in text:
        raise ValueError("bad format of filter (expected name=value)")
    return text


def _env(text: str) -> str:
    if text.startswith("=") or not text:
        raise ValueError(f"invalid environment variable: {text}")
    return text


def _label(text: str) -> str:
    if text.startswith("=") or not text:
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def _stream(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def _quantity(name: str) -> Callable[[str], str]:
    """A check by the engine's own grammar, imported when there is something to check."""

    def check(text: str) -> str:
        from minicontainer.engine import quantities

        getattr(quantities, name)(text)
        return text

    return check


def _keys(text: str) -> str:
    from minicontainer.cli.attach import detach_keys

    detach_keys(text)
    return text


DETACH_KEYS = Flag("", "detach-keys", STRING, "Override the key sequence for detaching a container", _keys)
SIG_PROXY = Flag(
    "", "sig-proxy", SWITCH, "Proxy received signals to the process (default true)", default=True
)
FORMAT = Flag("", "format", STRING, "Format output: table, 'table TEMPLATE', json, or a Go template")
SHORT_FORMAT = Flag("f", "format", STRING, "Format output: json, or a Go template such as '{{.State.Pid}}'")
SIGNAL = Flag("s", "signal", STRING, "Signal to send to the container")
TIMEOUT = Flag("t", "timeout", NUMBER, "Seconds to wait before killing the container")

_PROCESS = (
    Flag("e", "env", LIST, "Set environment variables (VAR alone copies yours)", _env),
    Flag("", "env-file", LIST, "Read in a file of environment variables"),
    Flag("i", "interactive", SWITCH, "Keep STDIN open even if not attached"),
    Flag("t", "tty", SWITCH, "Allocate a pseudo-TTY"),
    Flag("u", "user", STRING, "Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("w", "workdir", STRING, "Working directory inside the container"),
)
# Named as the engine's options of hostconfig.OPTIONS, so that they need no translation.
LIMITS = (
    Flag("", "blkio-weight", NUMBER, "Block IO (relative weight), between 10 and 1000"),
    Flag("", "cpu-period", NUMBER, "Limit CPU CFS (Completely Fair Scheduler) period, microseconds"),
    Flag("", "cpu-quota", NUMBER, "Limit CPU CFS (Completely Fair Scheduler) quota, microseconds"),
    Flag("c", "cpu-shares", NUMBER, "CPU shares (relative weight)"),
    Flag("", "cpus", STRING, "Number of CPUs", _quantity("nano_cpus")),
    Flag("", "cpuset-cpus", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("", "cpuset-mems", STRING, "MEMs in which to allow execution (0-3, 0,1)"),
    Flag("m", "memory", STRING, "Memory limit", _quantity("size")),
    Flag("", "memory-reservation", STRING, "Memory soft limit", _quantity("size")),
    Flag("", "memory-swap", STRING, "Limit of memory plus swap: '-1' to enable unlimited swap", _quantity("swap")),
    Flag("", "pids-limit", NUMBER, "Tune container pids limit (set -1 for unlimited)"),
)  # fmt: skip
HOST = (
    *LIMITS,
    Flag("", "cap-add", LIST, "Add Linux capabilities"),
    Flag("", "cap-drop", LIST, "Drop Linux capabilities"),
    Flag("", "device", LIST, "Add a host device to the container", _quantity("device")),
    Flag("", "device-read-bps", LIST, "Limit read rate (bytes per second) from a device", _quantity("bytes_rate")),
    Flag("", "device-read-iops", LIST, "Limit read rate (IO per second) from a device", _quantity("operations_rate")),
    Flag("", "device-write-bps", LIST, "Limit write rate (bytes per second) to a device", _quantity("bytes_rate")),
    Flag("", "device-write-iops", LIST, "Limit write rate (IO per second) to a device", _quantity("operations_rate")),
    Flag("", "oom-kill-disable", SWITCH, "Disable OOM Killer"),
    Flag("", "oom-score-adj", NUMBER, "Tune host's OOM preferences (-1000 to 1000)"),
    Flag("", "privileged", SWITCH, "Give extended privileges to this container"),
    Flag("", "security-opt", LIST, "Security options: seccomp=unconfined|FILE, no-new-privileges"),
    Flag("", "tmpfs", LIST, "Mount a tmpfs directory", _quantity("tmpfs")),
    Flag("", "ulimit", LIST, "Ulimit options: name=soft[:hard]", _quantity("ulimit")),
)  # fmt: skip
_CREATE = (
    *HOST,
    Flag("a", "attach", LIST, "Attach to STDIN, STDOUT or STDERR", _stream),
    Flag("", "cidfile", STRING, "Write the container ID to the file"),
    Flag("", "entrypoint", STRING, "Overwrite the default ENTRYPOINT of the image"),
    Flag("h", "hostname", STRING, "Container host name"),
    Flag("l", "label", LIST, "Set meta data on a container", _label),
    Flag("", "name", STRING, "Assign a name to the container"),
    Flag("", "network", STRING, "Connect a container to a network: none (default) or host"),
    Flag("", "pull", STRING, 'Pull image before creating: "missing" (default) or "never"'),
    Flag("", "read-only", SWITCH, "Mount the container's root filesystem as read only"),
    Flag("", "rm", SWITCH, "Automatically remove the container when it exits"),
    Flag("", "stop-signal", STRING, "Signal to stop the container"),
    Flag("", "stop-timeout", NUMBER, "Timeout (in seconds) to stop a container"),
    *_PROCESS,
)

_MANY = "CONTAINER [CONTAINER...]"

VERBS: tuple[Verb, ...] = (
    Verb(
        "run",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create and run a new container from an image",
        "run:run",
        (
            Flag("d", "detach", SWITCH, "Run container in background and print container ID"),
            DETACH_KEYS,
            SIG_PROXY,
            *_CREATE,
        ),
        least=1,
        until_argument=True,
    ),
    Verb(
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Execute a command in a running container",
        "run:execute",
        (Flag("d", "detach", SWITCH, "Detached mode: run command in the background"), DETACH_KEYS, *_PROCESS),
        least=2,
        until_argument=True,
    ),
    Verb(
        "ps",
        "[OPTIONS]",
        "List containers",
        "containers:ps",
        (
            Flag("a", "all", SWITCH, "Show all containers (default shows just running)"),
            Flag("f", "filter", LIST, "Filter output: id, name, status, label, exited, ancestor", _filter),
            FORMAT,
            Flag("n", "last", NUMBER, "Show n last created containers (includes all states)"),
            Flag("l", "latest", SWITCH, "Show the latest created container (includes all states)"),
            Flag("", "no-trunc", SWITCH, "Don't truncate output"),
            Flag("q", "quiet", SWITCH, "Only display container IDs"),
        ),
        most=0,
    ),
    Verb(
        "create",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a new container",
        "run:create",
        _CREATE,
        least=1,
        until_argument=True,
    ),
    Verb(
        "start",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start one or more stopped containers",
        "run:start",
        (
            Flag("a", "attach", SWITCH, "Attach STDOUT/STDERR and forward signals"),
            DETACH_KEYS,
            Flag("i", "interactive", SWITCH, "Attach container's STDIN"),
        ),
        least=1,
    ),
    Verb(
        "stop",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop one or more running containers",
        "containers:stop",
        (SIGNAL, TIMEOUT),
        least=1,
    ),
    Verb(
        "restart",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Restart one or more containers",
        "containers:restart",
        (SIGNAL, TIMEOUT),
        least=1,
    ),
    Verb(
        "kill",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Kill one or more running containers",
        "containers:kill",
        (SIGNAL,),
        least=1,
    ),
    Verb(
        "rm",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Remove one or more containers",
        "containers:rm",
        (
            Flag("f", "force", SWITCH, "Force the removal of a running container (uses SIGKILL)"),
            Flag("v", "volumes", SWITCH, "Remove anonymous volumes associated with the container"),
        ),
        least=1,
    ),
    Verb(
        "wait",
        "CONTAINER [CONTAINER...]",
        "Block until one or more containers stop, then print their exit codes",
        "containers:wait",
        least=1,
    ),
    Verb(
        "logs",
        "[OPTIONS] CONTAINER",
        "Fetch the logs of a container",
        "containers:logs",
        (
            Flag("f", "follow", SWITCH, "Follow log output"),
            Flag("", "since", STRING, "Show logs since a timestamp (2013-01-02T13:23:37Z) or relative (42m)"),
            Flag("n", "tail", STRING, 'Number of lines to show from the end of the logs (default "all")'),
            Flag("t", "timestamps", SWITCH, "Show timestamps"),
            Flag("", "until", STRING, "Show logs before a timestamp or relative (42m)"),
        ),
        least=1,
        most=1,
    ),
    Verb(
        "inspect",
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on containers and images",
        "system:inspect",
        (
            SHORT_FORMAT,
            Flag("", "type", STRING, "Only inspect objects of the given type: container or image"),
        ),
        least=1,
    ),
    Verb(
        "images",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        "images:images",
        (
            Flag("a", "all", SWITCH, "Show all images (there are no intermediate ones to hide)"),
            Flag("", "digests", SWITCH, "Show digests"),
            FORMAT,
            Flag("", "no-trunc", SWITCH, "Don't truncate output"),
            Flag("q", "quiet", SWITCH, "Only show image IDs"),
        ),
        most=1,
    ),
    Verb(
        "rmi",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove one or more images",
        "images:rmi",
        (Flag("f", "force", SWITCH, "Force removal of the image"),),
        least=1,
    ),
    Verb(
        "attach",
        "[OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        "run:attach",
        (DETACH_KEYS, Flag("", "no-stdin", SWITCH, "Do not attach STDIN"), SIG_PROXY),
        least=1,
        most=1,
    ),
    Verb("pause", _MANY, "Pause all processes within one or more containers", "live:pause", least=1),
    Verb("unpause", _MANY, "Unpause all processes within one or more containers", "live:unpause", least=1),
    Verb("rename", "CONTAINER NEW_NAME", "Rename a container", "live:rename", least=2, most=2),
    Verb(
        "stats",
        "[OPTIONS] [CONTAINER...]",
        "Display a live stream of container(s) resource usage statistics",
        "live:stats",
        (
            Flag("a", "all", SWITCH, "Show all containers (default shows just running)"),
            FORMAT,
            Flag("", "no-stream", SWITCH, "Disable streaming stats and only pull the first result"),
            Flag("", "no-trunc", SWITCH, "Do not truncate output"),
        ),
    ),
    Verb(
        "top",
        "CONTAINER [ps OPTIONS]",
        "Display the running processes of a container",
        "live:top",
        least=1,
        until_argument=True,
    ),
    Verb(
        "update",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Update configuration of one or more containers",
        "live:update",
        LIMITS,
        least=1,
    ),
    Verb("version", "[OPTIONS]", "Show the version information", "system:version", (SHORT_FORMAT,), most=0),
    Verb("info", "[OPTIONS]", "Display system-wide information", "system:info", (SHORT_FORMAT,), most=0),
)

# What stands before the verb.
GLOBAL = Verb(
    "",
    "[OPTIONS] COMMAND",
    "A container runtime small enough to read",
    "",
    (
        Flag("D", "debug", SWITCH, "Show where an error came from (also MINICONTAINER_DEBUG=1)"),
        Flag("", "root", STRING, "Keep images and containers here (also MINICONTAINER_ROOT)"),
        Flag("", "run-root", STRING, "Keep sockets and other live things here (also MINICONTAINER_RUN)"),
        Flag("v", "version", SWITCH, "Print version information and quit"),
    ),
    until_argument=True,
)

# Programs of other floors that the command opens the door to; they read their own words, `--help` included.
GUESTS: dict[str, tuple[str, str]] = {
    "base": ("minicontainer.image.base:main", "Make a base image without a network (busybox, host, debian)"),
    "bench": ("minicontainer.bench.__main__:main", "Measure container starts against other runtimes"),
    "doctor": (
        "minicontainer.labhost.doctor:main",
        "Say what this machine can run, and what to do where it cannot",
    ),
    "lab": ("minicontainer.labhost.lab:main", "Run a command as root of a private toy machine"),
}
