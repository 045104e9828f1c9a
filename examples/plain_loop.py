"""Our objectives in a plain torch loop, on any Hugging Face causal model: KTO on single verdicts.

    python examples/plain_loop.py --steps 12

An objective is a pure function of log-probs: no trainer, no config, no state. Wants ``pip install transformers``.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from plum_core.objectives import balanced_weights, kto
from plum_kernels import linear_logprob

POLICY = "models/tiny/policy"
PROMPT = "# Return the even numbers in nums.\ndef solve(nums: list[int]) -> list[int]:\n"
RIGHT = ("    return [x for x in nums if x % 2 == 0]\n",)
WRONG = ("    return [x for x in nums if x % 2 == 1]\n", "    return sum(nums)\n", "    return nums[2:]\n")


def logps(model: Any, prompt: list[int], completions: list[list[int]]) -> Tensor:
    """(N,) fp32: each completion's log-prob after the prompt. One sequence at a time, to stay short."""
    out = []
    for completion in completions:
        ids = torch.tensor([prompt + completion])
        hidden = model.get_decoder()(ids).last_hidden_state[0, len(prompt) - 1 : -1]  # those before a scored token
        weight = model.get_output_embeddings().weight
        out.append(linear_logprob(hidden, weight, torch.tensor(completion)).logp.sum())
    return torch.stack(out)


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Train; the gap between right and wrong (nats a completion) before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args(argv)
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    reference = copy.deepcopy(model).requires_grad_(False)
    prompt = tokenizer(PROMPT)["input_ids"]
    right, wrong = ([[*tokenizer(t)["input_ids"], tokenizer.eos_token_id] for t in side] for side in (RIGHT, WRONG))
    with torch.no_grad():
        ref_right, ref_wrong = logps(reference, prompt, right), logps(reference, prompt, wrong)
    before = float(ref_right.mean() - ref_wrong.mean())
    desirable, undesirable = balanced_weights(len(right), len(wrong))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for step in range(options.steps):
        found = kto(
            logps(model, prompt, right),
            logps(model, prompt, wrong),
            ref_right,
            ref_wrong,
            kl=torch.zeros(()),  # one prompt has no mismatched completions to estimate it from
            desirable_weight=desirable,
            undesirable_weight=undesirable,
        )
        loss = found.losses.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}: loss {loss.item():.4f}")
    with torch.no_grad():
        after = float(logps(model, prompt, right).mean() - logps(model, prompt, wrong).mean())
    print(f"right over wrong: {before:+.2f} nats before, {after:+.2f} after")
    return before, after


if __name__ == "__main__":
    main()
