"""Work beside the stages: it changes no byte, lags by what was asked for, and ends when its block ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plum_core.records import Program, Sample, Verdict, read_jsonl
from plum_core.rounds.ahead import Beside
from plum_core.rounds.build import make_engine, make_source
from plum_core.rounds.compare import differences
from plum_core.rounds.engine import Trained
from plum_core.rounds.loop import Rounds
from tests.rounds import toy
from tests.rounds.fakes import FakeEngine, FakeSource, make_config


class Watched(FakeEngine):
    """Knows which thread judged; training waits until something was drawn beside it, where that is asked for."""

    def __init__(self, wait_for: Callable[[], bool] | None = None) -> None:
        super().__init__()
        self.beside, self.in_training, self.wait_for = 0, 0, wait_for
        self.training = False

    def judge(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        if threading.current_thread() is not threading.main_thread():
            self.beside += 1
            self.in_training += self.training
        yield from super().judge(programs)

    def train(self, *args: Any, **kwargs: Any) -> Trained:
        self.training, end = True, time.monotonic() + 20
        while self.wait_for and not self.wait_for() and time.monotonic() < end:
            time.sleep(0.01)
        trained = super().train(*args, **kwargs)
        self.training = False
        return trained


def go(folder: Path, engine: FakeEngine | None = None, **changes: Any) -> Path:
    config = make_config(folder, policy=make_config(folder.parent).policy, **changes)
    return Rounds(config, FakeSource(), engine or FakeEngine(), argv=["plum"]).go().path


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_work_beside_changes_no_byte(tmp_path: Path, staleness: int) -> None:
    second, third = (tmp_path / f"beside/run/round-{n:03d}" for n in (2, 3))

    def drawn() -> bool:  # while the first round trains
        return third.exists() or any((second / "verdicts.parts").glob("*.jsonl"))

    engine = Watched(drawn if staleness else None)
    beside = go(tmp_path / "beside", engine, rounds=3, staleness=staleness)
    plain = go(tmp_path / "plain", rounds=3, staleness=staleness, overlap=False)
    assert engine.beside > 0 and (engine.in_training > 0) == (staleness > 0)
    left = differences(beside, plain)
    assert left == ["run.json: differs"]  # it names the setting


def test_a_bound_of_nothing_is_the_synchronous_run(tmp_path: Path) -> None:
    a, b = go(tmp_path / "a", rounds=3), go(tmp_path / "b", rounds=3, staleness=0)
    assert differences(a, b) == []


@pytest.mark.parametrize(("staleness", "qualities"), [(0, (50, 60, 70)), (1, (50, 50, 60)), (2, (50, 50, 50))])
def test_samples_lag_by_the_bound(tmp_path: Path, staleness: int, qualities: tuple[int, ...]) -> None:
    run = go(tmp_path / "run", rounds=3, staleness=staleness)
    for number, quality in enumerate(qualities, 1):
        samples = list(read_jsonl(run / f"round-{number:03d}/samples.jsonl", Sample))
        assert {s.policy for s in samples} == {f"quality-{quality}"}


def test_a_bound_and_another_drawer_exclude_each_other(tmp_path: Path) -> None:
    other = make_config(tmp_path).policy
    with pytest.raises(ValueError, match="staleness=1 would change nothing: off_policy draws every sample"):
        make_config(tmp_path, staleness=1, off_policy=other)
    with pytest.raises(ValueError, match=r"staleness must be 0 \(on-policy\) or more rounds, got -1"):
        make_config(tmp_path, staleness=-1)


def test_the_job_in_hand_is_finished_and_the_rest_dropped() -> None:
    done: list[int] = []
    began = threading.Event()

    def jobs() -> Iterator[Callable[[], None]]:
        for number in range(100):

            def job(number: int = number) -> None:
                began.set()
                time.sleep(0.05)
                done.append(number)

            yield job

    with Beside(jobs()):
        began.wait()
    assert 1 <= len(done) < 100 and done == list(range(len(done)))
    before = len(done)
    time.sleep(0.1)
    assert len(done) == before


def test_what_a_job_raises_comes_out_of_the_block() -> None:
    def fail() -> None:
        raise KeyError("beside")

    with pytest.raises(KeyError, match="beside"), Beside() as beside:
        beside.put(fail)
        time.sleep(0.2)
    with pytest.raises(ZeroDivisionError), Beside() as beside:  # the block's own comes first
        beside.put(fail)
        raise ZeroDivisionError


@pytest.mark.timeout(120)
def test_a_real_run_beside_is_the_plain_one(tmp_path: Path) -> None:
    """The toy's decoder, sandbox and trainer: two rounds of GRPO with a bound of one, beside and in turn."""
    import dataclasses

    from plum_core.training import OptimConfig, PreferenceConfig

    toy.main(tmp_path, steps=120)
    runs = []
    for overlap in (True, False):
        config = toy.make_config(tmp_path, tmp_path / f"run-{overlap}")
        training = PreferenceConfig(
            objective="grpo", tokens_per_batch=1200, replay_examples_per_step=8, epochs=1, optim=OptimConfig()
        )
        config = dataclasses.replace(config, rounds=2, staleness=1, overlap=overlap, training=training)
        with make_engine(config) as engine:
            runs.append(Rounds(config, make_source(config, engine), engine, argv=["plum"]).go())
    assert differences(runs[0].path, runs[1].path) == ["run.json: differs"]
    rows = [r for r in runs[0].metrics() if r["stage"] == "training"]
    first = [next(r for r in rows if r["round"] == n) for n in (1, 2)]
    assert first[0]["ratio"] == pytest.approx(1, abs=1e-3)  # the policy in training drew them
    assert abs(first[1]["ratio"] - 1) > 1e-3 and first[1]["kl/sampler"] > 1e-5  # and here the one before it
