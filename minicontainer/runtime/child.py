"""The child's side: from a fresh process in new namespaces to the user's program. The order of steps is the program.

Everything runs in one process that ends in execve(2) or :func:`os._exit`; whatever fails travels home over the
channel. No module is imported and no name is looked up after the root has changed: code that a container could replace
is never run (CVE-2019-14271). Labs 02, 03 and 06. OCI runtime-spec runtime.md "Lifecycle".
"""

from __future__ import annotations

import os
from typing import Any

from minicontainer.errors import StepError
from minicontainer.linux.interface import set_up
from minicontainer.linux.mount import (
    AT_FDCWD,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
    mount,
    mount_setattr,
)
from minicontainer.linux.namespace import CLONE_NEWCGROUP, unshare
from minicontainer.linux.path import is_directory, make_in_root, normal, open_in_root
from minicontainer.linux.process import set_dumpable, set_parent_death_signal, setdomainname, sethostname
from minicontainer.runtime import overlay, root
from minicontainer.runtime.channel import Channel, report
from minicontainer.runtime.devices import make_devices
from minicontainer.runtime.hooks import has_hooks, run_hooks
from minicontainer.runtime.mounts import copy_of, mount_in_root, place
from minicontainer.runtime.program import become_the_user, execute
from minicontainer.runtime.session import join_keyring, reset_signals, take_stdio, take_terminal
from minicontainer.runtime.sysctl import apply_sysctls
from minicontainer.runtime.travel import call_step

_PROPAGATION = {
    "private": MS_PRIVATE, "rprivate": MS_PRIVATE | MS_REC, "slave": MS_SLAVE, "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED, "rshared": MS_SHARED | MS_REC, "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}  # fmt: skip


class Gate:
    """What a container that is ready waits for: a word over the channel from the process that made it."""

    def wait(self, channel: Channel) -> Channel | None:
        """Wait; returns the channel over which a failing execve(2) is to be reported, or None to end unstarted."""
        message, _ = channel.receive()
        return channel if message is not None and "start" in message else None


class Progress:
    """Which step the child is at, so that an error can say so."""

    step = "begin"


class Init:
    """The first process of a container.

    :param config: the OCI config.json.
    :param rootfs: absolute path of the root directory, a mount point to be.
    :param channel: the child's end.
    :param stdio: descriptors to become 0, 1 and 2 (ignored with a terminal).
    :param tasks: open v1 ``tasks`` files of the container's control groups.
    :param parent_death_signal: sent to this process when the supervisor dies; 0 for none.
    :param program: the compiled seccomp filter, or empty for none.
    """

    def __init__(
        self,
        config: dict[str, Any],
        rootfs: str,
        channel: Channel,
        stdio: tuple[int, int, int],
        tasks: list[int],
        parent_death_signal: int = 0,
        program: bytes = b"",
    ) -> None:
        self.config = config
        self.process: dict[str, Any] = config.get("process", {})
        self.linux: dict[str, Any] = config.get("linux", {})
        self.rootfs = rootfs
        self.channel = channel
        self.stdio = stdio
        self.tasks = tasks
        self.parent_death_signal = parent_death_signal
        self.program = program
        self.progress = Progress()
        self.gate = Gate()
        self.state: dict[str, Any] = {}
        self.waits_for_ids = False
        self.preserve = 0

    def run(self) -> int:
        """All of it; returns an exit status only where something failed (the reason has been sent home)."""
        try:
            self._prepare()
            self._build_root()
            self._hooks()
            self._enter()
            program = self._become_the_user()
            self.progress.step = "start"
            self.channel.send({"ready": True})
            starter = self.gate.wait(self.channel)
            if starter is None:
                return 0
            self.channel = starter
            run_hooks("startContainer", self.config, self.state | {"pid": os.getpid(), "status": "created"})
            return self._execute(program)
        except BaseException as error:  # the parent decides what to do with it: nothing may escape from here
            return report(self.channel, self.progress.step, error)

    def _has(self, namespace: str) -> bool:
        return any(entry["type"] == namespace for entry in self.linux.get("namespaces", []))

    def _prepare(self) -> None:
        """Become a process that the rest of the machine cannot follow: session, group, keyring, descriptors."""
        self.progress.step = "session"
        if self.waits_for_ids:
            message, _ = self.channel.receive()
            if message is None:
                raise StepError("map_ids: the ids of the user namespace never came", step="map_ids")
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if self.parent_death_signal:
            set_parent_death_signal(self.parent_death_signal)
        set_dumpable(False)
        os.setsid()
        reset_signals()
        self.progress.step = "cgroup"
        for descriptor in self.tasks:
            os.write(descriptor, b"0")
        if any(
            entry["type"] == "cgroup" and not entry.get("path") for entry in self.linux.get("namespaces", [])
        ):
            # Only now: the root of a cgroup namespace is the group its maker is in (man 7 cgroup_namespaces).
            unshare(CLONE_NEWCGROUP)
        join_keyring()
        if any(
            entry["type"] == "network" and not entry.get("path") for entry in self.linux.get("namespaces", [])
        ):
            self.progress.step = "loopback"
            set_up("lo")
        if not self.process.get("terminal"):
            take_stdio(self.stdio)

    def _build_root(self) -> None:
        """The file system that the program will see, assembled where nobody else can see it."""
        linux, config = self.linux, self.config
        self.progress.step = "mounts"
        mount(None, "/", None, _PROPAGATION[linux.get("rootfsPropagation") or "rslave"] & ~MS_SHARED | MS_REC)
        mounts = list(config.get("mounts", []))
        if mounts and mounts[0]["destination"] == "/" and mounts[0].get("type") == "overlay":
            self.progress.step = "stack"
            call_step(
                self.channel, "stack", *overlay.from_mount(mounts.pop(0)), self.rootfs, ours=overlay.stack
            )
        else:
            self._bind_root()
        self.progress.step = "mount"
        for entry in mounts:
            call_step(self.channel, "mount", self.rootfs, entry, ours=mount_in_root)
        top = os.open(self.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.progress.step = "devices"
            self._devices(top)
            self.progress.step = "cwd"
            self._make_cwd(top)
        finally:
            os.close(top)
        self.progress.step = "name_host"
        if self._has("uts"):
            if config.get("hostname"):
                call_step(self.channel, "name_host", config["hostname"], ours=sethostname)
            if config.get("domainname"):
                setdomainname(config["domainname"])

    def _make_cwd(self, top: int) -> None:
        """The working directory, made when missing as Docker's -w wants it: later the root may be read-only."""
        path = self.process.get("cwd") or "/"
        descriptor = make_in_root(top, path, directory=True)
        try:
            if not is_directory(descriptor):
                raise StepError(
                    f"cwd: {path} is not a directory",
                    step="cwd",
                    path=path,
                    hint="choose another for --workdir",
                )
        finally:
            os.close(descriptor)

    def _hooks(self) -> None:
        """The hooks before the root changes: the host's in the parent, then those in the container's namespaces."""
        if has_hooks(self.config, "prestart", "createRuntime"):
            self.progress.step = "hooks"
            self.channel.send({"hooks": True})
            message, _ = self.channel.receive()
            if message is None:
                raise StepError("hooks: the runtime ended while its hooks ran", step="hooks")
        self.progress.step = "createContainer"
        run_hooks("createContainer", self.config, self.state | {"pid": os.getpid()})

    def _bind_root(self) -> None:
        """Make the root directory a mount point, which pivot_root(2) asks for, by mounting it on itself."""
        tree = copy_of(AT_FDCWD, self.rootfs, recursive=True)
        target = os.open(self.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            place(tree, target)
        finally:
            os.close(target)

    def _devices(self, top: int) -> None:
        """Fill /dev where a mount for it was asked for, and make the terminal."""
        fresh = {normal(entry["destination"]): entry.get("type") for entry in self.config.get("mounts", [])}
        if fresh.get("/dev", "bind") not in ("bind", "none"):
            dev = open_in_root(top, "/dev", os.O_RDONLY | os.O_DIRECTORY)
            try:
                make_devices(top, dev, self.linux.get("devices", []))
            finally:
                os.close(dev)
        if self.process.get("terminal"):
            self.progress.step = "terminal"
            take_terminal(self.channel, top, self.process.get("consoleSize"))

    def _enter(self) -> None:
        """Leave the old root behind, then hide what the container must not see or change."""
        self.progress.step = "enter_root"
        if self._has("mount"):
            call_step(self.channel, "enter_root", self.rootfs, ours=root.enter_root)
        else:
            os.chroot(self.rootfs)
            os.chdir("/")
        self.progress.step = "sysctl"
        apply_sysctls(self.linux)
        if self.config.get("root", {}).get("readonly"):
            self.progress.step = "root"
            mount_setattr(AT_FDCWD, "/", 0, set=MOUNT_ATTR_RDONLY)
        self.progress.step = "mask"
        masked, read_only = self.linux.get("maskedPaths") or [], self.linux.get("readonlyPaths") or []
        if masked or read_only:
            call_step(self.channel, "mask", masked, read_only, ours=root.mask)
        propagation = self.linux.get("rootfsPropagation")
        if propagation:
            mount(None, "/", None, _PROPAGATION[propagation])

    def _become_the_user(self) -> str:
        """Limits, identity, working directory; returns the program to execute."""
        self.progress.step = "user"
        keep_groups = bool((self.config.get("annotations") or {}).get("run.oci.keep_original_groups"))
        return become_the_user(self.channel, self.process, self.linux, self.program, keep_groups=keep_groups)

    def _execute(self, program: str) -> int:
        self.progress.step = "exec"
        return execute(self.channel, program, self.process, self.preserve)
