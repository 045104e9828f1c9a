"""pass@k against the count of all subsets; intervals against known values and their stated rate."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from plum_core.evaluation import (
    TaskResult,
    bootstrap_interval,
    greedy_gain,
    mean_interval,
    paired_gain,
    pass_at_k,
    sampled_gain,
    score,
    task_results,
)
from plum_core.evaluation.intervals import t_quantile
from plum_core.records import Outcome, Verdict


def verdict(name: str, outcome: Outcome) -> Verdict:
    return Verdict(id=name, outcome=outcome, passed=(), detail="", wall_s=0, cpu_s=0, peak_mib=0)


def test_pass_at_k_counts_the_subsets_that_hold_a_pass() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations([i < c for i in range(n)], k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_of_the_paper_and_at_size() -> None:
    product = 1 - np.prod(1 - 100 / np.arange(200 - 57 + 1, 201))  # the paper's own loop
    assert pass_at_k(200, 57, 100) == pytest.approx(product, abs=1e-12)
    assert pass_at_k(6, 3, 1) == 0.5 and pass_at_k(5, 0, 5) == 0.0 and pass_at_k(5, 1, 5) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0)])
def test_pass_at_k_refuses_what_cannot_be(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"got [ck]="):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(("freedom", "exact"), [(4, 2.776445), (9, 2.262157), (29, 2.045230), (999, 1.962341)])
def test_quantiles_of_t(freedom: int, exact: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(exact, rel=5e-3)
    assert t_quantile(0.025, freedom) == pytest.approx(-t_quantile(0.975, freedom))


def test_intervals_of_known_values() -> None:
    found = mean_interval([1.0] * 8 + [0.0] * 2)  # Wilson 1927: 8 of 10
    assert (found.mean, found.method) == (0.8, "Wilson over tasks")
    assert (found.low, found.high) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert mean_interval([1.0] * 10).low < 1.0 == mean_interval([1.0] * 10).high
    gain = paired_gain([0.0, 0.5, 0.5, 0.5, 1.0], [0.5, 1.0, 0.5, 0.5, 1.0])
    half = 2.776445 * np.std([0.5, 0.5, 0, 0, 0], ddof=1) / 5**0.5
    assert (gain.low, gain.high) == pytest.approx((0.2 - half, 0.2 + half), rel=6e-3)
    assert gain.points() == f"+20.0 [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def test_a_constant_gain_is_certain_and_intervals_need_two_tasks() -> None:
    assert paired_gain([0.0, 0.5], [0.25, 0.75]).low == 0.25
    for bad in ([], [0.5]):
        with pytest.raises(ValueError, match="at least 2"):
            mean_interval(bad)
    with pytest.raises(ValueError, match="same tasks"):
        paired_gain([0.0, 1.0], [0.0])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        mean_interval([0.5, 1.5])


def coverage(make: object, runs: int = 400) -> float:
    """Share of intervals, each from 60 tasks of 6 samples, that hold the true mean of the tasks' rates."""
    draw = np.random.default_rng(7)
    hits = 0
    for _ in range(runs):
        rates = draw.beta(0.6, 0.6, size=60)  # true mean 0.5; most tasks are easy or hard
        found = make(draw.binomial(6, rates) / 6)  # type: ignore[operator]
        hits += found.low <= 0.5 <= found.high
    return hits / runs


def test_intervals_cover_at_the_stated_rate() -> None:
    # 400 runs: the standard error of a rate of 0.95 is 0.011
    assert coverage(mean_interval) == pytest.approx(0.95, abs=0.033)
    assert coverage(lambda rates: bootstrap_interval(rates, draws=200), runs=200) == pytest.approx(0.95, abs=0.05)
    assert coverage(lambda rates: mean_interval(rates, confidence=0.5)) == pytest.approx(0.5, abs=0.08)


def test_the_bootstrap_repeats_itself() -> None:
    values = [i * i / 900 for i in range(30)]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_verdicts_to_results() -> None:
    verdicts = [
        verdict("b/x/1", Outcome.FAILED),
        verdict("a/0", Outcome.PASSED),
        verdict("a/1", Outcome.SANDBOX_ERROR),
        verdict("a/greedy", Outcome.PASSED),
        verdict("b/x/0", Outcome.PASSED),
        verdict("b/x/greedy", Outcome.TIMEOUT),
    ]
    results = task_results(["b/x", "a"], verdicts)
    assert results == [
        TaskResult(id="b/x", n=2, passed=1, greedy=False),
        TaskResult(id="a", n=1, passed=1, greedy=True, lost=1),
    ]
    for name in ("c/0", "c"):
        with pytest.raises(ValueError, match=name):
            task_results(["a"], [verdict(name, Outcome.PASSED)])


def test_scores_and_gains() -> None:
    before = [TaskResult(id=str(i), n=4, passed=i, greedy=i > 2) for i in range(5)]
    after = [TaskResult(id=str(i), n=4, passed=min(4, i + 1), greedy=i > 1) for i in range(5)]
    found = score(before, ks=(1, 4, 6))
    assert found.sampled is not None and found.greedy is not None
    assert (found.sampled.mean, found.greedy.mean) == (0.5, 0.4)
    assert found.pass_at == {1: pytest.approx(0.5), 4: pytest.approx(0.8)}  # 6 of 4 samples cannot be drawn
    sampled, greedy = sampled_gain(before, after), greedy_gain(before, after)
    assert sampled is not None and greedy is not None
    assert [sampled.mean, greedy.mean] == pytest.approx([0.2, 0.2])
    assert sampled_gain(before, []) is None and score([]).sampled is None
