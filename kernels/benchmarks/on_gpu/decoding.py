"""Decoding: replayed steps against eager ones, tokens a second beside the roofline, and what sharing a prompt saves.

Random weights at the shapes of three decoders: time does not depend on what they say. A step's time is the difference
of two runs that differ in the number of new tokens alone, so that prefill and set-up drop out.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from on_gpu.bench import Bench, Row
from plum_kernels.decode_attention import Shared, decode_attention

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a decoder; head: the width of one, tied: whether the output matrix is the embedding."""

    layers: int
    width: int
    inner: int
    heads: int
    groups: int
    head: int
    vocabulary: int = 151936
    tied: bool = False

    @property
    def products(self) -> int:
        """Numbers of the matrices that a token is multiplied by."""
        attention = self.width * self.head * (2 * self.heads + 2 * self.groups)
        return self.layers * (attention + 3 * self.width * self.inner) + self.width * self.vocabulary

    @property
    def kv_bytes(self) -> int:
        """Of one token in bf16."""
        return self.layers * 2 * self.groups * self.head * 2


SHAPES = {
    "0.5B": Shape(24, 896, 4864, 14, 2, 64, tied=True),
    "1.5B": Shape(28, 1536, 8960, 12, 2, 128, tied=True),
    "7B": Shape(28, 3584, 18944, 28, 4, 128),
}
TINY = Shape(2, 32, 48, 4, 2, 8, vocabulary=61)
PROMPTS, SAMPLES, PROMPT_TOKENS = 32, 20, 512
FEW, MANY = 8, 72  # new tokens of the two runs


class _Endless:
    """A tokenizer whose samples end at their length alone."""

    eos_token_ids: frozenset[int] = frozenset()
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids: Any) -> str:
        return ""


def absent() -> str | None:
    """Why plum_core's sampler cannot be imported here; None where it can."""
    missing = [name for name in ("tokenizers", "jinja2", "safetensors") if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}, which this checkout's sampler imports" if missing else None


def _sampler(bench: Bench, shape: Shape, rows: int, graphs: bool) -> Any:
    import sys

    sys.path[:0] = [str(ROOT), str(ROOT / "models")]
    from plum_core.sampling import Sampler
    from plum_models import DecoderConfig
    from plum_models.decoder import Decoder

    config = DecoderConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.groups,
        head_dim=shape.head, max_position_embeddings=4096, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(bench.device):
        decoder = Decoder(config).to(torch.bfloat16).requires_grad_(False)
    tokens = rows * (MANY + 16) + (PROMPTS + 1) * (PROMPT_TOKENS + 16)
    return Sampler(decoder, _Endless(), max_rows=rows, kv_tokens=tokens, kv_block=16, graphs=graphs)


def _drawn(sampler: Any, prompts: int, samples: int, length: int, new: int) -> dict[Any, Any]:
    from plum_core.sampling import Request, SamplingParams

    g = torch.Generator().manual_seed(1)
    requests = [
        Request(
            id=str(i), token_ids=tuple(torch.randint(2, 60, (length,), generator=g).tolist()),
            seeds=tuple(range(i * samples, (i + 1) * samples)),
        )
        for i in range(prompts)
    ]  # fmt: skip
    done = sampler.sample(requests, SamplingParams(max_new_tokens=new))
    return {(c.request_id, c.index): c.token_ids for c in done}


def _same(bench: Bench) -> Row:
    if reason := absent() or ("needs a GPU" if bench.dry else None):
        return {"skipped": reason}
    shape = Shape(2, 256, 512, 4, 2, 64, vocabulary=1003)
    eager, replayed = (_drawn(_sampler(bench, shape, 24, on), 5, 6, 40, 24) for on in (False, True))
    assert eager == replayed, "replayed steps draw other ids than eager ones"
    return {"samples": len(eager)}


def check(bench: Bench) -> None:
    bench.item("decode: CUDA graphs draw the ids of eager steps", partial(_same, bench))


def _bandwidth(bench: Bench) -> Row:
    a = torch.empty(1 << (10 if bench.dry else 30), dtype=torch.uint8, device=bench.device)
    b = torch.empty_like(a)
    row = bench.measure(lambda: b.copy_(a), seconds=1.0)
    return row | ({"bytes_per_s": 2 * a.numel() / (row["ms"] * 1e-3)} if row["ms"] else {})


def _tokens(bench: Bench, shape: Shape, graphs: bool) -> Row:
    """Tokens a second of decode steps at 32 prompts x 20 samples, and their share of the roofline."""
    if reason := absent():
        return {"skipped": reason}
    prompts, samples, length = (2, 3, 5) if bench.dry else (PROMPTS, SAMPLES, PROMPT_TOKENS)
    rows = prompts * samples
    sampler = _sampler(bench, shape, rows, graphs and not bench.dry)
    seconds = []
    for new in (FEW, FEW, MANY):  # the first run compiles and captures
        start = time.perf_counter()
        _drawn(sampler, prompts, samples, length, new)
        if not bench.dry:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if bench.dry:
        return {"ms": None}
    step = (seconds[2] - seconds[1]) / (MANY - FEW)
    own = (FEW + MANY) / 2
    moved = 2 * shape.products + shape.kv_bytes * (prompts * length + rows * own)
    flops = rows * (2 * shape.products + 4 * shape.layers * shape.heads * shape.head * (length + own))
    row: Row = {"ms": step * 1e3, "tokens_per_s": rows / step}
    bandwidth = next((r["bytes_per_s"] for r in bench.rows if r.get("bytes_per_s")), None)
    if bandwidth and bench.ceiling:
        row["share_of_roofline"] = max(moved / bandwidth, flops / bench.ceiling) / step
    return row


def _generate(bench: Bench, shape: Shape) -> Row:
    """transformers' generate on the same shape, prompts and lengths."""
    if bench.dry or importlib.util.find_spec("transformers") is None:
        return {"skipped": "needs a GPU" if bench.dry else "transformers is not installed"}
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.groups,
        tie_word_embeddings=shape.tied, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    with torch.device("cuda"):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    ids = torch.randint(2, 60, (PROMPTS * SAMPLES, PROMPT_TOKENS), device="cuda")
    seconds = []
    for new in (FEW, FEW, MANY):
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.generate(ids, do_sample=True, max_new_tokens=new, min_new_tokens=new)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    step = (seconds[2] - seconds[1]) / (MANY - FEW)
    return {"ms": step * 1e3, "tokens_per_s": len(ids) / step}


def _attention(bench: Bench, shape: Shape, share: bool) -> Row:
    """One layer's decode attention with each prompt read once, or once for each of its samples."""
    prompts, samples, length, own = (2, 3, 32, 16) if bench.dry else (PROMPTS, SAMPLES, PROMPT_TOKENS, 48)
    block, device = 16, bench.device
    rows, shared_blocks, own_blocks = prompts * samples, length // block, own // block
    kv = torch.randn(
        2, shape.groups, prompts * shared_blocks + rows * own_blocks, block, shape.head, device=device
    ).bfloat16()  # fmt: skip
    q = torch.randn(rows, shape.heads, shape.head, device=device).bfloat16()
    heads = torch.arange(prompts * shared_blocks, device=device).view(prompts, -1).int()
    tails = torch.arange(rows * own_blocks, device=device).view(rows, -1).int() + prompts * shared_blocks
    lengths = torch.full((rows,), own, dtype=torch.int32, device=device)
    shared: Shared | None = None
    if share:
        members = torch.arange(rows, device=device, dtype=torch.int32).view(prompts, samples)
        shared = Shared(tables=heads, lengths=torch.full_like(lengths[:prompts], length), members=members)
    else:
        tails, lengths = torch.cat((heads.repeat_interleave(samples, 0), tails), 1), lengths + length

    def step() -> Tensor:
        return decode_attention(q, kv[0], kv[1], tails, lengths, shared, backend=bench.triton)

    return bench.measure(step, seconds=0.5)


def run(bench: Bench) -> None:
    bench.item("bandwidth of a copy", partial(_bandwidth, bench))
    shapes = {"tiny": TINY} if bench.dry else SHAPES
    for name, shape in shapes.items():
        for share in (True, False):
            title = "prompt read once" if share else "prompt read by every sample"
            bench.item(f"{name}: decode attention, {title}", partial(_attention, bench, shape, share))
        for graphs in (False, True):
            title = f"{name}: decode, {'CUDA graphs' if graphs else 'eager'}"
            bench.item(title, partial(_tokens, bench, shape, graphs))
        bench.item(f"{name}: transformers' generate", partial(_generate, bench, shape), ours=False)
