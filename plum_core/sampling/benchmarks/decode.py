"""Tokens a CPU-second of this sampler beside transformers' generate, in one process, the passes interleaved.

    python plum_core/sampling/benchmarks/decode.py                       # both shapes, fp32 and bf16, 1 and 2 threads
    python plum_core/sampling/benchmarks/decode.py --shapes embedded --dtypes float32 --threads 1 --passes 5 --save

Shapes: ``notes`` is a Qwen2 of 8 layers, width 896, 14:2 heads, MLP 4864 and a tied vocabulary of 151,936 with random
weights (0.26 B), 8 prompts x 8 samples; ``embedded`` is models/tiny/policy, 16 prompts x 8 samples = 128 rows. Prompts
have 64 tokens, answers 64, drawn at temperature 1 and none of them ended early. Before anything is timed, greedy ids
of the two are compared in fp32.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import transformers
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))
from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.training.initial import initial_decoder
from plum_models import Decoder, DecoderConfig, load
from plum_models.families import to_json

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = 8  # of each prompt
THEIRS = "transformers generate"
ENGINES = (
    "plum", "plum, packed", "plum, native", "plum, native, packed", "plum, kv budget",
    "plum, kv budget, packed", THEIRS,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is measured."""

    shapes: tuple[Literal["notes", "embedded"], ...] = ("notes", "embedded")
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    threads: tuple[int, ...] = (1, 2)
    prompt_tokens: int = 64
    new_tokens: int = 64
    engines: tuple[str, ...] = ENGINES
    passes: int = 3  # of every engine, after one that is not counted
    save: bool = False  # write JSON and Markdown below
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")

    def __post_init__(self) -> None:
        if THEIRS not in self.engines or not set(self.engines) <= set(ENGINES):
            raise ValueError(f"engines must be of {', '.join(ENGINES)}, the last among them; got {self.engines}")
        if min(*self.threads, self.prompt_tokens, self.new_tokens, self.passes) < 1:
            raise ValueError("threads, prompt_tokens, new_tokens and passes must be at least 1")


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


def theirs(decoder: Decoder) -> Any:
    """transformers' model on the same weights, not on copies."""
    raw = to_json(decoder.config)
    config = transformers.AutoConfig.for_model(**raw)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=decoder.head_weight.dtype)
    model.to_empty(device="cpu")
    names = decoder.state_dict()
    model.load_state_dict(
        {k if k.startswith("lm_head") else f"model.{k}": v for k, v in names.items()}, assign=True, strict=False
    )
    model.tie_weights()
    base = model.model
    base.rotary_emb = type(base.rotary_emb)(config)  # its table was empty
    model.generation_config = transformers.GenerationConfig()
    return model.eval()


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


def ours(decoder: Decoder, requests: list[Request], new: int, name: str) -> Callable[[], int]:
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
    )
    params = SamplingParams(max_new_tokens=new)
    return lambda: sum(len(c.token_ids) for c in sampler.sample(requests, params))


def generate(model: Any, requests: list[Request], new: int) -> Callable[[], int]:
    ids = torch.tensor([r.token_ids for r in requests])

    def work() -> int:
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            num_return_sequences=SAMPLES, max_new_tokens=new, pad_token_id=0,
        )  # fmt: skip
        return int(out[:, ids.shape[1] :].numel())

    return work


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


def measure(shape: str, dtype: str, config: Config) -> list[dict[str, object]]:
    """A row for every engine and number of threads."""
    decoder = make_decoder(shape).to(getattr(torch, dtype)).eval()
    requests = make_requests(16 if shape == "embedded" else 8, config.prompt_tokens, decoder.config.vocab_size)
    model = theirs(decoder)
    if dtype == "float32":
        torch.set_num_threads(max(config.threads))
        check(decoder, model, [Request(id=r.id, token_ids=r.token_ids, seeds=r.seeds[:1]) for r in requests])
    works = {
        name: generate(model, requests, config.new_tokens)
        if name == THEIRS
        else ours(decoder, requests, config.new_tokens, name)
        for name in config.engines
    }
    rows = []
    for threads in config.threads:
        torch.set_num_threads(threads)
        speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for number in range(1 + config.passes):
            for name, work in works.items():
                cpu, wall = time.process_time(), time.perf_counter()
                tokens = work()
                found = tokens / (time.process_time() - cpu), tokens / (time.perf_counter() - wall)
                if number:
                    speeds[name].append(found)
        for name in works:
            per_cpu, per_wall = zip(*speeds[name], strict=True)
            rows.append(
                {
                    "shape": shape, "dtype": dtype, "threads": threads, "engine": name,
                    "tokens_per_cpu_s": median(per_cpu), "lowest": min(per_cpu), "highest": max(per_cpu),
                    "tokens_per_s": median(per_wall),
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    return rows


def about() -> dict[str, object]:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "date": date.today().isoformat(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def table(rows: list[dict[str, Any]], place: dict[str, object], config: Config) -> str:
    command = " ".join(["python plum_core/sampling/benchmarks/decode.py", *sys.argv[1:]])
    lines = [
        ", ".join(f"{k} {v}" for k, v in place.items()),
        "",
        f"Medians of {config.passes} passes, interleaved; {config.prompt_tokens} + {config.new_tokens} tokens, "
        f"{SAMPLES} samples a prompt. Command: `{command}`.",
        "",
        "| shape | dtype | threads | engine | tokens a CPU-second (lowest to highest) | tokens a second | x generate |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        same = [x for x in rows if all(x[k] == r[k] for k in ("shape", "dtype", "threads"))]
        base = next(x["tokens_per_cpu_s"] for x in same if x["engine"] == THEIRS)
        lines.append(
            f"| {r['shape']} | {r['dtype']} | {r['threads']} | {r['engine']} | {r['tokens_per_cpu_s']:,.0f} "
            f"({r['lowest']:,.0f} to {r['highest']:,.0f}) | {r['tokens_per_s']:,.0f} "
            f"| {r['tokens_per_cpu_s'] / base:.2f} |"
        )
    return "\n".join(lines)


def main(config: Config) -> None:
    place = about()
    rows = [row for shape in config.shapes for dtype in config.dtypes for row in measure(shape, dtype, config)]
    text = table(rows, place, config)
    print(text)
    if config.save:
        config.results.mkdir(parents=True, exist_ok=True)
        name = f"{place['date']}-decode-{'-'.join(config.shapes)}"
        settings = {k: v if isinstance(v, int | tuple) else str(v) for k, v in asdict(config).items()}
        (config.results / f"{name}.json").write_text(json.dumps({**place, "config": settings, "rows": rows}, indent=1))
        (config.results / f"{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
