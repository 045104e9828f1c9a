"""A runner on several processes of this machine: torchrun, on the loopback, and a failure told once.

    python runners/launch.py 2 runners/plum.py --config runners/configs/tiny.toml

What torchrun adds to a failure (every rank's traceback of a lost connection, and its own) buries the sentence that
matters. Here rank 0 speaks; the other ranks' stderr is kept aside and shown only where one of them failed first.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

TOLD = (2, 130)  # exit statuses of a runner that has already said why it stops: a caller's mistake, Ctrl-C
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def torchrun_words(processes: int, logs: str, command: list[str]) -> list[str]:
    """torchrun's arguments. Each address is the loopback: nothing depends on what this machine's name resolves to."""
    aside = ",".join(f"{rank}:2" for rank in range(1, processes))
    words = ["--nnodes", "1", "--nproc-per-node", str(processes)]
    words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]  # a free port
    return [*words, "--log-dir", logs, *(["--redirects", aside] if aside else []), *command]


def tell(failed: ChildFailedError, logs: Path) -> int:
    """The exit status, after whatever the ranks other than 0 know better than rank 0."""
    codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
    told = [rank for rank, code in codes.items() if code in TOLD]
    rank = min(told) if told else failed.get_first_failure()[0]
    for path in logs.glob(f"**/{rank}/stderr.log") if rank else ():
        sys.stderr.write(path.read_text(encoding="utf-8", errors="replace"))
    if not told:
        code = codes[rank]
        end = f"was ended by signal {-code}" if code < 0 else f"ended with exit status {code}"
        print(f"error: process {rank} of {Path(failed.name).name} {end}; the same command goes on", file=sys.stderr)
    return codes[rank] if codes[rank] > 0 else 128 - codes[rank]


def main(argv: list[str]) -> int:
    """0, or the exit status of the process that failed."""
    if len(argv) < 2 or not argv[0].isdigit() or int(argv[0]) < 1:
        print("error: say how many processes and which runner: launch.py 2 runners/plum.py ...", file=sys.stderr)
        return TOLD[0]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two single-threaded processes outrun one with two threads
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="plum-") as logs:
        try:
            torchrun.main(torchrun_words(int(argv[0]), logs, argv[1:]))
        except ChildFailedError as failed:
            return tell(failed, Path(logs))
        except SignalException as stopped:
            if stopped.sigval == signal.SIGTERM:  # torchrun handed it on and waited: the ranks have saved
                return 0
            return 128 + stopped.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
