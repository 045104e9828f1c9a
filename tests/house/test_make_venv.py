"""The first step on a bare machine: which Python is taken, and what is said where none serves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A stand-in for a Python: answers the two questions of the script as told, and notes what else is asked.
FAKE = """#!/bin/bash
case "$*" in
  *"sys.version_info < (3, 11)"*) exit {too_old} ;;
  *"import ensurepip, venv"*) exit {no_venv} ;;
  *"-venv"*) echo python3.11-venv ;;
  --version) echo "Python of $(basename "$0")" ;;
  *) echo "$(basename "$0") $*" >> {log} ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder that is all of PATH: the tools of the script, and no Python yet."""
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "basename", "env"):
        (tmp_path / "bin" / tool).symlink_to(f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}")
    return tmp_path


def add(machine: Path, name: str, text: str) -> None:
    path = machine / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def add_python(machine: Path, name: str, *, too_old: bool = False, no_venv: bool = False) -> None:
    add(machine, name, FAKE.format(too_old=int(too_old), no_venv=int(no_venv), log=machine / "log"))


def make_venv(machine: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / ".ci" / "make-venv"), "there", *words],
        env=os.environ | {"PATH": str(machine / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def log(machine: Path) -> list[str]:
    return (machine / "log").read_text().splitlines() if (machine / "log").exists() else []


def test_the_first_recent_python_makes_the_environment(machine: Path) -> None:
    add_python(machine, "python3", too_old=True)
    add_python(machine, "python3.12")
    done = make_venv(machine)
    assert done.returncode == 0, done.stderr
    assert log(machine) == ["python3.12 -m venv --clear there"]
    assert done.stdout == "setup: making there with Python of python3.12\n"


def test_the_python_that_was_asked_for_is_taken(machine: Path) -> None:
    add_python(machine, "python3")
    add_python(machine, "mine")
    assert make_venv(machine, "mine").returncode == 0
    assert log(machine) == ["mine -m venv --clear there"]


@pytest.mark.parametrize("words", [(), ("python3",)])
def test_no_recent_python_is_one_sentence(machine: Path, words: tuple[str, ...]) -> None:
    add_python(machine, "python3", too_old=True)
    done = make_venv(machine, *words)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Python 3.11" in done.stderr
    assert "apt-get install python3" in done.stderr
    assert log(machine) == []


def test_without_root_a_missing_venv_module_is_one_sentence(machine: Path) -> None:
    add_python(machine, "python3", no_venv=True)
    add(machine, "id", "#!/bin/bash\necho 1000\n")
    done = make_venv(machine)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "sudo apt-get install python3.11-venv" in done.stderr
    assert log(machine) == []


def test_root_gets_the_venv_module_installed_and_is_told(machine: Path) -> None:
    add_python(machine, "python3", no_venv=True)
    add(machine, "id", "#!/bin/bash\necho 0\n")
    add(machine, "apt-get", f'#!/bin/bash\necho "apt-get $*" >> {machine / "log"}\n')
    done = make_venv(machine)
    assert done.returncode == 0, done.stderr
    assert "installing python3.11-venv with apt-get" in done.stdout
    assert log(machine) == [
        "apt-get -qq update",
        "apt-get -qq install -y python3.11-venv",
        "python3 -m venv --clear there",
    ]
