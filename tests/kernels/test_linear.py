"""linear against F.linear: values, gradients, strides, what it leaves to torch; as an operator."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from plum_kernels import dense, linear
from plum_kernels.dense import linear_gradient, linear_op
from plum_models.linear import Linear

pytestmark = pytest.mark.poison
usable = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch was built without oneDNN's product"
)
SHAPES = [(1, 1, 1), (0, 4, 6), (16, 3, 5), (17, 64, 1), (64, 1, 31), (129, 67, 97)]


@pytest.fixture
def chosen(monkeypatch):
    """As on a processor where oneDNN is the faster one; counts its products."""
    made = []
    monkeypatch.setattr(dense, "ONEDNN_IS_FASTER", True)
    real = dense._product
    monkeypatch.setattr(dense, "_product", lambda *a: made.append(1) or real(*a))
    return made


def tensors(shape, dtype=torch.float32, *, bias=True, lead=()):
    rows, width, outputs = shape
    g = torch.Generator().manual_seed(0)
    x = torch.randn(*lead, rows, width, generator=g, dtype=torch.float64)
    w, b = torch.randn(outputs, width, generator=g, dtype=torch.float64), torch.randn(outputs, generator=g).double()
    return [t.to(dtype).requires_grad_() for t in (x, w, *([b] if bias else []))]


def upstream(out):
    return torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape).to(out.dtype)


def outcome(function, leaves):
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream(out))]


@usable
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_error_budget(shape, bias, chosen):
    leaves = tensors(shape, bias=bias, lead=(2,))
    exact = outcome(F.linear, [t.detach().double().requires_grad_() for t in leaves])
    plain, ours = outcome(F.linear, leaves), outcome(linear, leaves)
    assert len(chosen) == 3  # the product, and two for its gradient
    for truth, simple, got in zip(exact, plain, ours, strict=True):
        assert got.shape == simple.shape
        if truth.numel():
            allowed = (simple.double() - truth).abs().max() + 1e-6 * (1 + truth.abs().max())
            assert (got.double() - truth).abs().max() <= allowed


@usable
@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3))[:-1], ids=str)
def test_each_gradient_alone(wanted, chosen):
    leaves = tensors((33, 7, 9))
    everything = outcome(linear, leaves)
    some = [t.detach().requires_grad_(want) for t, want in zip(leaves, wanted, strict=True)]
    out = linear(*some)
    out.backward(upstream(out))
    for t, want, truth in zip(some, wanted, everything[1:], strict=True):
        assert (t.grad is not None) == want and (not want or torch.equal(t.grad, truth))
    assert len(chosen) == 3 + 1 + wanted[0] + wanted[1]


@usable
def test_strides(chosen):
    x, w, b = (t.detach() for t in tensors((40, 6, 8)))
    turned = linear(x.T.contiguous().T, w.T.contiguous().T, b)
    torch.testing.assert_close(turned, F.linear(x, w, b))
    torch.testing.assert_close(linear(x[::2], w[::2], b[::2]), F.linear(x[::2], w[::2], b[::2]))


@usable
def test_twenty_runs_are_bit_equal(chosen):
    leaves = tensors((129, 67, 97))
    first = outcome(linear, leaves)
    assert all(all(map(torch.equal, first, outcome(linear, leaves))) for _ in range(19))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_dtypes_are_torchs_own(dtype, chosen):
    leaves = tensors((33, 7, 9), dtype)
    assert all(map(torch.equal, outcome(linear, leaves), outcome(F.linear, leaves)))
    assert not chosen


@usable
def test_a_rows_product_does_not_depend_on_the_rows_beside_it(chosen):
    x, w, b = (t.detach() for t in tensors((300, 64, 96)))
    whole = linear(x, w, b)
    assert all(torch.equal(linear(x[:rows], w, b), whole[:rows]) for rows in (2, 7, 16, 17, 128))


def test_autocast_vectors_and_meta_are_torchs_own(monkeypatch):
    monkeypatch.setattr(dense, "ONEDNN_IS_FASTER", True)
    monkeypatch.setattr(dense, "linear_op", None)
    many, w, b = tensors((16, 7, 9))
    assert torch.equal(linear(many[0], w, b), F.linear(many[0], w, b))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(many, w, b).dtype == torch.bfloat16
    assert linear(many.to("meta"), w.to("meta"), b.to("meta")).device.type == "meta"
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(many, w[:, 1:], b)
    with pytest.raises(TypeError):  # the way that is closed here is the one that others take
        linear(many, w, b)


@usable
def test_the_operator_is_well_registered_and_compiles(chosen):
    x, w, b = tensors((33, 7, 9))
    torch.library.opcheck(linear_op, (x, w, b))
    torch.library.opcheck(linear_op, (x, w, None))
    grad = torch.randn(33, 9)
    torch.library.opcheck(linear_gradient, (grad, x.detach(), w.detach(), [True, True, True]))
    torch.library.opcheck(linear_gradient, (grad, x.detach(), w.detach(), [True, False, False]))
    compiled = torch.compile(lambda *a: linear(*a).relu(), fullgraph=True, backend="aot_eager")
    assert all(map(torch.equal, outcome(compiled, [x, w, b]), outcome(lambda *a: linear(*a).relu(), [x, w, b])))


def test_the_layer_is_a_linear_layer(chosen):
    layer = Linear(7, 9)
    assert isinstance(layer, torch.nn.Linear) and list(layer.state_dict()) == ["weight", "bias"]
    x = torch.randn(33, 7)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    assert len(chosen) == 1
