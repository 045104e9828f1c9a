"""Loading into a decoder that FSDP2 sharded, on two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import plum_models
from plum_models.sharded import load_into

ROOT = Path(__file__).resolve().parents[2]


def ranks(folder: Path, out: Path, mode: str) -> list[dict]:
    out.mkdir()
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "kernels", "models", "runners"))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(ROOT / "tests/models/sharded_ranks.py"), str(folder), str(out), mode],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_each_rank_gets_its_rows_and_computes_the_same(make, tmp_path):
    decoder = make.decoder(vocab_size=321, hidden_size=33, tie_word_embeddings=False)  # 321 and 33: uneven chunks
    plum_models.save(decoder, make.tokenizer(), tmp_path / "m", shard_bytes=40_000)
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
    for row in ranks(tmp_path / "m", tmp_path / "out", "compare"):
        assert row["equal"] and row["same"] and row["gradients"], row


def test_a_rank_needs_memory_for_its_rows_alone(make, tmp_path):
    decoder = make.decoder(hidden_size=1024, vocab_size=8192, intermediate_size=3072, num_hidden_layers=3, head_dim=64)
    plum_models.save(decoder, make.tokenizer(), tmp_path / "m")
    whole = (tmp_path / "m/model.safetensors").stat().st_size / 2**20
    for row in ranks(tmp_path / "m", tmp_path / "out", "memory"):
        assert row["local"] / 2**20 == pytest.approx(whole / 2, rel=0.01)
        print(f"rank {row['rank']}: at most {row['mib']:.1f} MiB held while loading a file of {whole:.1f} MiB")
        assert row["mib"] < 0.6 * whole, row


def test_a_decoder_that_is_not_sharded_is_refused(make, tmp_path):
    plum_models.save(make.decoder(), make.tokenizer(), tmp_path / "m")
    with pytest.raises(ValueError, match=r"embed_tokens\.weight is not sharded: call fully_shard"):
        load_into(plum_models.checkpoint.plan(tmp_path / "m"), tmp_path / "m", dtype=torch.float32)
