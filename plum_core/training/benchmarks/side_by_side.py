"""A round of DPO here and with TRL's DPOTrainer: same weights, pairs, batches and machine; tokens/s and peak memory.

    python plum_core/training/benchmarks/side_by_side.py                          # both shapes, both data sets
    python plum_core/training/benchmarks/side_by_side.py --shapes embedded --passes 5 --save

Shapes: ``embedded`` is models/tiny/policy (0.9 M weights, 1,536 words); ``small`` a Llama of 8 layers, width 384 and
32,000 words with random weights (24 M). Data: ``round`` has four pairs an instruction, as rounds make them, and
completions of 16 to 96 tokens; ``single`` has one pair an instruction. Prompts have 48 to 96 tokens.

Before anything is timed, both train on the same batches and must report the same losses. Speed: the arms take turns in
one process, each pass from the call to the end of the last step, the reference's log-probs included; a pass's tokens
are those of both completions with their prompts, the same for every arm. Memory: each arm in a process of its own, the
most that was resident less what was resident before the model was made.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))
import torch
import tyro

from plum_core.execution.benchmarks.report import machine, save, table
from plum_core.records import Pair
from plum_core.training import OptimConfig, PreferenceConfig, train_round
from plum_core.training import items as items_module
from plum_core.training.initial import initial_decoder
from plum_core.training.metrics import peak_memory_mib
from plum_models import Decoder, DecoderConfig, load
from plum_models.families import to_json

ROOT = Path(__file__).resolve().parents[3]
Shape = Literal["embedded", "small"]
Data = Literal["round", "single"]
RATE, PER_STEP = 1e-4, 8
ARMS: dict[str, dict[str, Any]] = {  # of TRL: its settings beside those that all have in common
    "plum": {},
    "plum, checkpointing": {"checkpointing": "full"},
    "trl": {"activation_checkpointing": True},  # its defaults
    "trl, no checkpointing": {"activation_checkpointing": False},
    "trl, precomputed reference": {"activation_checkpointing": False, "precompute_ref_log_probs": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is measured."""

    shapes: tuple[Shape, ...] = ("embedded", "small")
    data: tuple[Data, ...] = ("round", "single")
    steps: int = 6  # of 8 pairs each
    passes: int = 3  # of every arm, after one that is not counted
    threads: int = 1
    save: bool = False  # write JSON and Markdown below
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")
    only: str = ""  # one arm, for its memory; prints a JSON line

    def __post_init__(self) -> None:
        if min(self.steps, self.passes, self.threads) < 1:
            raise ValueError(f"steps, passes and threads must be >= 1, got {self.steps}, {self.passes}, {self.threads}")


def make_decoder(shape: Shape) -> Decoder:
    if shape == "embedded":
        return load(ROOT / "models/tiny/policy")[0].float()
    config = DecoderConfig(
        model_type="llama", vocab_size=32_000, hidden_size=384, intermediate_size=1024, num_hidden_layers=8,
        num_attention_heads=6, num_key_value_heads=2, head_dim=64,
    )  # fmt: skip
    return initial_decoder(config, 0)


def make_pairs(shape: Shape, data: Data, count: int) -> list[Pair]:
    """``count`` pairs of random tokens; with ``round`` four of them an instruction, one behind the other."""
    draw, vocabulary = random.Random(1), 1536 if shape == "embedded" else 32_000
    share = 4 if data == "round" else 1

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, vocabulary) for _ in range(draw.randint(low, high)))

    prompts = [ids(48, 96) for _ in range(-(-count // share))]
    return [
        Pair(
            prompt="p",
            chosen="c",
            rejected="r",
            instruction_id=str(i // share),
            chosen_index=0,
            rejected_index=1,
            prompt_token_ids=prompts[i // share],
            chosen_token_ids=ids(16, 96),
            rejected_token_ids=ids(16, 96),
        )
        for i in range(count)
    ]


def tokens_of(pairs: Sequence[Pair]) -> int:
    return sum(2 * len(p.prompt_token_ids) + len(p.chosen_token_ids) + len(p.rejected_token_ids) for p in pairs)


class Done(BaseException):
    """The last step is over; what comes after it is not what is measured."""


def train_ours(decoder: Decoder, pairs: Sequence[Pair], folder: Path, more: dict[str, Any]) -> list[float]:
    """Losses of a pass over ``pairs`` in their order."""
    plan = [list(range(i, min(i + PER_STEP, len(pairs)))) for i in range(0, len(pairs), PER_STEP)]
    settings = PreferenceConfig(
        beta=0.1,
        nll_weight=0.0,
        epochs=1,
        tokens_per_batch=1 << 20,
        average_last=0.0,
        save_every=1 << 20,
        peak_tflops=1.0,
        optim=OptimConfig(learning_rate=RATE, warmup_steps=0),
        **more,
    )
    losses: list[float] = []

    def on_metrics(row: dict[str, float]) -> None:
        losses.append(row["loss"])
        if len(losses) == len(plan):
            raise Done

    before, items_module.plan_batches = items_module.plan_batches, lambda *_: plan
    try:
        train_round(decoder, pairs, [], settings, seed=0, folder=folder, on_metrics=on_metrics)
    except Done:
        return losses
    finally:
        items_module.plan_batches = before
    raise AssertionError("the last step did not come")


def theirs(decoder: Decoder) -> Any:
    """transformers' model of the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = {k: v for k, v in to_json(decoder.config).items() if k not in ("architectures", "model_type")}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
    state = {f"model.{name}": weight for name, weight in decoder.state_dict().items()}
    model.load_state_dict(state | {"lm_head.weight": decoder.head_weight}, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)  # its frequencies are no weights
    return model.float().requires_grad_()


def make_trainer(model: Any, pairs: Sequence[Pair], folder: Path, more: dict[str, Any]) -> Any:
    """TRL's, over ``pairs`` in their order, tokenised already."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from torch.utils.data import SequentialSampler
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    words = Tokenizer(WordLevel({"w0": 0, "w1": 1}, unk_token="w0"))
    settings = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=PER_STEP,
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.99,
        max_grad_norm=1.0,
        beta=0.1,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        **more,
    )
    rows = [
        {"prompt_ids": p.prompt_token_ids, "chosen_ids": p.chosen_token_ids, "rejected_ids": p.rejected_token_ids}
        for p in pairs
    ]
    return InOrder(
        model=model,
        ref_model=None if more.get("precompute_ref_log_probs") else copy.deepcopy(model),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1"),
    )


def train_theirs(decoder: Decoder, pairs: Sequence[Pair], folder: Path, more: dict[str, Any]) -> list[float]:
    """As ``train_ours``."""
    trainer = make_trainer(theirs(decoder), pairs, folder, more)
    losses: list[float] = []
    compute = trainer.compute_loss

    def noted(*args: Any, **kwargs: Any) -> Any:
        loss = compute(*args, **kwargs)
        losses.append(loss.item())
        return loss

    trainer.compute_loss = noted
    trainer.train()
    return losses


def run(arm: str, decoder: Decoder, pairs: Sequence[Pair]) -> list[float]:
    train = train_ours if arm.startswith("plum") else train_theirs
    with tempfile.TemporaryDirectory(prefix="plum-side-") as folder:
        return train(copy.deepcopy(decoder), pairs, Path(folder), ARMS[arm])


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(wall, CPU) seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def same_losses(decoder: Decoder, pairs: Sequence[Pair]) -> float:
    """The largest difference between any arm's losses and ours; SystemExit where it is one that matters."""
    ours = run("plum", decoder, pairs)
    worst = max(abs(a - b) for arm in ARMS for a, b in zip(ours, run(arm, decoder, pairs), strict=True))
    if not worst < 1e-4:
        raise SystemExit(f"the arms train differently: their losses are up to {worst:.2g} apart")
    return worst


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_of(arm: str, shape: Shape, data: Data, config: Config) -> float:
    """MiB that the arm takes in a process of its own."""
    command = [sys.executable, __file__, "--only", arm, "--shapes", shape, "--data", data]
    command += ["--steps", str(config.steps), "--threads", str(config.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: float = json.loads(done.stdout.splitlines()[-1])["mib"]
    return found


def only(config: Config) -> None:
    """The memory of one arm, in this process."""
    import datasets  # noqa: F401 - both arms have them, so that both begin with the same
    import trl  # noqa: F401

    [shape], [data] = config.shapes, config.data
    pairs = make_pairs(shape, data, config.steps * PER_STEP)
    warm = torch.zeros(64, 64, requires_grad=True)
    (warm @ warm).sum().backward()
    before = resident_mib()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    train = train_ours if config.only.startswith("plum") else train_theirs
    with tempfile.TemporaryDirectory(prefix="plum-side-") as folder:
        train(make_decoder(shape), pairs, Path(folder), ARMS[config.only])
    print(json.dumps({"mib": peak_memory_mib(torch.device("cpu")) - before}))


def measure(shape: Shape, data: Data, config: Config) -> dict[str, Any]:
    """One table: every arm's tokens a second and memory, beside TRL's defaults."""
    decoder, pairs = make_decoder(shape), make_pairs(shape, data, config.steps * PER_STEP)
    worst = same_losses(decoder, pairs)  # also the pass that is not counted
    seconds: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    for _ in range(config.passes):
        for arm, found in seconds.items():
            found.append(timed(lambda arm=arm: run(arm, decoder, pairs)))  # type: ignore[misc]
    memory = {arm: memory_of(arm, shape, data, config) for arm in ARMS}
    tokens = tokens_of(pairs)
    rows = []
    for arm, found in seconds.items():
        ratios = {
            other: median(b[1] / a[1] for a, b in zip(found, seconds[other], strict=True))
            for other in ("trl", "trl, precomputed reference")
        }
        rows.append(
            {
                "arm": arm,
                "tokens/s": round(tokens / median(wall for wall, _ in found)),
                "tokens/CPU s": round(tokens / median(cpu for _, cpu in found)),
                "x trl": round(ratios["trl"], 2),
                "x trl, precomputed": round(ratios["trl, precomputed reference"], 2),
                "MiB": round(memory[arm]),
                "of trl": round(memory[arm] / memory["trl"], 2),
                "of trl, no checkpointing": round(memory[arm] / memory["trl, no checkpointing"], 2),
            }
        )
    return {"shape": shape, "data": data, "tokens": tokens, "losses_apart": worst, "rows": rows, "seconds": seconds}


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if config.only:
        return only(config)
    found = [measure(shape, data, config) for shape in config.shapes for data in config.data]
    parts = [
        f"## {f['shape']}, {f['data']}\n\n{config.steps} steps of {PER_STEP} pairs, {f['tokens']} tokens; losses at "
        f"most {f['losses_apart']:.1g} apart.\n\n{table(f['rows'])}"
        for f in found
    ]
    about = f"Medians of {config.passes} passes in turn, {config.threads} thread(s), ratios of CPU seconds. {machine()}"
    text = "\n".join([f"# A round of DPO beside TRL's DPOTrainer\n\n{about}\n", *parts])
    print(text)
    if config.save:
        save("-".join(("side-by-side", *config.shapes)), text, {"found": found}, config.results)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
