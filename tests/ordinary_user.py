"""An ordinary user of the machine, made for the rootless suites and deleted again.

They see the repository through a bind mount in a mount namespace of their own, so that it does not matter whether they
could reach the place where it lies, and nothing is copied. Man pages: useradd(8), subuid(5), mount_namespaces(7).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

FIRST_SUBORDINATE = 1_000_000  # far above what distributions hand out by themselves
SUBORDINATE_COUNT = 65_536
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class Unavailable(Exception):
    """No ordinary user can be made here, and why."""


def tool(name: str) -> str:
    """The path of an administrator's program, which may be missing from an ordinary $PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":" + SBIN)
    if found is None:
        raise Unavailable(f"{name} was not found: no ordinary user can be made")
    return found


class OrdinaryUser:
    """A context manager: on entry the user exists, with a home directory; on exit both are gone.

    :param repository: the tree that the user's programs run in.
    """

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.name = f"mc-test-{os.getpid()}"

    def __enter__(self) -> OrdinaryUser:
        add, delete = tool("useradd"), tool("userdel")
        self._delete = delete
        self.home = Path(tempfile.mkdtemp(prefix=f"minicontainer-user-{os.getpid()}-", dir="/var/tmp"))
        try:
            administer(
                add,
                "--home-dir",
                str(self.home),
                "--no-create-home",
                "--user-group",
                "--shell",
                "/bin/sh",
                self.name,
            )
        except BaseException:
            shutil.rmtree(self.home)
            raise
        try:
            self.entry = pwd.getpwnam(self.name)
            os.chown(self.home, self.entry.pw_uid, self.entry.pw_gid)
            (self.home / "repository").mkdir()
            self._lend_ids()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _lend_ids(self) -> None:
        """Give the user subordinate ids where useradd has not (it does where the distribution says so)."""
        for kind, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
            if shutil.which("newuidmap") and not lent(kind, self.name):
                last = FIRST_SUBORDINATE + SUBORDINATE_COUNT - 1
                administer(tool("usermod"), option, f"{FIRST_SUBORDINATE}-{last}", self.name)

    def __exit__(self, *_: object) -> None:
        administer(self._delete, self.name)
        shutil.rmtree(self.home)

    def run(self, command: list[str], *, limit: float) -> int:
        """Run `command` as the user, in the repository; its exit status, 124 where it took over `limit` seconds.

        The first word is this interpreter or one in the repository's virtual environment.
        """
        inside = self.home / "repository"
        moved = [word.replace(str(self.repository), str(inside)) for word in command]
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(self.repository), str(inside), self.name, *moved],
            env=self.environment(inside),
        )
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
            return 124

    def environment(self, inside: Path) -> dict[str, str]:
        """What a fresh login would have, and what reaches the package registry and the certificates."""
        keep = {
            key: value for key, value in os.environ.items() if key in ("LANG", "TERM", "PYTHONUNBUFFERED")
        }
        return keep | {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": "/bin/sh",
            "PATH": "/usr/local/bin:/usr/bin:/bin:" + SBIN,
            "PYTHONPATH": str(inside),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def lent(file: str, name: str) -> bool:
    try:
        return any(line.startswith(f"{name}:") for line in Path(file).read_text().splitlines())
    except FileNotFoundError:
        return False


def administer(*command: str) -> None:
    """Run an administrator's command; its own words in the error."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"`{' '.join(command)}` failed: {' '.join(done.stderr.split())}")


def become(repository: str, inside: str, name: str, command: list[str]) -> None:
    """Bind the repository where the user can reach it, give up root, go on as `command`."""
    from minicontainer.linux import mount, namespace

    namespace.unshare(namespace.CLONE_NEWNS)
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    mount.mount(repository, inside, None, mount.MS_BIND | mount.MS_REC)
    entry = pwd.getpwnam(name)
    os.initgroups(name, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    os.setsid()  # root's terminal is not the user's
    os.chdir(inside)
    os.execv(command[0], command)


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
