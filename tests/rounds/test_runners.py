"""The runners on the toy: all rounds at once, and stage by stage from file to file."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from plum_core import settings
from plum_core.records import Label, Pair, Sample, Verdict, read_jsonl
from tests.conftest import ROOT
from tests.rounds import toy

Runner = Callable[..., int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("toy")
    toy.main(made)
    return made


def runner(name: str, config: str) -> Runner:
    """``runners/NAME.py`` in this process."""
    spec = importlib.util.spec_from_file_location(f"runner_{name}", ROOT / "runners" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations are looked up
    spec.loader.exec_module(module)

    def call(*words: object) -> int:
        return settings.main(module.run, getattr(module, config), [str(w) for w in words], doc=module.__doc__ or "")

    return call


def test_stage_by_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = folder.__truediv__
    tasks = ("--instructions", at("instructions.jsonl"))
    draw = ("--sampling.n", 6, "--sampling.max_new_tokens", 24, "--quiet")
    sample, pair = runner("sample", "SampleConfig"), runner("pair", "PairConfig")
    words = (*("--policy", at("policy")), *tasks, *("--tests", at("tests.jsonl")), *draw)
    assert sample(*words, "--out", at("samples.jsonl"), "--programs", at("programs.jsonl")) == 0
    samples = list(read_jsonl(at("samples.jsonl"), Sample))
    assert len(samples) == 40 * 6 and not at("samples.parts").exists()
    assert sample(*words, "--out", at("samples.jsonl")) == 2
    assert "samples.jsonl exists" in capsys.readouterr().err

    execute = runner("execute", "ExecuteConfig")
    assert execute("--programs", at("programs.jsonl"), "--out", at("verdicts.jsonl"), "--workers", 1) == 0
    joined = (*tasks, "--samples", at("samples.jsonl"), "--verdicts", at("verdicts.jsonl"))
    assert pair(*joined, "--out", at("pairs.jsonl")) == 0
    assert pair(*joined, "--kind", "labels", "--out", at("labels.jsonl")) == 0
    pairs, labels = list(read_jsonl(at("pairs.jsonl"), Pair)), list(read_jsonl(at("labels.jsonl"), Label))
    assert pairs and {label.label for label in labels} == {True, False}
    passed = {v.id for v in read_jsonl(at("verdicts.jsonl"), Verdict) if v.outcome == "passed"}
    assert {f"{p.instruction_id}/{p.chosen_index}" for p in pairs} <= passed

    train, evaluate = runner("train", "TrainConfig"), runner("evaluate", "EvaluateConfig")
    start = ("--policy", at("policy"), "--sft", at("sft.jsonl"), "--training.tokens_per_batch", 1500, "--quiet")
    assert train(*start, "--preferences", at("pairs.jsonl"), "--out", at("trained")) == 0
    rows = [json.loads(line) for line in at("trained/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(1, len(rows) + 1)) and not at("trained/training").exists()
    for objective in ("grpo", "dapo", "rloo"):  # on the samples and verdicts themselves
        out = ("--training.objective", objective, "--out", at(objective))
        assert train(*start, *out, "--preferences", folder) == 0
        first, *_, last = [json.loads(line) for line in at(f"{objective}/metrics.jsonl").read_text().splitlines()]
        assert first["ratio"] == pytest.approx(1, abs=1e-5)  # stored log-probs are those of the policy that drew
        assert first["clip_ratio/region_mean"] == 0 and abs(last["ratio"] - 1) > 1e-4
        assert train(*start, *out[:2], "--out", at("none"), "--preferences", at("pairs.jsonl")) == 2
        assert f"objective {objective} learns from a round's folder" in capsys.readouterr().err
    held = ("--instructions", at("eval.jsonl"), "--tests", at("eval-tests.jsonl"), "--max_new_tokens", 24, "--quiet")
    one = ("--execution.workers", 1, "--evaluation.ks", 1, 6)
    assert evaluate("--policy", at("policy"), *held, *one, "--out", at("before.jsonl")) == 0
    capsys.readouterr()
    after = ("--policy", at("trained/policy"), "--against", at("before.jsonl"), "--out", at("after.jsonl"))
    assert evaluate(*held, *one, *after) == 0
    said = capsys.readouterr().out
    for text in ("20 tasks, 120 samples, 0 lost", "pass@1 sampled", "pass@6", "gain sampled", "(paired, 20 tasks)"):
        assert text in said


def test_chunks_are_held_to_their_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "again.jsonl"
    out.with_suffix(".parts").mkdir()
    (out.with_suffix(".parts") / "settings.json").write_text('{"seed": 1}')
    words = ("--policy", folder / "policy", "--instructions", folder / "instructions.jsonl", "--quiet")
    assert runner("sample", "SampleConfig")(*words, "--out", out) == 2
    assert "again.parts was begun with other settings" in capsys.readouterr().err


def test_an_author_writes_tests(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--author", folder / "policy", "--instructions", folder / "instructions.jsonl", "--quiet")
    small = ("--testing.max_new_tokens", 24, "--testing.solutions", 4, "--execution.workers", 1)
    assert runner("make_tests", "MakeTestsConfig")(*words, *small, "--out", folder / "made.jsonl") == 0
    said = capsys.readouterr().out
    assert "of 40 kept, with " in said and "filter               out  left" in said
    suites = [json.loads(line) for line in (folder / "made.jsonl").read_text().splitlines()]
    assert len(suites) == 40 and all(bool(s["tests"]) == s["kept"] and bool(s["why"]) != s["kept"] for s in suites)


def test_all_rounds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plum, report = runner("plum", "RunConfig"), runner("report", "ReportConfig")
    config = folder / "toy.toml"
    config.write_text(settings.to_toml(toy.make_config(folder, folder / "run")))
    assert plum("--config", config) == 0
    said = capsys.readouterr().out
    for text in ("round 1: training: ", "Held out: 20 tasks", "Seconds by stage", "parameters, seed 0"):
        assert text in said
    assert "complete already" not in said and (folder / "run/report.html").exists()
    assert plum("--config", config, "--quiet") == 0
    said = capsys.readouterr().out
    assert "complete already" in said and "round 1: training: " not in said
    assert plum("--config", config, "--seed", 1) == 2
    assert capsys.readouterr().err.startswith(f"error: {folder / 'run'} was begun with --seed 0, now it is 1")
    assert report(folder / "run", "--quiet") == 0
    assert capsys.readouterr().out == f"{folder / 'run' / 'report.html'}\n"
