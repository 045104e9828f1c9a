"""What every step reports: names, counts of arithmetic, the rates that follow, and who draws them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plum_core.training.batches import Example
from plum_core.training.flops import FlopCount, measured_peak, timed
from plum_core.training.logps import completion_logps
from plum_core.training.metrics import TIMED, peak_memory_mib
from plum_core.training.trackers import check_trackers, flat_figures, make_trackers
from tests.training.forks import on_ranks

ALWAYS = {
    *("step", "loss", "grad_norm", "learning_rate", "tokens", "num_tokens", "tokens_per_s", "mfu"),
    *("peak_memory_mib", "step_s"),
}
PAIRS = {
    *("logps/chosen", "logps/rejected", "lengths/chosen", "lengths/rejected", "kl/reference"),
    *("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "nll/chosen"),
}


@pytest.mark.parametrize("objective", ["dpo", "kto", "aot", "simpo", "rft", "grpo"])
def test_every_step_has_the_promised_figures(objective, make, tmp_path):
    _, result = make.round(tmp_path, objective)
    wanted = {
        "rft": {"logps/chosen", "lengths/chosen", "nll/chosen"},
        "grpo": {"reward", "ratio", "completions/mean_length", "kl/sampler"},
        "simpo": PAIRS - {"kl/reference"},  # it has none
        "kto": PAIRS - {"rewards/accuracies"},
    }.get(objective, PAIRS)
    for row in result.rows:
        assert row.keys() >= ALWAYS | wanted, (ALWAYS | wanted) - row.keys()
    assert "flops" not in result.rows[0]
    assert [r["step"] for r in result.rows if "peak_tflops/measured" in r] == [1]  # said once
    assert result.rows[-1]["num_tokens"] == sum(r["tokens"] for r in result.rows)


def test_the_figures_are_what_their_names_say(make, tmp_path):
    decoder, reference = make.decoder(), make.decoder(seed=9)
    from plum_core.training.preference import make_round
    from plum_core.training.preference_config import PreferenceConfig
    from plum_core.training.world import World

    pairs = make.pairs(6)
    this = make_round(decoder, pairs, [], PreferenceConfig(tokens_per_batch=1000), 1, World())
    this.add_reference(reference, tmp_path)
    row = (metrics := this(0)).report(metrics.vector())
    sides = [
        [Example(prompt_ids=p.prompt_token_ids, completion_ids=ids) for p, ids in zip(pairs, part, strict=True)]
        for part in ([p.chosen_token_ids for p in pairs], [p.rejected_token_ids for p in pairs])
    ]
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        assert row[f"lengths/{name}"] == sum(len(e.completion_ids) for e in side) / 6
        assert row[f"logps/{name}"] == pytest.approx(float(completion_logps(decoder, side).detach().mean()), rel=1e-5)
    both = sides[0] + sides[1]
    with torch.no_grad():
        ratio = (completion_logps(decoder, both) - completion_logps(reference, both)).mean()
    assert row["kl/reference"] == pytest.approx(float(ratio), rel=1e-4)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}], ids=["tied", "own head"])
@pytest.mark.parametrize("backward", [False, True])
def test_arithmetic_is_what_torch_counts(make, changes, backward):
    """The layers' products of the packed step, torch's own count. By hand: attention, which torch counts over padded
    rows, and the head, whose operator torch does not look into."""
    decoder = make.decoder(**changes)
    prompt, other = (1, 2, 3, 4), (5, 6)
    examples = [
        Example(prompt_ids=prompt, completion_ids=(7, 8, 9)),
        Example(prompt_ids=prompt, completion_ids=(9, 8)),
        Example(prompt_ids=other, completion_ids=(1,)),
    ]
    count, c = FlopCount(decoder), decoder.config
    # positions i attend to i + 1 of them: prompts' 3 + 1 tokens once, then each completion's own
    pairs = (1 + 2 + 3) + 1 + (4 + 5 + 6) + (4 + 5) + 2
    attention = 2 * 2 * c.num_attention_heads * c.head_dim * c.num_hidden_layers * pairs
    head = 2 * c.vocab_size * c.hidden_size * 6
    with FlopCounterMode(display=False) as torchs, torch.set_grad_enabled(backward):
        logps = completion_logps(decoder, examples)
        if backward:
            logps.sum().backward()
    matrices = sum(
        total
        for op, total in torchs.get_flop_counts()["Global"].items()
        if "attention" not in str(op) and "bmm" not in str(op)
    )
    assert count(examples, backward=backward) == matrices + (attention + head) * (3 if backward else 1)
    assert count(examples + examples[:1], backward=backward) == count(examples, backward=backward)


def test_frozen_weights_take_no_gradient_of_their_own(make):
    decoder = make.decoder(tie_word_embeddings=False)
    examples = make.examples(3)
    whole = FlopCount(decoder)(examples)
    decoder.lm_head.weight.requires_grad_(False)
    scored = sum(len(e.completion_ids) for e in dict.fromkeys(examples))
    assert whole - FlopCount(decoder)(examples) == 2 * decoder.lm_head.weight.numel() * scored


def test_rates_follow_from_the_time_and_a_given_peak():
    weight = torch.zeros(1)
    row = timed({"step": 1, "tokens": 300.0, "flops": 6e9}, 2.0, 0.001, weight, ranks=3)
    assert row == {
        "step": 1, "tokens": 300.0, "step_s": 2.0, "tokens_per_s": 150.0, "mfu": 1.0, "peak_tflops/given": 0.001
    }  # fmt: skip
    later = timed({"step": 2, "tokens": 1.0, "flops": 1.0}, 1.0, 0.0, weight, ranks=1)
    assert later["mfu"] == 1 / measured_peak(weight.device, weight.dtype) and not any("peak" in k for k in later)


def test_the_largest_rank_is_what_is_reported(make, tmp_path):
    def one(world):
        if world.rank == 1:
            ballast = torch.ones(40 * 2**18)  # 40 MiB that rank 0 does not have
            del ballast
        before = peak_memory_mib(torch.device("cpu"))
        _, result = make.round(tmp_path, world=world)
        return before, result.rows[-1]["peak_memory_mib"]

    (mine, reported), (other, same) = on_ranks(tmp_path, 2, one)
    assert reported == same >= max(mine, other) and other > mine


def test_numbers_of_a_row_by_name():
    row = {"sampled": {"mean": 0.5, "low": 0.4}, "greedy": None, "tasks": 7, "lost": False, "words": "x"}
    assert dict(flat_figures(row, "eval")) == {"eval/sampled/mean": 0.5, "eval/sampled/low": 0.4, "eval/tasks": 7.0}


def test_a_tracker_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="trackers names wandb, which is not installed: pip install wandb"):
        check_trackers(["wandb"])
    with pytest.raises(ValueError, match="trackers must be tensorboard or wandb, got 'mlflow'"):
        check_trackers(["mlflow"])


def test_tensorboard_holds_each_step_once(tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first in (1, 3):  # the second sitting begins before the first one ended
        [tracker] = make_trackers(["tensorboard"], tmp_path, {})
        for step in range(first, first + 4):
            tracker.log({"train/loss": float(first * 10 + step)}, step)
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [
        (1, 11.0), (2, 12.0), (3, 33.0), (4, 34.0), (5, 35.0), (6, 36.0),
    ]  # fmt: skip


def test_wandb_offline_keeps_what_was_logged(tmp_path):
    pytest.importorskip("wandb", reason="the wandb extra is not installed")
    script = (
        "import sys; from pathlib import Path\n"
        "from plum_core.training.trackers import make_trackers\n"
        "[t] = make_trackers(['wandb'], Path(sys.argv[1]), {'seed': 3})\n"
        "t.log({'train/loss': 0.25}, 1); t.log({'train/loss': 0.125}, 2); t.close()\n"
    )
    roots = [str(Path(__file__).resolve().parents[2] / part) for part in ("", "kernels", "models")]
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "PYTHONPATH": os.pathsep.join(roots)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "mine")], env=os.environ | quiet, check=True)
    [stored] = (tmp_path / "mine/wandb").glob("offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    assert b"train/loss" in content and b"0.125" in content and b"seed" in content


def test_timed_figures_are_told_apart():
    assert {"step_s", "tokens_per_s", "mfu", "peak_memory_mib", "peak_tflops/measured"} == set(TIMED)
