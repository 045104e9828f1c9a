"""The loop over fakes: what each stage leaves, what a second sitting passes over, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plum_core.preferences import SelectionConfig
from plum_core.records import Grade, Label, Outcome, Pair, Sample, Verdict, read_jsonl
from plum_core.rounds.compare import differences
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.loop import Rounds
from plum_core.training import MovingSettings, PreferenceConfig
from tests.rounds.fakes import FakeEngine, FakeSource, make_config


def go(folder: Path, engine: FakeEngine | None = None, source: FakeSource | None = None, **changes: object) -> Rounds:
    rounds = Rounds(make_config(folder, **changes), source or FakeSource(), engine or FakeEngine(), argv=["plum"])
    rounds.go()
    return rounds


def test_a_run_leaves_what_was_promised(tmp_path: Path) -> None:
    run = go(tmp_path).folder.path
    for number in (1, 2):
        found = {p.name for p in (run / f"round-00{number}").iterdir()}
        stages = {"instructions", "tests", "samples", "verdicts", "preferences", "evaluation"}
        assert found == {f"{s}.jsonl" for s in stages} | {"policy.json"}
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-000003", "step-000006"]
    assert (run / "checkpoints/step-000006/quality.txt").read_text() == "70"
    info = json.loads((run / "run.json").read_text())
    assert {"config", "data", "argv", "note", "parameters", "versions", "git"} == set(info)
    assert info["data"]["policy"] == "quality-50"
    assert {p.name for p in run.iterdir()} - {".lock"} == {
        "run.json", "metrics.jsonl", "timings.jsonl", "heldout", "checkpoints", "round-000", "round-001", "round-002",
    }  # fmt: skip


def test_samples_are_on_policy_and_complete(tmp_path: Path) -> None:
    run = go(tmp_path).folder
    for number, quality in ((1, 50), (2, 60)):
        samples = list(read_jsonl(run.round(number) / "samples.jsonl", Sample))
        assert {s.policy for s in samples} == {f"quality-{quality}"}
        expected = [(f"r{number}-{i}", k) for i in (0, 1, 2, 4, 5, 6, 8, 9) for k in range(4)]  # 3 and 7 were trivial
        assert [(s.instruction_id, s.index) for s in samples] == expected
        verdicts = list(read_jsonl(run.round(number) / "verdicts.jsonl", Verdict))
        assert [v.id for v in verdicts] == [f"{s.instruction_id}/{s.index}" for s in samples]
        assert all((v.outcome == Outcome.PASSED) == ("good" in s.code) for v, s in zip(verdicts, samples, strict=True))
    seeds = [s.seed for n in (1, 2) for s in read_jsonl(run.round(n) / "samples.jsonl", Sample)]
    assert len(set(seeds)) == len(seeds)


def test_metrics_hold_each_stage_once_and_the_gain(tmp_path: Path) -> None:
    rows = go(tmp_path).folder.metrics()
    stages = ["tests", "samples", "verdicts", "preferences", *["training"] * 3, "evaluation"]
    assert [(r["round"], r["stage"]) for r in rows] == [
        (0, "evaluation"), *[(n, s) for n in (1, 2) for s in stages],
    ]  # fmt: skip
    last = rows[-1]
    assert last["tasks"] == 7 and last["samples"] == 14 and set(last["pass_at"]) == {"1", "2"}
    assert last["sampled_gain"]["mean"] == pytest.approx(last["sampled"]["mean"] - rows[0]["sampled"]["mean"])
    assert rows[2]["samples"] == rows[3]["programs"] == sum(rows[3]["outcomes"].values())


def test_equal_programs_are_run_once(tmp_path: Path) -> None:
    engine = FakeEngine()
    run = go(tmp_path, engine, rounds=1).folder
    verdicts = [v for n in (0, 1) for v in read_jsonl(run.round(n) / "evaluation.jsonl", Verdict)]
    verdicts += list(read_jsonl(run.round(1) / "verdicts.jsonl", Verdict))
    assert engine.judged < len(verdicts)


def test_a_second_sitting_does_nothing_and_more_rounds_go_on(tmp_path: Path) -> None:
    first = go(tmp_path / "a", rounds=1)
    assert first.worked
    again = go(tmp_path / "a", rounds=1)
    assert not again.worked
    go(tmp_path / "a", rounds=2)
    go(tmp_path / "b", rounds=2, policy=tmp_path / "a/policy")
    left = differences(tmp_path / "a/run", tmp_path / "b/run")
    assert left == ["run.json: differs"]  # it keeps the number of rounds of the first sitting


def test_a_changed_setting_or_file_is_refused_by_name(tmp_path: Path) -> None:
    go(tmp_path, rounds=1)
    with pytest.raises(ValueError, match=r"begun with --seed 0, now it is 1"):
        go(tmp_path, rounds=1, seed=1)
    with pytest.raises(ValueError, match=r"begun with --selection.max_pairs 4, now it is 2"):
        go(tmp_path, rounds=1, selection=SelectionConfig(max_pairs=2))
    with pytest.raises(ValueError, match=r"the data of fake '1', now it is '2'"):
        go(tmp_path, rounds=1, source=FakeSource(version="2"))
    (tmp_path / "policy/quality.txt").write_text("51")
    config = make_config(tmp_path, rounds=1)
    (tmp_path / "policy/quality.txt").write_text("51")
    with pytest.raises(ValueError, match=r"the data of policy 'quality-50'"):
        Rounds(config, FakeSource(), FakeEngine()).go()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    holder = RunFolder(tmp_path / "run")
    holder.hold()
    with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
        go(tmp_path)
    holder.release()
    go(tmp_path, rounds=0)


@pytest.mark.parametrize(("objective", "cls"), [("dpo", Pair), ("kto", Label), ("rft", Pair)])
def test_each_objective_gets_its_records(tmp_path: Path, objective: str, cls: type) -> None:
    engine = FakeEngine()
    run = go(tmp_path, engine, rounds=1, training=PreferenceConfig(objective=objective)).folder
    records: list[object] = list(read_jsonl(run.round(1) / "preferences.jsonl", cls))
    assert engine.trained_on == [(objective, len(records))] and records


@pytest.mark.parametrize("objective", ["grpo", "dapo", "rloo"])
def test_policy_gradients_learn_from_graded_samples(tmp_path: Path, objective: str) -> None:
    engine = FakeEngine()
    run = go(tmp_path, engine, training=PreferenceConfig(objective=objective)).folder
    for number in (1, 2):
        grades = list(read_jsonl(run.round(number) / "preferences.jsonl", Grade))
        verdicts = {v.id: v for v in read_jsonl(run.round(number) / "verdicts.jsonl", Verdict)}
        assert len(grades) == len(verdicts) == engine.trained_on[number - 1][1]
        passed = {name: v.outcome == Outcome.PASSED for name, v in verdicts.items()}
        assert all(g.reward == passed[f"{g.instruction_id}/{g.index}"] for g in grades)
    row = next(r for r in run.metrics() if r["stage"] == "preferences")
    assert row["kept"] == 32 and 0 < row["mixed"] <= 8 and 0 < row["reward"] < 1
    assert row["mixed"] + row["all_passed"] + row["all_failed"] == row["instructions"] == 8


def test_grades_that_are_all_equal_are_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"round 1: 8 instructions gave no preference \(all_passed 0, all_failed 8"):
        go(tmp_path, FakeEngine(fault=Outcome.FAILED), training=PreferenceConfig(objective="grpo"))


def test_continued_sft_is_matched_in_sequences(tmp_path: Path) -> None:
    engines = {learn: FakeEngine() for learn in ("preferences", "sft")}
    training = PreferenceConfig(objective="dpo", beta=0.2, moving=MovingSettings(every=3))
    for learn, engine in engines.items():
        go(tmp_path / learn, engine, rounds=1, learn=learn, training=training)
    (dpo, pairs), (rft, labels) = engines["preferences"].trained_on[0], engines["sft"].trained_on[0]
    assert (dpo, rft, labels) == ("dpo", "rft", 2 * pairs)
    drawn = list(read_jsonl(tmp_path / "sft/run/round-001/preferences.jsonl", Label))
    assert {r.completion for r in drawn} == {f"answer {i}" for i in range(5)} and all(r.label for r in drawn)


def test_off_policy_samples_come_from_the_other_checkpoint(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "quality.txt").write_text("30")
    run = go(tmp_path, off_policy=other).folder
    for number in (1, 2):
        assert {s.policy for s in read_jsonl(run.round(number) / "samples.jsonl", Sample)} == {"quality-30"}


@pytest.mark.parametrize("fault", [Outcome.FAILED, Outcome.SANDBOX_ERROR])
def test_nothing_to_learn_from_is_said_with_its_reason(tmp_path: Path, fault: Outcome) -> None:
    with pytest.raises(ValueError, match=r"round 1: \d+ instructions gave no preference \(all_passed 0"):
        go(tmp_path, FakeEngine(fault=fault))
    assert not (tmp_path / "run/round-001/preferences.jsonl").exists()


def test_compare_finds_a_difference_and_forgives_timings(tmp_path: Path) -> None:
    for name in "ab":
        go(tmp_path / name, rounds=1, policy=make_config(tmp_path).policy)
    a, b = (tmp_path / name / "run" for name in "ab")
    assert differences(a, b) == []
    verdicts = b / "round-001/verdicts.jsonl"
    verdicts.write_text(verdicts.read_text().replace("passed", "failed", 1))
    (b / "round-001/extra.jsonl").write_text("")
    assert differences(a, b) == [f"round-001/extra.jsonl: only in {b}", "round-001/verdicts.jsonl: differs"]


def test_trackers_get_steps_of_the_run_and_its_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, set[str]]] = []

    class Told:
        def log(self, figures: dict[str, float], step: int) -> None:
            told.append((step, set(figures)))

        def close(self) -> None:
            told.append((-1, set()))

    monkeypatch.setattr("plum_core.rounds.loop.make_trackers", lambda names, *_: [Told() for _ in names])
    monkeypatch.setattr("plum_core.rounds.config.check_trackers", lambda names: None)
    go(tmp_path, trackers=("tensorboard",))
    assert [step for step, _ in told] == [0, 1, 2, 3, 3, 4, 5, 6, 6, -1]  # three steps a round, evaluations between
    assert "train/loss" in told[1][1] and {"eval/sampled/mean", "eval/pass_at/1"} <= told[0][1]
