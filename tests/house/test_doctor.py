"""The doctor says what it saw, and what it says decides its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from plum_core.doctor import Finding, accelerator, machine, project, sandbox, verdict
from plum_kernels.compiled import head
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    command = [sys.executable, "runners/doctor.py", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {"status": done.returncode, **json.loads(done.stdout)}


def test_every_subject_is_looked_at_once(report: dict[str, object]) -> None:
    names = [finding["name"] for finding in report["findings"]]
    assert len(names) == len(set(names))
    assert {"Python", "cores", "memory", "disk", "torch", "GPU", "triton", "flash-attn", "compiled log-probs"} <= set(
        names
    )
    assert {"seccomp", "Landlock", "user namespaces", "cgroup v2", "sandbox", "models/tiny"} <= set(names)


def test_exit_status_is_whether_something_is_missing(report: dict[str, object]) -> None:
    missing = [finding for finding in report["findings"] if finding["state"] == "missing"]
    assert report["status"] == int(bool(missing))


def test_whatever_is_missing_has_a_remedy(report: dict[str, object]) -> None:
    assert all(f["remedy"] for f in report["findings"] if f["state"] in ("missing", "slow"))


def test_the_one_thing_to_do_is_the_worst() -> None:
    slow = Finding(name="GPU", value="none", state="slow", remedy="find one")
    missing = Finding(name="disk", value="full", state="missing", remedy="free some")
    assert "free some" in verdict([slow, missing])
    assert "find one" in verdict([slow])
    assert "nothing" in verdict([Finding(name="disk", value="roomy")])


def test_a_loaded_machine_is_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    assert machine.cores_finding().state == "slow"
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.1, 0.0, 0.0))
    assert machine.cores_finding().state == "ok"


def test_a_machine_without_a_compiler_is_told_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "missing", lambda dtype: "head.cpp needs a C++ compiler and none is on PATH")
    finding = accelerator.compiled_finding()
    assert finding.state == "slow" and finding.remedy.startswith("apt-get install g++")
    monkeypatch.setattr(head, "missing", lambda dtype: None)
    assert accelerator.compiled_finding().value == "float32, bfloat16"


def test_a_machine_that_cannot_confine_cannot_run() -> None:
    finding = project.sandbox_finding(simulate_missing=("seccomp",))
    assert finding.state == "missing"
    assert "seccomp" in finding.value
    assert finding.remedy.startswith("run on")


def test_a_sandbox_that_forks_in_python_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "compiled_core", lambda: None)
    finding = project.sandbox_finding()
    assert finding.state == "slow" and finding.value.endswith("it forks in Python")
    assert finding.remedy.startswith("apt-get install gcc")


def test_each_feature_of_the_kernel_says_what_it_gives(report: dict[str, object]) -> None:
    found = {f["name"]: f for f in report["findings"]}
    for name in ("seccomp", "Landlock", "user namespaces", "cgroup v2"):
        assert ";" in found[name]["value"] or found[name]["state"] == "missing", found[name]
        assert found[name]["state"] == "ok" or found[name]["remedy"]


def test_the_features_agree_with_the_sandbox_that_was_started(report: dict[str, object]) -> None:
    found = {f["name"]: f for f in report["findings"]}
    layers = found["sandbox"]["value"].split(", ")
    assert (found["seccomp"]["state"] == "ok") == ("seccomp" in layers)
    assert found["Landlock"]["value"].startswith("ABI") == ("landlock" in layers)
    assert (found["user namespaces"]["state"] == "ok") == ("net_ns" in layers)


def test_a_kernel_without_a_feature_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    assert sandbox.seccomp_finding(tmp_path / "none").state == "missing"
    (tmp_path / "actions").write_text("trap errno log allow\n")
    assert sandbox.seccomp_finding(tmp_path / "actions").state == "missing"
    monkeypatch.setattr(sandbox.kernel, "landlock_version", lambda: 3)
    old = sandbox.landlock_finding()
    assert old.state == "absent" and "no TCP" in old.remedy and "truncated" in old.value
    monkeypatch.setattr(sandbox.kernel, "landlock_version", refuse)
    assert sandbox.landlock_finding().state == "missing"
    monkeypatch.setattr(sandbox, "can_unshare", lambda _: False)
    refused = sandbox.namespaces_finding()
    assert refused.state == "absent" and "second fence" in refused.remedy


def test_a_delegated_cgroup_is_one_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("9:name=systemd:/\n0::/user/job\n")
    place = tmp_path / "cgroup" / "user" / "job"
    place.mkdir(parents=True)
    assert sandbox.cgroup_finding(tmp_path / "self", tmp_path / "cgroup").state == "absent"
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (place / name).write_text("")
    assert sandbox.cgroup_finding(tmp_path / "self", tmp_path / "cgroup").state == "ok"


@pytest.mark.parametrize(
    ("build", "driver", "seen", "words"),
    [
        (None, None, False, "models/tiny does not"),
        (None, "550.54", False, "CUDA build of torch"),
        ("12.8", "470.1", False, "new enough for CUDA 12.8"),
        ("12.8", None, False, "and its driver"),
        ("12.8", "580.1", True, ""),
    ],
)
def test_a_gpu_that_is_not_used_has_its_reason(
    monkeypatch: pytest.MonkeyPatch, build: str | None, driver: str | None, seen: bool, words: str
) -> None:
    torch = accelerator.torch
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(accelerator, "driver_version", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(seen))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 30, 80 << 30))
    found = accelerator.gpu_finding()
    assert (found.state == "ok") == seen and words in found.remedy
    if seen:
        assert found.value == "H100 (sm_90); CUDA 12.8, driver 580.1"
        assert [f.state for f in accelerator.gpu_memory()] == ["slow"]


def test_the_driver_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "version"
    assert accelerator.driver_version(path) is None
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    assert accelerator.driver_version(path) == "550.54.15"
