"""The compiled functions on tensors on the CPU, all contiguous. References: ``reference``.

What comes in and goes out (x, gate_up, qkv, logits, out) is fp32 or bf16, one of them; keys, values, tables and
weights of norms are fp32, and so is the arithmetic. Letters in shapes: R rows, H query and G key/value heads, E head
width (a multiple of 16), P prompts, S places of a prompt and C of a row's own tokens (multiples of 32), V vocabulary,
T positions in the tables.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from plum_kernels.cpu_decode.build import library

LANES, PLACES, BLOCK = 16, 32, 64
ALONE = 1 << 25  # multiplications, 0.1 ms: less is done by one thread, for on a busy machine others are waited for long
SILU, SCORE, NORM = 128, 8, 4  # multiplications of a product that take as long as one number's work of each of these


DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
Function = Callable[..., None]


@functools.cache
def compiled(name: str, dtype: torch.dtype) -> Function:
    """A function of decode.cpp for fp32 or bf16, on addresses and numbers: nothing is checked."""
    if dtype not in DTYPES:
        raise ValueError(f"{name} takes fp32 or bf16, got {dtype}")
    return getattr(library(), f"plum_{name}_{DTYPES[dtype]}")


def workers(multiplications: int) -> int:
    """How many threads share so much work: torch's, or one."""
    return 1 if multiplications < ALONE else torch.get_num_threads()


def _call(name: str, *arguments: Tensor | int | float) -> None:
    """The first argument's dtype decides."""
    for x in arguments:
        if isinstance(x, Tensor) and not (x.device.type == "cpu" and x.is_contiguous()):
            raise ValueError(f"{name} takes contiguous tensors on the CPU, got strides {x.stride()} on {x.device}")
    assert isinstance(arguments[0], Tensor)
    addresses = (x.data_ptr() if isinstance(x, Tensor) else x for x in arguments)
    compiled(name, arguments[0].dtype)(*addresses)


def _check(**tensors: tuple[Tensor, tuple[int, ...], torch.dtype]) -> None:
    for name, (x, shape, dtype) in tensors.items():
        if tuple(x.shape) != shape or x.dtype != dtype:
            raise ValueError(f"{name} must be {dtype} {shape}, got {x.dtype} {tuple(x.shape)}")


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    """``plum_kernels.rms_norm`` of x (R, D) with weight (D,), into out (R, D)."""
    shape = (x.shape[0], x.shape[1])
    _check(x=(x, shape, x.dtype), weight=(weight, shape[1:], torch.float32), out=(out, shape, x.dtype))
    _call("rms_norm", x, weight, out, *shape, workers(NORM * x.numel()), eps)


def silu_mul(gate_up: Tensor, out: Tensor) -> None:
    """silu(gate) * up of gate_up (R, 2I), the gate first, into out (R, I) (Shazeer 2020)."""
    rows, inner = out.shape
    _check(gate_up=(gate_up, (rows, 2 * inner), gate_up.dtype), out=(out, (rows, inner), gate_up.dtype))
    _call("silu_mul", gate_up, out, rows, inner, workers(SILU * out.numel()))


def attend(
    qkv: Tensor,
    turns: tuple[Tensor, Tensor],
    positions: Tensor,
    owners: Tensor,
    lengths: Tensor,
    prompts: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    out: Tensor,
    work: Tensor,
) -> None:
    """One token a row: rotate q and k, write k and v behind the row's own tokens, attend to the prompt and to those.

    qkv: (R, (H + 2G) * E) before rotation. turns: cos and signed sin, (T, E). positions, owners, lengths: (R,) int64,
    the token's position, the row's prompt in [0, P) and that prompt's tokens. prompts: keys (P, G, E, S), transposed,
    and values (P, G, S, E). own: keys (R or more, G, E, C) and values (R or more, G, C, E), where position - length is
    the place. out: (R, H * E). work: ``work_size`` numbers for each of torch's threads. Scores are divided by sqrt(E).
    """
    keys, values = prompts
    rows, (_, groups, width, places) = len(qkv), keys.shape
    own_places, real = own[0].shape[3], torch.float32
    heads = qkv.shape[1] // width - 2 * groups
    if width % LANES or places % PLACES or own_places % PLACES or heads % groups:
        raise ValueError(f"E must be a multiple of {LANES}, S and C of {PLACES}, H of G; got {tuple(keys.shape)}")
    _check(
        values=(values, (len(keys), groups, places, width), real),
        own_keys=(own[0], (len(own[0]), groups, width, own_places), real),
        own_values=(own[1], (len(own[0]), groups, own_places, width), real),
        qkv=(qkv, (rows, (heads + 2 * groups) * width), qkv.dtype),
        out=(out, (rows, heads * width), qkv.dtype),
        sin=(turns[1], (len(turns[0]), width), real),
        **{
            n: (x, (rows,), torch.int64)
            for n, x in (("positions", positions), ("owners", owners), ("lengths", lengths))
        },
    )
    size = work_size(heads, groups, width, places, own_places)
    threads = workers(SCORE * rows * heads * width * (places + own_places))
    if len(own[0]) < rows or work.numel() < size * threads:
        raise ValueError(f"room for {len(own[0])} of {rows} rows, and {work.numel()} numbers of work")
    _call(
        "attend", qkv, *turns, positions, owners, lengths, *prompts, *own, out, work, rows, heads, groups, width,
        places, own_places, size, threads, width**-0.5,
    )  # fmt: skip


def work_size(heads: int, groups: int, width: int, places: int, own_places: int) -> int:
    """Numbers that each thread of ``attend`` needs for itself."""
    return 4 * (places + own_places) + (heads // groups + 2 * (heads + groups)) * width


def draw(logits: Tensor, seeds: Tensor, numbers: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """A token a row by inverse CDF at the uniform of (seed, number), SplitMix64's; temperature 0 is the largest logit.

    logits: (R, V); seeds, numbers: (R,) int64. Returns tokens (R,) int64 and their log-probs under the untempered and
    under the sampled distribution, (R,) fp32 each.
    """
    rows, width = logits.shape
    _check(
        logits=(logits, (rows, width), logits.dtype),
        seeds=(seeds, (rows,), torch.int64),
        numbers=(numbers, (rows,), torch.int64),
    )
    out = torch.empty(rows, dtype=torch.int64), torch.empty(rows), torch.empty(rows)
    work = torch.empty(rows * -(-width // BLOCK))
    _call("draw", logits, seeds, numbers, *out, work, rows, width, workers(SILU * logits.numel()), float(temperature))
    return out
