"""Where the suite runs and how large its cases are: a GPU where there is one, else a CPU and shapes that fit it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]  # a checkout that is not installed

HAIR = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("plum")
    group.addoption("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    group.addoption("--hair", type=float, default=1.0, help="how many times the allowed error is allowed")
    group.addoption("--tiny", action="store_true", help="shapes of a few numbers, to walk the suite")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def sized(request: pytest.FixtureRequest, device: str) -> Callable[..., Any]:
    """sized(gpu=..., cpu=..., tiny=...): the one that fits this run."""

    def choose(*, gpu: Any, cpu: Any, tiny: Any) -> Any:
        return tiny if request.config.getoption("--tiny") else gpu if device == "cuda" else cpu

    return choose


@pytest.fixture
def timed(request: pytest.FixtureRequest, benchmark: Any, device: str) -> Callable[..., None]:
    """timed(work, wanted, dtype): holds work()'s results to wanted(), then times work.

    Both give tensors by name. Nothing is timed where one differs by more than HAIR of its norm.
    """
    hair = float(request.config.getoption("--hair"))

    def run(work: Callable[[], dict[str, Tensor]], wanted: Callable[[], dict[str, Tensor]], dtype: torch.dtype) -> None:
        got = work()
        for name, value in wanted().items():
            norm = value.float().norm().clamp(min=1e-30)
            error = float((got[name].float() - value.float()).norm() / norm)
            assert error <= HAIR[dtype] * hair, f"{name} is off by {error:.1e} of its norm: nothing is timed"
        got.clear()

        def once() -> None:
            work()
            if device == "cuda":
                torch.cuda.synchronize()

        benchmark.extra_info |= {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
        benchmark.extra_info |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        benchmark.pedantic(once, rounds=5, warmup_rounds=1)

    return run


def differentiate(outputs: Tensor, upstream: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs and the gradient of each leaf, by name."""
    grads = torch.autograd.grad(outputs, list(leaves.values()), upstream)
    return {"out": outputs.detach()} | {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
