"""torchrun's part of test_sharded: each rank loads its shard, trains a step, and tells what it had and needed."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from plum_models.checkpoint import load_decoder, plan
from plum_models.sharded import load_into


def held_mib() -> float:
    """Anonymous memory of this process: what no mapped file can give back."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


class Peak(threading.Thread):
    """The most that was held between ``start`` and ``end``, looked at every millisecond."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.first = self.most = held_mib()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.001):
            self.most = max(self.most, held_mib())

    def end(self) -> float:
        self.over.set()
        self.join()
        return max(self.most, held_mib()) - self.first


def main(folder: Path, out: Path, compare: bool) -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    sharded = plan(folder)
    for layer in sharded.layers:
        fully_shard(layer)
    fully_shard(sharded)
    watch = Peak()
    watch.start()
    load_into(sharded, folder)
    row: dict[str, object] = {"rank": dist.get_rank(), "mib": watch.end()}
    row["local"] = sum(p.to_local().nbytes for p in sharded.parameters())
    if compare:
        whole = load_decoder(folder)
        row["equal"] = all(
            torch.equal(p.full_tensor(), q) for p, q in zip(sharded.parameters(), whole.parameters(), strict=True)
        )
        ids = torch.randint(0, 320, (2, 17), generator=torch.Generator().manual_seed(0))
        row["same"] = torch.allclose(sharded(ids), whole(ids), rtol=1e-5, atol=1e-5)
        sharded(ids).square().mean().backward()
        whole(ids).square().mean().backward()
        row["gradients"] = all(
            torch.allclose(p.grad.full_tensor(), q.grad, rtol=1e-4, atol=1e-6)
            for p, q in zip(sharded.parameters(), whole.parameters(), strict=True)
            if q.grad is not None
        )
    (out / f"{dist.get_rank()}.json").write_text(json.dumps(row))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "compare")
