"""A head weight whose rows, the vocabulary, lie in parts on several ranks: every rank scores against its own part.

With z in parts r, lse_r the logsumexp of a part: lse = log sum_r exp(lse_r), the target's z comes from the rank that
has it, and the mean of z is sum_r exp(lse_r - lse) mean_r. Three numbers a row cross the ranks, never logits; backward
sums the hidden states' gradient over ranks (Megatron-LM, arXiv 1909.08053, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

Local = Callable[..., tuple[Tensor, Tensor, Tensor | None]]


class _Enter(torch.autograd.Function):
    """What all ranks hold alike, as each uses it by itself; the gradients of all uses are summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _reduced(grad, dist.ReduceOp.SUM, ctx.group), None


class _Sum(torch.autograd.Function):
    """The sum over ranks, which all of them use alike: each one's gradient is its own already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return _reduced(x, dist.ReduceOp.SUM, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def _reduced(x: Tensor, op: Any, group: dist.ProcessGroup) -> Tensor:
    out = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out, op, group=group)
    return out


def sum_over(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Differentiable: the sum of every rank's ``x``, from which all of them go on alike."""
    out: Tensor = _Sum.apply(x, group)
    return out


def logsumexp_over(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """log of the sum over ranks of exp(x), elementwise, without a gradient."""
    top = _reduced(x, dist.ReduceOp.MAX, group)
    return top + _reduced((x.detach() - top).exp(), dist.ReduceOp.SUM, group).log()


def rows_of(weight: DTensor) -> int:
    """The first row of ``weight``, (V, D), that lies on this rank. Raises ValueError unless its rows are split."""
    if weight.device_mesh.ndim != 1 or tuple(weight.placements) != (Shard(0),):
        raise ValueError(
            f"a head weight in parts must be split by rows over one mesh dimension, got {weight.placements}: "
            "distribute it as [Shard(0)]"
        )
    if len(weight) < weight.device_mesh.size():
        raise ValueError(f"a vocabulary of {len(weight)} does not go over {weight.device_mesh.size()} ranks")
    _, offset = compute_local_shape_and_global_offset(weight.shape, weight.device_mesh, weight.placements)
    return int(offset[0])


def over_ranks(
    local: Local,
    hidden: Tensor,
    weight: DTensor,
    targets: Tensor,
    bias: Tensor | None,
    *,
    ignore_index: int,
    entropy: bool,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``local`` on each rank's rows of ``weight``, put together: the same values on every rank.

    hidden and targets are the same on every rank; so must be what is made of the results, for a rank's gradient is its
    own upstream's. bias: (V,), split as the weight is. Raises ValueError where the parts do not fit, or a target is
    outside the vocabulary.
    """
    first, group = rows_of(weight), weight.device_mesh.get_group()
    part = weight.to_local()
    if bias is not None and not (isinstance(bias, DTensor) and tuple(bias.placements) == (Shard(0),)):
        raise ValueError("the bias of a head weight in parts must be split as the weight is: [Shard(0)]")
    scored = targets != ignore_index
    if bool((scored & ((targets < 0) | (targets >= len(weight)))).any()):
        raise ValueError(f"targets must lie in [0, {len(weight)}) or be {ignore_index}, the ignored")
    mine = scored & (targets >= first) & (targets < first + len(part))
    own = torch.where(mine, targets - first, torch.where(scored, 0, targets))  # elsewhere any row will do
    logp, lse, h = local(
        _Enter.apply(hidden, group),
        part,
        own,
        bias=None if bias is None else bias.to_local(),
        ignore_index=ignore_index,
        entropy=entropy,
        **options,
    )
    top = _reduced(lse, dist.ReduceOp.MAX, group)
    mass = (lse - top).exp()
    sums = [mass, torch.where(mine, logp + lse, 0.0)]
    if h is not None:
        sums.append(mass * (lse - h))  # entropy is logsumexp less the mean of z
    total = sum_over(torch.stack(sums), group)
    logsumexp = torch.where(scored, top + total[0].log(), 0.0)
    logp = torch.where(scored, total[1] - logsumexp, 0.0)
    if h is not None:
        h = torch.where(scored, logsumexp - total[2] / total[0], 0.0)
    return logp, logsumexp, h
