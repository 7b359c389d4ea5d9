"""A learner's functions in the place of the runtime's steps: they work, and they cannot fail silently."""

from __future__ import annotations

import os

import pytest

from minicontainer import steps
from minicontainer.errors import StepError
from minicontainer.linux.namespace import CLONE_NEWUTS, clone, unshare
from minicontainer.runtime import container


@pytest.fixture(autouse=True)
def _no_steps_left():
    yield
    steps.reset()


def good_isolate(flags, child):
    print("isolating")
    pid = clone(flags)
    if pid == 0:
        try:
            os._exit(child())
        finally:
            os._exit(1)
    return pid


def test_learners_isolate_makes_the_real_container(bundle):
    with steps.use(isolate=good_isolate):
        status, out, _ = bundle.run("sh", "-c", "echo $$; hostname")
    assert (status, out.split()) == (0, ["1", bundle.id[:12]])
    assert bundle.created[0].printed == [("isolate", "isolating\n")]


def test_isolate_that_raises_brings_its_traceback_home(bundle):
    def broken(flags, child):
        raise ValueError("forgot something")

    with steps.use(isolate=broken), pytest.raises(StepError, match="forgot something") as caught:
        bundle.create("true")
    assert 'raise ValueError("forgot something")' in caught.value.traceback
    assert caught.value.step == "isolate"


def test_isolate_whose_child_returns_into_the_caller_is_caught(bundle):
    def two_of_us(flags, child):
        return clone(flags)

    with steps.use(isolate=two_of_us), pytest.raises(StepError, match="return into the caller"):
        bundle.create("true")


def test_isolate_that_moves_its_caller_is_caught(bundle):
    def unshare_here(flags, child):
        unshare(CLONE_NEWUTS)
        pid = clone(flags)
        if pid == 0:
            os._exit(child())
        return pid

    reader, writer = os.pipe()
    pid = os.fork()  # the step really moves the process that runs it: let that be one we can lose
    if pid == 0:
        with steps.use(isolate=unshare_here):
            try:
                bundle.create("true")
            except StepError as error:
                os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    said = os.read(reader, 4096).decode()
    os.close(reader)
    assert "moved its caller into other namespaces (uts)" in said


def test_isolate_that_forgets_a_flag_is_caught(bundle):
    def forgetful(flags, child):
        return good_isolate(flags & ~CLONE_NEWUTS, child)

    with steps.use(isolate=forgetful), pytest.raises(StepError, match="host's namespaces: uts"):
        bundle.create("true")


def test_isolate_that_returns_no_pid_is_caught(bundle):
    def silent(flags, child):
        good_isolate(flags, child)

    with steps.use(isolate=silent), pytest.raises(StepError, match="returned None instead of a PID"):
        bundle.create("true")


def test_step_that_hangs_runs_into_its_limit(bundle, monkeypatch):
    monkeypatch.setattr("minicontainer.runtime.travel.STEP_SECONDS", 0.5)

    def endless(name):
        while True:
            pass

    with steps.use(name_host=endless), pytest.raises(StepError, match="did not return within"):
        bundle.create("true")


def test_steps_inside_the_child_are_replaced_too(bundle):
    from minicontainer.linux.process import sethostname

    with steps.use(name_host=lambda name: sethostname("mine")):
        _, out, _ = bundle.run("hostname")
    assert out == "mine\n"


def test_learners_stack_and_root(bundle):
    from minicontainer.linux.mount import MNT_DETACH, mount, pivot_root, umount

    def my_stack(lower, upper, work, target):
        mount("overlay", target, "overlay", 0, f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}")

    def my_root(rootfs):
        os.makedirs(f"{rootfs}/.old", exist_ok=True)
        pivot_root(rootfs, f"{rootfs}/.old")
        os.chdir("/")
        umount("/.old", MNT_DETACH)
        os.rmdir("/.old")

    with steps.use(stack=my_stack, enter_root=my_root):
        status, out, _ = bundle.run("sh", "-c", "ls -a /; wc -l < /proc/mounts")
    assert status == 0 and ".old" not in out.split()


def test_use_refuses_unknown_steps_and_values():
    with pytest.raises(Exception, match="no step called 'isolat'"):
        steps.use(isolat=print)
    with pytest.raises(Exception, match="must be a function"):
        steps.use(isolate=3)


def test_failed_container_leaves_no_group(bundle):
    def broken(rootfs):
        raise RuntimeError("no")

    with steps.use(enter_root=broken), pytest.raises(StepError):
        bundle.create("true")
    from minicontainer.cgroup.group import Group

    assert not [d for d in Group(bundle.config["linux"]["cgroupsPath"]).directories if os.path.isdir(d)]
    container.delete(bundle.directory)
