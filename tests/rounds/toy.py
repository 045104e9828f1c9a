"""python -m tests.rounds.toy FOLDER: a policy of 20,000 weights that is taught one-line functions, and its tasks.

Real in every part and small enough for a test: the policy gets about half of its samples right.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from plum_core.prompts import encode_prompt, render_prompt
from plum_core.records import Instruction, TestSuite, write_jsonl
from plum_core.rounds.config import DrawConfig, EvaluationConfig, ExecutionConfig, RunConfig
from plum_core.rounds.sources import TasksConfig
from plum_core.training import Example, OptimConfig, PreferenceConfig, SftConfig, cycle, train_sft
from plum_models import Decoder, DecoderConfig, Tokenizer, save

STARTER = "def solve(a: int) -> int:\n"
WORDS = {"+": "Add {k} to a.", "-": "Take {k} from a.", "*": "Multiply a by {k}."}
Task = tuple[Instruction, TestSuite, str]  # with the right body


def tasks() -> list[Task]:
    """60 of them; the last third is held out."""
    made = []
    for k in range(2, 22):
        for name, (sign, words) in zip(("add", "sub", "mul"), WORDS.items(), strict=True):
            instruction = Instruction(id=f"{name}-{k}", prompt=words.format(k=k), entry_point="solve", starter=STARTER)
            tests = tuple(f"assert solve({a}) == {eval(f'{a} {sign} {k}')}" for a in (-3, 0, 7))
            made.append(
                (instruction, TestSuite(instruction_id=instruction.id, tests=tests), f"    return a {sign} {k}\n")
            )
    return sorted(made, key=lambda task: (hash_of(task[0].id), task[0].id))


def hash_of(name: str) -> int:
    return sum(ord(c) * 31**i for i, c in enumerate(name)) % 97


def teach(folder: Path, steps: int) -> None:
    """Train the policy on all tasks and save it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    texts = [render_prompt(i) + body for i, _, body in tasks()]
    tokenizer = Tokenizer.train(texts, 300)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
    )
    decoder = Decoder(config)
    for weight in decoder.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.05)
    examples = [
        Example(
            prompt_ids=encode_prompt(tokenizer, render_prompt(i)),
            completion_ids=(*tokenizer.encode(body), tokenizer.eos_token_id),
        )
        for i, _, body in tasks()
    ]
    optim = OptimConfig(learning_rate=1e-2, warmup_steps=5, schedule="wsd")
    settings = SftConfig(steps=steps, tokens_per_batch=700, optim=optim)
    train_sft(decoder, cycle(examples, 0), settings, seed=0, folder=folder / "sft")
    save(decoder, tokenizer, folder / "policy")


def write_tasks(folder: Path) -> None:
    """instructions.jsonl, tests.jsonl, eval.jsonl, eval-tests.jsonl and sft.jsonl."""
    everything = tasks()
    cut = 2 * len(everything) // 3
    for part, instructions, tests in (
        (everything[:cut], "instructions", "tests"),
        (everything[cut:], "eval", "eval-tests"),
    ):
        write_jsonl(folder / f"{instructions}.jsonl", [i for i, _, _ in part])
        write_jsonl(folder / f"{tests}.jsonl", [s for _, s, _ in part])
    rows = [{"prompt": render_prompt(i), "completion": body} for i, _, body in everything[:cut]]
    write_jsonl(folder / "sft.jsonl", rows)


def make_config(folder: Path, out: Path) -> RunConfig:
    """One round on the toy's policy and tasks."""
    return RunConfig(
        out=out,
        policy=folder / "policy",
        rounds=1,
        tasks=TasksConfig(
            instructions=folder / "instructions.jsonl",
            tests=folder / "tests.jsonl",
            heldout_instructions=folder / "eval.jsonl",
            heldout_tests=folder / "eval-tests.jsonl",
            sft=folder / "sft.jsonl",
        ),
        sampling=DrawConfig(n=4, max_new_tokens=24, chunk=16),
        evaluation=EvaluationConfig(samples=2, ks=(1,), chunk=10),
        execution=ExecutionConfig(workers=1, packages=()),
        training=PreferenceConfig(replay_examples_per_step=8, tokens_per_batch=1200, save_every=2),
    )


def main(folder: Path, steps: int = 250) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_tasks(folder)
    teach(folder, steps)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
