"""Liger's and cut-cross-entropy's own published tests, read where they lie and run against ours.

Nothing of theirs is part of this repository. kernels/README.md says how to fetch both; without them this is skipped.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.kernels import peer_shims

HOW = "set PLUM_PEER_TESTS to the unpacked source distributions, see kernels/README.md"
ALL = os.environ.get("PLUM_PEER_ALL") == "1"
FOLDER = os.environ.get("PLUM_PEER_TESTS", "")

# test file by distribution, one case in how many (spread over the product; PLUM_PEER_ALL=1 runs all), what is ours in
# it, and which tests: the others compare the peer with itself
CUT = "cut_cross_entropy-*/tests"
LIGER = "liger_kernel-*/test"
FILES: list[tuple[str, str, int, str, tuple[str, ...]]] = [
    (CUT, "test_cce_loss_forward.py", 5, "linear_cross_entropy", ("test_loss_forward",)),
    (CUT, "test_cce_loss_backward.py", 5, "linear_cross_entropy", ("test_loss_backward",)),
    (CUT, "test_cce_lse.py", 1, "cce_lse_forward_kernel", ("test_lse",)),
    (
        LIGER,
        "transformers/test_fused_linear_cross_entropy.py",
        5,
        "LigerFusedLinearCrossEntropyLoss",
        ("test_correctness",),
    ),
    (
        LIGER,
        "chunked_loss/test_dpo_loss.py",
        31,
        "LigerFusedLinearDPOLoss",
        ("test_correctness", "test_correctness_apo_loss_types", "test_correctness_extra_loss_types"),
    ),
]


def unfit(case: dict[str, Any]) -> bool:
    """Cases of what is no log-prob or no objective of ours."""
    ours = case.get("impl", "cce") == "cce" and case.get("loss_type") != "discopop"
    return not ours or bool(case.get("has_ce_weight"))  # with it come label smoothing and the z-loss


def expand(test: Any) -> list[dict[str, Any]]:
    """The product of a test's parametrize marks."""
    axes = []
    for mark in test.pytestmark:
        if mark.name == "parametrize":
            names = [name.strip() for name in mark.args[0].split(",")]
            rows = mark.args[1] if len(names) > 1 else [(value,) for value in mark.args[1]]
            axes.append([dict(zip(names, row, strict=True)) for row in rows])
    cases = [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*axes)]
    return [case for case in cases if not unfit(case)]


class OnCpu:
    """``torch`` as a test module sees it: what it puts on its GPU lies on the CPU."""

    cuda = SimpleNamespace(is_available=lambda: True, manual_seed=torch.manual_seed)

    def __getattr__(self, name: str) -> Any:
        value = getattr(torch, name)
        if name not in ("randn", "randint", "randperm"):
            return value
        return lambda *args, **kwargs: value(*args, **(kwargs | ({"device": "cpu"} if "device" in kwargs else {})))


def load(pattern: str, file: str) -> Any:
    """The peer's test module, or a skip that says what is missing."""
    package = pattern.split("-")[0]
    if not FOLDER:
        pytest.skip(f"no published tests: {HOW}")
    found = sorted(Path(FOLDER).glob(pattern))
    if not found:
        pytest.skip(f"no {pattern} in {FOLDER}: {HOW}")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed, and its tests import it: {HOW}")
    path = found[-1] / file
    if pattern == LIGER:  # its tests import each other as the package ``test``, which the standard library has too
        theirs = str(found[-1].parent)
        if theirs not in sys.path:
            sys.path.insert(0, theirs)
        if not str(getattr(sys.modules.get("test"), "__file__", "")).startswith(theirs):
            sys.modules.pop("test", None)
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.torch = OnCpu()
    return module


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    """Their tests set it for the process."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.timeout(1200)  # every case of a file where PLUM_PEER_ALL is set
@pytest.mark.parametrize(("pattern", "file", "every", "name", "tests"), FILES, ids=str)
def test_published_cases(pattern, file, every, name, tests, monkeypatch):
    module = load(pattern, file)
    monkeypatch.setattr(module, name, getattr(peer_shims, name))
    ran = 0
    for test in tests:
        function = getattr(module, test)
        cases = expand(function)
        for case in cases[:: 1 if ALL else every]:
            torch.manual_seed(0)
            try:
                function(**case)
            except AssertionError as error:
                raise AssertionError(f"{file}::{test} {case}: {error}") from error
            ran += 1
    assert ran >= len(tests)


def test_a_wrong_answer_fails_the_published_cases(monkeypatch, request):
    module = load(CUT, "test_cce_lse.py")
    wrong = lambda e, c, softcap=None: peer_shims.cce_lse_forward_kernel(e, c, softcap) + 1e-2  # noqa: E731
    monkeypatch.setattr(module, "cce_lse_forward_kernel", wrong)
    with pytest.raises(AssertionError):
        module.test_lse(**expand(module.test_lse)[0])
