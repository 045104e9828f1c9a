"""What is timed: log-probs forward, forward and backward, a DPO step's head, and the decoder's kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from on_gpu import peers, sampling
from on_gpu.bench import Bench, Row
from plum_kernels import (
    add_rms_norm,
    linear_logprob,
    linear_preference,
    norm_rotate,
    packed_attention,
    preference_loss,
    split_qkv,
    swiglu,
)
from plum_kernels.attention.interface import ATTENTION_BACKENDS, available

SMALL = ("swiglu", "add_rms_norm", "norm_rotate", "split_qkv")
TOLERANCE = 3e-2  # relative, by norm, of bf16 results to those of the naive path


def logits(bench: Bench, n: int, d: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states and a head whose logits have a standard deviation of 3, and targets."""
    g = torch.Generator(bench.device).manual_seed(0)
    x = torch.randn(n, d, generator=g, device=bench.device).bfloat16()
    w = (torch.randn(v, d, generator=g, device=bench.device) * 3 * d**-0.5).bfloat16()
    return x, w, torch.randint(0, v, (n,), generator=g, device=bench.device)


def agree(got: Tensor, want: Tensor) -> None:
    error = float((got.double() - want.double()).norm() / want.double().norm())
    assert error <= TOLERANCE, f"relative error {error:.3g} to the naive path"


def _step(method: peers.Method, arrays: tuple[Tensor, Tensor, Tensor], train: tuple[bool, bool]) -> list[Tensor]:
    """Mean negative log-prob and the gradients that are wanted."""
    x, w = (t.detach().requires_grad_(on) for t, on in zip(arrays[:2], train, strict=True))
    loss = method(x, w, arrays[2]).mean()
    if any(train):
        loss.backward()
    return [loss.detach(), *(t.grad for t in (x, w) if t.grad is not None)]


def _ours(bench: Bench, backend: str, x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return -linear_logprob(x, w, y, backend="reference" if bench.dry else backend).logp


def _logprob_row(
    bench: Bench, method: peers.Method | str, shape: tuple[int, int, int], train: tuple[bool, bool]
) -> Row:
    if isinstance(method, str):
        return {"skipped": method}
    n, d, v = shape
    arrays = logits(bench, n, d, v)
    few = (arrays[0][:512], arrays[1], arrays[2][:512])
    for got, want in zip(_step(method, few, train), _step(peers.naive, few, train), strict=True):
        agree(got, want)
    passes = 2 + 2 * sum(train)  # what any exact way needs: recomputing counts against the one that does it
    return bench.measure(partial(_step, method, arrays, train), passes * float(n) * d * v)


def _dpo_inputs(bench: Bench) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(8 pairs, 16384 padded tokens, 45 % scored): x (T, D), w, targets (T,), cu_seqlens, reference states."""
    sequences, length, d, v = (4, 16, 8, 64) if bench.dry else (16, 1024, 4096, 152064)
    x, w, y = logits(bench, sequences * length, d, v)
    at = torch.arange(sequences * length, device=bench.device) % length
    y = torch.where(at >= length - int(0.45 * length), y, -100)
    cu = torch.arange(0, sequences * length + 1, length, device=bench.device)
    return x, w, y, cu, (x + torch.randn_like(x) * 0.05).detach()


def _dpo(bench: Bench, way: str, threshold: float, cached: bool, frozen: bool = False) -> Row:
    x, w, y, cu, ref_x = _dpo_inputs(bench)
    dropped: list[float] = []
    kept = linear_logprob(ref_x, w, y, backend=bench.triton).logp if cached else None

    def step() -> None:
        with torch.no_grad():
            ref = linear_logprob(ref_x, w, y, backend=bench.triton).logp if kept is None else kept
        a, b = x.detach().requires_grad_(), w.detach().requires_grad_(not frozen)
        if way == "one visit":
            out = linear_preference(a, b, y, cu, ref, objective="dpo", threshold=threshold, backend=bench.triton)
            if not dropped:
                dropped.append(float(out.dropped.sum()))
            out.loss.backward()
        else:
            logps = linear_logprob(a, b, y, backend=bench.triton).logp
            preference_loss(logps, cu, ref, objective="dpo", scored=y != -100).losses.mean().backward()

    row = bench.measure(step)
    return row | ({"dropped": dropped[0]} if threshold else {})


def _liger_dpo(bench: Bench) -> Row:
    if not peers.has("liger_kernel"):
        return {"skipped": "not installed"}
    if bench.dry:
        return {"skipped": "needs a GPU"}
    x, w, y, cu, ref_x = _dpo_inputs(bench)
    sequences = len(cu) - 1
    order = torch.cat((torch.arange(0, sequences, 2), torch.arange(1, sequences, 2)))  # chosen first

    def step() -> None:
        a, b = x.detach().view(sequences, -1, x.shape[1])[order].requires_grad_(), w.detach().requires_grad_()
        targets = y.view(sequences, -1)[order]
        peers.liger_dpo(a, b, targets, ref_x.view(sequences, -1, x.shape[1])[order], w).backward()

    return bench.measure(step)


def _small(bench: Bench, name: str, backend: str) -> Row:
    rows, width = (8, 256) if bench.dry else (8192, 4096)
    x, other = (torch.randn(rows, width, device=bench.device).bfloat16().requires_grad_() for _ in range(2))
    weight = torch.ones(width, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
    head = torch.ones(64, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
    angles = torch.randn(rows, 32, device=bench.device)
    cos, sin = (torch.cat((t, t), -1) for t in (angles.cos(), angles.sin()))
    split = partial(split_qkv, groups=1 if bench.dry else 8, head_width=64)
    calls: dict[str, Callable[[], tuple[Tensor, ...]]] = {
        "swiglu": lambda: (swiglu(x, other, backend=backend),),
        "add_rms_norm": lambda: add_rms_norm(x, other, weight, 1e-6, backend=backend),
        "norm_rotate": lambda: (norm_rotate(x.view(rows, -1, 64), cos, sin, head, backend=backend),),
        "split_qkv": lambda: split(x, cos, sin, q_weight=head, k_weight=head, backend=backend),
    }

    def step() -> None:
        out = calls[name]()
        torch.autograd.backward(out, [torch.ones_like(part) for part in out])

    return bench.measure(step, seconds=1.0)


def _attention(bench: Bench, backend: str) -> Row:
    lengths, heads = ([3, 9, 4], 2) if bench.dry else ([512, 1024, 200, 2048, 312, 4096], 32)
    cu = torch.tensor([0, *lengths], device=bench.device).cumsum(0)
    q, k, v = (
        torch.randn(sum(lengths), h, 64, device=bench.device).bfloat16().requires_grad_()
        for h in (heads, heads // 2, heads // 2)
    )
    if reason := available(backend, q):
        return {"skipped": reason}

    def step() -> None:
        packed_attention(q, k, v, cu, max(lengths), backend=backend).float().sum().backward()

    return bench.measure(step, seconds=2.0)


def run(bench: Bench) -> None:
    shape = (24, 8, 64) if bench.dry else (8192, 4096, 152064)
    ours = {"plum linear_logprob": "triton", "plum linear_logprob, hybrid": "hybrid"}
    methods: dict[str, peers.Method | str] = {name: partial(_ours, bench, way) for name, way in ours.items()}
    methods |= peers.logprob_peers(bench.dry)
    for title, train in (("forward", (False, False)), ("frozen head", (True, False)), ("trained head", (True, True))):
        for name, method in methods.items():
            own = name.startswith("plum")
            bench.item(f"{title}: {name}", partial(_logprob_row, bench, method, shape, train), ours=own)
    bench.item("dpo step: Liger fused DPO, all rows", partial(_liger_dpo, bench), ours=False)
    bench.item("dpo step: plum apart", partial(_dpo, bench, "apart", 0.0, False))
    bench.item("dpo step: plum one visit", partial(_dpo, bench, "one visit", 0.0, False))
    bench.item("dpo step: plum one visit, cached reference", partial(_dpo, bench, "one visit", 0.0, True))
    bench.item("dpo step: plum one visit, filter 1e-5", partial(_dpo, bench, "one visit", 1e-5, False))
    bench.item("dpo step: plum apart, frozen head", partial(_dpo, bench, "apart", 0.0, False, True))
    for name in SMALL:
        for backend in ("reference", bench.triton):
            bench.item(f"{name}: {backend}", partial(_small, bench, name, backend))
    for backend in ATTENTION_BACKENDS[:-1]:
        bench.item(f"packed_attention: {backend}", partial(_attention, bench, backend))
    sampling.tables(bench)
