"""``backend="auto"`` on a GPU: what a committed run found, else the default, said once."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from plum_kernels import choice, packed_attention


@pytest.fixture(autouse=True)
def device(monkeypatch, tmp_path):
    """A GPU by name, without pages."""
    monkeypatch.setattr(choice, "FOLDER", tmp_path)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "NVIDIA H200 (80 GB)")
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    choice.clear()
    yield torch.device("cuda")
    choice.clear()


def test_without_a_page_the_default_stays_and_says_so_once(device):
    with pytest.warns(UserWarning, match=r"swiglu: backend auto is 'reference': no measurement of it on NVIDIA H200"):
        assert choice.auto("swiglu", device, "reference") == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choice.auto("swiglu", device, "reference") == "reference"


def test_a_page_decides(device, tmp_path):
    path = choice.write("NVIDIA H200 (80 GB)", "2026-12-01", {"swiglu": "triton"}, {"tile_statistics": {"BM": 64}})
    assert path == tmp_path / "nvidia-h200-80-gb.json" and json.loads(path.read_text())["date"] == "2026-12-01"
    with pytest.warns(UserWarning, match=r"'triton', as measured on NVIDIA H200 \(80 GB\), 2026-12-01"):
        assert choice.auto("swiglu", device, "reference") == "triton"
    with pytest.warns(UserWarning, match="no measurement of it"):
        assert choice.auto("add_rms_norm", device, "reference") == "reference"
    assert choice.tile("tile_statistics", device) == {"BM": 64} and choice.tile("other", device) is None


def test_a_page_that_comes_later_is_read_after_a_clear(device):
    with pytest.warns(UserWarning, match="no measurement"):
        choice.auto("swiglu", device, "reference")
    choice.write("NVIDIA H200 (80 GB)", "2026-12-01", {"swiglu": "triton"}, {})
    with pytest.warns(UserWarning, match="as measured"):
        assert choice.auto("swiglu", device, "reference") == "triton"


def test_one_graph_holds_the_choice(device):
    choice.write("NVIDIA H200 (80 GB)", "2026-12-01", {"swiglu": "triton"}, {})

    def doubled(x):
        return x * (2 if choice.auto("swiglu", device, "reference") == "triton" else 3)

    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    with pytest.warns(UserWarning, match="as measured"):
        assert compiled(torch.ones(2)).tolist() == [2, 2]


def test_off_a_gpu_nothing_is_asked_or_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choice.auto("swiglu", torch.device("cpu"), "reference") == "reference"
        q, k, v = torch.zeros(3, 2, 4), torch.zeros(3, 1, 4), torch.zeros(3, 1, 4)
        packed_attention(q, k, v, torch.tensor([0, 3]), 3)
