"""Sampling parameters and stops: distributions over 200,000 draws, stop strings, greedy ids beside transformers'."""

from __future__ import annotations

import pytest
import torch
import transformers

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.draw import draw_
from plum_core.sampling.stops import first_stop
from plum_models import load

DRAWS, WIDTH = 200_000, 70  # a short last block


class Letters:
    """Ids are letters, two a token, so that stop strings fall across borders."""

    eos_token_ids = frozenset({0})
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return "".join("abcd"[i % 4] + "abcd"[i // 4 % 4] for i in ids)


def reference(logits, params):
    """Probabilities by the definitions, one token after another."""
    probs = (logits.double() / params.temperature).softmax(-1)
    order = probs.argsort(descending=True).tolist()
    kept = order[: params.top_k or None]
    total, inside, before = sum(float(probs[i]) for i in kept), [], 0.0
    for i in kept:
        if before < params.top_p and probs[i] >= params.min_p * probs[order[0]]:
            inside.append(i)
        before += float(probs[i]) / total
    out = torch.zeros_like(probs)
    out[inside] = probs[inside]
    return out / out.sum()


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.6}, {"top_k": 7}, {"top_p": 0.7}, {"min_p": 0.1},
     {"temperature": 1.6, "top_k": 40, "top_p": 0.9, "min_p": 0.05}],
    ids=str,
)  # fmt: skip
def test_200000_draws_follow_the_distribution(options):
    params = SamplingParams(**options)
    logits = 2 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))
    seeds = torch.arange(DRAWS) * 104729 + 7
    tokens, plain, sampled = draw_(logits.repeat(DRAWS, 1), seeds, torch.full((DRAWS,), 3), params)
    probs = reference(logits, params)
    torch.testing.assert_close(sampled, probs.log()[tokens].float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain, logits.log_softmax(-1)[tokens], atol=1e-5, rtol=0)
    seen, expected = tokens.bincount(minlength=WIDTH).double(), probs * DRAWS
    assert not seen[expected == 0].any()
    common = expected >= 5
    freedom = int(common.sum()) - 1
    chi2 = float(((seen - expected)[common] ** 2 / expected[common]).sum())
    assert chi2 < freedom + 4 * (2 * freedom) ** 0.5 + 4


def test_the_earliest_stop_string_wins_and_the_longest_of_those_that_begin_there():
    assert first_stop("xxabc", ("bc", "ab", "abc")) == (2, "abc")
    assert first_stop("xxabc", ("abd",)) is None


@pytest.mark.parametrize(("name", "cls"), [("llama", "LlamaConfig"), ("qwen2", "Qwen2Config")])
def test_greedy_ids_are_those_of_generate_and_stops_cut_them(tmp_path, name, cls):
    torch.manual_seed(1)
    config = getattr(transformers, cls)(
        vocab_size=320, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, pad_token_id=None, eos_token_id=0,
        initializer_range=0.4,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    model.save_pretrained(tmp_path)
    from plum_models import Tokenizer

    for file, content in Tokenizer.train(["some text to learn from"] * 4, 320).files().items():
        (tmp_path / file).write_bytes(content)
    decoder, _ = load(tmp_path)
    generator = torch.Generator().manual_seed(4)
    prompts = [tuple(torch.randint(1, 320, (1 + i % 13,), generator=generator).tolist()) for i in range(64)]
    expected = {}
    for i, prompt in enumerate(prompts):
        ids = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=10, pad_token_id=0)
        expected[f"{i}"] = tuple(ids[0, len(prompt) :].tolist())
    requests = [Request(id=f"{i}", token_ids=prompt, seeds=(i,)) for i, prompt in enumerate(prompts)]
    greedy = SamplingParams(temperature=0, max_new_tokens=10)
    for rows in (1, 5, 64):
        done = list(Sampler(decoder, Letters(), max_rows=rows).sample(requests, greedy))
        assert {c.request_id: c.token_ids for c in done} == expected
        assert all(c.sampled_logprobs == (0.0,) * len(c.token_ids) for c in done)

    whole = {k: Letters().decode(ids) for k, ids in expected.items()}
    victim = next(ids for ids in expected.values() if len(ids) == 10)
    string = Letters().decode(victim)[3:6]  # begins in the middle of one token and ends with another
    stopping = SamplingParams(temperature=0, max_new_tokens=10, stop=(string,), stop_token_ids=(victim[-1],))
    cut = 0
    for c in Sampler(decoder, Letters(), max_rows=9).sample(requests, stopping):
        ids = expected[c.request_id]
        assert c.token_ids == ids[: len(c.token_ids)]
        if c.stop_reason == string:
            cut += 1
            assert c.text == whole[c.request_id][: whole[c.request_id].index(string)]
            assert string not in Letters().decode(c.token_ids[:-1])  # not one token later than needed
        elif c.finish_reason == "stop":
            assert c.stop_reason == c.token_ids[-1] in (0, victim[-1])
        else:
            assert c.stop_reason is None and c.token_ids == ids and string not in c.text
    assert cut
