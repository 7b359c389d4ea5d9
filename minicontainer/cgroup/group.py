"""One container's control group: the same path in every hierarchy, made, entered, killed and removed as one thing.

Lab 04. Man page: cgroups(7). On v2 a group may hold processes or enable controllers for children, not both: our
parent group holds only children, a container's group only processes.
"""

from __future__ import annotations

import errno
import os
import signal
import time

from minicontainer.cgroup.hierarchy import Hierarchies, detect

DEFAULT_PARENT = "minicontainer"


def parent_path() -> str:
    """The group below which all of ours live, relative to the hierarchies' roots (MINICONTAINER_CGROUP_PARENT)."""
    return os.environ.get("MINICONTAINER_CGROUP_PARENT", DEFAULT_PARENT).strip("/")


class Group:
    """A control group by its path below the hierarchies' roots, for example ``minicontainer/3f2a…``.

    :param path: relative path; ".." is refused, since it comes from a configuration file.
    """

    def __init__(self, path: str, hierarchies: Hierarchies | None = None) -> None:
        self.path = path.strip("/")
        if not self.path or ".." in self.path.split("/"):
            raise ValueError(f"not a path of a control group: {path!r}")
        self.hierarchies = hierarchies if hierarchies is not None else detect()
        self.directories = [f"{root}/{self.path}" for root in self.hierarchies.directories()]

    def create(self) -> list[str]:
        """Make the group in each hierarchy we may write to; returns the directories that now exist.

        An ordinary user without a delegated subtree gets an empty list: the container runs without limits.

        :raises OSError: for any failure other than a missing permission.
        """
        made = []
        for directory in self.directories:
            try:
                _make(directory)
            except PermissionError:
                continue
            except OSError as error:
                if error.errno == errno.EROFS:  # a container's view of /sys/fs/cgroup
                    continue
                raise
            made.append(directory)
        return made

    def enter(self, pid: int) -> None:
        """Move process `pid` into the group, in every hierarchy in which it exists.

        :raises OSError: ESRCH where the process is gone, EBUSY on v2 for a group that enabled controllers.
        """
        data = str(pid).encode()
        for directory in self.directories:
            try:
                descriptor = os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def open_for_child(self) -> tuple[int | None, list[int]]:
        """Descriptors by which a child puts itself into the group, at a hundredth of the cost of :meth:`enter`.

        Moving another process takes a lock that waits for a grace period of every CPU (15 ms on an idle machine). A
        single thread that writes "0" to a v1 ``tasks`` file moves only itself and needs no such lock; on v2 a child
        is born in the group by clone3(2) with CLONE_INTO_CGROUP.

        :returns: (descriptor of the v2 directory or None, descriptors of v1 ``tasks`` files), for the caller to close.
        """
        v2: int | None = None
        tasks: list[int] = []
        for directory in self.directories:
            try:
                if self.hierarchies.v2 and directory.startswith(self.hierarchies.v2 + "/"):
                    v2 = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                else:
                    tasks.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
            except (FileNotFoundError, PermissionError):
                continue
        return v2, tasks

    def processes(self) -> list[int]:
        """The PIDs in the group, as seen from our PID namespace."""
        found: set[int] = set()
        for directory in self.directories:
            try:
                with open(f"{directory}/cgroup.procs") as file:
                    found.update(int(line) for line in file)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.ENODEV:  # removed between open and read
                    raise
        return sorted(found - {0})

    def kill(self) -> None:
        """Send SIGKILL to every process in the group, at once where the kernel can (cgroup.kill, Linux 5.14)."""
        for directory in self.directories:
            try:
                with open(f"{directory}/cgroup.kill", "w") as file:
                    file.write("1")
            except (FileNotFoundError, PermissionError):
                continue
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def freeze(self, frozen: bool, *, patience: float = 10.0) -> None:
        """Stop every process of the group where it stands, or let all go on; returns once the kernel has done so.

        :param patience: seconds to wait; a process in an uninterruptible call may take that long.
        :raises OSError: ENOENT where no hierarchy has a freezer, EBUSY where a process does not freeze in time.
        """
        for name, words in (("cgroup.freeze", ("0", "1")), ("freezer.state", ("THAWED", "FROZEN"))):
            for directory in self.directories:
                path = f"{directory}/{name}"
                if os.path.exists(path):
                    self._write_freezer(path, words[frozen])
                    deadline = time.monotonic() + patience
                    while self.frozen() != frozen:
                        if time.monotonic() > deadline:
                            raise OSError(errno.EBUSY, "a process does not freeze", path)
                        if name == "freezer.state":
                            self._write_freezer(
                                path, words[frozen]
                            )  # v1 can stay at FREEZING until asked again
                        time.sleep(0.001)
                    return
        raise OSError(errno.ENOENT, "no control group hierarchy here has a freezer", self.path)

    @staticmethod
    def _write_freezer(path: str, word: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, word.encode())
        finally:
            os.close(descriptor)

    def frozen(self) -> bool:
        """Whether the group's processes are frozen now."""
        for directory in self.directories:
            try:
                with open(f"{directory}/freezer.state") as file:
                    if file.read().strip() == "FROZEN":
                        return True
            except (FileNotFoundError, NotADirectoryError):
                pass  # not this hierarchy
            try:
                with open(f"{directory}/cgroup.events") as file:
                    if "frozen 1" in file.read():
                        return True
            except (FileNotFoundError, NotADirectoryError):
                pass  # a v1 hierarchy, or no group there
        return False

    def remove(self, *, patience: float = 2.0) -> None:
        """Remove the group, and our parent group with it when it was the last one.

        :param patience: seconds to wait for processes that are still ending (rmdir answers EBUSY until then).
        :raises OSError: EBUSY where a process is still in the group after that.
        """
        deadline = time.monotonic() + patience
        for directory in self.directories:
            pause = 0.0005
            while True:
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise
                    time.sleep(pause)
                    pause = min(pause * 2, 0.05)
                else:
                    self._remove_parent(os.path.dirname(directory))
                    break

    def _remove_parent(self, directory: str) -> None:
        """Remove the empty parent group where it is ours; other engines' parents, and one in use, stay."""
        if os.path.dirname(self.path) != parent_path():
            return
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT, errno.EACCES, errno.EPERM):
                raise


def _make(directory: str) -> None:
    """mkdir -p that survives another process removing the empty parent in between."""
    for _ in range(100):
        try:
            os.mkdir(directory, 0o755)
            return
        except FileExistsError:
            return
        except FileNotFoundError:
            _make(os.path.dirname(directory))
    raise OSError(errno.EAGAIN, "the parent group keeps being removed by others", directory)
