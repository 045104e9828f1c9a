"""linear_logprob as torch sees it: opcheck, one graph under compile, checkpointing, autocast."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from plum_kernels import linear_logprob
from plum_kernels.logprob.operator import frozen_gradient, fused_gradient, fused_logprob
from tests.kernels.test_linear_logprob import COMPILED, make_inputs

SETTINGS = [1.3, 0.6, 5.0]


def leaves(dtype=torch.float32, shape=(9, 3, 19)):
    x, w, b, y, _ = make_inputs(shape, dtype)
    return x.requires_grad_(), w.requires_grad_(), b.requires_grad_(), y


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["blocked", COMPILED])
def test_opcheck(dtype, entropy, backend):
    x, w, b, y = leaves(dtype)
    torch.library.opcheck(fused_logprob, (x, w, y, b, -100, SETTINGS, entropy, False, backend))
    torch.library.opcheck(fused_logprob, (x, w, y, None, -100, SETTINGS, entropy, False, backend))


def test_opcheck_of_the_frozen_head():
    x, w, b, y = leaves()
    w, b = w.detach(), b.detach()
    torch.library.opcheck(fused_logprob, (x, w, y, b, -100, SETTINGS, False, True, "blocked"))


def test_opcheck_of_the_gradients():
    x, w, b, y = (t.detach() for t in leaves())
    logp, _, h, state, _ = fused_logprob(x, w, y, b, -100, SETTINGS, True, False, "blocked")
    g = torch.rand_like(logp)
    for wanted in ([True, True, True], [False, True, False]):
        torch.library.opcheck(fused_gradient, (g, g, g, x, w, y, b, state, h, -100, SETTINGS, wanted, "blocked"))
    _, _, _, state, mean = fused_logprob(x, w, y, b, -100, SETTINGS, False, True, "blocked")
    torch.library.opcheck(frozen_gradient, (g, g, w, y, state, mean, -100, SETTINGS))


def gradients(function, *arrays):
    out = function(*arrays)
    parts = [part for part in out if part is not None]
    wants = [a for a in arrays if a.requires_grad]
    total = sum((i + 1) * p.sum() for i, p in enumerate(parts))
    return [
        *(p.detach() for p in parts),
        *torch.autograd.grad(total, wants),
    ]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("backend", ["blocked", "reference", COMPILED])
def test_compiles_as_one_graph(backend, frozen):
    x, w, b, y = leaves()
    if frozen:
        w, b = w.detach(), b.detach()

    def scored(x, w, b):
        return linear_logprob(x, w, y, bias=b, entropy=not frozen, softcap=5.0, backend=backend)

    want = gradients(scored, x, w, b)
    got = gradients(torch.compile(scored, fullgraph=True, backend="aot_eager"), x, w, b)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_another_number_of_ignored_rows_is_the_same_graph():
    x, w, _, y = leaves()
    compiled = torch.compile(lambda x, y: linear_logprob(x, w, y).logp, fullgraph=True, backend="aot_eager")
    for rows in (0, 3, 9):
        fewer = y.clone()
        fewer[:rows] = -100
        with torch._dynamo.config.patch(error_on_recompile=rows > 0):
            assert torch.equal(compiled(x, fewer), linear_logprob(x, w, fewer).logp)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant):
    x, w, b, y = leaves()

    def scored(x, w, b):
        return linear_logprob(x, w, y, bias=b).logp

    plain = gradients(lambda *a: (scored(*a),), x, w, b)
    x2, w2, b2 = (t.detach().requires_grad_() for t in (x, w, b))
    out = checkpoint(scored, x2, w2, b2, use_reentrant=reentrant)
    out.sum().backward()
    for ours, theirs in zip((out.detach(), x2.grad, w2.grad, b2.grad), plain, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backend", ["blocked", "reference", COMPILED])
def test_autocast_casts_the_operands_and_nothing_else(backend):
    x, w, b, y = leaves(shape=(9, 16, 47))
    low = gradients(lambda *a: linear_logprob(a[0].bfloat16(), a[1].bfloat16(), y, bias=a[2], backend=backend), x, w, b)

    def under(*a):
        with torch.autocast("cpu", torch.bfloat16):
            return linear_logprob(a[0], a[1], y, bias=a[2], backend=backend)

    got = gradients(under, x, w, b)
    assert got[0].dtype == torch.float32 and got[3].dtype == torch.float32
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, low, strict=True))


def test_mixed_operands_meet_under_autocast_alone():
    x, w, _, y = leaves()
    with pytest.raises(ValueError, match="share one floating dtype"):
        linear_logprob(x.bfloat16(), w, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear_logprob(x.bfloat16(), w, y).logp.isfinite().all()


def test_there_is_no_second_order():
    x, w, _, y = leaves()
    (first,) = torch.autograd.grad(linear_logprob(x, w, y).logp.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no autograd formula|does not require grad"):
        first.sum().backward()
