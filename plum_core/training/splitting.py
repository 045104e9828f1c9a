"""Tensor parallelism: matrices of MLPs and head in parts on neighbouring ranks (arXiv 1909.08053, section 3).

The first matrices of an MLP are split by columns of their output, the last one by rows of its input, so a layer sums
once over the ranks. Of the head each rank has a part of the vocabulary, and of a tied embedding with it; log-probs are
put together by ``linear_logprob``. Attention and norms stay whole.
"""

from __future__ import annotations

import logging

from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from plum_models.decoder import Decoder
from plum_models.mlp import GatedMLP, PlainMLP

TENSOR = "tensor"  # the mesh dimension of ranks that share matrices
FIRST, LAST = ("gate_proj", "up_proj", "c_fc"), ("down_proj", "c_proj")


def split_matrices(decoder: Decoder, mesh: DeviceMesh) -> None:
    """Split ``decoder`` in place over ``mesh``, of one dimension; every rank holds the same weights before.

    Raises ValueError for a width or a vocabulary that does not go evenly over the ranks, and for sparse MLPs.
    """
    c, ranks = decoder.config, mesh.size()
    if c.sparse_layers:
        raise ValueError(f"tensor_parallel = {ranks} splits dense MLPs, and this decoder has sparse ones: set it to 1")
    for name in ("intermediate_size", "vocab_size"):
        if getattr(c, name) % ranks:
            raise ValueError(f"tensor_parallel = {ranks} must divide {name}, which is {getattr(c, name)}")
    # each weight is gathered along one way after the other, which torch would say at every one
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    same = PrepareModuleInput(input_layouts=(Replicate(),), desired_input_layouts=(Replicate(),))
    for layer in decoder.layers:
        assert isinstance(layer.mlp, GatedMLP | PlainMLP)  # the sparse ones were refused
        plan: dict[str, ParallelStyle] = {"": same}
        for name, _ in layer.mlp.named_children():
            if name in (*FIRST, *LAST):
                plan[name] = ColwiseParallel() if name in FIRST else RowwiseParallel()
        parallelize_module(layer.mlp, mesh, plan, src_data_rank=None)
    if decoder.lm_head is None:
        parallelize_module(decoder.embed_tokens, mesh, RowwiseParallel(input_layouts=Replicate()), src_data_rank=None)
    else:
        parallelize_module(decoder.lm_head, mesh, ColwiseParallel(), src_data_rank=None)


def row_of(weight: Tensor) -> ProcessGroup | None:
    """The ranks that share the matrix or bias ``weight``; None where it is no part of what they share."""
    if not isinstance(weight, DTensor) or TENSOR not in (weight.device_mesh.mesh_dim_names or ()):
        return None
    return weight.device_mesh[TENSOR].get_group()


def is_split(weight: Tensor) -> bool:
    """Whether the ranks that share matrices hold different parts of ``weight``."""
    if not isinstance(weight, DTensor) or row_of(weight) is None:
        return False
    placement = weight.placements[(weight.device_mesh.mesh_dim_names or ()).index(TENSOR)]
    return not isinstance(placement, Replicate)
