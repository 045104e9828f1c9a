"""Stage 3: preferences to a trained checkpoint in Hugging Face's layout.

    python runners/train.py --policy CHECKPOINT --preferences pairs.jsonl --out runs/trained
    torchrun --nproc-per-node 2 runners/train.py --policy CHECKPOINT --preferences labels.jsonl --out runs/trained \
        --training.objective kto
    python runners/train.py --policy CHECKPOINT --preferences runs/mine/round-001 --out runs/trained \
        --training.objective grpo

grpo, dapo and rloo learn from a round's folder: from its samples.jsonl and verdicts.jsonl.

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
from plum_core.records import Label, Pair, Sample, Verdict, read_jsonl, write_jsonl
from plum_core.rounds.single import bench
from plum_core.rounds.sources import read_sft
from plum_core.training import PreferenceConfig, Records, grade
from plum_core.training.trackers import TrackerName, check_trackers, flat_figures, make_trackers


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What to learn from, and how."""

    policy: Path  # checkpoint folder to start from
    preferences: Path  # JSONL of pairs or of labels, or a round's folder, as the objective wants
    out: Path  # folder
    reference: Path | None = None  # checkpoint to stay near; the policy as it comes where not given
    sft: Path | None = None  # JSONL of {prompt, completion} for replay
    seed: int = 0
    device: str = "auto"
    quiet: bool = False
    trackers: tuple[TrackerName, ...] = ()  # tensorboard, wandb: who draws curves beside OUT/metrics.jsonl
    training: PreferenceConfig = field(default_factory=PreferenceConfig)

    def __post_init__(self) -> None:
        check_trackers(self.trackers)


def read_records(path: Path, training: PreferenceConfig) -> Records:
    """What ``training.objective`` learns from; ValueError where ``path`` is a folder for a file, or the other way."""
    data = find_objective(training.objective).data
    if (data == "groups") != path.is_dir():
        wanted = "JSONL of labels" if data == "labels" else "JSONL of pairs"
        if data == "groups":
            wanted = "a round's folder with samples.jsonl and verdicts.jsonl"
        raise ValueError(f"objective {training.objective} learns from {wanted}: --preferences {path} is not one")
    if data == "groups":
        samples = read_jsonl(path / "samples.jsonl", Sample)
        return grade(samples, read_jsonl(path / "verdicts.jsonl", Verdict), training.groups.reward)
    return list(read_jsonl(path, Label)) if data == "labels" else list(read_jsonl(path, Pair))


def run(config: TrainConfig) -> None:
    target = config.out / "policy"
    if target.exists():
        raise ValueError(f"{target} exists: remove it, or name another --out")
    records = read_records(config.preferences, config.training)
    with bench(device=config.device, quiet=config.quiet) as place:
        display = place.display
        if display:
            display.begin("training", "steps")
        trackers = make_trackers(config.trackers, config.out, settings.plain(config)) if place.is_main else []

        def on_step(row: dict[str, float], total: int) -> None:
            for tracker in trackers:
                tracker.log(dict(flat_figures(row, "train")), int(row["step"]))
            if display:
                display.progress(int(row["step"]), total, row)

        trained = place.engine.train(
            config.policy,
            config.reference or config.policy,
            records,
            read_sft(config.sft) if config.sft else [],
            config=config.training,
            seed=config.seed,
            folder=config.out / "training",
            out=lambda steps: target,
            on_step=on_step,
        )
        for tracker in trackers:
            tracker.close()
        if place.is_main:
            write_jsonl(config.out / "metrics.jsonl", trained.rows)
            shutil.rmtree(config.out / "training", ignore_errors=True)
        if display:
            display.end(f"{trained.steps} steps; the policy is in {target}")


if __name__ == "__main__":
    sys.exit(settings.main(run, TrainConfig, doc=__doc__ or ""))
