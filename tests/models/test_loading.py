"""Loading holds no second copy of the weights in memory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def loading():
    spec = importlib.util.spec_from_file_location("loading", ROOT / "models/benchmarks/loading.py")
    module = importlib.util.module_from_spec(spec)
    monkey = pytest.MonkeyPatch()
    monkey.setitem(sys.modules, "loading", module)  # its dataclass asks for the module by name
    spec.loader.exec_module(module)
    yield module
    monkey.undo()


@pytest.mark.parametrize("shard_mib", [1000, 100])
def test_peak_memory_is_that_of_the_weights(loading, tmp_path, shard_mib):
    size = loading.write(tmp_path / "m", 320, shard_mib)
    assert len(list((tmp_path / "m").glob("*.safetensors"))) == (1 if shard_mib == 1000 else 4)
    stored = loading.load(tmp_path / "m", loading.LOADERS["plum, as stored"])
    assert stored["bytes"] < 1.15 * size
    converted = loading.load(tmp_path / "m", loading.LOADERS["plum, to fp32"])
    assert converted["total"] == stored["total"]
    assert converted["bytes"] < (2 + 0.5) * size  # the fp32 weights, and the part of the file that is being converted
