"""Stage 3: preferences to a trained checkpoint in Hugging Face's layout.

    python runners/train.py --policy CHECKPOINT --preferences pairs.jsonl --out runs/trained
    torchrun --nproc-per-node 2 runners/train.py --policy CHECKPOINT --preferences labels.jsonl --out runs/trained \
        --training.objective kto

The policy is written to OUT/policy, metrics to OUT/metrics.jsonl. Killed, the same command goes on from the last
checkpoint and ends in the same weights.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from plum_core import settings
from plum_core.objectives import find_objective
from plum_core.records import Label, Pair, read_jsonl, write_jsonl
from plum_core.rounds.single import bench
from plum_core.rounds.sources import read_sft
from plum_core.training import PreferenceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What to learn from, and how."""

    policy: Path  # checkpoint folder to start from
    preferences: Path  # JSONL of pairs (dpo, rft) or labels (kto)
    out: Path  # folder
    reference: Path | None = None  # checkpoint to stay near; the policy as it comes where not given
    sft: Path | None = None  # JSONL of {prompt, completion} for replay
    seed: int = 0
    device: str = "auto"
    quiet: bool = False
    training: PreferenceConfig = field(default_factory=PreferenceConfig)


def run(config: TrainConfig) -> None:
    labels = find_objective(config.training.objective).data == "labels"
    target = config.out / "policy"
    if target.exists():
        raise ValueError(f"{target} exists: remove it, or name another --out")
    records: list[Pair] | list[Label] = (
        list(read_jsonl(config.preferences, Label)) if labels else list(read_jsonl(config.preferences, Pair))
    )
    with bench(device=config.device, quiet=config.quiet) as place:
        display = place.display
        if display:
            display.begin("training", "steps")
        trained = place.engine.train(
            config.policy,
            config.reference or config.policy,
            records,
            read_sft(config.sft) if config.sft else [],
            config=config.training,
            seed=config.seed,
            folder=config.out / "training",
            out=lambda steps: target,
            on_step=lambda row, total: display.progress(int(row["step"]), total, row) if display else None,
        )
        if place.is_main:
            write_jsonl(config.out / "metrics.jsonl", trained.rows)
            shutil.rmtree(config.out / "training", ignore_errors=True)
        if display:
            display.end(f"{trained.steps} steps; the policy is in {target}")


if __name__ == "__main__":
    sys.exit(settings.main(run, TrainConfig, doc=__doc__ or ""))
