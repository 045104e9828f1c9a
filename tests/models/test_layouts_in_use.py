"""Every layout where it is used: cached decoding in the sampler, packed log-probs in training, against transformers."""

from __future__ import annotations

import random

import torch

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.training.batches import Example
from plum_core.training.logps import padded_logps
from plum_models import load_decoder
from tests.models.test_decoder import gradients_are_equal


class Ends:
    """A tokenizer that only names its end."""

    eos_token_ids = frozenset([0])
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return ""


def logps_of(model, prompt, completion):
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion).unsqueeze(-1)).squeeze(-1), logits


def some(rng, count):
    return tuple(rng.randrange(1, 320) for _ in range(count))


def test_cached_decoding_gives_transformers_logprobs(make, hf_folder, layout):
    model = make.reference(layout)
    decoder, rng = load_decoder(hf_folder(model)), random.Random(1)
    lengths = (1, 2, 17) if "dynamic" in layout else (1, 2, 17, 130)  # dynamic: the model's positions end at 64
    requests = [Request(id=str(n), token_ids=some(rng, n), seeds=(n, n + 1)) for n in lengths]
    found = list(Sampler(decoder, Ends(), max_rows=4).sample(requests, SamplingParams(max_new_tokens=24)))
    assert len(found) == 2 * len(lengths) and max(len(c.token_ids) for c in found) > 9
    prompts = {r.id: r.token_ids for r in requests}
    for completion in found:
        theirs, _ = logps_of(model, prompts[completion.request_id], completion.token_ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), theirs, rtol=1e-5, atol=1e-5)


def test_greedy_decoding_takes_transformers_best_token(make, hf_folder, layout):
    model = make.reference(layout)
    decoder, rng = load_decoder(hf_folder(model)), random.Random(2)
    requests = [Request(id=str(n), token_ids=some(rng, n), seeds=(0,)) for n in (1, 5, 20)]
    for completion in Sampler(decoder, Ends()).sample(requests, SamplingParams(temperature=0, max_new_tokens=24)):
        _, logits = logps_of(model, requests[[r.id for r in requests].index(completion.request_id)].token_ids,
                             completion.token_ids)  # fmt: skip
        chosen = logits.gather(-1, torch.tensor(completion.token_ids).unsqueeze(-1)).squeeze(-1)
        assert (logits.amax(-1) - chosen).max() < 1e-4  # the best, or as good as the best


def test_packed_logps_and_gradients_are_those_of_transformers(make, hf_folder, layout):
    model = make.reference(layout)
    decoder, rng = load_decoder(hf_folder(model)), random.Random(3)
    lengths = (1, 2, 17, 40 if "dynamic" in layout else 130)
    prompts = [some(rng, n) for n in lengths]
    pairs = [(p, some(rng, n)) for p in prompts for n in (1, 2, 21)]
    got = padded_logps(decoder, [Example(prompt_ids=p, completion_ids=c) for p, c in pairs])
    total = torch.zeros(())
    for values, (prompt, completion) in zip(got, pairs, strict=True):
        theirs = logps_of(model, prompt, completion)[0]
        torch.testing.assert_close(values[: len(completion)], theirs, rtol=1e-5, atol=1e-5)
        total = total + theirs.sum()
    got.sum().backward()
    total.backward()
    gradients_are_equal(decoder, model)
