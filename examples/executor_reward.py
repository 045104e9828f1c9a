"""Our executor as the reward of TRL's GRPO: a completion is worth the tests that it passes, run under confinement.

    python examples/executor_reward.py --steps 2

Programs that a model wrote run in the sandbox and nowhere else; a fault of the sandbox gives None, which TRL leaves
out, and never a reward of 0. Wants ``pip install trl``.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from plum_core.execution import Executor
from plum_core.records import Outcome, Program

POLICY = "models/tiny/policy"
STARTER = "def solve(nums: list[int]) -> int:\n"
TASKS = (
    ("Return the sum of the even numbers in nums.", ["assert solve([1, 2, 4]) == 6", "assert solve([3]) == 0"]),
    ("Return the largest of the squares of nums.", ["assert solve([1, -3, 2]) == 9", "assert solve([5, 1]) == 25"]),
    ("Return how many of nums are above 3.", ["assert solve([1, 5, 9]) == 2", "assert solve([2]) == 0"]),
    ("Return the sum of the numbers in nums.", ["assert solve([1, 5, 9]) == 15", "assert solve([]) == 0"]),
)


class TestsPassed:
    """A reward function for TRL: the share of tests that pass. ``tests`` and ``starter`` are columns of the data."""

    __test__ = False  # not a pytest class
    __name__ = "tests_passed"  # the name under which TRL logs it

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def __call__(
        self, completions: list[str], tests: list[list[str]], starter: list[str], **_: Any
    ) -> list[float | None]:
        programs = [
            Program(id=str(i), code=begin + completion, tests=tuple(wanted))
            for i, (begin, completion, wanted) in enumerate(zip(starter, completions, tests, strict=True))
        ]
        verdicts = self.executor.run(programs, ordered=True)
        return [None if v.outcome == Outcome.SANDBOX_ERROR else sum(v.passed) / max(1, len(v.passed)) for v in verdicts]


def tasks() -> Dataset:
    """Prompts with their tests; yours come from runners/make_tests.py."""
    rows = [{"prompt": f"# {words}\n{STARTER}", "starter": STARTER, "tests": tests} for words, tests in TASKS]
    return Dataset.from_list(rows)


def main(argv: list[str] | None = None) -> list[float]:
    """Train, and give the mean reward of each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, Executor(workers=2, packages=()) as executor:
        settings = GRPOConfig(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=16,
            num_generations=4,
            max_completion_length=48,
            learning_rate=1e-4,
            logging_steps=1,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32),
            reward_funcs=TestsPassed(executor),
            args=settings,
            train_dataset=tasks(),
            processing_class=AutoTokenizer.from_pretrained(POLICY),
        )
        trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    print("mean reward of each step:", ", ".join(f"{reward:.3f}" for reward in rewards))
    return rewards


if __name__ == "__main__":
    main()
