"""linear_logprob against its definition: values and gradients over dtypes, ugly shapes, extreme inputs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from plum_kernels import linear_logprob
from plum_kernels.compiled import head as compiled
from plum_kernels.logprob import blocks, engine

# N rows, D width, V vocabulary; blocks are shrunk to 8 x 16 below
SHAPES = [
    (1, 1, 1),  # everything is a boundary
    (7, 5, 13),  # primes, one block
    (8, 16, 16),  # exactly one block
    (9, 16, 17),  # a block plus one, both ways
    (23, 3, 47),  # a block minus one, several blocks
    (0, 4, 9),  # an empty batch
]
WIDE_SHAPES = [
    (129, 66, 1100),
    (64, 64, 512),
    (63, 127, 513),
]  # compiled: blocks of 64 x 512 and 64 x 1024, panels of 64


pytestmark = pytest.mark.poison
real_block_shape = blocks.block_shape
WITHOUT = compiled.missing(torch.float32) or compiled.missing(torch.bfloat16)
needed = pytest.mark.skipif(WITHOUT is not None, reason=f"no compiled head: {WITHOUT}")
COMPILED = pytest.param("compiled", marks=needed)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of at most 8 rows x 16 columns, so that small shapes meet every boundary."""
    monkeypatch.setattr(blocks, "block_shape", lambda columns: (8, 16))


def make_inputs(shape, dtype, *, scale=1.0, bias=True, seed=0):
    n, d, v = shape
    g = torch.Generator().manual_seed(seed)
    x = (torch.randn(n, d, generator=g) * scale).to(dtype)
    w = torch.randn(v, d, generator=g).to(dtype)
    b = torch.randn(v, generator=g).to(dtype) if bias else None
    y = torch.randint(0, v, (n,), generator=g)
    if n > 3:
        y[[0, 3]] = -100
    upstream = [torch.randn(n, generator=g) for _ in range(3)]
    return x, w, b, y, upstream


def outcome(inputs, *, dtype=None, compute=linear_logprob, wanted=(True, True, True), entropy=True, **options):
    """Values and gradients by name, as fp64."""
    x, w, b, y, upstream = inputs
    leaves = [None if t is None else t.detach().to(dtype or t.dtype) for t in (x, w, b)]
    for leaf, want in zip(leaves, wanted, strict=True):
        if leaf is not None and want:
            leaf.requires_grad_()
    out = compute(leaves[0], leaves[1], y, bias=leaves[2], entropy=entropy, **options)
    parts = [part for part in out if part is not None]
    sum((u.to(p.dtype) * p).sum() for u, p in zip(upstream, parts, strict=False)).backward()
    named = dict(zip(("logp", "logsumexp", "entropy"), parts, strict=False))
    named |= {f"d{k}": t.grad for k, t in zip("xwb", leaves, strict=True) if t is not None and t.grad is not None}
    return {name: value.detach().double() for name, value in named.items()}


def plain(x, w, y, *, bias, entropy, temperature=1.0, softcap=None, logit_scale=1.0):
    """What one writes without care: logits in the inputs' dtype."""
    z = torch.nn.functional.linear(x, w, bias) * logit_scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    z = (z / temperature).float()
    log_p = z.log_softmax(-1)
    keep = y != -100
    logp = log_p.gather(1, y.clamp(min=0)[:, None])[:, 0]
    lse, h = z.logsumexp(-1), -(log_p.exp() * log_p).sum(-1)
    return [torch.where(keep, part, 0.0) for part in (logp, lse, h)]


def assert_within_budget(fused, plain_, exact, hair):
    """The fused result may be as wrong as the plain one at its worst, plus a hair of the exact one's size."""
    assert fused.keys() == exact.keys()
    for name, truth in exact.items():
        if truth.numel() == 0:
            continue
        allowed = (plain_[name] - truth).abs().max() + hair * (1 + truth.abs().max())
        excess = (fused[name] - truth).abs() - allowed
        assert excess.max() <= 0, f"{name}[{int(excess.argmax())}]: {excess.max():.2e} past the budget"


OPTIONS = [{}, {"temperature": 0.7}, {"softcap": 3.0}, {"temperature": 1.3, "softcap": 5.0, "logit_scale": 0.6}]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["blocked", "reference", COMPILED])
def test_error_budget(shape, dtype, backend):
    if backend == "compiled" and dtype == torch.float16:
        with pytest.raises(ValueError, match=r"takes fp32 and bf16, not torch\.float16"):
            outcome(make_inputs(shape, dtype), backend=backend)
        return
    for seed, options in enumerate(OPTIONS):
        inputs = make_inputs(shape, dtype, seed=seed)
        exact = outcome(inputs, dtype=torch.float64, backend="reference", **options)
        fused = outcome(inputs, backend=backend, **options)
        hair = {torch.float32: 1e-6, torch.bfloat16: 2**-9, torch.float16: 2**-11}[dtype]
        assert_within_budget(fused, outcome(inputs, compute=plain, **options), exact, hair)


def test_the_budget_can_be_missed():
    inputs = make_inputs((9, 16, 17), torch.float32)
    exact = outcome(inputs, dtype=torch.float64, backend="reference")
    wrong = {k: v + 1e-3 for k, v in exact.items()}
    with pytest.raises(AssertionError, match="past the budget"):
        assert_within_budget(wrong, outcome(inputs, compute=plain), exact, 1e-6)


@pytest.mark.parametrize("backend", ["blocked", "reference"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradcheck(backend, options):
    x, w, b, y, _ = make_inputs((9, 3, 19), torch.float64)
    leaves = [t.requires_grad_() for t in (x, w, b)]

    def scored(x, w, b):
        return tuple(linear_logprob(x, w, y, bias=b, entropy=True, backend=backend, **options))

    assert torch.autograd.gradcheck(scored, leaves)


@pytest.mark.parametrize("backend", ["blocked", COMPILED])
@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3))[:-1], ids=str)
def test_each_gradient_alone(wanted, backend):
    inputs = make_inputs((23, 3, 47), torch.float32)
    everything = outcome(inputs, backend=backend)
    some = outcome(inputs, backend=backend, wanted=wanted)
    assert {k for k in some if k.startswith("d")} == {f"d{k}" for k, w in zip("xwb", wanted, strict=True) if w}
    for name, value in some.items():
        assert torch.equal(value, everything[name]), name


@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e4], ids=["equal logits", "logits of 1e4"])
@pytest.mark.parametrize("backend", ["blocked", COMPILED])
def test_extreme_logits(scale, entropy, backend):
    inputs = make_inputs((23, 3, 47), torch.float32, scale=scale, bias=False)
    exact = outcome(inputs, dtype=torch.float64, backend="reference", entropy=entropy)
    fused = outcome(inputs, backend=backend, entropy=entropy)
    assert_within_budget(fused, outcome(inputs, compute=plain, entropy=entropy), exact, 1e-6)
    assert all(value.isfinite().all() for value in fused.values())


@pytest.mark.parametrize(
    ("backend", "dtype", "near"),
    [("blocked", torch.float64, 1e-12), ("reference", torch.float64, 1e-12), ("compiled", torch.float32, 1e-5)],
)
def test_a_bias_of_minus_infinity_removes_a_token(backend, dtype, near):
    if backend == "compiled" and WITHOUT:
        pytest.skip(WITHOUT)
    x, w, _, y, upstream = make_inputs((23, 3, 47), dtype)
    b = torch.zeros(47, dtype=dtype)
    b[16:32] = -torch.inf  # a whole block
    y[(y >= 16) & (y < 32)] = 3
    keep = torch.cat((torch.arange(16), torch.arange(32, 47)))
    moved = torch.where(y >= 32, y - 16, y)
    full = outcome((x, w, b, y, upstream), backend=backend, wanted=(True, True, False))
    less = outcome((x, w[keep], None, moved, upstream), backend=backend)
    for name in ("logp", "logsumexp", "entropy", "dx"):
        torch.testing.assert_close(full[name], less[name], rtol=near, atol=near)
    torch.testing.assert_close(full["dw"][keep], less["dw"], rtol=near, atol=near)
    assert not full["dw"][16:32].any()


@pytest.mark.parametrize("backend", ["blocked", "reference", COMPILED])
def test_ignored_rows_are_zero_and_send_nothing(backend):
    x, w, b, y, upstream = make_inputs((23, 3, 47), torch.float32)
    x[0] = float("nan")  # an ignored row is never read
    full = outcome((x, w, b, y, upstream), backend=backend)
    kept = y != -100
    part = outcome((x[kept], w, b, y[kept], [u[kept] for u in upstream]), backend=backend)
    for name in ("logp", "logsumexp", "entropy", "dx"):
        assert torch.equal(full[name][kept], part[name]), name
        assert not full[name][~kept].any(), name
    assert torch.equal(full["dw"], part["dw"])


@pytest.mark.parametrize("backend", ["blocked", "reference", COMPILED])
def test_all_rows_ignored(backend):
    x, w, b, _, upstream = make_inputs((5, 3, 47), torch.float32)
    got = outcome((x, w, b, torch.full((5,), -100), upstream), backend=backend)
    assert len(got) == 6
    assert not any(value.any() for value in got.values())


def test_leading_shape_and_strides():
    x, w, _, y, _ = make_inputs((24, 6, 47), torch.float32)
    flat = linear_logprob(x, w, y)
    cube = linear_logprob(x.view(4, 3, 2, 6), w, y.view(4, 3, 2))
    strided = linear_logprob(x.T.contiguous().T, w.T.contiguous().T, y)
    assert cube.logp.shape == (4, 3, 2) and cube.entropy is None
    assert torch.equal(cube.logp.flatten(), flat.logp)
    torch.testing.assert_close(strided.logp, flat.logp)


@pytest.mark.parametrize("backend", ["blocked", COMPILED])
def test_twenty_runs_are_bit_equal(backend):
    inputs = make_inputs((23, 16, 47), torch.bfloat16)
    first = outcome(inputs, backend=backend)
    for _ in range(19):
        again = outcome(inputs, backend=backend)
        assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_no_logits_matrix_in_memory(monkeypatch, backend):
    """The largest tensor that blocked makes is a block; the reference shows that the watch sees more."""
    monkeypatch.setattr(blocks, "block_shape", real_block_shape)
    n, d, v = 600, 8, 9000
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor))
            return out

    x, w, _, y, _ = make_inputs((n, d, v), torch.float32)
    y = y.clamp(min=0)  # every row is scored
    with Watch():
        if backend == "reference":
            linear_logprob(x.requires_grad_(), w.requires_grad_(), y, backend=backend).logp.sum().backward()
        else:  # the operator is one piece to the watch: look at what it is made of
            problem = engine.Problem(x, w, y, None, blocks.Transform(temperature=1.0, softcap=None))
            _, m, s, t = engine.statistics(problem, False, backend)
            upstream = blocks.Upstream(target=torch.ones_like(s), lse=torch.zeros_like(s), entropy=None)
            engine.gradients(problem, (m, s, t), upstream, (True, True, False), backend)
    assert max(sizes) == (n * v if backend == "reference" else 2048 * (blocks.BLOCK_ELEMENTS // 2048))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(47, 4)}, "must share D"),
        ({"targets": torch.zeros(4, dtype=torch.int64)}, "one target per hidden row"),
        ({"targets": torch.zeros(5, dtype=torch.int32)}, "int64"),
        ({"targets": torch.full((5,), 47)}, r"target 47 is outside \[0, 47\)"),
        ({"targets": torch.full((5,), -1)}, "target -1 is outside"),
        ({"weight": torch.zeros(47, 3, dtype=torch.float64)}, "one floating dtype"),
        ({"bias": torch.zeros(46)}, "bias must be"),
        ({"bias": torch.zeros(47, device="meta")}, "one device"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"logit_scale": 0.0}, "logit_scale must be finite and > 0"),
        ({"softcap": -1.0}, "softcap"),
        ({"backend": "cuda"}, "backend must be one of auto, blocked, compiled, reference"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_mistakes_are_refused(change, message):
    call = {
        "hidden": torch.zeros(5, 3),
        "weight": torch.zeros(47, 3),
        "targets": torch.zeros(5, dtype=torch.int64),
    }
    call |= change
    with pytest.raises(ValueError, match=message):
        linear_logprob(call.pop("hidden"), call.pop("weight"), call.pop("targets"), **call)
