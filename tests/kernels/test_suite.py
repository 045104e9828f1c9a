"""The pytest-benchmark suites, walked with tiny shapes: each case holds its back end to the definition."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

SUITE = "kernels/benchmarks/suite"


def walk(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", SUITE, "--tiny", "--device", "cpu", "-q", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)  # a second interpreter with torch, on a machine that may be busy
def test_every_case_agrees_with_its_definition():
    done = walk("--benchmark-disable")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "failed" not in done.stdout


@pytest.mark.timeout(300)
def test_nothing_is_timed_where_a_case_differs():
    done = walk("-k", "swiglu", "--hair", "-1")
    assert done.returncode == 1 and "nothing is timed" in done.stdout and "passed" not in done.stdout
