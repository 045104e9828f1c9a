"""Triton's kernels without a GPU: every case under the interpreter, every target ahead of time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plum_kernels import linear_logprob

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


CASES = {  # at least so many in each file
    "triton_cases": 35,
    "triton_attention_cases": 28,
    "triton_decode_attention_cases": 15,
    "triton_decoder_cases": 57,
    "triton_head_cases": 5,
    "triton_hybrid_cases": 32,
    "triton_preference_cases": 60,
    "triton_sample_cases": 22,
}


def test_every_file_of_cases_is_listed():
    assert sorted(CASES) == sorted(path.stem for path in HERE.glob("triton_*cases.py"))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.timeout(280)
def test_cases_under_the_interpreter(name):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / f"{name}.py"]
    chosen = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, cwd=ROOT, env=chosen, capture_output=True, text=True, timeout=270)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= CASES[name] and "skipped" not in done.stdout


@pytest.mark.timeout(280)
def test_every_kernel_compiles_for_every_target_without_spills(tmp_path):
    command = [sys.executable, ROOT / "kernels/benchmarks/compile_kernels.py", "--results", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=270)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    table = next(tmp_path.glob("*.md")).read_text()
    assert all(f"| {target} |" in table for target in ("sm_80", "sm_90", "sm_100", "gfx942"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the back end runs: see triton_cases.py")
def test_without_a_gpu_the_back_end_is_refused_by_name():
    with pytest.raises(ValueError, match="backend triton needs a GPU, got tensors on cpu: use backend='blocked'"):
        linear_logprob(torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(2).long(), backend="triton")
