"""The decoder's small kernels under Triton's interpreter; ``test_triton.py`` starts it, as it does triton_cases.py."""

from __future__ import annotations

import os

import pytest
import torch
from test_decoder_kernels import ALL, CASES, call, leaves, outcome, tables

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

from plum_kernels.decoder import interface, operator, qkv_operator
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder, for_inference

pytestmark = pytest.mark.poison
HAIR = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.mark.parametrize("dtype", HAIR, ids=str)
@pytest.mark.parametrize(("name", "shape"), ALL, ids=str)
def test_error_budget(name, shape, dtype):
    for norm in (True, False) if name in ("norm_rotate", "split_qkv") else (True,):
        exact = outcome(name, shape, dtype, cast=torch.float64, norm=norm)
        plain = outcome(name, shape, dtype, norm=norm)
        ours = outcome(name, shape, dtype, "triton", norm=norm)
        for i, (got, usual, truth) in enumerate(zip(ours, plain, exact, strict=True)):
            if truth.numel():
                allowed = (usual - truth).abs().max() + HAIR[dtype] * (1 + truth.abs().max())
                assert (got - truth).abs().max() <= allowed, i


def test_operators_are_well_registered():
    gate, up = (t.requires_grad_() for t in leaves("swiglu", (3, 7), torch.float32))
    torch.library.opcheck(operator.swiglu_op, (gate, up))
    x, residual, weight = (t.requires_grad_() for t in leaves("add_rms_norm", (3, 7), torch.float32))
    torch.library.opcheck(operator.add_norm_op, (x, residual, weight, 1e-6))
    heads, scale = (t.requires_grad_() for t in leaves("norm_rotate", (4, 2, 6), torch.float32))
    x, *weights = (t.requires_grad_() for t in leaves("split_qkv", (4, 4, 6), torch.float32))
    for given in (weights, [None, None]):
        torch.library.opcheck(qkv_operator.split_qkv_op, (x, *tables((4, 4, 6)), *given, 1, 1e-6))
    for given in (scale, None):
        torch.library.opcheck(operator.norm_rotate_op, (heads, *tables((4, 2, 6)), given, 1e-6))


@pytest.mark.parametrize("name", CASES)
def test_compiles_as_one_graph_and_takes_strides(name):
    arrays = [t.mT.contiguous().mT if t.dim() > 1 else t for t in leaves(name, CASES[name][1], torch.float32)]
    compiled = torch.compile(lambda *a: call(name, a, "triton"), fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*arrays), call(name, arrays), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["add_rms_norm", "split_qkv"])
def test_twenty_runs_are_bit_equal(name):
    shape = CASES[name][0 if name == "split_qkv" else 1]
    first = outcome(name, shape, torch.bfloat16, "triton")
    for _ in range(19):
        again = outcome(name, shape, torch.bfloat16, "triton")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_decoder_that_takes_the_kernel_gives_the_same_states(qk_norm, monkeypatch):
    config = DecoderConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4, max_position_embeddings=32, qk_norm=qk_norm,
    )  # fmt: skip
    decoder = for_inference(Decoder(config).requires_grad_(False))
    ids = torch.randint(0, 31, (2, 5))
    want = decoder(ids)
    monkeypatch.setattr(interface, "auto", lambda function, device, default: "triton")
    calls = []
    real = qkv_operator.split_qkv_op
    monkeypatch.setattr(qkv_operator, "split_qkv_op", lambda *a: calls.append(1) or real(*a))
    torch.testing.assert_close(decoder(ids), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoder(ids, torch.arange(5).expand(2, 5)), want, rtol=1e-5, atol=1e-5)
    assert len(calls) == 4  # every layer, both times
