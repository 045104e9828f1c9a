"""Loading a checkpoint: peak memory as a share of the file, seconds beside safetensors' own ``load_file``.

    python models/benchmarks/loading.py --mib 2000

A checkpoint of random weights in shards is written first. Each loading runs in a process of its own, reads every
tensor to its last byte (a mapped page that nobody touched costs nothing yet, and is no load), and reports its peak
resident memory above what the imports took. Turns are interleaved; the file is in the page cache for all of them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models"), str(ROOT / "kernels")]  # a checkout that is not installed
from plum_models import Decoder, DecoderConfig, Tokenizer, save  # noqa: E402 - after the path

LOADERS = {
    "plum, as stored": "list(plum_models.load_decoder(folder, dtype=None).parameters())",
    "plum, to fp32": "list(plum_models.load_decoder(folder, dtype=torch.float32).parameters())",
    "load_file, as stored": "[t for f in files for t in load_file(f).values()]",
    "load_file, to fp32": "[t.float() for f in files for t in load_file(f).values()]",
}
CHILD = """
import json, resource, sys, time
import torch, plum_models
from pathlib import Path
from safetensors.torch import load_file
folder = Path(sys.argv[1]); files = sorted(folder.glob("*.safetensors"))
def resident(name):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return int(lines[name].split()[0]) * 1024
torch.set_num_threads(1)
before = resident("VmRSS")
start = time.perf_counter()
tensors = {expression}
total = sum(float(t.detach().view(-1)[::512].float().sum()) for t in tensors)  # a value a page, at least
seconds = time.perf_counter() - start
print(json.dumps(dict(seconds=seconds, bytes=resident("VmHWM") - before, total=total)))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Size and turns."""

    mib: int = 2000  # of the checkpoint, bf16
    rounds: int = 5
    shard_mib: int = 500


def write(folder: Path, mib: int, shard_mib: int) -> int:
    """A checkpoint of about ``mib`` MiB under ``folder``; the bytes of its weight files."""
    width = 1024
    layer = 4 * width * width + 3 * width * 4 * width
    config = DecoderConfig(
        vocab_size=1024,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=max(1, (mib << 20) // (2 * layer)),
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=width // 16,
    )
    with torch.device("meta"):
        decoder = Decoder(config).bfloat16()
    decoder = decoder.to_empty(device="cpu")
    with torch.no_grad():
        for number, parameter in enumerate(decoder.parameters()):
            parameter.fill_(number % 7 + 1)
    save(decoder, Tokenizer.train(["x = 1"], 300), folder, shard_bytes=shard_mib << 20)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def load(folder: Path, expression: str) -> dict[str, float]:
    """Seconds, peak bytes and the checksum of one loading, in a process of its own."""
    paths = ":".join(str(ROOT / part) for part in ("", "models", "kernels"))
    child = CHILD.replace("{expression}", expression)
    done = subprocess.run(
        [sys.executable, "-c", child, str(folder)],
        env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a loader failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as place:
        size = write(Path(place) / "model", config.mib, config.shard_mib)
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in LOADERS}
        for _ in range(config.rounds):
            for name, expression in LOADERS.items():
                turns[name].append(load(Path(place) / "model", expression))
    totals = {round(run["total"], 3) for runs in turns.values() for run in runs}
    if len(totals) != 1:
        raise SystemExit(f"the loaders read different weights: {totals}")
    print(f"{size / 2**20:.0f} MiB of bf16 in shards of {config.shard_mib} MiB, median of {config.rounds}\n")
    print("| loader | seconds | peak memory / file | times load_file |\n|---|---|---|---|")
    for name, runs in turns.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        theirs = statistics.median(run["seconds"] for run in turns[f"load_file, {name.split(', ')[1]}"])
        peak = statistics.median(run["bytes"] for run in runs)
        print(f"| {name} | {seconds:.3f} | {peak / size:.2f} | {seconds / theirs:.2f} |")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
