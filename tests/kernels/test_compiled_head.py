"""The compiled head where blocked's tests do not reach: its own blocks, threads, strides, memory, and who has it."""

from __future__ import annotations

import warnings

import pytest
import torch

from plum_kernels import linear_logprob
from plum_kernels.compiled import build
from plum_kernels.compiled import head as compiled
from plum_kernels.logprob import engine
from tests.kernels.test_linear_logprob import (
    OPTIONS,
    WIDE_SHAPES,
    assert_within_budget,
    make_inputs,
    needed,
    outcome,
    plain,
)

pytestmark = pytest.mark.poison
HAIR = {torch.float32: 1e-6, torch.bfloat16: 2**-9}


@needed
@pytest.mark.parametrize("shape", WIDE_SHAPES, ids=str)
@pytest.mark.parametrize("dtype", list(HAIR), ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_error_budget_over_its_own_blocks(shape, dtype, frozen):
    settings = {"entropy": not frozen, "wanted": (True, not frozen, not frozen)}
    for seed, options in enumerate(OPTIONS):
        inputs = make_inputs(shape, dtype, seed=seed, scale=0.3)
        exact = outcome(inputs, dtype=torch.float64, backend="reference", **settings, **options)
        fused = outcome(inputs, backend="compiled", **settings, **options)
        assert_within_budget(fused, outcome(inputs, compute=plain, **settings, **options), exact, HAIR[dtype])


@needed
@pytest.mark.parametrize("dtype", list(HAIR), ids=str)
def test_any_number_of_threads_gives_the_same_bits(dtype, monkeypatch):
    monkeypatch.setattr(compiled, "ALONE", 0)
    inputs = make_inputs((200, 66, 1100), dtype)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            both = outcome(inputs, backend="compiled") | {
                f"frozen {k}": v
                for k, v in outcome(inputs, backend="compiled", entropy=False, wanted=(True, False, False)).items()
            }
            found.append(both)
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in found[0])


@needed
def test_a_span_gets_narrower_for_many_rows():
    """Past 16,384 rows a block has fewer columns, so that a span's gradient stays within its bound."""
    rows, width, vocabulary = 20_000, 2, 300
    x, w, b, y, upstream = make_inputs((rows, width, vocabulary), torch.float32)
    exact = outcome((x, w, b, y, upstream), dtype=torch.float64, backend="reference")
    fused = outcome((x, w, b, y, upstream), backend="compiled")
    assert_within_budget(fused, outcome((x, w, b, y, upstream), compute=plain), exact, 1e-6)


@needed
@pytest.mark.parametrize("dtype", list(HAIR), ids=str)
def test_rows_with_a_stride_are_read_where_they_lie(dtype):
    x, w, _, y, _ = make_inputs((70, 32, 130), dtype)
    y = y.clamp(min=0)
    wide = torch.full((70, 48), float("nan"), dtype=dtype)
    wide[:, :32] = x
    got = linear_logprob(wide[:, :32], w, y, backend="compiled").logp
    assert torch.equal(got, linear_logprob(x, w, y, backend="compiled").logp)


@needed
def test_nan_and_infinity_are_not_hidden():
    x, w, _, y, _ = make_inputs((70, 32, 130), torch.float32)
    y = y.clamp(min=0)
    x[3, 5] = float("nan")
    x[7, 5] = float("inf")
    got = linear_logprob(x, w, y, backend="compiled").logp
    bad = torch.zeros(70, dtype=torch.bool)
    bad[[3, 7]] = True
    assert not got[bad].isfinite().any() and got[~bad].isfinite().all()


@needed
def test_workspace_is_far_from_the_logits():
    """A trained head takes a few spans beside its gradients, where the logits would be 160 MB."""
    rows, width, vocabulary = 1000, 64, 40_000
    inputs = make_inputs((rows, width, vocabulary), torch.float32, bias=False)
    taken = []
    real = torch.empty

    def watched(*shape, **kwargs):
        made = real(*shape, **kwargs)
        taken.append(made.numel() * made.element_size())
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", watched)
        outcome(inputs, backend="compiled", entropy=False)
    assert taken and max(taken) < rows * vocabulary * 4 / 10


def test_auto_is_compiled_where_it_can_be_had():
    x = torch.zeros(3, 2)
    assert engine.settle("auto", x) == ("blocked" if compiled.missing(x.dtype) else "compiled")
    assert engine.settle("auto", x.double()) == "blocked"
    assert engine.settle("auto", x[:0]) == "blocked"
    assert engine.settle("blocked", x) == "blocked"


@pytest.fixture
def no_compiler(monkeypatch):
    caches = (compiled._library, compiled.missing, engine._without)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(build, "compiler", lambda: None)
    yield
    for cache in caches:
        cache.cache_clear()


def test_without_a_compiler_the_slower_path_says_so_once(no_compiler):
    x, w, _, y, _ = make_inputs((5, 4, 9), torch.float32)
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        with pytest.warns(UserWarning, match=r"torch operators, not compiled: head.cpp needs a C\+\+ compiler"):
            first = linear_logprob(x, w, y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = linear_logprob(x, w, y)
        assert torch.equal(first.logp, again.logp)
    with pytest.raises(ValueError, match=r"backend='compiled' cannot run here: .*; use 'auto' or 'blocked'"):
        linear_logprob(x, w, y, backend="compiled")


def test_a_source_that_does_not_compile_is_refused(tmp_path, monkeypatch):
    if build.compiler() is None:
        pytest.skip("no C++ compiler on PATH")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "wrong.cpp"
    source.write_text("int main( {")
    with pytest.raises(ValueError, match=r"could not compile wrong.cpp"):
        build.build(source)
    assert not list((tmp_path / "cache").rglob("*.so"))
