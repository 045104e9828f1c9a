"""Products of few rows from a laid-out weight, and the draw inside the head's: budgets, every row alone."""

from __future__ import annotations

import os

import pytest
import torch

from plum_kernels import cpu_decode
from plum_kernels.compiled import build
from plum_kernels.cpu_decode import Matrix, multiplies
from plum_kernels.cpu_decode.interface import ALONE
from plum_kernels.cpu_decode.reference import reference_linear

pytestmark = pytest.mark.skipif(cpu_decode.compiler() is None, reason="no C++ compiler")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
SHAPES = [(1, 2, 1), (7, 40, 63), (64, 194, 65), (97, 400, 128), (5, 2050, 200), (193, 64, 320)]  # R, K, N


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@DTYPES
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_linear_is_the_product_within_its_budget(rows, inputs, outputs, dtype):
    """At most as wrong as torch's own sum in the dtype, which rounds more than once, plus a hair."""
    x, weight, bias = (
        normal(*s, seed=i).to(dtype) for i, s in enumerate([(rows, inputs), (outputs, inputs), (outputs,)])
    )
    residual = normal(rows, outputs, seed=3).to(dtype)
    for b, r in ((None, None), (bias, None), (None, residual), (bias, residual)):
        given = [y if y is None else y.double() for y in (x, weight, b, r)]
        exact, plain = reference_linear(*given), reference_linear(x, weight, b, r)
        found = Matrix(weight, b).linear(x, r)
        assert found.dtype == dtype
        hair = 1e-5 if dtype == torch.float32 else 0
        assert (found - exact).abs().max() <= (plain - exact).abs().max() + hair


@DTYPES
def test_the_residual_may_be_the_answers_own_memory(dtype):
    x, weight, residual = normal(13, 48).to(dtype), normal(70, 48, seed=1).to(dtype), normal(13, 70, seed=2).to(dtype)
    matrix = Matrix(weight)
    expected = matrix.linear(x, residual)
    assert matrix.linear(x, residual, out=residual) is residual and torch.equal(residual, expected)


@DTYPES
def test_every_row_is_as_if_alone_whatever_the_threads(dtype, threads):
    """To the bit: by rows where the weight is small, by panels where it is large; drawn tokens too."""
    for inputs, outputs in ((512, 256), (1030, 700)):
        x, weight = normal(300, inputs).to(dtype), (normal(outputs, inputs, seed=1) / inputs**0.5).to(dtype)
        matrix, seeds, numbers = Matrix(weight), torch.arange(300) * 7919, torch.arange(300)
        assert len(x) * weight.numel() > ALONE  # shared indeed
        answers = []
        for count in (1, 2, 3):
            threads(count)
            answers.append((matrix.linear(x), *matrix.draw(x, seeds, numbers, 0.9)))
        each = zip(x.split(1), seeds.split(1), numbers.split(1), strict=True)
        alone = [(matrix.linear(row), *matrix.draw(row, seed, number, 0.9)) for row, seed, number in each]
        answers.append(tuple(torch.cat(parts) for parts in zip(*alone, strict=True)))
        for other in answers[1:]:
            assert all(torch.equal(a, b) for a, b in zip(answers[0], other, strict=True))


@DTYPES
@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.9, 0.0])
@pytest.mark.parametrize("outputs", [3, 64, 1000, 1089])
def test_draw_is_that_of_the_logits(outputs, temperature, dtype):
    """The tokens of ``draw`` of the product in fp32: uniforms and blocks are the same, sums differ by roundings."""
    rows, inputs = 200, 24
    hidden, weight = normal(rows, inputs).to(dtype), normal(outputs, inputs, seed=1).to(dtype)
    seeds, numbers = torch.arange(rows) * 7919 + (1 << 61), torch.arange(rows)
    found = Matrix(weight).draw(hidden, seeds, numbers, temperature)
    exact = cpu_decode.draw(reference_linear(hidden.float(), weight.float()), seeds, numbers, temperature)
    same = found[0] == exact[0]
    assert (~same).sum() <= 1
    for a, b in zip(found[1:], exact[1:], strict=True):
        torch.testing.assert_close(a[same], b[same], atol=1e-5, rtol=1e-5)


def test_no_rows_at_all():
    matrix, none = Matrix(normal(70, 16)), torch.zeros(0, dtype=torch.int64)
    assert matrix.linear(normal(0, 16)).shape == (0, 70)
    assert [len(x) for x in matrix.draw(normal(0, 16), none, none, 1.0)] == [0, 0, 0]


def test_logits_far_apart_and_equal():
    """Blocks that weigh nothing, a block after which rounding could point, and many largest logits."""
    weight = torch.zeros(300, 2)
    weight[:, 0] = torch.arange(300.0)
    seeds, numbers = torch.arange(500), torch.arange(500)
    tokens, logprobs, _ = Matrix(weight).draw(torch.tensor([[50.0, 0.0]]).repeat(500, 1), seeds, numbers, 1.0)
    assert (tokens == 299).all() and (logprobs == 0).all()
    tokens, logprobs, _ = Matrix(weight).draw(torch.tensor([[-3e4, 0.0]]).repeat(500, 1), seeds, numbers, 1.3)
    assert (tokens == 0).all() and (logprobs == 0).all()
    flat = Matrix(torch.zeros(300, 2))
    tokens, logprobs, _ = flat.draw(torch.ones(500, 2), seeds, numbers, 1.0)
    assert len(tokens.unique()) > 200 and tokens.max() < 300
    torch.testing.assert_close(logprobs, torch.full((500,), -float(torch.tensor(300.0).log())), atol=1e-6, rtol=0)
    assert (flat.draw(torch.ones(500, 2), seeds, numbers, 0.0)[0] == 0).all()  # the first of the largest


@DTYPES
def test_200000_draws_follow_the_distribution(dtype):
    draws, outputs, inputs = 200_000, 150, 16
    hidden, weight = normal(1, inputs).to(dtype), normal(outputs, inputs, seed=1).to(dtype)
    tokens, *_ = Matrix(weight).draw(
        hidden.repeat(draws, 1), torch.arange(draws) * 104729 + 7, torch.full((draws,), 3), 0.8
    )
    logits = reference_linear(hidden.double(), weight.double())[0]
    expected = (logits / 0.8).softmax(0) * draws
    common = expected >= 5
    seen = tokens.bincount(minlength=outputs).double()
    freedom = int(common.sum()) - 1
    assert freedom > 30
    assert ((seen - expected)[common] ** 2 / expected[common]).sum() < freedom + 4 * (2 * freedom) ** 0.5 + 4


def test_what_does_not_fit_is_refused():
    matrix = Matrix(normal(8, 16), normal(8))
    with pytest.raises(ValueError, match="even number of inputs"):
        Matrix(normal(8, 15))
    with pytest.raises(ValueError, match="fp32 or bf16"):
        Matrix(normal(8, 16).double())
    with pytest.raises(ValueError, match="x must be contiguous"):
        matrix.linear(normal(16, 3).t())
    with pytest.raises(ValueError, match="residual must be contiguous"):
        matrix.linear(normal(3, 16), normal(3, 9))
    with pytest.raises(ValueError, match="bias"):
        matrix.draw(normal(3, 16), torch.arange(3), torch.arange(3), 1.0)
    with pytest.raises(ValueError, match="seeds must be contiguous int64"):
        Matrix(normal(8, 16)).draw(normal(3, 16), torch.arange(3).int(), torch.arange(3), 1.0)


@pytest.mark.skipif(build.platform.machine() not in ("x86_64", "AMD64"), reason="flags of x86")
def test_without_the_instructions_the_function_is_the_same_and_another_product_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "FLAGS", tuple(f.replace("native", "x86-64-v2") for f in build.FLAGS))
    plain = cpu_decode.build.library.__wrapped__()
    assert not plain.plum_wide_float32() and not plain.plum_wide_bfloat16()
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        x, weight = normal(9, 50).to(dtype), normal(70, 50, seed=1).to(dtype)
        panels, out = weight.new_empty((128, 50)), weight.new_empty((9, 70))
        getattr(plain, f"plum_pack_{name}")(weight.data_ptr(), panels.data_ptr(), 70, 50, 1)
        pointers = (x.data_ptr(), panels.data_ptr(), None, None, out.data_ptr())
        getattr(plain, f"plum_linear_{name}")(*pointers, 9, 50, 70, 1)
        torch.testing.assert_close(out, Matrix(weight).linear(x), atol=1e-5, rtol=2**-7)


def test_where_tiles_multiply_bf16_they_are_taken(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert not multiplies(torch.bfloat16) and not multiplies(torch.float64)
    assert multiplies(torch.float32) == cpu_decode.build.wide("float32")


def test_a_compiler_without_openmp_is_said(monkeypatch, tmp_path):
    real = cpu_decode.compiler()
    fake = tmp_path / "c++"
    fake.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec {real} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(UserWarning, match="no OpenMP"):
        cpu_decode.build.library.__wrapped__()
