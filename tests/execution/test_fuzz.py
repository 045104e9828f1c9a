"""A part of the fuzzing, always the same; all of it: ``python plum_core/execution/benchmarks/fuzz.py --minutes 10``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from plum_core.execution import Executor
from plum_core.execution.benchmarks import fuzz
from plum_core.execution.benchmarks.fuzz_shots import Shot, secret
from plum_core.execution.benchmarks.fuzz_values import data
from plum_core.execution.benchmarks.fuzz_wire import trees
from plum_core.execution.benchmarks.fuzzing import FAMILIES, complaint, fire
from plum_core.execution.inside import codec, frames
from plum_core.records.types import Outcome, Verdict

VOLLEYS = {"source": 25, "values": 50, "objects": 50, "wire": 20, "tests": 15}
ALWAYS_THE_SAME = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=2, limits=fuzz.LIMITS) as made:
        yield made


@pytest.mark.parametrize("family", FAMILIES)
def test_no_wrong_verdict(family: str, executor: Executor) -> None:
    @settings(ALWAYS_THE_SAME, max_examples=VOLLEYS[family])
    @given(st.lists(FAMILIES[family], min_size=4, max_size=12))
    def volley(shots: list[Shot]) -> None:
        assert fire(executor, shots) == []

    volley()


@pytest.mark.parametrize("family", FAMILIES)
def test_strategies_reach_what_they_are_for(family: str, executor: Executor) -> None:
    """Volleys of nothing but syntax errors would find nothing."""
    outcomes: set[Outcome] = set()

    @settings(ALWAYS_THE_SAME, max_examples=40)
    @given(st.lists(FAMILIES[family], min_size=8, max_size=8))
    def volley(shots: list[Shot]) -> None:
        outcomes.update(v.outcome for v in executor.run(shot.program(str(i)) for i, shot in enumerate(shots)))

    volley()
    reached = {
        "source": {Outcome.ERROR, Outcome.FAILED},
        "values": {Outcome.PASSED, Outcome.FAILED},
        "objects": {Outcome.ERROR, Outcome.FAILED},
        "wire": {Outcome.VIOLATION, Outcome.FAILED, Outcome.EXIT},
        "tests": {Outcome.PASSED, Outcome.ERROR},
    }
    assert reached[family] <= outcomes


@given(data)
@settings(ALWAYS_THE_SAME, max_examples=300)
def test_what_is_encoded_stays_bounded_and_comes_back(value: Any) -> None:
    wire = frames.dumps(codec.encode(value, codec.opaque))
    back = codec.decode(json.loads(wire))
    assert type(back) is type(value)
    assert repr(back) == repr(value) or back == value or value != value


@given(trees)
@settings(ALWAYS_THE_SAME, max_examples=500)
def test_any_tree_is_read_or_refused_at_once(tree: Any) -> None:
    began = time.process_time()
    with suppress(codec.Malformed):
        codec.decode(tree, handle=lambda body: None)
    assert time.process_time() - began < 1.0


VERDICT: dict[str, Any] = {"id": "0", "detail": "", "wall_s": 0.0, "cpu_s": 0.0, "peak_mib": 0.0}


def test_complaints() -> None:
    """Each fault is one, so that silence means something."""
    shot = Shot("source", "x = 1", ("assert f(1) == 2",))
    passed = Verdict(outcome=Outcome.PASSED, passed=(True,), **VERDICT)
    failed = Verdict(outcome=Outcome.FAILED, passed=(False,), **VERDICT)
    ours = Verdict(outcome=Outcome.SANDBOX_ERROR, passed=(False,), **VERDICT)
    assert complaint(shot, failed) == ""
    assert "cannot know" in complaint(shot, passed)
    assert "our failure" in complaint(shot, ours)
    assert "results" in complaint(shot, Verdict(outcome=Outcome.FAILED, passed=(), **VERDICT))
    assert "should pass" in complaint(Shot("values", "", shot.tests, wanted=True), failed)
    assert "should not pass" in complaint(Shot("values", "", shot.tests, wanted=False), passed)


def test_a_failure_can_be_fired_again(tmp_path: Path) -> None:
    path = tmp_path / "failures.jsonl"
    code = "def f(x): return '\\ud800'"
    right = Shot("values", code, ("assert f(1) == '\\ud800'",), wanted=True)
    wrong = Shot("values", code, (f"assert f(1) == {secret(code)}",), wanted=True)
    fuzz.save(path, [(right, "none"), (wrong, "some")])
    assert fuzz.replay(path, workers=1) == {"values": 2, "wrong": 1}
    fuzz.save(path, [(Shot("source", "x = '\ud800'", right.tests), "a lone surrogate survives the file")])
    assert fuzz.replay(path, workers=1) == {"values": 2, "wrong": 1, "source": 1}
