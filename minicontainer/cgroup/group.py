"""One container's control group: the same path in every hierarchy, made, entered, killed and removed as one thing.

Lab 04. Man page: cgroups(7). On v2 a group may hold processes or enable controllers for children, not both: our
parent group holds only children, a container's group only processes (see ``delegation``).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Collection, Iterator

from minicontainer.cgroup import delegation
from minicontainer.cgroup.hierarchy import ON_DEMAND, Hierarchies, detect

DEFAULT_PARENT = "minicontainer"


def parent_path() -> str:
    """The group below which all of ours live, relative to the hierarchies' roots (MINICONTAINER_CGROUP_PARENT).

    An ordinary user's is in the subtree of v2 that was delegated to them, where there is one.
    """
    path = os.environ.get("MINICONTAINER_CGROUP_PARENT", "").strip("/")
    if not path and os.geteuid() != 0:
        v2 = detect().v2
        path = (v2 and delegation.delegated_parent(v2, DEFAULT_PARENT)) or ""
    return path or DEFAULT_PARENT


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

    def create(self, needed: Collection[str] = ()) -> list[str]:
        """Make the group in each hierarchy we may write to; returns the directories that now exist.

        An ordinary user without a delegated subtree gets an empty list: the container runs without limits.

        :param needed: the controllers that limits were asked for: they bring their hierarchy with them on v1, and must
            be enabled on v2.
        :raises OSError: for any failure other than a missing permission.
        :raises StepError: where a needed controller cannot be enabled.
        """
        made = []
        for root, directory in zip(self.hierarchies.directories(), self.directories, strict=True):
            here = [name for name, mounted in self.hierarchies.v1.items() if mounted == root]
            if all(name in ON_DEMAND and name not in needed for name in here) and root != self.hierarchies.v2:
                continue
            try:
                _make(directory)
            except PermissionError:
                continue
            except OSError as error:
                if error.errno == errno.EROFS:  # a container's view of /sys/fs/cgroup
                    continue
                raise
            made.append(directory)
            if "cpuset" in here:
                from minicontainer.cgroup.v1 import fill_cpuset

                fill_cpuset(root, self.path)
        v2, offered = self.hierarchies.v2, self.hierarchies.v2_controllers
        if v2 and offered and f"{v2}/{self.path}" in made:
            # On a hybrid machine v2 has little to offer, and its root stays as it is until somebody asks for it.
            wanted = () if self.hierarchies.v1 else delegation.SUPPORTED.intersection(offered)
            delegation.enable(v2, self.path, wanted, set(needed).intersection(offered), ours=parent_path())
        return made

    def controllers(self) -> dict[str, str]:
        """The group's directory for each controller that is there, and "unified" for the v2 one.

        On v2 every controller that was handed down to the group has that same directory.
        """
        found = {}
        for name, root in self.hierarchies.v1.items():
            directory = f"{root}/{self.path}"
            if os.path.isdir(directory):
                found[name] = directory
        if self.hierarchies.v2:
            directory = f"{self.hierarchies.v2}/{self.path}"
            if os.path.isdir(directory):
                found["unified"] = directory
                for name in delegation.offered(directory):
                    found.setdefault(name, directory)
        return found

    def gather(self) -> None:
        """Bring the group's processes into those of its directories that were made after they started."""
        for _ in range(20):  # a process that forks meanwhile leaves its child behind
            everybody = set(self.processes())
            strays = False
            for directory in self.directories:
                if not os.path.isdir(directory):
                    continue
                for pid in everybody - set(_processes(directory)):
                    strays = True
                    try:
                        with open(f"{directory}/cgroup.procs", "w") as file:
                            file.write(str(pid))
                    except ProcessLookupError:
                        continue
            if not strays:
                return

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
        """The PIDs in the group and in groups below it, as seen from our PID namespace."""
        found: set[int] = set()
        for directory in self.directories:
            found.update(_processes(directory))
        return sorted(found)

    def kill(self) -> None:
        """Send SIGKILL to every process in the group, at once where the kernel can (cgroup.kill, Linux 5.14)."""
        for directory in self.directories:
            try:
                with open(f"{directory}/cgroup.kill", "w") as file:
                    file.write("1")
            except (FileNotFoundError, PermissionError):
                continue
        left = self.processes()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if left and self.frozen():
            self.freeze(False)  # on v1 a frozen process cannot even die

    def freeze(self, frozen: bool, *, patience: float = 10.0) -> None:
        """Stop every process of the group where it stands, or let all go on; returns once the kernel has done so.

        :param patience: seconds to wait; a process in an uninterruptible call may take that long.
        :raises OSError: ENOENT where no hierarchy has a freezer, EBUSY where a process does not freeze in time.
        """
        from minicontainer.cgroup import freezer

        freezer.freeze(self.directories, frozen, patience=patience)

    def frozen(self) -> bool:
        """Whether the group's processes are frozen now."""
        from minicontainer.cgroup import freezer

        return freezer.frozen(self.directories)

    def remove(self, *, patience: float = 2.0) -> None:
        """Remove the group with the groups below it, and our parent group when it was the last one there.

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
                    if _remove_below(directory):
                        continue
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


def _tree(directory: str) -> Iterator[str]:
    """The group at `directory` and those below it, the deepest first; nothing where it does not exist."""
    try:
        # The kernel counts the groups below as links: most have none, and are not worth listing their sixty files.
        if os.stat(directory).st_nlink > 2:
            with os.scandir(directory) as entries:
                below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            for path in below:
                yield from _tree(path)
    except FileNotFoundError:
        return
    yield directory


def _processes(directory: str) -> set[int]:
    """The PIDs in the group at `directory` and below."""
    found: set[int] = set()
    for group in _tree(directory):
        try:
            with open(f"{group}/cgroup.procs") as file:
                found.update(int(line) for line in file)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (
                errno.ENODEV,
                errno.EOPNOTSUPP,
            ):  # removed meanwhile; a threaded group of v2
                raise
    return found - {0}


def _remove_below(directory: str) -> bool:
    """Remove the groups that the container made inside its own; whether there were any that went."""
    removed = False
    for group in list(_tree(directory))[:-1]:
        try:
            os.rmdir(group)
            removed = True
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    return removed
