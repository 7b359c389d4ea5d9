"""Prove the two commands on a machine with nothing but Python and git: a Debian made for this, entered, thrown away.

    sudo .venv/bin/python tests/fresh_machine.py --suite bookworm
    sudo .venv/bin/python tests/fresh_machine.py --suite trixie -- --all

Makes a minimal Debian with mmdebstrap, enters it with mount, PID, UTS, IPC and cgroup namespaces of its own (the
network is the machine's), clones this repository's last commit into it, waits until `./lab` answers with JupyterLab,
then runs `./lab test`. States the seconds of each. Man pages: mmdebstrap(1), pivot_root(2), namespaces(7).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MIRROR = "http://deb.debian.org/debian"
# What leads the ordinary clients to the machine's package registries: wanted inside, too.
PASSED_ON = re.compile(r"^(pip_.*|.*_proxy|ssl_cert.*|requests_ca_bundle|curl_ca_bundle)$", re.IGNORECASE)
PASSED_FILES = (
    "/etc/pip.conf",
    "/root/.config/pip/pip.conf",
    "/etc/resolv.conf",
    "/etc/ssl/certs/ca-certificates.crt",
)
LAB_LIMIT = 1200
TEST_LIMIT = 5400


class Failed(Exception):
    """What did not work, in a line."""


def make_root(suite: str, directory: Path) -> None:
    """A minimal Debian in `directory`, set up to reach the same package sources as this machine."""
    if shutil.which("mmdebstrap") is None:
        raise Failed("mmdebstrap is needed: apt install mmdebstrap")
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,git,ca-certificates", suite]
    subprocess.run([*command, str(directory), MIRROR], check=True)
    settings = subprocess.run(
        ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True
    ).stdout
    wanted = re.findall(
        r'^Acquire::(?:http|https|Check-[A-Za-z-]+|Retries)\S* ".*";$', settings, re.MULTILINE
    )
    (directory / "etc/apt/apt.conf.d/99machine").write_text("\n".join(wanted) + "\n")
    for name in PASSED_FILES:
        if Path(name).is_file():
            target = directory / name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy(name, target)
    (directory / "mnt/repository").mkdir()


def enter(root: str, command: list[str]) -> None:
    """Inside new mount and PID namespaces: make `root` the root of everything, and go on as `command`."""
    from minicontainer.linux import mount, namespace, process

    namespace.unshare(namespace.CLONE_NEWCGROUP)
    mount.mount(root, root, None, mount.MS_BIND)
    mount.mount("proc", f"{root}/proc", "proc")
    for name in ("sys", "dev"):
        mount.mount(f"/{name}", f"{root}/{name}", None, mount.MS_BIND | mount.MS_REC)
    for name in ("run", "tmp"):
        mount.mount("tmpfs", f"{root}/{name}", "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=1777")
    mount.mount(str(REPOSITORY), f"{root}/mnt/repository", None, mount.MS_BIND)
    # Not chroot: the kernel refuses user namespaces to a process whose root is not that of its mount namespace.
    os.chdir(root)
    mount.pivot_root(".", ".")
    mount.umount(".", mount.MNT_DETACH)
    os.chdir("/root")
    process.sethostname("fresh")
    environment = {key: value for key, value in os.environ.items() if PASSED_ON.match(key)}
    environment |= {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    os.execve("/bin/sh", ["sh", "-c", 'exec "$@"', "sh", *command], environment)


def start(root: Path, *command: str, **options) -> subprocess.Popen[str]:
    """Start `command` in the machine at `root`; everything in it ends with it."""
    inside = [sys.executable, __file__, "--enter", str(root), *command]
    lab = [sys.executable, "-m", "minicontainer.labhost.lab", "--", *inside]
    return subprocess.Popen(lab, text=True, cwd=REPOSITORY, **options)


def run(root: Path, *command: str, limit: float) -> tuple[int, float]:
    """Run `command` in the machine; its exit status and the seconds it took."""
    began = time.monotonic()
    process = start(root, *command, stdin=subprocess.DEVNULL)
    try:
        return process.wait(timeout=limit), time.monotonic() - began
    except subprocess.TimeoutExpired:
        raise Failed(f"`{' '.join(command)}` took more than {limit:.0f} s") from None
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, then SIGKILL: with the first process of its namespace all others go."""
    for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(timeout=patience)
            except subprocess.TimeoutExpired:
                continue


def open_lab(root: Path, *prefix: str) -> float:
    """`./lab -y --no-browser --port N`: the seconds until JupyterLab's page came back to its token."""
    began = time.monotonic()
    port = free_port()
    command = (*prefix, "./repository/lab", "-y", "--no-browser", "--port", str(port))
    process = start(
        root, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    address = None
    alarm = signal.signal(signal.SIGALRM, lambda *_: end(process))
    signal.alarm(LAB_LIMIT)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print("    " + line, end="", flush=True)
            if found := re.search(r"http://\S+", line):
                address = found.group()
                break
        if address is None:
            raise Failed(f"./lab ended with {process.wait()} before it gave an address")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
        )
        with opener.open(address, timeout=30) as response:
            page = response.read().decode()
        if "JupyterLab" not in page:
            raise Failed(f"{address} answered, but not with JupyterLab")
        token = address.partition("token=")[2]
        if token and token in subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout:
            raise Failed("the token can be read in the list of processes")
        try:
            opener_without = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            opener_without.open(f"http://127.0.0.1:{port}/api/contents", timeout=30)
        except urllib.error.HTTPError as error:
            if error.code != 403:
                raise
        else:
            raise Failed("JupyterLab answers without its token")
        return time.monotonic() - began
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)
        end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bring_repository(root: Path, uncommitted: bool) -> None:
    """The repository as /root/repository: a clone of the last commit, or a copy of the files as they are now."""
    if uncommitted:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
        ).stdout.split(b"\0")
        for name in filter(None, listed):
            source, target = REPOSITORY / os.fsdecode(name), root / "root/repository" / os.fsdecode(name)
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        return
    clone = ("git", "-c", "safe.directory=*", "clone", "-q", "/mnt/repository", "repository")
    status, _ = run(root, *clone, limit=300)
    if status != 0:
        raise Failed(f"git clone ended with {status}")


def make_learner(root: Path) -> tuple[str, ...]:
    """An ordinary user without sudo, with the repository in their home; the words that make a command theirs."""
    status, _ = run(root, "useradd", "--create-home", "--shell", "/bin/sh", "learner", limit=60)
    if status != 0:
        raise Failed(f"useradd ended with {status}")
    shutil.copytree(
        root / "root/repository",
        root / "home/learner/repository",
        symlinks=True,
        ignore=shutil.ignore_patterns(".venv", ".setup.log", "__pycache__"),
    )
    status, _ = run(root, "chown", "-R", "learner:learner", "/home/learner", limit=60)
    if status != 0:
        raise Failed(f"chown ended with {status}")
    drop = ("setpriv", "--reuid=learner", "--regid=learner", "--init-groups")
    return (*drop, "env", "HOME=/home/learner", "USER=learner", "sh", "-c", 'cd && exec "$@"', "sh")


def prove(suite: str, arguments: list[str], *, keep: bool, uncommitted: bool) -> int:
    """The whole proof for one Debian; 0 where the two commands did what they promise."""
    root = Path(tempfile.mkdtemp(prefix=f"minicontainer-fresh-{suite}-", dir="/var/tmp"))
    root.chmod(0o755)  # its ordinary users must get in
    seconds: dict[str, float] = {}
    try:
        began = time.monotonic()
        make_root(suite, root)
        seconds["making a bare Debian"] = time.monotonic() - began
        bring_repository(root, uncommitted)
        seconds["./lab until JupyterLab answers"] = open_lab(root)
        as_learner = make_learner(root)
        seconds["the same by an ordinary user"] = open_lab(root, *as_learner)
        status, seconds["./lab setup again"] = run(root, "./repository/lab", "setup", limit=300)
        if status != 0:
            raise Failed(f"./lab setup ended with {status} the second time")
        status, seconds[" ".join(["./lab test", *arguments])] = run(
            root, "./repository/lab", "test", "-y", *arguments, limit=TEST_LIMIT
        )
        if status != 0:
            raise Failed(f"./lab test ended with {status}")
    except Failed as failure:
        print(f"✗ Debian {suite}: {failure}", flush=True)
        return 1
    else:
        print(f"✓ Debian {suite}: ./lab and ./lab test do what they promise", flush=True)
        return 0
    finally:
        for what, took in seconds.items():
            print(f"  {took:7.1f} s  {what}")
        if keep:
            print(f"  kept: {root}")
        else:
            remove(root)


def remove(root: Path) -> None:
    """Delete the machine's files; its mounts were in a mount namespace that is gone."""
    if any(str(root) in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        raise Failed(f"something is still mounted below {root}")
    shutil.rmtree(root)


def main() -> int:
    if sys.argv[1:2] == ["--enter"]:
        enter(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=("bookworm", "trixie"), default="bookworm", help="of Debian")
    parser.add_argument("--keep", action="store_true", help="do not delete the machine's files")
    parser.add_argument(
        "--uncommitted", action="store_true", help="the files as they are, not the last commit"
    )
    parser.add_argument("arguments", nargs="*", help="for ./lab test, after --")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("✗ only root can make a Debian")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return prove(options.suite, options.arguments, keep=options.keep, uncommitted=options.uncommitted)
    except KeyboardInterrupt:
        print("\n✗ interrupted; the machine is deleted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
