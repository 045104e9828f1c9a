"""Matrices in oneDNN's layout: the same function, and the same greedy ids."""

from __future__ import annotations

import pytest
import torch

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.products import Compiled, Int8, Packed, Tiled
from plum_core.sampling.weights import OneCallNorm, can_pack, weights_of
from plum_kernels.cpu_decode import compiler
from plum_models import load_decoder
from plum_models.norms import RMSNorm
from tests.models.conftest import reference_model

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


class Ends:
    eos_token_ids = frozenset(range(4))
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return ""


@pytest.mark.parametrize("layout", ["llama", "llama-biases-head_dim", "qwen3-moe-mixed", "starcoder2", "gemma2"])
def test_packed_is_the_same_function(tmp_path, layout):
    reference_model(layout).save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path)
    weights = weights_of(decoder, 16)
    packed = [m for m in weights.decoder.modules() if isinstance(m, Packed)]
    assert len(packed) >= 2 * len(decoder.layers) and not any(isinstance(m, Packed) for m in decoder.modules())
    ids = torch.randint(4, 320, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain, found = decoder(ids), weights.decoder(ids)
        torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
        logits = weights.product(found)
        torch.testing.assert_close(logits, plain @ decoder.head_weight.T, atol=1e-4, rtol=1e-4)
    requests = [Request(id=f"{i}", token_ids=tuple(row), seeds=(i, i + 9)) for i, row in enumerate(ids.tolist())]
    for options in ({}, {"kv_tokens": 200}):
        for params in (SamplingParams(temperature=0, max_new_tokens=8), SamplingParams(max_new_tokens=8)):
            drawn = [
                {
                    (c.request_id, c.index): c
                    for c in Sampler(decoder, Ends(), packed=p, **options).sample(requests, params)
                }
                for p in (False, True)
            ]
            for key, c in drawn[0].items():
                assert drawn[1][key].token_ids == c.token_ids
                torch.testing.assert_close(drawn[1][key].logprobs, c.logprobs, atol=1e-4, rtol=0)


def test_where_it_cannot_be_is_refused():
    like = torch.zeros(1, device="meta")
    assert not can_pack(like) and can_pack(torch.zeros(1))


def test_norms_in_one_call_are_the_same_bits_and_the_decoders_stay(tmp_path):
    reference_model("qwen3").save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path)
    twin = weights_of(decoder).decoder
    for ours, theirs in zip(decoder.layers, twin.layers, strict=True):
        for rows in (1, 3, 64):
            x = torch.randn(rows, 5, 48, generator=torch.Generator().manual_seed(rows))
            with torch.no_grad():
                assert torch.equal(theirs.input_layernorm(x), ours.input_layernorm(x))
                x = x[..., :16].unflatten(1, (5, 1))
                assert torch.equal(theirs.self_attn.k_norm(x), ours.self_attn.k_norm(x))
        assert type(theirs.input_layernorm) is OneCallNorm and type(ours.input_layernorm) is RMSNorm
    half = weights_of(decoder.bfloat16()).decoder
    assert not any(isinstance(m, OneCallNorm) for m in half.modules())


@pytest.mark.parametrize("make", [Packed, Int8, Tiled, Compiled])
def test_every_matrix_of_a_plain_decoder_is_replaced(tmp_path, make):
    reference_model("llama").save_pretrained(tmp_path)
    kind = {Int8: "int8", Tiled: "tiled", Compiled: "compiled"}.get(make, "plain")
    if make is Compiled and compiler() is None:
        pytest.skip("no C++ compiler")
    weights = weights_of(load_decoder(tmp_path), 16 if make is Packed else 0, kind=kind)
    for layer in weights.decoder.layers:
        found = (layer.self_attn.joined, layer.self_attn.o_proj, layer.mlp.joined, layer.mlp.down_proj)
        assert [type(x) for x in found] == [make] * 4
    assert type(weights.product) is make
