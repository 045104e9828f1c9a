"""linear_preference against linear_logprob and preference_loss apart, and the filter against its own bound."""

from __future__ import annotations

import pytest
import torch

from plum_kernels import linear_logprob, linear_preference, preference_loss
from plum_kernels.head import blocked, reference
from plum_kernels.head.operator import fused_preference
from plum_kernels.logprob import blocks
from plum_kernels.preference.formulas import SPECS
from tests.kernels.test_linear_logprob import COMPILED

pytestmark = pytest.mark.poison
NAMES = [name for name in SPECS if not name.startswith("aot")]
LENGTHS = (3, 1, 17, 9, 8, 8, 2, 21)
TRANSFORMS = [{}, {"temperature": 1.3, "softcap": 5.0, "logit_scale": 0.6}]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 columns, tiles of 4 rows, chunks of about 30 rows: small shapes meet every boundary."""
    monkeypatch.setattr(blocks, "block_shape", lambda columns: (8, 16))
    monkeypatch.setattr(blocked, "FILTER_ROWS", 4)
    monkeypatch.setattr(blocked, "CHUNK_BYTES", 30 * 47 * 4)
    monkeypatch.setattr(reference, "TILE", (4, 16))


def problem(name, dtype, *, width=6, vocabulary=47, lengths=LENGTHS, seed=0, sharp=1.0):
    g = torch.Generator().manual_seed(seed)
    cu = torch.tensor([2, *lengths]).cumsum(0)
    rows = int(cu[-1]) + 3
    wide = torch.promote_types(dtype, torch.float32)
    x = (torch.randn(rows, width, generator=g) * sharp).to(dtype)
    w, b = torch.randn(vocabulary, width, generator=g).to(dtype), torch.randn(vocabulary, generator=g).to(dtype)
    y = torch.randint(0, vocabulary, (rows,), generator=g)
    y[torch.rand(rows, generator=g) < 0.3] = -100
    sequences = len(lengths)
    values = {
        "desirable": torch.arange(sequences) % 3 != 0,
        "kl": torch.tensor(0.3, dtype=wide),
        "shift": torch.tensor(-0.4, dtype=wide),
        "alignment": torch.linspace(-0.7, 0.2, sequences, dtype=wide),
        "weights": torch.rand(rows, generator=g).to(wide),
    }
    ref = -torch.rand(rows, generator=g).to(wide) * 4 if SPECS[name].reference else None
    return (x, w, b), y, cu, ref, {need: values[need] for need in SPECS[name].needs}


def gradients(loss, leaves):
    return dict(zip(("dx", "dw", "db"), torch.autograd.grad(loss, leaves), strict=True))


def fused(name, inputs, backend, dtype=None, **options):
    arrays, y, cu, ref, needs = inputs
    leaves = [t.to(dtype or t.dtype).requires_grad_() for t in arrays]
    if dtype == torch.float64:
        ref, needs = (
            None if ref is None else ref.double(),
            {k: v if v.dtype == torch.bool else v.double() for k, v in needs.items()},
        )
    got = linear_preference(
        *leaves[:2], y, cu, ref, bias=leaves[2], objective=name, backend=backend, **needs, **options
    )
    return got, gradients(got.loss * 1.5, leaves)


def apart(name, inputs, dtype=None, **options):
    arrays, y, cu, ref, needs = inputs
    leaves = [t.to(dtype or t.dtype).requires_grad_() for t in arrays]
    if dtype == torch.float64:
        ref, needs = (
            None if ref is None else ref.double(),
            {k: v if v.dtype == torch.bool else v.double() for k, v in needs.items()},
        )
    logps = linear_logprob(*leaves[:2], y, bias=leaves[2], backend="reference", **options).logp
    got = preference_loss(logps, cu, ref, objective=name, scored=y != -100, **needs)
    return got, logps, gradients(got.losses.mean() * 1.5, leaves)


@pytest.mark.parametrize("backend", ["reference", "blocked"])
@pytest.mark.parametrize("name", NAMES)
def test_exact_is_the_two_functions_apart(name, backend):
    for options in TRANSFORMS:
        inputs = problem(name, torch.float64)
        got, ours = fused(name, inputs, backend, **options)
        want, logps, theirs = apart(name, inputs, **options)
        torch.testing.assert_close(got.losses, want.losses.detach(), rtol=1e-9, atol=1e-9)
        inside = torch.arange(len(logps)).ge(2) & torch.arange(len(logps)).lt(int(inputs[2][-1]))
        torch.testing.assert_close(got.logps[inside], logps.detach()[inside], rtol=1e-9, atol=1e-9)
        assert not got.dropped.any() and got.metrics.keys() == want.metrics.keys()
        for key, value in want.metrics.items():
            torch.testing.assert_close(got.metrics[key], value, rtol=1e-9, atol=1e-9)
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-8, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("backend", ["reference", "blocked", COMPILED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["dpo", "kto", "orpo"])
def test_error_budget(name, dtype, backend):
    inputs = problem(name, dtype, width=16)
    _, _, exact = apart(name, inputs, torch.float64)
    _, _, plain = apart(name, inputs)
    got, ours = fused(name, inputs, backend)
    assert not got.dropped.any()
    hair = {torch.float32: 1e-6, torch.bfloat16: 2**-9}[dtype]
    for key, truth in exact.items():
        allowed = (plain[key].double() - truth).abs().max() + hair * (1 + truth.abs().max())
        assert (ours[key].double() - truth).abs().max() <= allowed, key


@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
@pytest.mark.parametrize("backend", ["reference", "blocked"])
@pytest.mark.parametrize("threshold", [1e-3, 3e-3, 1e9])
def test_the_filters_error_is_within_what_it_reports(threshold, backend, options):
    inputs = problem("dpo", torch.float64, sharp=3.0)
    (x, w, _), *_ = inputs
    exact, whole = fused("dpo", inputs, backend, **options)
    got, less = fused("dpo", inputs, backend, threshold=threshold, **options)
    gain = 1.5 * options.get("logit_scale", 1.0) / options.get("temperature", 1.0)
    assert torch.equal(got.logps, exact.logps) and got.dropped.any()
    error = (less["dx"] - whole["dx"]).norm(dim=1)
    assert error.max() > 0 and bool((error <= gain * got.dropped * w.norm(dim=1).max() + 1e-12).all())
    lost = (less["dw"] - whole["dw"]).norm(dim=1).sum()
    assert 0 < lost <= gain * (got.dropped * x.norm(dim=1)).sum() + 1e-12
    assert (less["db"] - whole["db"]).abs().sum() <= gain * got.dropped.sum() + 1e-12


def test_the_bound_can_be_missed():
    """The target's term is no part of what may be dropped: without it the error is past what is reported."""
    inputs = problem("dpo", torch.float64, sharp=3.0)
    _, whole = fused("dpo", inputs, "blocked")
    got, _ = fused("dpo", inputs, "blocked", threshold=1e9)
    assert (whole["db"].abs().sum()) > 1.5 * got.dropped.sum() * 0.5
    nothing = torch.zeros_like(whole["db"])
    assert (nothing - whole["db"]).abs().sum() > 1.5 * got.dropped.sum()


def test_blocked_drops_what_the_reference_drops(monkeypatch):
    monkeypatch.setattr(blocked, "CHUNK_BYTES", 1 << 20)  # one chunk, as the reference has
    inputs = problem("dpo", torch.float64, sharp=3.0)
    for threshold in (1e-4, 3e-3):
        ours, theirs = (fused("dpo", inputs, backend, threshold=threshold) for backend in ("blocked", "reference"))
        torch.testing.assert_close(ours[0].dropped, theirs[0].dropped, rtol=1e-9, atol=1e-12)
        for key, value in theirs[1].items():
            torch.testing.assert_close(ours[1][key], value, rtol=1e-9, atol=1e-12)


def test_saturated_pairs_are_left_out_altogether():
    inputs = problem("dpo", torch.float64, lengths=(8, 8))
    (x, w, b), y, cu, ref, _ = inputs
    ref = ref - torch.where(torch.arange(len(ref)) < int(cu[1]), 50.0, -50.0)  # the policy is far ahead
    got, made = fused("dpo", ((x, w, b), y, cu, ref, {}), "blocked", threshold=1e-6, beta=1.0)
    assert got.losses.max() < 1e-9 and made["dx"].abs().max() < 1e-9


@pytest.mark.parametrize("backend", ["reference", "blocked"])
def test_scale_and_each_gradient_alone(backend):
    (x, w, b), y, cu, ref, _ = problem("dpo", torch.float64)
    scale = torch.tensor([0.5, 0.0, -1.0, 2.0], dtype=torch.float64)
    logps = linear_logprob(x.requires_grad_(), w.requires_grad_(), y, bias=b.requires_grad_()).logp
    losses = preference_loss(logps, cu, ref, objective="dpo", scored=y != -100).losses
    want = torch.autograd.grad((losses * scale).sum(), (x, w, b))
    for k in range(3):
        leaves = [t.detach().requires_grad_(i == k) for i, t in enumerate((x, w, b))]
        got = linear_preference(*leaves[:2], y, cu, ref, bias=leaves[2], objective="dpo", scale=scale, backend=backend)
        (own,) = torch.autograd.grad(got.loss, leaves[k])
        torch.testing.assert_close(own, want[k], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("backend", ["reference", "blocked", COMPILED])
def test_nothing_at_all(backend):
    got, made = fused("dpo", problem("dpo", torch.float32, lengths=()), backend)
    assert float(got.loss.detach()) == 0 and not any(value.any() for value in made.values())
    inputs = list(problem("dpo", torch.float32))
    inputs[1] = torch.full_like(inputs[1], -100)
    got, made = fused("dpo", inputs, backend)
    assert got.loss.isfinite() and not any(value.any() for value in made.values())


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_operator_is_well_registered_and_compiles(name):
    (x, w, b), y, cu, ref, needs = problem(name, torch.float32)
    operands = (x.requires_grad_(), w.requires_grad_(), y, cu, b.requires_grad_(), ref, None)
    beside = (needs.get("desirable"), needs.get("kl"), None, torch.ones(8 if name == "kto" else 4))
    fixed = (-100, [1.0, 1.0, 0.0], name, list(SPECS[name].options.values()), 0.0, [True] * 3, "blocked")
    torch.library.opcheck(fused_preference, (*operands, *beside, *fixed))
    compiled = torch.compile(linear_preference, fullgraph=True, backend="aot_eager")
    ours, theirs = (f(x, w, y, cu, ref, bias=b, objective=name, **needs).loss for f in (compiled, linear_preference))
    for got, want in zip(*(torch.autograd.grad(loss, (x, w, b)) for loss in (ours, theirs)), strict=True):
        assert torch.equal(got, want)


def test_twenty_runs_are_bit_equal():
    inputs = problem("dpo", torch.bfloat16)
    _, first = fused("dpo", inputs, "blocked", threshold=1e-4)
    for _ in range(19):
        _, again = fused("dpo", inputs, "blocked", threshold=1e-4)
        assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "aot"}, "sorts the whole batch"),
        ({"threshold": -1.0}, "threshold must be finite"),
        ({"scale": torch.ones(3)}, "scale must be"),
        ({"gamma": 1.0}, "cannot honour gamma"),
        ({"backend": "triton"}, "needs a GPU"),
        ({"backend": "compiled", "threshold": 1e-3}, "compiled' has no filter"),
        ({"hidden": torch.zeros(1, 4, 3)}, r"one target per hidden row|must be \(T, D\)"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_mistakes_are_refused(change, message):
    call = {"hidden": torch.zeros(4, 3), "weight": torch.zeros(5, 3), "targets": torch.zeros(4).long()}
    call |= {"cu_seqlens": torch.tensor([0, 2, 4]), "ref_logps": torch.zeros(4), "objective": "dpo"} | change
    with pytest.raises(ValueError, match=message):
        linear_preference(**call)
