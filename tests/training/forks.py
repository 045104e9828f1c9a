"""Ranks as forks of the test's own process: imports are paid for once."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from plum_core.training import init_world
from plum_core.training.stop import ends_on_sigterm


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def on_ranks(folder: Path, size: int, work: Callable[[Any], Any]) -> list[Any]:
    """``work(world)`` on each of ``size`` ranks, SIGTERM listened to; its results, None of one that was stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if size > 1:
                    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
                path = folder / f"result-{rank}.pt"
                path.unlink(missing_ok=True)
                with ends_on_sigterm(size):
                    world = init_world()
                    torch.save(work(world), path)
                    world.close()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert statuses == [0] * size, f"the ranks ended with {statuses}"
    paths = [folder / f"result-{rank}.pt" for rank in range(size)]
    return [torch.load(path, weights_only=False) if path.exists() else None for path in paths]
