"""Penalties beside their definitions, one token after another, and beside transformers' generate."""

from __future__ import annotations

import pytest
import torch
import transformers

from plum_core.rounds.config import DrawConfig
from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.draw import draw_
from plum_core.sampling.penalties import Past, penalise
from plum_models import Tokenizer, load

PROMPTS = [[3, 3, 5], [], [9, 8, 7, 6]]
DRAWN = [[5, 5, 5, 2], [1], []]
OPTIONS = [
    {"repetition_penalty": 1.7}, {"repetition_penalty": 0.6}, {"presence_penalty": 0.8}, {"frequency_penalty": 0.5},
    {"repetition_penalty": 1.3, "presence_penalty": -0.4, "frequency_penalty": 1.1},
]  # fmt: skip


def padded(rows):
    longest = max(map(len, rows))
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])


def reference(logits, prompt, drawn, params):
    """By the definitions: repetition on ids of prompt and sample, then counts of the sample's ids alone."""
    out = logits.tolist()
    for token in set(prompt + drawn):
        p = params.repetition_penalty
        out[token] = out[token] / p if out[token] > 0 else out[token] * p
    for token in set(drawn):
        out[token] -= params.frequency_penalty * drawn.count(token) + params.presence_penalty
    return torch.tensor(out)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_penalties_are_those_of_their_definitions(options):
    params = SamplingParams(**options)
    logits = 3 * torch.randn(3, 11, generator=torch.Generator().manual_seed(1))
    before = logits.clone()
    found = penalise(logits, Past(padded(PROMPTS), padded(DRAWN)), params)
    expected = torch.stack([reference(*row, params) for row in zip(logits, PROMPTS, DRAWN, strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(logits, before)


def test_logprobs_are_of_the_policy_and_of_what_was_drawn_from():
    params = SamplingParams(temperature=0.7, repetition_penalty=1.5, frequency_penalty=0.3)
    logits = 3 * torch.randn(3, 11, generator=torch.Generator().manual_seed(1))
    penalised = torch.stack([reference(*row, params) for row in zip(logits, PROMPTS, DRAWN, strict=True)])
    plain, tempered = logits.log_softmax(-1), (penalised / 0.7).log_softmax(-1)
    past = Past(padded(PROMPTS), padded(DRAWN))
    token, logprob, sampled = draw_(logits.clone(), torch.arange(3), torch.arange(3), params, past)
    torch.testing.assert_close(logprob, plain.gather(1, token.unsqueeze(1)).squeeze(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(sampled, tempered.gather(1, token.unsqueeze(1)).squeeze(1), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=320, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, pad_token_id=None, eos_token_id=0,
        initializer_range=0.4,
    )  # fmt: skip
    theirs = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    for file, content in Tokenizer.train(["some text to learn from"] * 4, 320).files().items():
        (folder / file).write_bytes(content)
    return theirs, *load(folder)


def test_repetition_is_transformers(model):
    theirs, decoder, tokenizer = model
    prompts = [(5, 6, 7, 5, 6), (9,), tuple(range(40, 60))]
    requests = [Request(id=f"{i}", token_ids=prompt, seeds=(i,)) for i, prompt in enumerate(prompts)]
    params = SamplingParams(temperature=0, max_new_tokens=20, repetition_penalty=1.4)
    for options in ({}, {"kv_tokens": 64, "max_rows": 3, "kv_block": 4}):
        done = {c.request_id: c for c in Sampler(decoder, tokenizer, **options).sample(requests, params)}
        for i, prompt in enumerate(prompts):
            ids = theirs.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=20, pad_token_id=0, repetition_penalty=1.4
            )
            assert done[f"{i}"].token_ids == tuple(ids[0, len(prompt) :].tolist())


def test_penalties_draw_fewer_ids_twice(model):
    _, decoder, tokenizer = model
    request = Request(id="x", token_ids=(5, 6), seeds=tuple(range(6)))
    calm = SamplingParams(max_new_tokens=25, temperature=0.3)
    heavy = SamplingParams(max_new_tokens=25, temperature=0.3, repetition_penalty=8.0, presence_penalty=2.0)
    repeats = [
        sum(len(c.token_ids) - len(set(c.token_ids)) for c in Sampler(decoder, tokenizer).sample([request], params))
        for params in (calm, heavy)
    ]
    assert repeats[0] > 0 and repeats[1] < repeats[0] / 4


def test_settings_of_a_run_reach_the_sampler():
    chosen = dict(
        temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, repetition_penalty=1.2, presence_penalty=0.3,
        frequency_penalty=-0.2, stop=("\n\n",), stop_token_ids=(5,), max_new_tokens=9,
    )  # fmt: skip
    assert DrawConfig(**chosen).params() == SamplingParams(**chosen)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"repetition_penalty": 0}, "repetition_penalty"), ({"presence_penalty": 3}, "presence_penalty"),
     ({"frequency_penalty": float("nan")}, "frequency_penalty")],
)  # fmt: skip
def test_penalties_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams(**options)
    with pytest.raises(ValueError, match=message):
        DrawConfig(**options)


def test_speculation_and_penalties_are_refused_together(model):
    _, decoder, tokenizer = model
    request = Request(id="x", token_ids=(5, 6), seeds=(1,))
    with pytest.raises(ValueError, match="penalties"):
        Sampler(decoder, tokenizer, kv_tokens=512, speculate=2).sample(
            [request], SamplingParams(max_new_tokens=4, presence_penalty=1)
        )
