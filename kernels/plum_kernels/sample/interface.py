"""``sample_tokens``: what is checked, and which back end runs."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from plum_kernels.sample.reference import Draw, reference_sample_tokens

BACKENDS = ("auto", "reference", "triton")


def sample_tokens(
    logits: Tensor,  # (R, V) fp32, bf16 or fp16, the last dimension dense
    seeds: Tensor,  # (R,) int64
    positions: Tensor,  # (R,) int64: the number of the token within its sample
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    prompt: Tensor | None = None,  # (R, P) int64, -1 where there is none: what repetition counts beside drawn
    drawn: Tensor | None = None,  # (R, T) int64, -1 where there is none: what all three penalties count
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """One token a row by inverse CDF: (R,) int64, and its log-prob under the untempered and the sampled distribution.

    The uniform is a function of (seed, position), and a row's result one of that row: neither batch nor order enters.
    Penalties come first (``reference.penalised``), then top-k, top-p and min-p, each of which keeps every logit from
    some value up: of logits that tie at the border all are kept. temperature 0 takes the first of the highest logits,
    with log-prob 0 under what was sampled. Log-probs are fp32, nats; the untempered one is of the logits as given.

    backend: "triton" (a GPU) is one launch, and one before it where there are penalties; "reference" the definition;
    "auto" is "triton" on a GPU. Raises ValueError for what does not fit.
    """
    draw = Draw(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty, frequency_penalty=frequency_penalty,
    )  # fmt: skip
    none = seeds.new_empty((len(logits), 0))
    prompt, drawn = (none if x is None else x for x in (prompt, drawn))
    _check(logits, seeds, positions, prompt, drawn, draw)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "reference" or (backend == "auto" and not logits.is_cuda):
        return reference_sample_tokens(logits, seeds, positions, draw, prompt, drawn)
    if not (logits.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        raise ValueError(f"backend triton needs a GPU, got tensors on {logits.device}: use backend='reference'")
    from plum_kernels.sample.triton_backend import launch  # triton is only on Linux

    return launch(logits, seeds, positions, draw, prompt, drawn)


def _check(logits: Tensor, seeds: Tensor, positions: Tensor, prompt: Tensor, drawn: Tensor, draw: Draw) -> None:
    if logits.dim() != 2 or logits.shape[1] == 0 or logits.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(
            f"logits must be (R, V) fp32, bf16 or fp16 with V above 0, got {logits.dtype} {tuple(logits.shape)}"
        )
    if logits.stride(1) != 1:
        raise ValueError("the last dimension of logits must be dense: call contiguous()")
    rows = len(logits)
    for name, x, rank in (("seeds", seeds, 1), ("positions", positions, 1), ("prompt", prompt, 2), ("drawn", drawn, 2)):
        if x.dtype != torch.int64 or x.dim() != rank or len(x) != rows or x.device != logits.device:
            raise ValueError(
                f"{name} must be int64 of {rank} dimensions and {rows} rows on {logits.device}, got {x.dtype} "
                f"{tuple(x.shape)} on {x.device}"
            )
    if not 0 <= draw.temperature < math.inf:
        raise ValueError(f"temperature must be 0 (greedy) or more, got {draw.temperature}")
    if draw.top_k < 0 or not 0 < draw.top_p <= 1 or not 0 <= draw.min_p <= 1:
        raise ValueError(
            f"top_k >= 0, 0 < top_p <= 1 and 0 <= min_p <= 1 must hold, got {draw.top_k}, {draw.top_p}, {draw.min_p}"
        )
    if not 0 < draw.repetition_penalty < math.inf:
        raise ValueError(f"repetition_penalty must be above 0 (1 is off), got {draw.repetition_penalty}")
