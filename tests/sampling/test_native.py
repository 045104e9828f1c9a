"""Decoding by compiled functions: generate's greedy ids, the plain sampler's draws, the trainer's log-probs."""

from __future__ import annotations

import random

import pytest
import torch

from plum_core.sampling import Request, Sampler, SamplingParams, sampler
from plum_core.training.initial import initial_decoder
from plum_kernels.cpu_decode import compiler
from plum_models import DecoderConfig, load_decoder
from tests.models.conftest import LAYOUTS, reference_model

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
VOCAB = 320


class Ends:
    eos_token_ids = frozenset({3})
    eos_token_id = 3
    pad_token_id = None

    def decode(self, ids):
        return ",".join(map(str, ids))


@pytest.fixture(scope="module")
def decoder():
    config = DecoderConfig(
        model_type="qwen2", vocab_size=VOCAB, hidden_size=40, intermediate_size=56, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, head_dim=16, max_position_embeddings=256, attention_bias=True,
    )  # fmt: skip
    decoder = initial_decoder(config, seed=3)
    with torch.no_grad():
        decoder.embed_tokens.weight.mul_(12)  # far from uniform, so that a wrong position shows
        for layer in decoder.layers:
            layer.self_attn.q_proj.bias.normal_(generator=torch.Generator().manual_seed(1))
    return decoder


@pytest.fixture(params=["compiled", "torch"])
def products(request, monkeypatch):
    """Products by compiled functions where this processor has their instructions, and by torch's."""
    if request.param == "torch":
        monkeypatch.setattr(sampler, "multiplies", lambda dtype: False)


def make_requests(count: int, samples: int) -> list[Request]:
    rng = random.Random(5)
    return [
        Request(
            id=f"p{i}",
            token_ids=tuple(rng.randrange(4, VOCAB) for _ in range(1 + i % 37)),
            seeds=tuple(rng.getrandbits(63) for _ in range(samples)),
        )
        for i in range(count)
    ]


def drawn(decoder, requests, params, **options):
    done = Sampler(decoder, Ends(), **options).sample(requests, params)
    return {(c.request_id, c.index): c for c in done}


@pytest.mark.parametrize("options", [{"max_rows": 64}, {"max_rows": 7}, {"max_rows": 64, "packed": True}], ids=str)
def test_draws_are_the_plain_samplers_and_log_probs_the_trainers(decoder, options, products):
    """Rows of every age, more own tokens than the first places hold, prompts from 1 token on."""
    requests, params = make_requests(24, 3), SamplingParams(max_new_tokens=70)
    plain, found = (drawn(decoder, requests, params, native=n, **(options if n else {})) for n in (False, True))
    assert plain.keys() == found.keys() and max(len(c.token_ids) for c in found.values()) == 70
    assert sum(plain[k].token_ids != found[k].token_ids for k in plain) <= 1  # a rounding at a border
    for (name, _), c in found.items():
        prompt = next(r.token_ids for r in requests if r.id == name)
        with torch.no_grad():
            logps = decoder.logits(decoder(torch.tensor([prompt + c.token_ids])))[0].log_softmax(-1)
        exact = logps[len(prompt) - 1 : -1].gather(1, torch.tensor(c.token_ids).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(torch.tensor(c.logprobs), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.6}, {"top_k": 9}, {"top_p": 0.7, "min_p": 0.02}, {"repetition_penalty": 1.3}],
    ids=str,
)
def test_every_setting_draws_as_without(decoder, settings, products):
    requests, params = make_requests(9, 2), SamplingParams(max_new_tokens=12, **settings)
    plain, found = (drawn(decoder, requests, params, native=n) for n in (False, True))
    for key, c in plain.items():
        assert found[key].token_ids == c.token_ids
        torch.testing.assert_close(found[key].logprobs, c.logprobs, atol=1e-4, rtol=0)
        torch.testing.assert_close(found[key].sampled_logprobs, c.sampled_logprobs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", ["llama-biases-head_dim", "llama-yarn", "llama-theta-mqa"])
def test_greedy_ids_are_those_of_generate(tmp_path, monkeypatch, layout, products):
    cls, changes = LAYOUTS[layout]
    monkeypatch.setitem(LAYOUTS, "wide", (cls, changes | {"head_dim": 16}))
    model = reference_model("wide").eval()
    model.save_pretrained(tmp_path)
    decoder, rng = load_decoder(tmp_path), random.Random(2)
    prompts = [tuple(rng.randrange(4, VOCAB) for _ in range(1 + i % 23)) for i in range(64)]
    expected = {}
    for i, prompt in enumerate(prompts):
        out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=10, eos_token_id=3, pad_token_id=0)
        expected[f"{i}"] = tuple(out[0, len(prompt) :].tolist())
    requests = [Request(id=f"{i}", token_ids=prompt, seeds=(i,)) for i, prompt in enumerate(prompts)]
    for rows in (1, 5, 64):
        asked = requests[: 6 * rows]
        done = Sampler(decoder, Ends(), max_rows=rows, native=True).sample(
            asked, SamplingParams(temperature=0, max_new_tokens=10)
        )
        assert {c.request_id: c.token_ids for c in done} == {r.id: expected[r.id] for r in asked}


def test_bf16_log_probs_are_within_its_budget(decoder, products):
    """As far from fp32 as the training forward's in bf16, up to a half more."""
    half = type(decoder)(decoder.config)
    half.load_state_dict(decoder.state_dict())
    half.bfloat16()
    found = drawn(half, requests := make_requests(12, 2), SamplingParams(max_new_tokens=30), native=True)
    mine, trainers = [], []
    wide = type(decoder)(decoder.config)
    wide.load_state_dict({k: v.float() for k, v in half.state_dict().items()})
    for (name, _), c in found.items():
        prompt = next(r.token_ids for r in requests if r.id == name)
        ids, drawn_ids = torch.tensor([prompt + c.token_ids]), torch.tensor(c.token_ids).unsqueeze(1)
        with torch.no_grad():
            exact, other = (
                m.logits(m(ids))[0].float().log_softmax(-1)[len(prompt) - 1 : -1].gather(1, drawn_ids).squeeze(1)
                for m in (wide, half)
            )
        mine.append((torch.tensor(c.logprobs) - exact).abs())
        trainers.append((other - exact).abs())
    assert torch.cat(mine).mean() <= 1.5 * torch.cat(trainers).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_invariant_every_bit_depends_on_prompt_and_seed_alone(decoder, dtype, products):
    twin = type(decoder)(decoder.config)
    twin.load_state_dict(decoder.state_dict())
    twin.to(dtype)
    requests, params = make_requests(15, 4), SamplingParams(max_new_tokens=30)
    first, *others = (
        {
            k: (c.token_ids, c.logprobs, c.sampled_logprobs)
            for k, c in drawn(twin, asked, params, native=True, invariant=True, max_rows=rows, cohort_rows=1).items()
        }
        for asked, rows in ((requests, 64), (requests[::-1], 7), (requests[3::2], 41), (requests[:6], 1))
    )
    for other in others:
        assert all(first[key] == value for key, value in other.items())


def test_cancelling_and_an_update_in_the_middle(decoder):
    requests, params = make_requests(10, 4), SamplingParams(max_new_tokens=40)
    whole = drawn(decoder, requests, params, native=True)
    drawing = Sampler(decoder, Ends(), max_rows=12, native=True)
    done = []
    for c in drawing.sample(requests, params):
        done.append(c)
        if len(done) == 3:
            drawing.cancel("p9")
            drawing.update_weights()  # the same weights: the same draws
    assert len(done) == 40 and {c.finish_reason for c in done if c.request_id == "p9"} == {"cancelled"}
    for c in done:
        assert c.token_ids == whole[c.request_id, c.index].token_ids[: len(c.token_ids)]
    assert {v for c in done for v in c.weights_versions} == {0, 1}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [({"head_dim": 8}, {}, "multiple of 16"), ({}, {"kv_tokens": 400}, "kv_tokens"), ({"qk_norm": True}, {}, "layout")],
    ids=["width", "budget", "layout"],
)
def test_what_it_cannot_decode_is_refused(decoder, changes, options, message):
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: getattr(decoder.config, name) for name in names}
    config = DecoderConfig(**{**sizes, "num_key_value_heads": 2, "head_dim": 16, **changes})
    with pytest.raises(ValueError, match=message):
        Sampler(initial_decoder(config, seed=1), Ends(), native=True, **options)
