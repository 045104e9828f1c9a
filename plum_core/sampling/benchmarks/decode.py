"""Tokens a CPU-second of this sampler beside transformers' generate and vLLM, the passes interleaved.

    python plum_core/sampling/benchmarks/decode.py                       # both shapes, fp32 and bf16, 1 and 2 threads
    python plum_core/sampling/benchmarks/decode.py --shapes embedded --dtypes float32 --threads 1 --passes 5 --save
    python plum_core/sampling/benchmarks/decode.py --vllm-python ~/vllm/bin/python --engines ...   # vLLM beside them

Shapes: ``notes`` is a Qwen2 of 8 layers, width 896, 14:2 heads, MLP 4864 and a tied vocabulary of 151,936 with random
weights (0.26 B), 8 prompts x 8 samples; ``embedded`` is models/tiny/policy, 16 prompts x 8 samples = 128 rows. Prompts
have 64 tokens, answers 64, drawn at temperature 1 and none of them ended early. Ours and ``vllm, log-probs`` return
the drawn tokens' log-probs, generate and ``vllm`` do not. vLLM runs in a process of its own, one for each number of
threads, and is idle while others run (``peers.Vllm``). Before anything is timed, greedy ids of ours and generate's are
compared in fp32; a first pass of every engine, shorter where it can be, is not counted.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))
from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.benchmarks.peers import SAMPLES, THEIRS, Pass, Vllm, generate, hugging_face
from plum_core.sampling.benchmarks.tables import about, keep, table
from plum_core.training.initial import initial_decoder
from plum_models import Decoder, DecoderConfig, load, save

ROOT = Path(__file__).resolve().parents[3]
OURS = (
    "plum", "plum, packed", "plum, native", "plum, native, packed", "plum, native, invariant", "plum, kv budget",
    "plum, kv budget, packed",
)  # fmt: skip
VLLM = ("vllm", "vllm, log-probs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is measured."""

    shapes: tuple[Literal["notes", "embedded"], ...] = ("notes", "embedded")
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    threads: tuple[int, ...] = (1, 2)
    prompt_tokens: int = 64
    new_tokens: int = 64
    engines: tuple[str, ...] = (*OURS, THEIRS)
    vllm_python: Path | None = None
    """An interpreter that imports vLLM: its engines are measured too."""
    vllm_eager: bool = True
    """Without torch.compile."""
    passes: int = 3
    """Of every engine, after one that is not counted."""
    warm_tokens: int = 8
    """New tokens of that one."""
    save: bool = False
    """Write JSON and Markdown to ``results``, beside what the day's other runs have there."""
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")

    def __post_init__(self) -> None:
        known = (*OURS, THEIRS)
        if THEIRS not in self.engines or not set(self.engines) <= set(known):
            raise ValueError(f"engines must be of {', '.join(known)}, the last among them; got {self.engines}")
        counts = (*self.threads, self.prompt_tokens, self.new_tokens, self.warm_tokens, self.passes)
        if min(counts) < 1:
            raise ValueError("threads, prompt_tokens, new_tokens, warm_tokens and passes must be at least 1")


class Endless:
    """A tokenizer that knows no end, so that every sample has new_tokens tokens."""

    eos_token_ids: frozenset[int] = frozenset()
    eos_token_id = None

    def decode(self, ids: list[int]) -> str:
        return ""


def make_decoder(shape: str) -> Decoder:
    if shape == "embedded":
        return load(ROOT / "models" / "tiny" / "policy")[0]
    config = DecoderConfig(
        model_type="qwen2", vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=8,
        num_attention_heads=14, num_key_value_heads=2, head_dim=64, max_position_embeddings=4096,
        attention_bias=True, tie_word_embeddings=True, rope_theta=1e6,
    )  # fmt: skip
    return initial_decoder(config, seed=0)


def make_requests(prompts: int, length: int, vocabulary: int) -> list[Request]:
    rng = random.Random(1)
    return [
        Request(
            id=str(i),
            token_ids=tuple(rng.randrange(2, vocabulary) for _ in range(length)),
            seeds=tuple(rng.getrandbits(63) for _ in range(SAMPLES)),
        )
        for i in range(prompts)
    ]


def ours(decoder: Decoder, requests: list[Request], new: int, name: str) -> Callable[[int], int]:
    rows = len(requests) * SAMPLES
    longest = len(requests[0].token_ids)
    tokens = len(requests) * longest + rows * (new + 16)
    sampler = Sampler(
        decoder,
        Endless(),  # type: ignore[arg-type]
        max_rows=rows,
        kv_tokens=tokens if "budget" in name else None,
        packed="packed" in name,
        native="native" in name,
        invariant="invariant" in name,
    )
    return lambda new: sum(len(c.token_ids) for c in sampler.sample(requests, SamplingParams(max_new_tokens=new)))


def check(decoder: Decoder, model: Any, requests: list[Request]) -> None:
    """SystemExit where greedy ids differ: no speed without correctness."""
    params = SamplingParams(temperature=0, max_new_tokens=6)
    samplers = [Sampler(decoder, Endless(), native=native) for native in (False, True)]  # type: ignore[arg-type]
    ids = torch.tensor([r.token_ids for r in requests])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=0, eos_token_id=None
    )
    for sampler in samplers:
        found = {c.request_id: c.token_ids for c in sampler.sample(requests, params)}
        for request, row in zip(requests, out[:, ids.shape[1] :].tolist(), strict=True):
            if list(found[request.id]) != row:
                raise SystemExit(f"greedy ids of prompt {request.id} are {found[request.id]}, generate's are {row}")


def timed(work: Callable[[int], int]) -> Callable[[int], Pass]:
    """A pass in this process: its tokens, CPU-seconds and seconds."""

    def run(new: int) -> Pass:
        cpu, wall = time.process_time(), time.perf_counter()
        tokens = work(new)
        return tokens, time.process_time() - cpu, time.perf_counter() - wall

    return run


def measure(shape: str, dtype: str, config: Config) -> list[dict[str, object]]:
    """A row for every engine and number of threads."""
    decoder = make_decoder(shape).to(getattr(torch, dtype)).eval()
    requests = make_requests(16 if shape == "embedded" else 8, config.prompt_tokens, decoder.config.vocab_size)
    model = hugging_face(decoder)
    if dtype == "float32":
        torch.set_num_threads(max(config.threads))
        check(decoder, model, [Request(id=r.id, token_ids=r.token_ids, seeds=r.seeds[:1]) for r in requests])
    works = {
        name: timed(generate(model, requests) if name == THEIRS else ours(decoder, requests, config.new_tokens, name))
        for name in config.engines
    }
    rows = []
    for threads in config.threads:
        torch.set_num_threads(threads)
        with ExitStack() as stack:
            beside = vllm_works(decoder, requests, threads, config, stack)
            for found in passes(works | beside, config):
                rows.append({"shape": shape, "dtype": dtype, "threads": threads, **found})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def vllm_works(
    decoder: Decoder, requests: list[Request], threads: int, config: Config, stack: ExitStack
) -> dict[str, Callable[[int], Pass]]:
    """vLLM on the decoder's weights, read from a checkpoint in a temporary folder, until the stack is closed."""
    if config.vllm_python is None:
        return {}
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights"
    save(decoder, load(ROOT / "models" / "tiny" / "policy")[1], folder)  # a tokenizer that nobody asks
    settings = {
        "model": str(folder),
        "dtype": str(decoder.head_weight.dtype).removeprefix("torch."),
        "eager": config.vllm_eager,
        "prompts": [list(r.token_ids) for r in requests],
        "samples": SAMPLES,
        "new_tokens": config.new_tokens,
    }
    engine = stack.enter_context(closing(Vllm(config.vllm_python, threads, settings)))
    return {name: partial(engine, logprobs=name in VLLM[1:]) for name in VLLM}


def passes(works: dict[str, Callable[[int], Pass]], config: Config) -> list[dict[str, object]]:
    """Speeds of every engine, a pass of each after the other."""
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for work in works.values():
        work(config.warm_tokens)
    for _ in range(config.passes):
        for name, work in works.items():
            tokens, cpu, wall = work(config.new_tokens)
            speeds[name].append((tokens / cpu, tokens / wall))
    rows = []
    for name, found in speeds.items():
        per_cpu, per_wall = zip(*found, strict=True)
        rows.append(
            {
                "engine": name, "tokens_per_cpu_s": median(per_cpu), "lowest": min(per_cpu), "highest": max(per_cpu),
                "tokens_per_s": median(per_wall),
            }
        )  # fmt: skip
    return rows


def main(config: Config) -> None:
    place, load_before = about(config.vllm_python), os.getloadavg()[0]
    rows = [row for shape in config.shapes for dtype in config.dtypes for row in measure(shape, dtype, config)]
    command = shlex.join(["python", "plum_core/sampling/benchmarks/decode.py", *sys.argv[1:]])
    run = {
        "command": command.replace(str(config.vllm_python), "$VLLM_PYTHON"),  # a path of this machine
        "load": load_before,
        "config": {k: v for k, v in asdict(config).items() if isinstance(v, int | tuple)},
        "rows": rows,
    }
    print(table(place, [run]))
    if config.save:
        keep(config.results / f"{place['date']}-decode-{'-'.join(config.shapes)}.json", place, run)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
