"""A checkpoint into a decoder that FSDP2 has sharded: each rank reads its own rows of each tensor, and no others."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from plum_models.checkpoint import read_weights
from plum_models.decoder import Decoder


def load_into(
    decoder: Decoder,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Fill ``decoder``, a ``checkpoint.plan`` that ``fully_shard`` went over, in ``dtype`` (None: as stored).

    No rank holds a whole tensor and nothing is sent between ranks: every rank opens the files. The decoder's
    parameters are replaced, so build optimizers afterwards. Raises ValueError for a parameter that is not split by
    rows over one dimension of its mesh, and what ``read_weights`` raises.
    """
    planned = dict(decoder.named_parameters())
    rows = {name: _rows(name, parameter) for name, parameter in planned.items()}
    parts = read_weights(Path(folder), decoder, dtype=dtype, device=torch.device(device), rows=rows)
    found: dict[str, Tensor] = {}
    for name, parameter in planned.items():
        assert isinstance(parameter, DTensor)  # _rows refuses others
        part = parts[name].contiguous()
        found[name] = DTensor.from_local(
            part,
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )
    decoder.load_state_dict(found, assign=True)
    decoder.requires_grad_(True)


def _rows(name: str, parameter: Tensor) -> slice:
    """This rank's rows of a parameter: equal chunks, the last ones shorter or empty, as torch.chunk cuts."""
    if not isinstance(parameter, DTensor):
        raise ValueError(f"{name} is not sharded: call fully_shard on the decoder first, or load it with load_decoder")
    split = [i for i, placement in enumerate(parameter.placements) if not placement.is_replicate()]
    if len(split) != 1 or not parameter.placements[split[0]].is_shard(0):
        raise ValueError(f"{name} is placed as {parameter.placements}: fully_shard by rows is what this can load")
    mesh, length = parameter.device_mesh, parameter.shape[0]
    size, rank = mesh.size(split[0]), mesh.get_local_rank(split[0])
    chunk = -(-length // size)
    return slice(min(rank * chunk, length), min((rank + 1) * chunk, length))
