"""What callers rely on: exact ids and log-probs, draws that depend on their seed alone, every sample answered once."""

from __future__ import annotations

import random

import pytest
import torch

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.draw import draw_
from plum_core.training.initial import initial_decoder
from plum_models import DecoderConfig

VOCAB = 97


class Bytes:
    """A tokenizer that only names its ends."""

    eos_token_ids = frozenset(range(12))
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return ",".join(map(str, ids))


@pytest.fixture(scope="module")
def decoder():
    config = DecoderConfig(
        vocab_size=VOCAB, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, attention_bias=True,
    )  # fmt: skip
    decoder = initial_decoder(config, seed=3)
    with torch.no_grad():
        decoder.embed_tokens.weight.mul_(20)  # far from uniform, so that a wrong position shows
    return decoder


def make_requests(count: int, samples: int) -> list[Request]:
    rng = random.Random(5)
    return [
        Request(
            id=f"p{i}",
            token_ids=tuple(rng.randrange(12, VOCAB) for _ in range(rng.choice((1, 2, 7, 8, 9, 17)))),
            seeds=tuple(rng.getrandbits(63) for _ in range(samples)),
        )
        for i in range(count)
    ]


def drawn(decoder, requests, params, **sizes):
    return {(c.request_id, c.index): c for c in Sampler(decoder, Bytes(), **sizes).sample(requests, params)}


def exact_logprobs(decoder, prompt, ids):
    with torch.no_grad():
        hidden = decoder(torch.tensor([prompt + ids]))
        logps = decoder.logits(hidden)[0].log_softmax(-1)[len(prompt) - 1 : -1]
    return logps.gather(-1, torch.tensor(ids).unsqueeze(-1)).squeeze(-1), logps


def test_greedy_takes_the_most_likely_token_of_the_training_forward(decoder):
    requests = make_requests(9, 1)
    found = drawn(decoder, requests, SamplingParams(temperature=0, max_new_tokens=12))
    for request in requests:
        completion = found[request.id, 0]
        _, logps = exact_logprobs(decoder, request.token_ids, completion.token_ids)
        assert logps.argmax(-1).tolist() == list(completion.token_ids)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8}], ids=str)
def test_logprobs_are_those_of_the_untempered_training_forward(decoder, params):
    requests = make_requests(6, 5)
    found = drawn(decoder, requests, SamplingParams(max_new_tokens=20, **params))
    assert len(found) == 30
    for request in requests:
        for index in range(5):
            completion = found[request.id, index]
            exact, _ = exact_logprobs(decoder, request.token_ids, completion.token_ids)
            torch.testing.assert_close(torch.tensor(completion.logprobs), exact, atol=1e-4, rtol=0)


def test_every_sample_is_answered_once_and_ends_where_it_says(decoder):
    requests = make_requests(11, 7)
    completions = list(Sampler(decoder, Bytes(), max_rows=10).sample(requests, SamplingParams(max_new_tokens=9)))
    assert sorted((c.request_id, c.index) for c in completions) == sorted((r.id, i) for r in requests for i in range(7))
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for c in completions:
        assert not set(c.token_ids[:-1]) & Bytes.eos_token_ids
        if c.finish_reason == "stop":
            assert c.token_ids[-1] in Bytes.eos_token_ids
            assert c.text == ",".join(map(str, c.token_ids[:-1]))
        else:
            assert len(c.token_ids) == 9 and c.token_ids[-1] not in Bytes.eos_token_ids


def test_a_draw_depends_on_its_seed_not_on_the_batch(decoder):
    requests, params = make_requests(8, 6), SamplingParams(max_new_tokens=15)
    one = drawn(decoder, requests, params, max_rows=64)
    few = drawn(decoder, list(reversed(requests)), params, max_rows=5)
    assert {k: c.token_ids for k, c in one.items()} == {k: c.token_ids for k, c in few.items()}
    other = [Request(id=r.id, token_ids=r.token_ids, seeds=tuple(s + 1 for s in r.seeds)) for r in requests]
    assert {k: c.token_ids for k, c in drawn(decoder, other, params).items()} != {
        k: c.token_ids for k, c in one.items()
    }


def test_weights_are_those_of_the_call(decoder):
    """A sampler made before a training step draws from the weights after it."""
    requests, params = make_requests(3, 2), SamplingParams(max_new_tokens=6)
    sampler = Sampler(decoder, Bytes())
    list(sampler.sample(requests, params))
    saved = decoder.layers[0].self_attn.q_proj.weight.detach().clone()
    try:
        with torch.no_grad():
            decoder.layers[0].self_attn.q_proj.weight.mul_(-3)
        for c in sampler.sample(requests, params):
            prompt = next(r.token_ids for r in requests if r.id == c.request_id)
            exact, _ = exact_logprobs(decoder, prompt, c.token_ids)
            torch.testing.assert_close(torch.tensor(c.logprobs), exact, atol=1e-4, rtol=0)
    finally:
        with torch.no_grad():
            decoder.layers[0].self_attn.q_proj.weight.copy_(saved)


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.5}, {"top_k": 7}, {"top_p": 0.6}, {"temperature": 1.7, "top_p": 0.9}], ids=str
)
def test_draws_follow_the_distribution(params):
    """Chi-square over 40,000 draws from 150 tokens (so that the two-level draw has a short last block)."""
    settings = SamplingParams(**params)
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(150, generator=generator)
    count = 40_000
    seeds = torch.arange(count) * 7919 + 13
    tokens, *_ = draw_(logits.repeat(count, 1), seeds, torch.full((count,), 4), settings)
    scaled = logits / settings.temperature
    if settings.top_k:
        scaled[scaled < scaled.topk(settings.top_k).values[-1]] = -torch.inf
    probs = scaled.softmax(-1)
    order = probs.argsort(descending=True)
    inside = (probs[order].cumsum(0) - probs[order]) < settings.top_p
    probs[order[~inside]] = 0
    expected = probs / probs.sum() * count
    seen = tokens.bincount(minlength=150).double()
    assert not seen[expected == 0].any()
    common = expected >= 5
    chi2 = ((seen - expected)[common] ** 2 / expected[common]).sum()
    freedom = int(common.sum())
    assert chi2 < freedom + 5 * (2 * freedom) ** 0.5 + 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SamplingParams(temperature=-1), "temperature"),
        (lambda: SamplingParams(top_p=0), "top_p"),
        (lambda: SamplingParams(max_new_tokens=0), "max_new_tokens"),
        (lambda: Request(id="x", token_ids=(), seeds=(1,)), "no prompt tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_prompt_that_does_not_fit_is_refused_before_anything_runs(decoder):
    request = Request(id="long", token_ids=tuple(range(2, 62)), seeds=(1,))
    with pytest.raises(ValueError, match="positions"):
        list(Sampler(decoder, Bytes()).sample([request], SamplingParams(max_new_tokens=30)))


def test_nothing_asked_is_nothing_drawn(decoder):
    assert list(Sampler(decoder, Bytes()).sample([], SamplingParams())) == []
