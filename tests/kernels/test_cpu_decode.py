"""The compiled functions of a decode step beside their definitions, in fp32 and bf16, whole vectors and odd ends."""

from __future__ import annotations

import pytest
import torch

from plum_core.sampling import SamplingParams
from plum_core.sampling.draw import draw_
from plum_kernels import cpu_decode
from plum_kernels.cpu_decode.build import library
from plum_kernels.cpu_decode.interface import work_size
from plum_kernels.cpu_decode.reference import reference_attend
from plum_kernels.norm import reference_rms_norm

pytestmark = pytest.mark.skipif(cpu_decode.compiler() is None, reason="no C++ compiler")
BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 2**-7}  # relative: a few roundings; one rounding of bf16
DTYPES = pytest.mark.parametrize("dtype", BOUNDS, ids=["fp32", "bf16"])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(found, exact, dtype):
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), exact, atol=BOUNDS[dtype], rtol=BOUNDS[dtype])


@DTYPES
@pytest.mark.parametrize("width", [1, 16, 48, 129])
def test_rms_norm(width, dtype):
    x, weight = normal(5, width).to(dtype), normal(width, seed=1)
    out = torch.empty_like(x)
    cpu_decode.rms_norm(x, weight, 1e-6, out)
    close(out, reference_rms_norm(x.float(), weight, 1e-6), dtype)


@DTYPES
@pytest.mark.parametrize("inner", [1, 16, 85])
def test_silu_mul(inner, dtype):
    gate_up = (30 * normal(7, 2 * inner)).to(dtype)  # far enough that e^x leaves fp32's middle
    out = gate_up.new_empty((7, inner))
    cpu_decode.silu_mul(gate_up, out)
    gate, up = gate_up.float().chunk(2, 1)
    close(out, torch.nn.functional.silu(gate) * up, dtype)


@DTYPES
@pytest.mark.parametrize(
    ("rows", "heads", "groups", "width", "prompts", "places", "own"),
    [(19, 4, 1, 32, 3, 64, 64), (5, 14, 2, 64, 3, 96, 32), (4, 5, 1, 48, 2, 32, 32), (3, 6, 6, 16, 2, 32, 96)],
)
def test_attend(rows, heads, groups, width, prompts, places, own, dtype):
    pick = torch.Generator().manual_seed(1)
    owners = torch.arange(rows) % prompts
    lengths = torch.randint(1, places + 1, (prompts,), generator=pick)[owners]
    positions = lengths + torch.randint(0, own, (rows,), generator=pick)
    angles = normal(places + own, width // 2)
    cos, sin = angles.cos(), angles.sin()
    turns = torch.cat((cos, cos), 1), torch.cat((-sin, sin), 1)
    shared = normal(prompts, groups, width, places, seed=2), normal(prompts, groups, places, width, seed=3)
    mine = normal(rows + 1, groups, width, own, seed=4), normal(rows + 1, groups, own, width, seed=5)
    theirs = tuple(x.clone() for x in mine)
    qkv = normal(rows, (heads + 2 * groups) * width, seed=6).to(dtype)
    out = qkv.new_empty((rows, heads * width))
    work = torch.full((work_size(heads, groups, width, places, own),), torch.nan)
    cpu_decode.attend(qkv, turns, positions, owners, lengths, shared, mine, out, work)
    exact = reference_attend(qkv.float(), turns, positions, owners, lengths, shared, theirs)
    close(out, exact, dtype)
    for found, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.9, 0.0])
@pytest.mark.parametrize("width", [5, 64, 1000])
def test_draw(width, temperature):
    """The same tokens as torch's draw: uniforms and blocks are the same, sums differ by roundings."""
    rows = 400
    logits, seeds = 3 * normal(rows, width), torch.arange(rows) * 7919 + (1 << 61)
    numbers = torch.arange(rows)
    for z, seen in ((logits, logits), (logits.bfloat16(), logits.bfloat16().float())):
        found = cpu_decode.draw(z, seeds, numbers, temperature)
        exact = draw_(seen.clone(), seeds, numbers, SamplingParams(temperature=temperature))
        assert (found[0] != exact[0]).sum() <= 1
        same = found[0] == exact[0]
        for a, b in zip(found[1:], exact[1:], strict=True):
            torch.testing.assert_close(a[same], b[same], atol=2e-6, rtol=2e-6)


def test_200000_draws_follow_the_distribution():
    draws, width = 200_000, 70
    logits = 2 * normal(width)
    tokens, *_ = cpu_decode.draw(
        logits.repeat(draws, 1), torch.arange(draws) * 104729 + 7, torch.full((draws,), 3), 0.8
    )
    expected = (logits.double() / 0.8).softmax(0) * draws
    common = expected >= 5
    seen = tokens.bincount(minlength=width).double()
    freedom = int(common.sum()) - 1
    assert ((seen - expected)[common] ** 2 / expected[common]).sum() < freedom + 4 * (2 * freedom) ** 0.5 + 4


def test_what_does_not_fit_is_refused():
    x = normal(3, 16)
    with pytest.raises(ValueError, match="weight must be"):
        cpu_decode.rms_norm(x, normal(8), 1e-6, x.clone())
    with pytest.raises(ValueError, match="contiguous"):
        cpu_decode.rms_norm(x.t()[:3, :3], normal(3), 1e-6, torch.empty(3, 3))
    with pytest.raises(ValueError, match="fp32 or bf16"):
        cpu_decode.silu_mul(x.double(), torch.empty(3, 8, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:.* has no OpenMP")
def test_no_compiler_and_a_compiler_that_refuses_are_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match="install g"):
        library.__wrapped__()
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ValueError, match="no such flag"):
        library.__wrapped__()
    assert not list(tmp_path.rglob("*.so"))
