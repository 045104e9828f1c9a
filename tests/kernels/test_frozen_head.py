"""A head that takes no gradient, blocked and compiled: the same budget, no second pass, no large tensor."""

from __future__ import annotations

import pytest
import torch

from plum_kernels import linear_logprob
from plum_kernels.compiled import head as compiled
from plum_kernels.logprob import blocks, engine
from tests.kernels.test_linear_logprob import (
    COMPILED,
    OPTIONS,
    SHAPES,
    assert_within_budget,
    make_inputs,
    outcome,
    plain,
)

pytestmark = pytest.mark.poison
FROZEN = (True, False, False)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "block_shape", lambda columns: (8, 16))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["blocked", COMPILED])
def test_error_budget(shape, dtype, backend):
    if backend == "compiled" and dtype == torch.float16:
        backend = "auto"
    hair = {torch.float32: 1e-6, torch.bfloat16: 2**-9, torch.float16: 2**-11}[dtype]
    settings = {"entropy": False, "wanted": FROZEN}
    for seed, options in enumerate(OPTIONS):
        inputs = make_inputs(shape, dtype, seed=seed)
        exact = outcome(inputs, dtype=torch.float64, backend="reference", **settings, **options)
        fused = outcome(inputs, backend=backend, **settings, **options)
        assert_within_budget(fused, outcome(inputs, compute=plain, **settings, **options), exact, hair)


@pytest.mark.parametrize("scale", [0.0, 1e4], ids=["equal logits", "logits of 1e4"])
@pytest.mark.parametrize("backend", ["blocked", COMPILED])
def test_extreme_logits(scale, backend):
    inputs = make_inputs((23, 3, 47), torch.float32, scale=scale, bias=False)
    settings = {"entropy": False, "wanted": FROZEN}
    exact = outcome(inputs, dtype=torch.float64, backend="reference", **settings)
    fused = outcome(inputs, backend=backend, **settings)
    assert_within_budget(fused, outcome(inputs, compute=plain, **settings), exact, 1e-6)
    assert all(value.isfinite().all() for value in fused.values())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("part", [0, 1], ids=["logp", "logsumexp"])
def test_gradcheck(options, part):
    x, w, b, y, _ = make_inputs((9, 3, 19), torch.float64)
    assert torch.autograd.gradcheck(lambda x: linear_logprob(x, w, y, bias=b, **options)[part], x.requires_grad_())


def test_a_bias_of_minus_infinity_removes_a_block():
    x, w, _, y, upstream = make_inputs((23, 3, 47), torch.float64)
    b = torch.zeros(47, dtype=torch.float64)
    b[:16] = -torch.inf
    y[(y >= 0) & (y < 16)] = 20
    got = outcome((x, w, b, y, upstream), entropy=False, wanted=FROZEN)
    less = outcome((x, w[16:], None, torch.where(y >= 0, y - 16, y), upstream), entropy=False, wanted=FROZEN)
    for name, value in less.items():
        torch.testing.assert_close(got[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("wanted", "entropy", "passes"),
    [(FROZEN, False, 1), ((True, True, False), False, 2), ((True, False, True), False, 2), (FROZEN, True, 2)],
)
def test_logits_are_made_once_where_the_head_is_frozen(monkeypatch, wanted, entropy, passes):
    made = []
    logits = blocks.Blocks.logits
    monkeypatch.setattr(blocks.Blocks, "logits", lambda *args: made.append(1) or logits(*args))
    outcome(make_inputs((23, 3, 47), torch.float32), wanted=wanted, entropy=entropy, backend="blocked")
    assert len(made) == passes * 3 * 3  # blocks of 8 x 16 over 21 scored rows x 47 columns


@pytest.mark.parametrize("backend", [COMPILED])
@pytest.mark.parametrize(("wanted", "visits"), [(FROZEN, ["forward"]), ((True, True, False), ["forward", "backward"])])
def test_the_compiled_head_is_visited_once_where_it_is_frozen(monkeypatch, backend, wanted, visits):
    seen = []
    run = compiled.Head._run
    monkeypatch.setattr(compiled.Head, "_run", lambda self, name, *rest: seen.append(name) or run(self, name, *rest))
    outcome(make_inputs((23, 3, 47), torch.float32), wanted=wanted, entropy=False, backend=backend)
    assert seen == visits


def test_nothing_is_kept_for_a_gradient_that_nobody_wants(monkeypatch):
    monkeypatch.setattr(engine, "expectation", None)
    x, w, b, y, _ = make_inputs((9, 3, 19), torch.float32)
    assert not linear_logprob(x, w, y, bias=b).logp.requires_grad
    with torch.no_grad():
        linear_logprob(x.requires_grad_(), w, y, bias=b)
    with pytest.raises(TypeError):  # the way that is closed here is the one that gradients take
        linear_logprob(x, w, y, bias=b)
