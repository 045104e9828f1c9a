"""Weights of 8 bits: the product by its definition, a policy near the one it was made from, its own log-probs."""

from __future__ import annotations

import pytest
import torch

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.products import Int8
from plum_core.sampling.weights import weights_of
from plum_models import load
from tests.conftest import ROOT


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_product_is_that_of_rounded_weights(dtype):
    weight, bias, x = normal(48, 32).to(dtype), normal(48, seed=1).to(dtype), normal(3, 5, 32, seed=2).to(dtype)
    weight[7] = 0
    found = Int8(weight, bias)
    scales = weight.float().abs().amax(1, keepdim=True) / 127
    rounded = torch.where(scales > 0, (weight.float() / scales).round(), 0)
    assert torch.equal(found.weight.float(), rounded)
    exact = x.float() @ (rounded * scales).T + bias.float()
    bound = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found(x).float(), exact, atol=bound, rtol=bound)


@pytest.fixture(scope="module")
def policy():
    return load(ROOT / "models" / "tiny" / "policy")


@pytest.mark.parametrize("options", [{}, {"kv_tokens": 2000}, {"native": True}], ids=["plain", "budget", "native"])
def test_log_probs_are_those_of_the_quantised_policy_and_near_the_policys(policy, options):
    decoder, tokenizer = policy
    prompts = [tuple(tokenizer.encode(f"# Return n + {i}.\ndef f(n):\n")) for i in range(6)]
    requests = [Request(id=f"{i}", token_ids=p, seeds=(i, 90 + i)) for i, p in enumerate(prompts)]
    twin = weights_of(decoder, kind="int8")
    gaps = []
    for c in Sampler(decoder, tokenizer, int8=True, **options).sample(requests, SamplingParams(max_new_tokens=24)):
        prompt = prompts[int(c.request_id)]
        ids, drawn = torch.tensor([prompt + c.token_ids]), torch.tensor(c.token_ids).unsqueeze(1)
        with torch.inference_mode():
            states = twin.decoder(ids), decoder(ids)
            logits = twin.product(states[0]), decoder.logits(states[1])
            own, plain = (z[0].log_softmax(-1)[len(prompt) - 1 : -1].gather(1, drawn).squeeze(1) for z in logits)
        torch.testing.assert_close(torch.tensor(c.logprobs), own, atol=1e-4, rtol=0)
        gaps.append((own - plain).abs())
    gap = torch.cat(gaps)
    assert 1e-4 < gap.mean() < 0.1  # another policy, and not far


def test_where_it_cannot_be_is_refused(policy):
    with pytest.raises(ValueError, match="packed"):
        Sampler(*policy, int8=True, packed=True)
