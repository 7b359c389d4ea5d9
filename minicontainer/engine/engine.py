"""Engine: what dockerd does, as a Python object without a daemon. Lab 10.

Every method works on files that any process can read and on supervisors that outlive it; two engines on the same
directories, in one process or many, see the same containers. It may be used from several threads, and inside a Jupyter
kernel: nothing here forks or changes a namespace of the calling process.

>>> from minicontainer import Engine
>>> engine = Engine()
>>> engine.run("busybox", ["echo", "hi"]).stdout                                # doctest: +SKIP
'hi\\n'
>>> engine.run("busybox", ["wc", "-w"], input="three small words").stdout       # doctest: +SKIP
'3\\n'
>>> box = engine.run("busybox", ["sleep", "100"], detach=True, hostname="box")  # doctest: +SKIP
>>> box.exec(["hostname"]).stdout, box.status                                   # doctest: +SKIP
('box\\n', 'running')
>>> box.stop(timeout=0)                                                         # doctest: +SKIP
>>> box.status, box.refresh().state.exit_code                                   # doctest: +SKIP
('exited', 137)
>>> box.remove()                                                                # doctest: +SKIP
"""

from __future__ import annotations

import os
import signal as signals
import socket
import time

from minicontainer import paths
from minicontainer.engine import names, record
from minicontainer.engine.container import CommandFailed, Container, Result, TimedOut
from minicontainer.engine.times import timestamp
from minicontainer.errors import ContainerNotFound, MinicontainerError, NotRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any, Literal, overload

    from minicontainer.engine.attach import Attachment
    from minicontainer.engine.live import Sample
    from minicontainer.engine.logs import Entry
    from minicontainer.image.store import Store

    Command = Sequence[str] | str | None
else:

    def overload(function: object) -> object:
        return function


class Engine:
    """Containers in a data directory.

    :param root: where images and containers are kept; by default as :func:`minicontainer.paths.data_root` says.
    :param run_root: where sockets are; by default :func:`minicontainer.paths.run_root`.
    :ivar warnings: what the last container was asked to have, and cannot on this machine.
    """

    def __init__(self, root: str | Path | None = None, run_root: str | Path | None = None) -> None:
        self.root = os.path.abspath(root if root is not None else paths.data_root())
        self.run_root = os.path.abspath(run_root if run_root is not None else paths.run_root())
        self.warnings: list[str] = []
        self._images: Store | None = None

    @property
    def images(self) -> Store:
        """The store of images."""
        if self._images is None:
            from pathlib import Path

            from minicontainer.image.store import Store

            self._images = Store(Path(self.root))
        return self._images

    @property
    def _containers(self) -> str:
        return f"{self.root}/containers"

    @property
    def _names(self) -> str:
        return f"{self.root}/names"

    def directory(self, container_id: str) -> str:
        """The directory of a container, which is its OCI bundle."""
        return f"{self._containers}/{container_id}"

    # -- looking --------------------------------------------------------------------------------------------------

    def resolve(self, reference: str) -> str:
        """The full id of a container named by its name, id, or the beginning of its id.

        :raises ContainerNotFound: there is none.
        """
        return names.resolve(self._names, self._containers, reference)

    def get(self, reference: str) -> Container:
        """A handle on one container.

        :raises ContainerNotFound: there is none.
        """
        return Container(self, self._record(reference))

    def _record(self, reference: str) -> record.Record:
        try:
            return record.current(self.directory(self.resolve(reference)))
        except FileNotFoundError:
            raise ContainerNotFound(f"No such container: {reference}") from None

    def containers(self, all: bool = False) -> list[Container]:
        """The running containers, or all of them, the newest first."""
        found = []
        for container_id in names.all_ids(self._containers):
            try:
                known = record.current(self.directory(container_id))
            except FileNotFoundError:
                continue  # just being made, or just removed
            except MinicontainerError as error:
                known = _unreadable(container_id, error)
            if all or known.state.running:
                found.append(Container(self, known))
        return sorted(found, key=lambda container: container.config.created, reverse=True)

    def inspect(self, reference: str) -> dict[str, Any]:
        """Everything about a container, with Docker's field names."""
        from minicontainer.engine.inspect import inspect

        known = self._record(reference)
        return inspect(known, self.directory(known.config.id), self.root)

    def info(self) -> dict[str, Any]:
        """About this machine and what is kept on it, with Docker's field names."""
        from minicontainer.engine.inspect import info

        return info(self)

    def version(self) -> dict[str, Any]:
        """Versions, with Docker's field names."""
        from minicontainer.engine.inspect import version

        return version()

    # -- create ---------------------------------------------------------------------------------------------------

    def create(self, image: str, command: Command = None, **options: Any) -> str:
        """Make a container and leave it unstarted.

        :param command: the argument vector, in the place of the image's CMD; one text is split as a shell would.
        :param options: see :class:`~minicontainer.engine.options.ContainerOptions`; limits and privileges:
            :data:`~minicontainer.engine.hostconfig.OPTIONS`.
        :returns: its id.
        :raises ImageNotFound: no such image here.
        :raises NameConflict: the name belongs to another container.
        :raises UsageError: an option makes no sense.
        """
        container_id, lock = self._create(image, command, options)
        os.close(lock)
        return container_id

    def _create(self, image: str, command: Command, options: dict[str, Any]) -> tuple[str, int]:
        """As :meth:`create`; also returns a descriptor that holds the new container's lock."""
        from minicontainer.engine.create import configure, make

        container_id = names.new_id()
        self.warnings = []
        config = configure(container_id, self.images, self.root, image, command, options, self.warnings)
        try:
            self._prepare()
            return container_id, make(config, self._containers, self._names)
        except OSError as error:
            raise record.storage_error(error, self.root) from error

    def _prepare(self) -> None:
        """Make the directories that everything is kept in."""
        if not os.path.isdir(self._names):
            from pathlib import Path

            paths.private_directory(Path(self.root))
            os.makedirs(self._containers, 0o700, exist_ok=True)
            os.makedirs(self._names, 0o700, exist_ok=True)
            os.makedirs(f"{self.root}/layers", 0o700, exist_ok=True)

    # -- start ----------------------------------------------------------------------------------------------------

    def start(
        self, reference: str, attach: bool = False, stdin: bool = False, size: tuple[int, int] | None = None
    ) -> Attachment | None:
        """Start a container that does not run; one that runs is left alone.

        :param attach: stay connected: the attachment that is returned gets the output from the first byte on.
        :param stdin: the attachment also feeds the input, which ends when the attachment does.
        :param size: rows and columns of the container's terminal.
        :raises StepError: its program could not be started; exit code 125, 126 or 127.
        """
        container_id = self.resolve(reference)
        directory = self.directory(container_id)
        try:
            record.current(directory)  # repairs what a lost supervisor left
            lock = record.acquire(directory)
        except FileNotFoundError:
            raise ContainerNotFound(f"No such container: {reference}") from None
        running = False
        try:
            running = record.read(directory).state.running and record.supervised(directory)
        except FileNotFoundError:
            raise ContainerNotFound(f"No such container: {reference}") from None
        finally:
            if running:
                os.close(lock)
        if running:
            if self.get(container_id).state.paused:
                raise MinicontainerError("cannot start a paused container, try unpause instead", exit_code=1)
            return self.attach(container_id, stdin=stdin) if attach else None
        return self._start(container_id, lock, attach=attach, stdin=stdin, size=size)

    def _start(
        self, container_id: str, lock: int, *, attach: bool, stdin: bool, size: tuple[int, int] | None
    ) -> Attachment | None:
        """Have a supervisor start the container whose lock `lock` holds; the lock passes on to it."""
        from minicontainer.cgroup.group import parent_path
        from minicontainer.engine.attach import Attachment
        from minicontainer.engine.spawn import spawn

        ours, theirs = socket.socketpair()
        attachment = Attachment(ours, container_id)
        try:
            try:
                self._prepare_run()
                arguments = {
                    "id": container_id,
                    "root": self.root,
                    "run_root": self.run_root,
                    "cgroup": f"{parent_path()}/{container_id}",
                    "output": attach,
                    "stdin": stdin,
                    "size": list(size) if size else None,
                }
                spawn("minicontainer.engine.supervisor:main", arguments, [lock, theirs.fileno()])
            finally:
                theirs.close()
                os.close(lock)
            attachment.wait_started()
        except BaseException:
            attachment.close()
            raise
        _show(attachment)
        if attach:
            return attachment
        attachment.close()
        return None

    def _prepare_run(self) -> None:
        if not os.path.isdir(f"{self.run_root}/containers"):
            from pathlib import Path

            paths.private_directory(Path(self.run_root))
            os.makedirs(f"{self.run_root}/containers", 0o700, exist_ok=True)

    @overload
    def run(
        self, image: str, command: Command = None, *, detach: Literal[False] = False, **options: Any
    ) -> Result: ...

    @overload
    def run(  # noqa: F811 - an overload, by our own stand-in for typing's decorator
        self, image: str, command: Command = None, *, detach: Literal[True], **options: Any
    ) -> Container: ...

    def run(  # noqa: F811
        self,
        image: str,
        command: Command = None,
        *,
        detach: bool = False,
        input: str | bytes | None = None,
        timeout: float | None = None,
        check: bool = False,
        **options: Any,
    ) -> Result | Container:
        """Create and start a container, and wait for its end.

        Unless detached, the container is removed when it has ended (``remove=False`` keeps it), and killed when the
        wait is interrupted.

        :param detach: return a handle at once, and keep the container.
        :param input: its whole standard input.
        :param timeout: seconds after which it is killed.
        :param check: raise :class:`~minicontainer.engine.container.CommandFailed` for a status other than 0.
        :raises TimedOut: it did not end in time.
        """
        options.setdefault("remove", not detach)
        data = input.encode() if isinstance(input, str) else input
        if data is not None:
            options["stdin_open"] = True
        container_id, lock = self._create(image, command, options)
        try:
            attachment = self._start(container_id, lock, attach=not detach, stdin=data is not None, size=None)
            if attachment is None:
                return self.get(container_id)
            with attachment:
                status, stdout, stderr = attachment.collect(data, timeout)
        except TimeoutError:
            self._abort(container_id, options["remove"])
            raise TimedOut(f"the container did not end within {timeout:g} seconds and was killed") from None
        except KeyboardInterrupt:
            self._abort(container_id, options["remove"])
            raise
        result = _result(status, stdout, stderr, container_id)
        if attachment.lost:
            self._lost(container_id, options["remove"])
        if check and status != 0:
            raise CommandFailed(
                command.split() if isinstance(command, str) else list(command or [image]), result
            )
        return result

    def _abort(self, container_id: str, remove: bool) -> None:
        """End a container whose maker does not wait for it any more."""
        try:
            if remove:
                self.remove(container_id, force=True)
            else:
                self.kill(container_id)
        except (ContainerNotFound, NotRunning):
            return  # it has ended, or removed itself, by now

    def _lost(self, container_id: str, remove: bool) -> None:
        """The supervisor was killed: write that down, or do the removing it cannot do any more."""
        try:
            if self.get(container_id).state.status == "exited" and remove:
                self.remove(container_id)
        except ContainerNotFound:
            return

    def attach(self, reference: str, output: bool = True, stdin: bool = False) -> Attachment:
        """Connect to a running container's output and input.

        :raises NotRunning: it does not run.
        """
        container_id = self._awake(
            reference, "You cannot attach to a paused container, unpause it first"
        ).config.id
        attachment = self.connect(container_id, output=output, owner=stdin)
        if attachment is None:
            raise NotRunning(
                f"container {container_id} is not running", hint="`minicontainer start -a` starts it"
            )
        return attachment

    def connect(self, container_id: str, **wishes: bool) -> Attachment | None:
        """Connect to a container's supervisor; None where none listens. Wishes: as :meth:`Attachment.subscribe`."""
        from minicontainer.engine.attach import connect

        return connect(f"{self.run_root}/containers/{container_id}", container_id, **wishes)

    def _running(self, reference: str) -> record.Record:
        known = self._record(reference)
        if not known.state.running:
            raise NotRunning(
                f"container {known.config.id} is not running",
                hint=f"start it: minicontainer start {reference}",
            )
        return known

    def _awake(self, reference: str, problem: str) -> record.Record:
        known = self._running(reference)
        if known.state.paused:
            raise MinicontainerError(problem, exit_code=1)
        return known

    # -- while it lives -------------------------------------------------------------------------------------------

    def pause(self, reference: str) -> None:
        """Freeze every process of a running container where it stands."""
        from minicontainer.engine import live

        live.pause(self.directory(self._record(reference).config.id), True)

    def unpause(self, reference: str) -> None:
        """Let a paused container go on."""
        from minicontainer.engine import live

        live.pause(self.directory(self._record(reference).config.id), False)

    def stats(self, reference: str) -> Sample:
        """What a container uses now; processor time is the difference of two samples (``Usage.cpu_fraction``)."""
        from minicontainer.engine import live

        known = self._record(reference)
        return live.sample(known, self.directory(known.config.id))

    def top(self, reference: str, arguments: Sequence[str] = ()) -> list[str]:
        """The lines of the host's ``ps`` with `arguments` about a container's processes, the heading first."""
        from minicontainer.engine import live

        known = self._running(reference)
        return live.top(known, self.directory(known.config.id), list(arguments))

    def update(self, reference: str, **options: Any) -> list[str]:
        """Change a container's limits, also while it runs; returns warnings.

        :param options: those of :data:`~minicontainer.engine.hostconfig.OPTIONS` that are limits.
        """
        from minicontainer.engine import live

        return live.update(self.directory(self._record(reference).config.id), options)

    def rename(self, reference: str, name: str) -> None:
        """Give a container another name."""
        from minicontainer.engine import live

        live.rename(self, self.directory(self._record(reference).config.id), name)

    # -- end ------------------------------------------------------------------------------------------------------

    def wait(self, reference: str, timeout: float | None = None) -> int:
        """Wait until the container does not run; returns its exit status.

        :raises TimeoutError: it still runs after `timeout` seconds.
        """
        from minicontainer.engine import ending

        deadline = None if timeout is None else time.monotonic() + timeout
        return ending.await_end(self, self._record(reference), deadline)

    def kill(self, reference: str, signal: str | int = "KILL") -> None:
        """Send a signal to the container's first process; after SIGKILL, wait until it has ended.

        :raises NotRunning: it does not run.
        """
        from minicontainer.engine import ending

        ending.kill(self, self._record(reference), reference, signal)

    def stop(self, reference: str, timeout: float | None = None, signal: str | int | None = None) -> None:
        """Ask the container to end with its stop signal; kill it if it still runs after `timeout` seconds.

        :param timeout: by default what the container was created with (10); negative waits without end.
        """
        from minicontainer.engine import ending

        ending.stop(self, self._record(reference), timeout, signal)

    def restart(self, reference: str, timeout: float | None = None, signal: str | int | None = None) -> None:
        """Stop the container if it runs, then start it."""
        container_id = self.resolve(reference)
        self.stop(container_id, timeout, signal)
        self.start(container_id)

    def remove(self, reference: str, force: bool = False, volumes: bool = False) -> None:
        """Remove a container and everything it wrote.

        :param force: kill it first if it runs.
        :param volumes: also remove its anonymous volumes (there are none yet).
        :raises MinicontainerError: it runs, and `force` was not given.
        """
        from minicontainer.engine import ending

        ending.remove(self, self.resolve(reference), reference, force)

    # -- output ---------------------------------------------------------------------------------------------------

    def logs(
        self,
        reference: str,
        follow: bool = False,
        tail: int | None = None,
        since: str | float | None = None,
        until: str | float | None = None,
    ) -> Iterator[Entry]:
        """What the container has printed, oldest first.

        :param follow: go on until it ends.
        :param tail: only the last so many lines.
        :param since: a time (RFC 3339), seconds since the epoch, or how long ago ("10m"); `until` likewise.
        :raises UsageError: not a time.
        """
        from minicontainer.engine import logs
        from minicontainer.engine.following import follower, moment_text

        known = self._record(reference)
        path = f"{self.directory(known.config.id)}/{logs.LOG}"
        wait = follower(self, known) if follow and known.state.running else None
        oldest, newest = moment_text("since", since), moment_text("until", until)
        return logs.read(path, tail=tail, since=oldest, until=newest, wait=wait)

    # -- exec -----------------------------------------------------------------------------------------------------

    def exec(
        self,
        reference: str,
        command: Sequence[str] | str,
        *,
        detach: bool = False,
        input: str | bytes | None = None,
        timeout: float | None = None,
        check: bool = False,
        **options: Any,
    ) -> Result:
        """Run one more command in a running container and wait for its end.

        :param options: see :class:`~minicontainer.engine.options.ExecOptions`: env, workdir, user, tty.
        :param detach: return once it has started, with status 0 and no output.
        :raises NotRunning: the container does not run.
        :raises StepError: the command cannot be executed (126) or does not exist (127).
        """
        data = input.encode() if isinstance(input, str) else input
        if data is not None:
            options["stdin_open"] = True
        attachment = self.exec_start(reference, command, attach=not detach, **options)
        with attachment:
            if detach:
                return Result(status=0, id=attachment.id)
            try:
                status, stdout, stderr = attachment.collect(data, timeout)
            except (TimeoutError, KeyboardInterrupt) as error:
                attachment.signal(signals.SIGKILL)
                if isinstance(error, KeyboardInterrupt):
                    raise
                raise TimedOut(f"the command did not end within {timeout:g} seconds and was killed") from None
        result = _result(status, stdout, stderr, attachment.id)
        if check and status != 0:
            raise CommandFailed(command.split() if isinstance(command, str) else command, result)
        return result

    def exec_start(
        self,
        reference: str,
        command: Sequence[str] | str,
        *,
        attach: bool = True,
        size: tuple[int, int] | None = None,
        **options: Any,
    ) -> Attachment:
        """Start one more command in a running container; returns the connection to it.

        :param attach: send its output.
        :param size: rows and columns of its terminal.
        """
        from minicontainer.engine.execution import start

        paused = f"Container {reference} is paused, unpause the container before exec"
        return start(self, self._awake(reference, paused), command, attach, size, options)

    # -- order ----------------------------------------------------------------------------------------------------

    def gc(self) -> list[str]:
        """Remove what crashes left behind; returns what was removed, one line each. Containers are not touched."""
        from minicontainer.engine.collect import collect

        return collect(self)


def _unreadable(container_id: str, error: MinicontainerError) -> record.Record:
    """What `ps` shows for a container whose record is damaged."""
    config = record.Config(id=container_id, name="", created=timestamp(0), image="", image_id="", layers=())
    return record.Record(config=config, state=record.State(status="dead", error=error.message))


def _result(status: int, stdout: bytes, stderr: bytes, container_id: str) -> Result:
    return Result(
        status=status,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        id=container_id,
    )


def _show(attachment: Attachment) -> None:
    """Print here what a learner's steps printed over there."""
    for _, text in attachment.printed:
        print(text, end="" if text.endswith("\n") else "\n")
