"""Experiments: arms resolve to checked settings, equal arms share a run, and the table says what the runs did."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from plum_core import settings
from plum_core.experiments import Cell, figure, find_experiments, make_cells, markdown, read_experiment, results
from plum_core.experiments.results import mean_rates
from plum_core.reporting.compare import against, read_runs
from plum_core.rounds.config import RunConfig
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.loop import Rounds
from tests.conftest import ROOT
from tests.rounds import toy
from tests.rounds.fakes import FakeEngine, FakeSource, make_config

CONFIGS = ROOT / "runners" / "configs"
BASE = CONFIGS / "tiny.toml"


def base() -> RunConfig:
    return settings.parse(RunConfig, ["--config", str(BASE)])


@pytest.mark.parametrize("path", find_experiments((), CONFIGS / "experiments"), ids=lambda p: p.stem)
def test_what_ships_resolves(path: Path, tmp_path: Path) -> None:
    """Every arm is a config that the loop takes, its first arm is the base, and no two arms are the same."""
    experiment = read_experiment(path, base())
    cells = make_cells(experiment, [BASE], [], [0], tmp_path)
    assert len({c.config.out for c in cells}) == len(cells) >= 2
    assert dataclasses.replace(cells[0].config, out=base().out) == base(), "the first arm is the main job"


def test_equal_arms_share_a_run_and_seeds_do_not(tmp_path: Path) -> None:
    made = [
        make_cells(read_experiment(path, base()), [BASE], [], [0, 1], tmp_path)
        for path in find_experiments(("objective", "controls"), CONFIGS / "experiments")
    ]
    assert made[0][0].config == made[1][0].config
    assert len({c.config.out for cells in made for c in cells}) == 2 * (2 + 4 - 1)


def test_an_arm_may_name_what_the_base_has(tmp_path: Path) -> None:
    cells = make_cells(read_experiment(CONFIGS / "experiments" / "policy.toml", base()), [BASE], [], [0], tmp_path)
    assert [str(c.config.off_policy) for c in cells] == ["None", "models/tiny/policy", "models/tiny/author"]
    rft = make_cells(read_experiment(CONFIGS / "experiments" / "controls.toml", base()), [BASE], [], [0], tmp_path)[2]
    assert rft.config.training.objective == "rft" and rft.config.training.beta is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question = 'why?'", "wants a question and two arms"),
        ("question = 'why?'\nanswer = 1\n[arms.a]\n[arms.b]", "also holds answer"),
        ("question = ", "is not TOML"),
        ("question = 'why?'\n[arms.a]\n[arms.b]\nround = 3", "arm b of bad: unknown flag --round"),
    ],
)
def test_what_is_no_experiment_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ValueError, match=words):
        make_cells(read_experiment(tmp_path / "bad.toml", base()), [BASE], [], [0], tmp_path)


def test_an_arm_that_would_change_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    files = folder / "toy.toml"
    experiment = read_experiment(CONFIGS / "experiments" / "tests.toml", base())
    with pytest.raises(ValueError, match=r"arm four of tests sets grammar.testing.inputs, but .* tasks from files"):
        make_cells(experiment, [files], [], [0], tmp_path)


def test_a_misspelt_experiment_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean objective"):
        find_experiments(("objectve",), CONFIGS / "experiments")


class BetterEngine(FakeEngine):
    """Training adds nothing."""

    def train(self, *args: object, **options: object) -> object:  # type: ignore[override]
        trained = super().train(*args, **options)  # type: ignore[arg-type]
        place = options["out"](3)  # type: ignore[operator]
        (place / "quality.txt").write_text("50")
        return trained


def test_figures_are_those_of_the_runs(tmp_path: Path) -> None:
    """Two arms of two seeds; the second arm's policy never changes, so its gain is exactly nothing."""
    cells = []
    (tmp_path / "e.toml").write_text("question = 'Does training help?'\n[arms.real]\n[arms.idle]\nreference='previous'")
    experiment = read_experiment(tmp_path / "e.toml", base())
    for arm, engine in zip(experiment.arms, (FakeEngine, BetterEngine), strict=True):
        for seed in (0, 1):
            config = make_config(tmp_path / f"{arm.name}{seed}", rounds=1, seed=seed)
            Rounds(config, FakeSource(heldout=30), engine(), argv=["plum"]).go()
            cells.append(Cell(arm=arm, seed=seed, config=config, flags=()))
    real, idle = results(experiment, cells)
    assert real.done == (0, 1) and real.figures["sampled"].against is None
    assert idle.figures["sampled"].gain.mean == 0.0 and idle.figures["sampled"].seeds == (0.0, 0.0)
    one = [against(*read_runs([RunFolder(cells[i].config.out), RunFolder(cells[i + 2].config.out)])) for i in (0, 1)]
    means = [found.sampled.mean for found in one if found.sampled]
    both = idle.figures["sampled"].against
    assert both is not None and both.mean == pytest.approx(sum(means) / 2) and both.mean < 0 < both.high - both.low
    table = markdown(experiment, [real, idle], "python x", (0, 1, 2))
    assert both.points() in table and "Not done yet: real (seed 2), idle (seed 2)" in table and "`python x`" in table
    drawn = ElementTree.fromstring(figure(experiment, [real, idle]))
    assert len(drawn.findall(".//{*}circle")) == 1 + 2 * 3  # the legend; for each arm all seeds and each


def test_means_over_seeds_are_of_shared_tasks() -> None:
    assert mean_rates([{"a": 1.0, "b": 0.5}, {"a": 0.0}]) == {"a": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("toy")
    toy.main(made)
    (made / "toy.toml").write_text(settings.to_toml(toy.make_config(made, made / "run")))
    text = "question = 'Pairs or labels?'\n[arms.dpo]\n[arms.kto.training]\nobjective = 'kto'\n"
    (made / "short.toml").write_text(text)
    return made


def test_the_command_runs_and_goes_on(folder: Path) -> None:
    words = ["runners/experiments.py", folder / "short.toml", "--base", folder / "toy.toml", "--seeds", "0"]
    words += ["--out", folder / "out"]

    def call() -> str:
        done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call().count("running in") == 2
    table = (folder / "out" / "short.md").read_text()
    assert "| dpo | 1 |" in table and "| kto | 1 |" in table and "Not done" not in table
    assert "<svg" in (folder / "out" / "short.svg").read_text()
    (folder / "out" / "short.md").unlink()
    said = call()
    assert said.count("done, ") == 2 and "running" not in said and (folder / "out" / "short.md").read_text() == table
