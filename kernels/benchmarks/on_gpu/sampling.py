"""The draw and the decode step: checks of both, and what they take at the shapes of three decoders."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from on_gpu.bench import Bench, Row
from plum_kernels.sample import sample_tokens

DRAWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature 0.7": {"temperature": 0.7},
    "top-k 50": {"top_k": 50},
    "top-p 0.95": {"top_p": 0.95},
    "all filters": {"temperature": 0.8, "top_k": 100, "top_p": 0.9, "min_p": 0.02},
    "greedy": {"temperature": 0.0},
    "penalties": {"repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2},
}


def _case(bench: Bench, rows: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(6)
    past = {
        "prompt": torch.randint(0, vocabulary, (rows, 60), generator=g),
        "drawn": torch.randint(-1, vocabulary, (rows, 30), generator=g),
    }
    seeds = torch.randint(0, 2**62, (rows,), generator=g)
    logits = (torch.randn(rows, vocabulary, generator=g) * 3).to(dtype)
    made = {"logits": logits, "seeds": seeds, "positions": torch.arange(rows), **past}
    return {name: x.to(bench.device) for name, x in made.items()}


def _check(bench: Bench, options: dict[str, Any], dtype: torch.dtype) -> Row:
    """The definition's tokens, but for draws that lie on a rounding of the border between two."""
    case = _case(bench, 64, 5003, dtype)
    want = sample_tokens(**case, **options, backend="reference")
    got = sample_tokens(**case, **options, backend=bench.triton)
    same = got[0] == want[0]
    assert same.float().mean() >= 0.98, f"{int((~same).sum())} of 64 tokens differ"
    error = max(float((a - b)[same].abs().max()) for a, b in zip(got[1:], want[1:], strict=True))
    assert error <= 1e-4, f"log-probs differ by {error:.3g}"
    return {"differing": int((~same).sum()), "error": error}


def _invariant(bench: Bench) -> Row:
    case = _case(bench, 64, 5003, torch.bfloat16)
    options = {**DRAWS["all filters"], **DRAWS["penalties"], "backend": bench.triton}
    whole = sample_tokens(**case, **options)
    for row in (0, 17, 63):
        alone = sample_tokens(**{name: x[row : row + 1] for name, x in case.items()}, **options)
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, whole, strict=True)), f"row {row} depends on others"
    return {"rows": 3}


def check(bench: Bench) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for name, options in DRAWS.items():
            bench.item(f"sample_tokens {name} {str(dtype)[6:]}", partial(_check, bench, options, dtype))
    bench.item("sample_tokens: a row alone gives the same bits", partial(_invariant, bench))


def _timed(bench: Bench, options: dict[str, Any], backend: str) -> Row:
    case = _case(bench, 4, 64, torch.bfloat16) if bench.dry else _case(bench, 640, 151936, torch.bfloat16)
    if not options.get("repetition_penalty"):
        case = {name: x for name, x in case.items() if name not in ("prompt", "drawn")}
    return bench.measure(lambda: sample_tokens(**case, **options, backend=backend), seconds=1.0)


def _sorted(bench: Bench) -> Row:
    """Top-p by torch's own sort, cumsum and multinomial."""
    logits = _case(bench, 4, 64, torch.bfloat16)["logits"] if bench.dry else _case(bench, 640, 151936, torch.bfloat16)[
        "logits"
    ]  # fmt: skip

    def step() -> None:
        ordered, order = logits.float().sort(-1, descending=True)
        chances = ordered.softmax(-1)
        chances = chances.masked_fill(chances.cumsum(-1) - chances >= 0.95, 0.0)
        order.gather(-1, chances.multinomial(1))

    return bench.measure(step, seconds=1.0)


def tables(bench: Bench) -> None:
    for name, options in DRAWS.items():
        bench.item(f"draw 640 x 151936, {name}", partial(_timed, bench, options, bench.triton))
    bench.item("draw 640 x 151936, top-p 0.95 by torch's sort", partial(_sorted, bench))
