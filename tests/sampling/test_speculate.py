"""Foretold tokens: what is drawn does not change, and there are fewer steps where text repeats."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.speculate import foretell
from plum_core.training.initial import initial_decoder
from plum_models import DecoderConfig

VOCAB = 40


class Numbers:
    eos_token_ids = frozenset({0})
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return "".join(f"{i};" for i in ids)


@pytest.fixture(scope="module")
def decoder():
    config = DecoderConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=160,
    )  # fmt: skip
    decoder = initial_decoder(config, seed=3)
    with torch.no_grad():
        decoder.embed_tokens.weight.mul_(20)
    return decoder


REQUESTS = [
    Request(id="loop", token_ids=(5, 6, 7, 8) * 5, seeds=tuple(range(5))),
    Request(id="other", token_ids=tuple(range(2, 20)), seeds=tuple(range(90, 95))),
]


def draw(decoder, params, **options):
    sampler = Sampler(decoder, Numbers(), max_rows=6, **options)
    done = sampler.sample(REQUESTS, params)
    return {(c.request_id, c.index): c for c in done}, sampler.stats


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"temperature": 0.3}, {}, {"temperature": 0.5, "top_p": 0.9, "top_k": 8},
     {"temperature": 0.3, "stop": ("7;8;7", "3;"), "stop_token_ids": (11,)}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("ahead", [1, 4])
def test_the_text_is_the_same_with_and_without(decoder, options, ahead):
    params = SamplingParams(max_new_tokens=60, **options)
    plain, before = draw(decoder, params)
    found, stats = draw(decoder, params, kv_tokens=700, kv_block=4, speculate=ahead)
    assert found.keys() == plain.keys()
    for key, c in found.items():
        assert (c.token_ids, c.text, c.stop_reason) == (plain[key].token_ids, plain[key].text, plain[key].stop_reason)
        torch.testing.assert_close(c.logprobs, plain[key].logprobs, atol=1e-4, rtol=0)
        torch.testing.assert_close(c.sampled_logprobs, plain[key].sampled_logprobs, atol=1e-4, rtol=0)
    assert 0 <= stats.accepted_tokens <= stats.proposed_tokens
    if options == {"temperature": 0}:  # greedy text of this model falls into loops
        assert stats.accepted_tokens > 0.5 * stats.proposed_tokens > 0
        assert stats.decode_steps < 0.8 * before.decode_steps


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(0, 5), st.integers(1, 4))
def test_foretold_ids_followed_the_same_tokens_before(ids, most, match):
    found = foretell(ids, most, match)
    assert len(found) <= most
    places = [i for i in range(len(ids) - match) if ids[i : i + match] == ids[len(ids) - match :]]
    if most and places:
        assert found == ids[places[-1] + match :][:most]
    else:
        assert found == []
