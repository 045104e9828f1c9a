"""The decoder's small functions: their definitions here, the kernels in triton_decoder_cases.py."""

from __future__ import annotations

import pytest
import torch

from plum_kernels import add_rms_norm, norm_rotate, split_qkv, swiglu
from plum_models.rope import Rope, rotary_tables, rotate

CASES = {
    "swiglu": [(1, 1), (7, 13), (2, 3, 33), (0, 8)],
    "add_rms_norm": [(1, 1), (7, 13), (2, 3, 33), (0, 8)],
    "norm_rotate": [(1, 1, 2), (7, 3, 6), (2, 4, 3, 10), (0, 2, 4)],
    "split_qkv": [(1, 3, 2), (7, 7, 6), (2, 4, 5, 10), (0, 4, 4)],  # the heads of q, k and v, a group or two
}
ALL = [(name, shape) for name, shapes in CASES.items() for shape in shapes]


def leaves(name, shape, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, other, weight = (torch.randn(s, generator=g).to(dtype) for s in (shape, shape, shape[-1:]))
    if name == "split_qkv":
        return x, weight, torch.randn(shape[-1:], generator=g).to(dtype)
    return {"swiglu": (x, other), "add_rms_norm": (x, other, weight), "norm_rotate": (x, weight)}[name]


def tables(shape):
    """Of a half of the channels where there are more than two, so that some pass as they are."""
    width = shape[-1] if shape[-1] <= 4 else shape[-1] // 4 * 2
    return rotary_tables(torch.arange(shape[-3]), width, 100.0, Rope(), 64)


def call(name, arrays, backend="reference", norm=True):
    if name == "swiglu":
        return (swiglu(*arrays, backend=backend),)
    if name == "add_rms_norm":
        return add_rms_norm(*arrays, 1e-6, backend=backend)
    x, weight, *of_k = arrays
    cos, sin = (t.to(torch.promote_types(x.dtype, torch.float32)) for t in tables(x.shape))
    if of_k:
        weights = (weight, *of_k) if norm else ()
        groups = 2 if x.shape[-2] == 7 else 1
        return split_qkv(x.flatten(-2), cos, sin, groups, x.shape[-1], *weights, backend=backend)
    return (norm_rotate(x, cos, sin, weight if norm else None, backend=backend),)


def outcome(name, shape, dtype, backend="reference", cast=None, norm=True):
    """Values and gradients as fp64, upstream drawn once."""
    arrays = [t.to(cast or dtype).requires_grad_() for t in leaves(name, shape, dtype)]
    out = call(name, arrays, backend, norm)
    g = torch.Generator().manual_seed(9)
    sum((part * torch.randn(part.shape, generator=g).to(dtype).to(part.dtype)).sum() for part in out).backward()
    grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in arrays]
    return [t.detach().double() for t in (*out, *grads)]


@pytest.mark.parametrize(("name", "shape"), ALL, ids=str)
def test_gradcheck(name, shape):
    arrays = [t.requires_grad_() for t in leaves(name, shape, torch.float64)]
    assert torch.autograd.gradcheck(lambda *a: call(name, a), arrays)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rotation_is_the_decoders(dtype):
    x = torch.randn(2, 5, 3, 12).to(dtype)
    cos, sin = rotary_tables(torch.arange(5), 8, 100.0, Rope(), 64)
    torch.testing.assert_close(
        norm_rotate(x, cos, sin), rotate(x, cos, sin), rtol=0, atol=1e-6 if dtype == torch.float32 else 2**-7
    )


def test_the_split_is_rotations_of_the_parts_and_a_copy():
    x, q_weight, k_weight = leaves("split_qkv", (7, 7, 6), torch.float64)
    cos, sin = (t.double() for t in tables((7, 7, 6)))
    q, k, v = split_qkv(x.flatten(1), cos, sin, 2, 6, q_weight, k_weight)
    assert torch.equal(q, norm_rotate(x[:, :3], cos, sin, q_weight))
    assert torch.equal(k, norm_rotate(x[:, 3:5], cos, sin, k_weight)) and torch.equal(v, x[:, 5:])


@pytest.mark.parametrize("name", CASES)
def test_compiles_as_one_graph(name):
    arrays = leaves(name, CASES[name][2], torch.float32)
    compiled = torch.compile(lambda *a: call(name, a), fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*arrays), call(name, arrays), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (swiglu, (torch.zeros(2), torch.zeros(3)), "up must be as gate"),
        (add_rms_norm, (torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2), 1e-6), r"weight must be \(3,\)"),
        (add_rms_norm, (torch.zeros(2, 3), torch.zeros(2, 3).double(), torch.zeros(3), 1e-6), "residual must be as x"),
        (norm_rotate, (torch.zeros(5, 2, 4), torch.zeros(2, 4), torch.zeros(2, 4)), "no multiple of 2 positions"),
        (norm_rotate, (torch.zeros(5, 2, 4), torch.zeros(5, 6), torch.zeros(5, 6)), "R even and at most 4"),
        (split_qkv, (torch.zeros(5, 16), torch.zeros(5, 4), torch.zeros(5, 4), 2, 4), "heads of 4 with G=2, got"),
        (split_qkv, (torch.zeros(5, 18), torch.zeros(5, 4), torch.zeros(5, 4), 1, 4), "heads of 4 with G=1, got"),
        (split_qkv, (torch.zeros(5, 16), torch.zeros(2, 4), torch.zeros(2, 4), 1, 4), "no multiple of 2 positions"),
        (split_qkv, (torch.zeros(5, 16), torch.zeros(5, 4), torch.zeros(5, 4), 1, 4, torch.ones(4)), "come together"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_mistakes_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_without_a_gpu_the_kernels_are_refused_by_name():
    with pytest.raises(ValueError, match="needs a GPU, got tensors on cpu: use backend='reference'"):
        swiglu(torch.zeros(2), torch.zeros(2), backend="triton")
    with pytest.raises(ValueError, match="backend must be one of auto, reference, triton, got 'cuda'"):
        swiglu(torch.zeros(2), torch.zeros(2), backend="cuda")
