"""Rounds on items of one size, four a step, so that a step can be cut in four, in one, or shared by two ranks.

python tests/training/even.py FOLDER NAME...    one rank of torchrun's environment; weights to FOLDER/NAME-RANK.pt
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from plum_core.objectives import OBJECTIVES
from plum_core.records import Label, Pair
from plum_core.training import Graded, OptimConfig, PreferenceConfig, World, init_world, train_round
from tests.training import conftest

PROMPT, COMPLETION, STEPS = 4, 6, 3
# name: settings; one of each class of objective and of each thing that is taken over a whole step
CASES: dict[str, dict] = {
    "dpo": {},
    "rpo": {"nll_weight": 0.7},
    "ipo": {},
    "span_dpo": {},
    "wpo": {},
    "simpo": {},
    "aot": {},
    "kto": {},
    "kto of one chosen": {"objective": "kto"},
    "apo_zero_unpaired": {},
    "bco_unpaired": {},
    "rft": {},
    "grpo": {"beta": 0.1},
    "dapo": {},
    "rloo": {},
}


def records_of(name: str, objective: str) -> list[Pair] | list[Label] | list[Graded]:
    """Four a step, all equally wide; the rejected of pairs are of any length up to that."""
    draw = random.Random(3)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(conftest.VOCABULARY) for _ in range(count))

    def completion(*, widest: bool = True) -> tuple[int, ...]:
        return ids(COMPLETION if widest else draw.randint(1, COMPLETION))

    count = 4 * STEPS
    data = OBJECTIVES[objective].data
    if data == "groups":
        made = [
            replace(
                graded,
                sample=replace(
                    graded.sample,
                    prompt_token_ids=(i // 4, *ids(PROMPT - 1)),
                    token_ids=completion(),
                    logprobs=tuple(-draw.uniform(3.0, 5.0) for _ in range(COMPLETION)),
                ),
                reward=float(i % 4 in (0, i // 4)),
            )
            for i, graded in enumerate(conftest.make_graded(count))
        ]
        return made
    if data == "labels":
        return [
            replace(
                label,
                prompt_token_ids=ids(PROMPT),
                completion_token_ids=completion(),
                label=i == 5 if name == "kto of one chosen" else i % 3 == 0,
            )
            for i, label in enumerate(conftest.make_labels(count))
        ]
    return [
        replace(
            pair,
            prompt_token_ids=ids(PROMPT),
            chosen_token_ids=completion(),
            rejected_token_ids=completion(widest=False),
        )
        for pair in conftest.make_pairs(count)
    ]


def run(name: str, folder: Path, *, micro: int | None = None, world: World | None = None, **more: Any):
    """(weights, metrics) of three steps. ``micro``: items of one forward."""
    settings = {"objective": name} | CASES[name] | more
    objective = settings["objective"]
    records = records_of(name, objective)
    rows = 2 if OBJECTIVES[objective].data == "pairs" else 1
    size = rows * (PROMPT + COMPLETION)
    # eps: Adam divides a gradient by its size, so that one of nothing but rounding would move a weight by a whole step
    config = PreferenceConfig(
        tokens_per_batch=4 * size,
        micro_batch_tokens=micro and micro * size,
        replay_examples_per_step=4,
        epochs=1,
        average_last=0.0,
        optim=OptimConfig(learning_rate=3e-3, warmup_steps=0, eps=1e-3),
        **settings,
    )
    decoder = conftest.make_decoder()
    result = train_round(
        decoder,
        records,
        conftest.make_examples(7),
        config,
        seed=1,
        folder=folder,
        reference=conftest.make_decoder(seed=9),
        world=world,
    )
    return conftest.flat(decoder), result.rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = init_world()
    for one in sys.argv[2:]:
        weights, rows = run(one, Path(sys.argv[1]) / one, world=place)
        torch.save([weights, rows], Path(sys.argv[1]) / f"{one}-{place.rank}.pt")
    place.close()
