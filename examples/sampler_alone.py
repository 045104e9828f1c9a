"""Our sampler alone, and what its samples are worth: K completions of a prompt with exact ids and log-probs.

    python examples/sampler_alone.py --samples 8

Draws are seeded one by one, so the same seeds give the same samples in any batch.
"""

from __future__ import annotations

import argparse

from plum_core.execution import Executor
from plum_core.prompts import encode_prompt
from plum_core.records import Program
from plum_core.sampling import Completion, Request, Sampler, SamplingParams
from plum_models import load

STARTER = "def solve(nums: list[int]) -> int:\n"
TASKS = {
    "even": ("# Return the sum of the even numbers in nums.\n", ("assert solve([1, 2, 4]) == 6",)),
    "count": ("# Return how many of nums are above 3.\n", ("assert solve([1, 5, 9]) == 2",)),
}


def draw(samples: int) -> list[Completion]:
    """Completions of both prompts, by prompt and index."""
    decoder, tokenizer = load("models/tiny/policy")
    requests = [
        Request(id=name, token_ids=encode_prompt(tokenizer, words + STARTER), seeds=tuple(range(samples)))
        for name, (words, _) in TASKS.items()
    ]
    found = Sampler(decoder, tokenizer, max_rows=64).sample(requests, SamplingParams(max_new_tokens=64))
    return sorted(found, key=lambda c: (c.request_id, c.index))


def main(argv: list[str] | None = None) -> dict[str, bool]:
    """Draw, judge and print; whether each sample passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args(argv)
    completions = draw(options.samples)
    programs = [
        Program(id=f"{c.request_id}/{c.index}", code=STARTER + c.text, tests=TASKS[c.request_id][1])
        for c in completions
    ]
    with Executor(workers=2, packages=()) as executor:
        verdicts = list(executor.run(programs, ordered=True))
    for completion, verdict in zip(completions, verdicts, strict=True):
        nats = sum(completion.logprobs)
        print(f"{verdict.id}: {verdict.outcome}, {len(completion.token_ids)} tokens, log-prob {nats:.2f}")
    return {v.id: all(v.passed) for v in verdicts}


if __name__ == "__main__":
    main()
