"""Signals at random moments of a small training run: every resume ends in the same weights, bit for bit.

    python plum_core/training/benchmarks/kills.py --times 50
    python plum_core/training/benchmarks/kills.py --times 20 --signal term

Each victim is a fork that trains a decoder of a few thousand weights and saves after every step. It is struck at a
moment drawn from the length of a whole run, and the next victim goes on in the same folder, until one gets through:
its weights are compared, and the next folder begins. After each strike the newest complete checkpoint is read.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.records import Pair
from plum_core.training import OptimConfig, PreferenceConfig, train_round
from plum_core.training.checkpoint import load_checkpoint
from plum_core.training.initial import initial_decoder
from plum_core.training.loop import weights_digest
from plum_core.training.stop import ends_on_sigterm
from plum_models.config import DecoderConfig

SLOWEST_STOP_S = 30.0  # from SIGTERM to the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How many strikes, and with what."""

    times: int = 50
    signal: Literal["kill", "term"] = "kill"
    pairs: int = 160  # of the run that is struck
    seed: int = 0

    def __post_init__(self) -> None:
        if self.times < 1 or self.pairs < 1:
            raise ValueError(f"times and pairs must be at least 1, got {self.times} and {self.pairs}")


def make_pairs(count: int) -> list[Pair]:
    draw = random.Random(1)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(64) for _ in range(draw.randint(1, most)))

    return [
        Pair(
            prompt="p",
            chosen="c",
            rejected="r",
            instruction_id=str(i),
            chosen_index=0,
            rejected_index=1,
            prompt_token_ids=ids(9),
            chosen_token_ids=ids(20),
            rejected_token_ids=ids(20),
        )
        for i in range(count)
    ]


def train(folder: Path, pairs: int) -> str:
    """One sitting of the run in ``folder``; the digest of the weights that it ends in."""
    config = DecoderConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    decoder = initial_decoder(config, 0)
    settings = PreferenceConfig(
        tokens_per_batch=250, save_every=1, epochs=1, optim=OptimConfig(name="muon", warmup_steps=2, schedule="cosine")
    )
    train_round(decoder, make_pairs(pairs), [], settings, seed=0, folder=folder)
    return weights_digest(decoder)


def sitting(folder: Path, pairs: int, after_s: float | None, number: int) -> tuple[int, float]:
    """Train in a fork and strike it ``after_s`` seconds later: its exit status (minus a signal), and seconds to end."""
    child = os.fork()
    if child == 0:
        with ends_on_sigterm():
            digest = train(folder, pairs)
            (folder / "digest.json").write_text(json.dumps(digest))
        os._exit(0)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, number)
    struck = time.perf_counter()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - struck


def main(config: Config) -> int:
    """0 where nothing was wrong; the figures as JSON on standard output."""
    torch.set_num_threads(1)
    number = {"kill": signal.SIGKILL, "term": signal.SIGTERM}[config.signal]
    draw, wrong = random.Random(config.seed), list[str]()
    struck = finished = resumed = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory(prefix="plum-kills-") as place:
        top = Path(place)
        began = time.perf_counter()
        whole = top / "whole"
        whole.mkdir()
        if sitting(whole, config.pairs, None, number)[0] != 0:
            raise SystemExit("the run fails without being struck")
        length_s = time.perf_counter() - began
        wanted = json.loads((whole / "digest.json").read_text())
        folder, chain, furthest, through = top / "chain-0", 0, 0, False
        while struck < config.times or not through:  # the last run, too, goes on to its end
            folder.mkdir(exist_ok=True)
            strike = draw.uniform(0, length_s) if struck < config.times else None
            status, took_s = sitting(folder, config.pairs, strike, number)
            through = (folder / "digest.json").exists()
            if strike is not None and not through:  # else the run was over before its strike
                struck += 1
                slowest = max(slowest, took_s)
            if status not in ((0,) if number == signal.SIGTERM or strike is None else (0, -number)):
                wrong.append(f"strike {struck}: exit status {status}")
            found = load_checkpoint(folder)  # raises where a folder that is named complete is not
            steps = found.step if found else 0
            if steps < furthest:
                wrong.append(f"strike {struck}: back from step {furthest} to {steps}")
            resumed, furthest = resumed + (furthest > 0), steps
            if through:
                finished += 1
                if json.loads((folder / "digest.json").read_text()) != wanted:
                    wrong.append(f"{folder.name}: other weights than the run that was left alone")
                chain, furthest = chain + 1, 0
                folder = top / f"chain-{chain}"
        if number == signal.SIGTERM and slowest > SLOWEST_STOP_S:
            wrong.append(f"SIGTERM took {slowest:.1f} s to end the run")
    figures = {"signal": config.signal, "strikes": struck, "resumes": resumed, "runs_finished": finished}
    print(json.dumps(figures | {"run_s": round(length_s, 2), "slowest_end_s": round(slowest, 3), "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
