"""Who else trains: the ranks of a torchrun job, or one process that needs nothing of torch.distributed."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """``size`` ranks, of which this process is ``rank``. With one rank every operation is the identity.

    group: of those ranks, where they are not all that there are.
    """

    rank: int = 0
    size: int = 1
    group: torch.distributed.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Rank 0 alone writes files and speaks."""
        return self.rank == 0

    def share(self, items: list[int]) -> list[int]:
        """This rank's part of ``items``: every ``size``-th, so that neighbours in length are spread."""
        return items[self.rank :: self.size]

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor, group=self.group)
        return tensor

    def barrier(self) -> None:
        if self.size > 1:
            torch.distributed.barrier(self.group)

    def close(self) -> None:
        if self.size > 1:
            torch.distributed.destroy_process_group()


def world_size() -> int:
    """How many ranks torchrun's environment speaks of; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def init_world() -> World:
    """Join the job that torchrun's environment describes; a world of one where there is none.

    CPU tensors go over gloo, CUDA tensors over NCCL. On a single node gloo is kept on the loopback interface,
    unless GLOO_SOCKET_IFNAME says otherwise: a laptop's host name often resolves to nothing reachable.
    """
    size = world_size()
    if size == 1:
        return World()
    if "RANK" not in os.environ:
        raise ValueError(f"WORLD_SIZE is {size} but RANK is not set: start the ranks with torchrun")
    if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend)
    return World(rank=int(os.environ["RANK"]), size=size)
