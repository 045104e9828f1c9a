"""sample_tokens' definition against plum_core's draw, and what it refuses; the kernel in triton_sample_cases.py."""

from __future__ import annotations

import pytest
import torch

from plum_core.sampling.draw import draw_, uniform
from plum_core.sampling.params import SamplingParams
from plum_core.sampling.penalties import Past
from plum_kernels.sample import reference, sample_tokens

OPTIONS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.1, "temperature": 1.3},
    {"top_k": 9, "top_p": 0.7, "min_p": 0.05, "temperature": 0.8},
    {"repetition_penalty": 1.3},
    {"presence_penalty": 0.4, "frequency_penalty": -0.3, "temperature": 0.0},
    {"repetition_penalty": 0.8, "presence_penalty": 0.4, "frequency_penalty": 0.3, "top_p": 0.9},
]


def case(rows=40, vocabulary=101, dtype=torch.float32, seed=0):
    """Logits, seeds, positions, and what the rows have seen: some ids often, some places empty."""
    g = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, vocabulary, generator=g) * 3).to(dtype)
    seeds = torch.randint(0, 2**62, (rows,), generator=g)
    prompt = torch.randint(-1, vocabulary, (rows, 7), generator=g)
    drawn = torch.randint(-1, min(8, vocabulary), (rows, 19), generator=g)
    return logits, seeds, torch.arange(rows) * 3, prompt, drawn


def call(arrays, backend, **options):
    logits, seeds, positions, prompt, drawn = arrays
    return sample_tokens(logits, seeds, positions, prompt=prompt, drawn=drawn, backend=backend, **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_definition_draws_what_the_sampler_draws(options):
    logits, seeds, positions, prompt, drawn = arrays = case(rows=200)
    params = SamplingParams(**options)
    past = Past(prompt, drawn) if params.penalises else None
    want = draw_(logits.clone(), seeds, positions, params, past)
    got = call(arrays, "reference", **options)
    assert torch.equal(got[0], want[0])
    for ours, theirs in zip(got[1:], want[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_uniforms_are_the_samplers():
    seeds, positions = torch.tensor([0, 1, 2**62, 2**63 - 1]), torch.tensor([0, 7, 2**40, 3])
    want = uniform(seeds, positions).tolist()
    assert [reference.uniform(int(s), int(p)) for s, p in zip(seeds, positions, strict=True)] == want


def test_ties_at_the_border_are_all_kept():
    z = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0])
    assert float(reference.least_kept(z, reference.Draw(top_k=2))) == 1.0
    assert float(reference.least_kept(z, reference.Draw(top_p=0.5))) == 1.0
    assert float(reference.least_kept(z, reference.Draw(top_p=0.3))) == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 0)}, "V above 0"),
        ({"logits": torch.zeros(2, 4).double()}, "logits must be"),
        ({"logits": torch.zeros(4, 2).T}, "dense"),
        ({"seeds": torch.zeros(3).long()}, "seeds must be int64 of 1 dimensions and 2 rows"),
        ({"drawn": torch.zeros(2, 3)}, "drawn must be int64 of 2 dimensions"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"top_p": 0.0}, "top_p <= 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"backend": "cuda"}, "backend must be one of auto, reference, triton, got 'cuda'"),
        ({"backend": "triton"}, "backend triton needs a GPU, got tensors on cpu"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_mistakes_are_refused(change, message):
    arguments = {"logits": torch.zeros(2, 4), "seeds": torch.zeros(2).long(), "positions": torch.zeros(2).long()}
    with pytest.raises(ValueError, match=message):
        sample_tokens(**(arguments | change))
