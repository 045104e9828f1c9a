"""The wheel carries every package and works outside the checkout, with no network to lean on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE_ROOTS = (".", "kernels", "models")
IMPORT_ALL = """
import importlib, json, pkgutil
from importlib.metadata import version
where = {}
for top in ("plum_core", "plum_kernels", "plum_models"):
    package = importlib.import_module(top)
    names = [m.name for m in pkgutil.walk_packages(package.__path__, top + ".")]
    for name in [top, *(n for n in names if not n.endswith("__main__"))]:
        where[name] = importlib.import_module(name).__file__
print(json.dumps({"version": version("plum"), "where": where}))
"""


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays clean and a stale build/ cannot lend it a file."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    leavings = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("plum_core", "kernels", "models"):
        shutil.copytree(ROOT / name, source / name, ignore=leavings)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=source)
    (built,) = out.glob("*.whl")
    return built


def checkout_files() -> set[str]:
    """The files of our packages as a wheel names them: sources, templates and the type marker; no benchmarks."""
    found: set[str] = set()
    for root in PACKAGE_ROOTS:
        for package in (ROOT / root).glob("plum_*"):
            files = (
                p for p in package.rglob("*") if p.suffix in (".py", ".html", ".jinja", ".css") or p.name == "py.typed"
            )
            found |= {p.relative_to(ROOT / root).as_posix() for p in files if "benchmarks" not in p.parts}
    return found


def test_wheel_carries_all_of_the_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert checkout_files() - names == set()
    assert not [name for name in names if "benchmarks" in name]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "plum",  # the metadata
        "plum_core",
        "plum_kernels",
        "plum_models",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.timeout(240)  # imports torch and triton once, on whatever disk this is
def test_wheel_imports_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """A fresh environment holds the wheel alone; its dependencies are this environment's, by path."""
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=False)
    python = fresh / "bin" / "python"
    (packages,) = fresh.glob("lib/python*/site-packages")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps")
    run(*pip, wheel, cwd=tmp_path)
    # A .pth file adds a folder without running the .pth files in it: no editable checkout sneaks in.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = json.loads(run(python, "-I", "-c", IMPORT_ALL, cwd=tmp_path).splitlines()[-1])
    assert found["version"]
    assert [name for name, file in found["where"].items() if not file.startswith(str(packages))] == []
    sources = {name.removesuffix(".py") for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    modules = {name.removesuffix("/__init__").replace("/", ".") for name in sources}
    assert {name for name in modules if not name.endswith("__main__")} == set(found["where"])
