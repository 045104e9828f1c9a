"""The one command for a GPU, walked without one."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "kernels" / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu")


def test_a_dry_run_walks_every_section_and_measures_nothing(gpu, tmp_path, capsys):
    assert gpu.main(["--dry", "--results", str(tmp_path)]) == 0
    record = json.loads(next(tmp_path.glob("*-gpu-dry.json")).read_text())
    assert {row["section"] for row in record["rows"]} == {"checks", "tuning", "tables", "decode"}
    assert not record["failures"] and record["ceiling_flops"] is None
    assert all(row.get("ms") is None for row in record["rows"])
    assert all(found == "not measured" for _, found in record["bars"])
    page = next(tmp_path.glob("*-gpu-dry.md")).read_text()
    assert "nothing here is a measurement" in page and page.count("| not measured |") >= 4
    assert "cut: tuning: tiles (they need a GPU)" in capsys.readouterr().out


def test_a_failed_check_keeps_anything_from_being_timed(gpu, tmp_path, monkeypatch):
    checks = sys.modules["on_gpu.checks"]
    monkeypatch.setattr(checks, "HAIR", dict.fromkeys(checks.HAIR, -1.0))
    assert gpu.main(["--dry", "--results", str(tmp_path)]) == 1
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert record["failures"] and {row["section"] for row in record["rows"]} == {"checks"}
    assert "tables: a check failed, and nothing wrong is timed" in record["cut"]


def test_what_does_not_fit_the_time_is_named(gpu, tmp_path):
    assert gpu.main(["--dry", "--results", str(tmp_path), "--minutes", "0", "--sections", "checks"]) == 0
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert not record["rows"] and len(record["cut"]) > 50


def test_without_a_gpu_it_says_what_to_do(gpu, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--dry walks every section without one" in capsys.readouterr().err
