"""Greedy ids of every layout are transformers' generate's: mixed lengths, 1, 5 and 64 rows, both kinds of memory."""

from __future__ import annotations

import random

import pytest
import torch

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_models import load_decoder
from tests.models.conftest import LAYOUTS, reference_model

NEW, COUNT = 10, 64
FAMILIES = [
    "llama", "llama-yarn", "llama-theta-mqa", "mistral-window", "qwen2-windows", "qwen3", "qwen3-moe", "starcoder2",
    "stablelm", "gemma2", "deepseek-v2",
]  # fmt: skip


class Ends:
    """A tokenizer that only names its ends."""

    eos_token_ids = frozenset(range(8))
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return ""


def expected_ids(model, prompts):
    """generate over left-padded prompts; what follows an end is cut."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[*[9] * (longest - len(p)), *p] for p in prompts])
    mask = torch.tensor([[*[0] * (longest - len(p)), *[1] * len(p)] for p in prompts])
    ends = sorted(Ends.eos_token_ids)
    out = model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW, eos_token_id=ends, pad_token_id=0
    )
    rows = []
    for row in out[:, longest:].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in Ends.eos_token_ids), NEW)
        rows.append(tuple(row[:end]))
    return rows


def test_every_family_of_the_decoder_is_here():
    assert {LAYOUTS[name][0] for name in FAMILIES} == {cls for cls, _ in LAYOUTS.values()}


@pytest.mark.parametrize("layout", FAMILIES)
def test_greedy_ids_are_those_of_generate(tmp_path, layout):
    model = reference_model(layout).eval()
    model.save_pretrained(tmp_path)
    decoder, rng = load_decoder(tmp_path), random.Random(2)
    prompts = [tuple(rng.randrange(8, 320) for _ in range(1 + i % 23)) for i in range(COUNT)]
    expected = expected_ids(model, prompts)
    requests = [Request(id=f"{i}", token_ids=prompt, seeds=(i,)) for i, prompt in enumerate(prompts)]
    params = SamplingParams(temperature=0, max_new_tokens=NEW)
    budget = {"kv_tokens": 300, "kv_block": 4, "step_tokens": 80, "speculate": 2}
    for asked, options in (
        (6, {"max_rows": 1}),
        (16, {"max_rows": 5}),
        (COUNT, {"max_rows": 64}),
        (COUNT, {"max_rows": 16} | budget),
    ):
        done = {c.request_id: c.token_ids for c in Sampler(decoder, Ends(), **options).sample(requests[:asked], params)}
        assert [done[f"{i}"] for i in range(asked)] == expected[:asked]
