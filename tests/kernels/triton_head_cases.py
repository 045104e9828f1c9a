"""linear_preference's kernels under Triton's interpreter; ``test_triton.py`` starts it, as it does triton_cases.py."""

from __future__ import annotations

import os

import pytest
import torch
from test_linear_preference import apart, fused, problem

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

from plum_kernels import linear_preference
from plum_kernels.head import reference, triton_backend
from plum_kernels.head.operator import fused_preference

pytestmark = pytest.mark.poison
TRANSFORMS = [{}, {"temperature": 1.3, "softcap": 5.0, "logit_scale": 0.6}]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """About 30 rows a chunk; the reference's tiles are the interpreter's, 16 rows x 32 columns."""
    monkeypatch.setattr(triton_backend, "CHUNK_BYTES", 30 * 80 * 4)
    monkeypatch.setattr(triton_backend, "SLAB", 32)
    monkeypatch.setattr(reference, "TILE", (16, 32))


@pytest.mark.parametrize("threshold", [0.0, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_error_budget(name, dtype, threshold):
    for options in TRANSFORMS:
        inputs = problem(name, dtype, width=24, vocabulary=79)
        _, _, exact = apart(name, inputs, torch.float64, **options)
        _, _, plain = apart(name, inputs, **options)
        got, ours = fused(name, inputs, "triton", threshold=threshold, **options)
        hair = {torch.float32: 1e-6, torch.bfloat16: 2**-8}[dtype]
        for key, truth in exact.items():
            allowed = (plain[key].double() - truth).abs().max() + hair * (1 + truth.abs().max())
            assert (ours[key].double() - truth).abs().max() <= allowed, key
        assert got.dropped.max() <= 1e-8


@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
@pytest.mark.parametrize("threshold", [8e-3, 1e9])
def test_the_filters_error_is_within_what_it_reports(threshold, options):
    inputs = problem("dpo", torch.float32, width=24, vocabulary=79, sharp=0.5)
    (x, w, _), *_ = inputs
    _, whole = fused("dpo", inputs, "triton", **options)
    got, less = fused("dpo", inputs, "triton", threshold=threshold, **options)
    gain = 1.5 * options.get("logit_scale", 1.0) / options.get("temperature", 1.0)
    slack = 1e-5
    error = (less["dx"] - whole["dx"]).norm(dim=1)
    assert error.max() > slack and bool((error <= gain * got.dropped * w.norm(dim=1).max() + slack).all())
    lost = (less["dw"] - whole["dw"]).norm(dim=1).sum()
    assert slack < lost <= gain * (got.dropped * x.norm(dim=1)).sum() + slack
    assert (less["db"] - whole["db"]).abs().sum() <= gain * got.dropped.sum() + slack


def test_drops_what_the_reference_drops(monkeypatch):
    monkeypatch.setattr(triton_backend, "CHUNK_BYTES", 1 << 20)  # one chunk, as the reference has
    inputs = problem("dpo", torch.float32, width=24, vocabulary=79, sharp=2.0)
    ours, theirs = (fused("dpo", inputs, backend, threshold=3e-3) for backend in ("triton", "reference"))
    assert ours[0].dropped.any()
    torch.testing.assert_close(ours[0].dropped, theirs[0].dropped, rtol=1e-4, atol=1e-6)
    for key, value in theirs[1].items():
        torch.testing.assert_close(ours[1][key], value, rtol=1e-4, atol=1e-5)


def test_nothing_at_all():
    got, made = fused("dpo", problem("dpo", torch.float32, lengths=()), "triton")
    assert not got.losses.numel() and not any(value.any() for value in made.values())


def test_twenty_runs_are_bit_equal():
    inputs = problem("dpo", torch.bfloat16, width=16, lengths=(9, 17))
    _, first = fused("dpo", inputs, "triton", threshold=1e-3)
    for _ in range(19):
        _, again = fused("dpo", inputs, "triton", threshold=1e-3)
        assert all(torch.equal(first[key], again[key]) for key in first)


def test_operator_is_well_registered_and_compiles():
    (x, w, b), y, cu, ref, _ = problem("dpo", torch.float32, width=16, lengths=(9, 17))
    operands = (x.requires_grad_(), w.requires_grad_(), y, cu, b.requires_grad_(), ref, None, None, None, None)
    fixed = (torch.ones(1), -100, [1.0, 1.0, 0.0], "dpo", [0.1, 0.0], 1e-3, [True] * 3, "triton")
    torch.library.opcheck(fused_preference, (*operands, *fixed))
    compiled = torch.compile(linear_preference, fullgraph=True, backend="aot_eager")
    ours, theirs = (f(x, w, y, cu, ref, objective="dpo", backend="triton").loss for f in (compiled, linear_preference))
    assert torch.equal(ours, theirs)
