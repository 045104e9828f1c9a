"""The doctor says what it saw, and what it says decides its exit status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from runners import doctor
from runners.doctor import Finding
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    command = [sys.executable, "runners/doctor.py", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {"status": done.returncode, **json.loads(done.stdout)}


def test_every_subject_is_looked_at_once(report: dict[str, object]) -> None:
    names = [finding["name"] for finding in report["findings"]]
    assert len(names) == len(set(names))
    assert {"Python", "cores", "memory", "disk", "torch", "GPU", "triton", "sandbox", "models/tiny"} <= set(names)


def test_exit_status_is_whether_something_is_missing(report: dict[str, object]) -> None:
    missing = [finding for finding in report["findings"] if finding["state"] == "missing"]
    assert report["status"] == int(bool(missing))


def test_whatever_is_missing_has_a_remedy(report: dict[str, object]) -> None:
    assert all(f["remedy"] for f in report["findings"] if f["state"] in ("missing", "slow"))


def test_the_one_thing_to_do_is_the_worst() -> None:
    slow = Finding(name="GPU", value="none", state="slow", remedy="find one")
    missing = Finding(name="disk", value="full", state="missing", remedy="free some")
    assert "free some" in doctor.verdict([slow, missing])
    assert "find one" in doctor.verdict([slow])
    assert "nothing" in doctor.verdict([Finding(name="disk", value="roomy")])


def test_a_loaded_machine_is_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cores", lambda: 4)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    assert doctor.cores_finding().state == "slow"
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (0.1, 0.0, 0.0))
    assert doctor.cores_finding().state == "ok"


def test_a_machine_that_cannot_confine_cannot_run() -> None:
    finding = doctor.sandbox_finding(simulate_missing=("seccomp",))
    assert finding.state == "missing"
    assert "seccomp" in finding.value
    assert finding.remedy.startswith("run on")
