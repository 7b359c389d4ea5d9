"""The entry script: it starts on old Pythons, asks before it installs, skips what is done, and ends with one line."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "lab"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that works on a directory of its own."""
    loader = importlib.machinery.SourceFileLoader("lab_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader("lab_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("pip==1.0\n")
    for name, value in {
        "HERE": tmp_path,
        "VENV": tmp_path / ".venv",
        "PYTHON": tmp_path / ".venv/bin/python",
        "STAMP": tmp_path / ".venv/.minicontainer-setup.json",
        "LOG": tmp_path / ".setup.log",
    }.items():
        monkeypatch.setattr(module, name, str(value))
    return module


def test_has_only_syntax_that_python_3_6_understands():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_imports_only_what_every_python_has():
    names = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        assert not isinstance(node, ast.ImportFrom)
    assert names <= sys.stdlib_module_names


def test_says_which_python_is_needed(lab, monkeypatch):
    monkeypatch.setattr(lab, "NEEDED_PYTHON", (9, 9))
    with pytest.raises(lab.Problem, match=r"Python 9\.9 or newer is needed"):
        lab.find_python()


def test_finds_a_python_that_is_new_enough(lab):
    assert lab.version_of(lab.find_python()) >= (3, 11)


def test_root_prefers_a_python_that_others_can_run(lab, tmp_path, monkeypatch):
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "python3").symlink_to(sys.executable)
    assert lab.readable_by_others("/bin/sh")
    program = hidden / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert not lab.readable_by_others(str(program))


def test_without_a_terminal_nobody_says_yes(lab, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert not lab.agreed("Install?", yes=False)
    assert "give -y" in capsys.readouterr().out
    assert lab.agreed("Install?", yes=True)


class Manager:
    """A pretended package manager in $PATH that writes down how it was called."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *, refuses: str = "nothing") -> None:
        self.calls = directory / "calls"
        bin_directory = directory / "bin"
        bin_directory.mkdir()
        for name in ("apt-get", "apt-cache", "sudo"):
            program = bin_directory / name
            program.write_text(
                f'#!/bin/sh\necho {name} $* >> {self.calls}\ncase "$*" in *{refuses}*) exit 100;; esac\n'
            )
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


def need(lab: ModuleType, package: str, *, present: bool = False, essential: bool = False):
    return lab.Need(package, lambda: present, f"what {package} is for", {"apt-get": package}, essential)


def test_what_is_there_is_not_installed(lab, tmp_path, monkeypatch, capsys):
    manager = Manager(tmp_path, monkeypatch)
    lab.install_packages([need(lab, "busybox-static", present=True)], yes=True)
    assert manager.called() == []
    assert capsys.readouterr().out == ""


def test_root_installs_directly_and_is_told_why(lab, tmp_path, monkeypatch, capsys):
    manager = Manager(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    lab.install_packages([need(lab, "uidmap")], yes=True)
    assert manager.called() == [
        "apt-get update",
        "apt-cache show uidmap",
        "apt-get install -y --no-install-recommends uidmap",
    ]
    assert "what uidmap is for" in capsys.readouterr().out


def test_an_ordinary_user_uses_sudo_and_minus_y_never_waits_for_a_password(lab, tmp_path, monkeypatch):
    manager = Manager(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lab.install_packages([need(lab, "uidmap")], yes=True)
    assert manager.called()[-1] == "sudo -n apt-get install -y --no-install-recommends uidmap"


def test_without_an_answer_nothing_is_installed_and_it_goes_on(lab, tmp_path, monkeypatch, capsys):
    manager = Manager(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    lab.install_packages([need(lab, "uidmap")], yes=False)
    assert manager.called() == []
    assert "going on without uidmap" in capsys.readouterr().out


def test_a_package_that_the_distribution_does_not_have_is_left_out(lab, tmp_path, monkeypatch, capsys):
    manager = Manager(tmp_path, monkeypatch, refuses="umoci")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    lab.install_packages([need(lab, "skopeo"), need(lab, "umoci")], yes=True)
    assert manager.called()[-1] == "apt-get install -y --no-install-recommends skopeo"
    assert "going on without umoci" in capsys.readouterr().out


def test_one_package_that_fails_costs_only_itself(lab, tmp_path, monkeypatch, capsys):
    manager = Manager(tmp_path, monkeypatch, refuses="recommends*umoci")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    lab.install_packages([need(lab, "skopeo"), need(lab, "umoci")], yes=True)
    assert manager.called()[-2:] == [
        "apt-get install -y --no-install-recommends skopeo",
        "apt-get install -y --no-install-recommends umoci",
    ]
    assert "apt-get could not install umoci" in capsys.readouterr().out


def test_what_cannot_be_done_without_ends_with_the_package_to_install(lab, tmp_path, monkeypatch):
    Manager(tmp_path, monkeypatch, refuses="install")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(lab.Problem, match="install python3-venv and run ./lab again"):
        lab.install_packages([need(lab, "python3-venv", essential=True)], yes=True)


def test_a_full_disk_is_told_before_anything_is_made(lab, monkeypatch):
    monkeypatch.setattr(lab, "NEEDED_DISK", 2**40)
    with pytest.raises(lab.Problem, match="free some space"):
        lab.make_venv(sys.executable)
    assert not os.path.exists(lab.VENV)


def test_set_up_is_skipped_while_its_files_are_the_same(lab, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(lab, "install_packages", lambda *_: None)
    monkeypatch.setattr(lab, "make_venv", made.append)
    python = Path(lab.PYTHON)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    Path(lab.STAMP).write_text(json.dumps(lab.wanted_stamp()))
    lab.set_up(yes=False)
    assert made == []
    Path(lab.HERE, "constraints.txt").write_text("pip==2.0\n")
    lab.set_up(yes=False)
    assert len(made) == 1


def test_a_virtual_environment_of_another_place_is_not_used(lab):
    python = Path(lab.PYTHON)
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    assert lab.usable_venv()
    Path(lab.STAMP).write_text(json.dumps({"place": "/elsewhere"}))
    assert not lab.usable_venv()


def test_a_failing_command_shows_its_last_words_and_where_the_rest_is(lab, capsys):
    progress = lab.Progress("trying")
    with pytest.raises(lab.Problem, match=r"ended with 3; all of its output is in \.setup\.log"):
        lab.run_logged(["sh", "-c", "echo the cause; exit 3"], progress)
    assert "the cause" in capsys.readouterr().out
    assert "the cause" in Path(lab.LOG).read_text()


def test_help_and_wrong_words_end_without_a_traceback():
    for arguments, status in ((["--help"], 0), (["tset"], 2), (["setup", "unit"], 2)):
        done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)
        assert done.returncode == status
        assert "Traceback" not in done.stderr


def test_constraints_name_exact_versions_and_no_place_they_come_from():
    lines = (SCRIPT.parent / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 100
    assert all(len(line.split("==")) == 2 and "/" not in line for line in pins)
