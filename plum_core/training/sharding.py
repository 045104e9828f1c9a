"""Weights, gradients and moments in parts on every rank: FSDP2 (arXiv 2304.11277; torch's ``fully_shard``).

A twin of the decoder is sharded by layers; the decoder itself waits on the host and takes the result. Each forward and
backward of the twin gathers a layer's weights from all ranks, so every rank must do as many: ``even`` fills up the
micro-batches of those that have fewer, ``idle`` is what they do then. Gradients are summed over ranks, not averaged:
losses are already divided by the whole step's counts.

With tensor parallelism (``splitting``) ranks stand in a grid: those of a row share matrices and do the same items, and
a weight lies in parts along both ways. What a row does not split each of it has, and ``agree`` keeps it the same.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate

from plum_core.training.batches import Example
from plum_core.training.logps import completion_logps
from plum_core.training.options import StepOptions
from plum_core.training.splitting import TENSOR, is_split, row_of, split_matrices
from plum_core.training.world import World
from plum_models.compiled import compiled
from plum_models.decoder import Decoder

Shard = Literal["none", "fsdp", "hsdp"]


def make_mesh(kind: Shard, world: World, device: torch.device, tensor_parallel: int = 1) -> DeviceMesh:
    """All ranks in one dimension; under hsdp copies on every node, of parts on the ranks of one.

    tensor_parallel: neighbours that share matrices, the innermost dimension, ``tensor``; left out where it is 1.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world.size)))
    if kind == "hsdp" and world.size % local:
        raise ValueError(f"shard = hsdp needs as many ranks on every node, got {world.size} with {local} on this one")
    together = local if kind == "hsdp" else world.size
    if together % tensor_parallel:
        raise ValueError(f"tensor_parallel = {tensor_parallel} must divide the {together} ranks that share weights")
    sizes = {"replicate": world.size // local} if kind == "hsdp" else {}
    sizes["shard"] = together // tensor_parallel
    if tensor_parallel > 1:
        sizes[TENSOR] = tensor_parallel
    return init_device_mesh(device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))


def sharers_of_items(world: World, device: torch.device, tensor_parallel: int) -> World:
    """The ranks that share a step's items with this one: one of each row of those that share matrices."""
    if tensor_parallel == 1:
        return world
    rows = world.size // tensor_parallel
    grid = init_device_mesh(device.type, (rows, tensor_parallel), mesh_dim_names=("row", TENSOR))
    return World(rank=world.rank // tensor_parallel, size=rows, group=grid["row"].get_group())


def sharded_twin(
    decoder: Decoder, kind: Shard, world: World, *, bf16: bool = False, tensor_parallel: int = 1
) -> Decoder:
    """A twin of ``decoder`` (fp32) whose weights lie in parts on the ranks of ``world``; ``decoder`` goes to the host.

    bf16: gathered weights, activations and their gradients are bf16; the parts that are stepped and the sum of
    gradients over ranks are fp32. Raises ValueError for a world of one, and for sizes that do not divide.
    """
    if world.size == 1:
        raise ValueError(
            f"shard = {kind} splits weights over ranks, and there is one: start with torchrun, or shard none"
        )
    device = next(decoder.parameters()).device
    twin = copy.deepcopy(decoder.cpu())
    mesh = make_mesh(kind, world, device, tensor_parallel)
    if tensor_parallel > 1:
        split_matrices(twin, mesh[TENSOR])
        mesh = mesh[tuple(name for name in mesh.mesh_dim_names or () if name != TENSOR)]
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)  # rotary tables stay fp32
    if bf16:
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for layer in twin.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    # the rest stays whole between the forward and the head, which reads its weight outside of any module
    fully_shard(twin, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in twin.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return twin.to(device)


@contextmanager
def at_work(
    decoder: Decoder, options: StepOptions, world: World, *, bf16: bool = False
) -> Iterator[tuple[Decoder, World]]:
    """What is trained in ``decoder``'s place, and the ranks that share a step's items.

    It is the decoder itself, or its sharded twin, whose weights it takes at the end.
    """
    layers = compiled if options.compile else nullcontext
    if options.shard == "none":
        with layers(decoder):
            yield decoder, world
        return
    device = next(decoder.parameters()).device
    parts = options.tensor_parallel
    twin = sharded_twin(decoder, options.shard, world, bf16=bf16, tensor_parallel=parts)
    with layers(twin):
        yield twin, sharers_of_items(world, device, parts)
    collect(twin, decoder, device)


@torch.no_grad()
def collect(twin: nn.Module, decoder: nn.Module, device: torch.device) -> None:
    """The twin's weights, put together, into ``decoder`` on every rank, which goes to ``device``."""
    release(twin)
    for (_, part), (_, weight) in zip(twin.named_parameters(), decoder.named_parameters(), strict=True):
        weight.copy_(whole(part))
    decoder.to(device)


def release(module: nn.Module) -> None:
    """Let go of gathered weights: the parts were stepped, or nobody will ask for a gradient."""
    if isinstance(module, FSDPModule):
        module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which ``tensor`` may be a part; all ranks must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, part: Tensor) -> Tensor:
    """A whole ``tensor``, the same on every rank, placed as ``part`` is; without a message."""
    if not isinstance(part, DTensor) or isinstance(tensor, DTensor):
        return tensor
    everywhere = [Replicate()] * part.device_mesh.ndim
    placed = DTensor.from_local(tensor.to(part.device), part.device_mesh, everywhere, run_check=False)
    return placed.redistribute(placements=part.placements)


@torch.no_grad()
def agree(weights: Sequence[Tensor]) -> None:
    """The mean over a row, of the gradients of weights that no rank of it has a part of.

    They are sums of the same terms, but a kernel need not add them in the same order twice, and copies that differ
    drift apart.
    """
    group = next((row for row in map(row_of, weights) if row is not None), None)
    if group is None:
        return
    alike = [w.grad.to_local() for w in weights if isinstance(w.grad, DTensor) and not is_split(w)]
    flat = torch.cat([grad.flatten() for grad in alike])
    torch.distributed.all_reduce(flat, group=group)
    flat /= torch.distributed.get_world_size(group)
    for grad, part in zip(alike, flat.split([grad.numel() for grad in alike]), strict=True):
        grad.copy_(part.view_as(grad))


def clip(weights: Sequence[Tensor], most: float) -> float:
    """Scale all gradients down to a norm of ``most`` together where it is above; the norm as it was."""
    by_mesh: dict[DeviceMesh | None, list[Tensor]] = {}
    for w in weights:
        by_mesh.setdefault(w.device_mesh if isinstance(w, DTensor) else None, []).append(w)
    norms = [whole(nn.utils.get_total_norm([w.grad for w in of if w.grad is not None])) for of in by_mesh.values()]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for of in by_mesh.values():
        nn.utils.clip_grads_with_norm_(of, most, norm)
    return float(norm)


def even(groups: Sequence[list[int]], decoder: nn.Module, world: World) -> list[list[int]]:
    """``groups``, and as many empty ones as the rank that has most has more."""
    if not isinstance(decoder, FSDPModule):
        return list(groups)
    counts = torch.zeros(world.size, dtype=torch.int64)
    counts[world.rank] = len(groups)
    return [*groups, *([] for _ in range(int(world.all_reduce(counts).max()) - len(groups)))]


def idle(decoder: Decoder) -> None:
    """Help the other ranks gather weights and sum gradients, and add nothing."""
    logps = completion_logps(decoder, [Example(prompt_ids=(0,), completion_ids=(0,))])
    if torch.is_grad_enabled():
        (0 * logps.sum()).backward()
