"""What all suites share: own directories, skips that the doctor decides, and a guard around kernel tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

_KERNEL = ("kernel", "exercises", "notebooks", "peers")
_roots: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Lead everything that a test makes into directories of its own, also when pytest is started by hand."""
    if "MINICONTAINER_ROOT" in os.environ:
        return  # ./lab test has done it
    _roots.append(tempfile.mkdtemp(prefix=f"minicontainer-pytest-{os.getpid()}-", dir="/var/tmp"))
    os.environ["MINICONTAINER_ROOT"] = f"{_roots[0]}/data"
    os.environ["MINICONTAINER_RUN"] = f"{_roots[0]}/run"
    os.environ["MINICONTAINER_CGROUP_PARENT"] = f"minicontainer-pytest-{os.getpid()}"


def pytest_unconfigure(config: pytest.Config) -> None:
    while _roots:
        shutil.rmtree(_roots.pop())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Root's kernel tests started by hand get private namespaces first: a failing one must not touch the machine."""
    here = Path(__file__).parent
    kernel = any(item.path.is_relative_to(here / suite) for item in items for suite in _KERNEL)
    if kernel and os.geteuid() == 0 and "MINICONTAINER_LAB" not in os.environ:
        from minicontainer.linux import interface, mount, namespace

        namespace.unshare(
            namespace.CLONE_NEWNS | namespace.CLONE_NEWUTS | namespace.CLONE_NEWIPC | namespace.CLONE_NEWNET
        )
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        mount.mount("tmpfs", "/run", "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=755")
        interface.set_up("lo")


@cache
def _findings() -> list:
    from minicontainer.labhost import doctor

    return doctor.examine()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """@pytest.mark.needs("overlay", ...): skip with the doctor's reason where the machine lacks one of these."""
    from minicontainer.labhost import doctor

    for marker in item.iter_markers("needs"):
        reason = doctor.missing(marker.args, _findings())
        if reason:
            pytest.skip(f"this machine lacks {reason}")
