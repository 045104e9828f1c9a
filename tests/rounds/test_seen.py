"""What a terminal shows of a run: figures that are the files', and model text that nobody obeys."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from plum_core.rounds.display import Display
from plum_core.rounds.events import Events
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.loop import Rounds
from plum_core.rounds.observer import Observer
from plum_core.rounds.rates import Pace, clock, in_words
from plum_core.rounds.show import show
from plum_core.rounds.summary import outcome_mix, summarise, visible
from tests.rounds.fakes import FakeEngine, FakePolicy, FakeSource, make_config

NASTY = "[red]x[/red]\x1b[2J\u202e\x07"


class NastyPolicy(FakePolicy):
    tail = f"  # {NASTY}"  # a comment, so that the program compiles


class NastyEngine(FakeEngine):
    def policy(self, folder: Path) -> FakePolicy:
        return NastyPolicy(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = make_config(tmp_path_factory.mktemp("report"))
    return Rounds(config, FakeSource(heldout=30), NastyEngine(), argv=["plum"]).go()


def shown(folder: RunFolder, **options: object) -> str:
    out = io.StringIO()
    show(summarise(folder), Console(file=out, width=140, **options))  # type: ignore[arg-type]
    return out.getvalue()


def test_the_figures_are_those_of_the_files(folder: RunFolder) -> None:
    summary = summarise(folder)
    assert [r.number for r in summary.rounds] == [0, 1, 2] and len(summary.rounds[1].training) == 3
    assert summary.seconds.keys() == {"evaluation", "tests", "samples", "verdicts", "preferences", "training"}
    assert summary.won > 0 and summary.lost == 0  # the fake's quality only rises
    assert 1 <= len(summary.examples) <= 2
    for example in summary.examples:
        assert "bad" in example.before and "good" in example.after and example.test == "assert h"


def test_the_terminal_says_what_was_promised(folder: RunFolder) -> None:
    text = shown(folder)
    for words in (
        "30 tasks that no stage saw",
        "kept of 10",
        "trivial",
        "with both verdicts",
        "the same program again",
        "Seconds by stage",
        "that came right",
        "report.html",
        "Nothing here is real.",
        "assert h",
    ):
        assert words in text


def test_model_text_is_text_on_a_terminal(folder: RunFolder) -> None:
    text = shown(folder, force_terminal=False)
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "[red]x[/red]" in text and "\\x1b[2J" in text and "\\u202e" in text


def test_an_unfinished_run_can_be_shown(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.train = None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        Rounds(make_config(tmp_path), FakeSource(), engine, argv=["plum"]).go()
    folder = RunFolder(tmp_path / "run")
    assert "round 1" in shown(folder)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run.json does not exist: name the folder of a run"):
        summarise(RunFolder(tmp_path))
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json:1: not JSON"):
        summarise(RunFolder(tmp_path))


def test_visible_keeps_what_can_be_read() -> None:
    assert visible("def f():\n\treturn 'é漢🙂'") == "def f():\n\treturn 'é漢🙂'"
    assert visible("\x00\r\x9b\u200b\ud800") == "\\x00\\r\\x9b\\u200b\\ud800"


def test_errors_of_syntax_are_told_apart() -> None:
    row = {"outcomes": {"passed": 5, "error": 4, "failed": 2}, "syntax": 3}
    assert outcome_mix(row) == [("passed", 5), ("does not compile", 3), ("failed", 2), ("error", 1)]
    assert outcome_mix({}) == []


def test_progress_is_plain_lines_in_a_file_and_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plum_core.rounds.display.PLAIN_EVERY_S", 0.0)
    plain, live = io.StringIO(), io.StringIO()
    for out, options in ((plain, {}), (live, {"force_terminal": True})):
        with Display(Console(file=out, width=120, **options)) as display:  # type: ignore[arg-type]
            display.stage(1, "training", "steps")
            display.progress(1, 4, {"loss": 0.5, "rewards/margins": 0.25})
            display.finished(1, "training", 2.0, {"steps": 4, "loss": 0.25})
    said = plain.getvalue().splitlines()
    assert said[0].startswith("round 1: training: 1 of 4 steps, loss 0.500, margin +0.250, ") and "left" in said[0]
    assert said[1] == "round 1: training: 4 steps, loss 0.250 in 2.0 s"
    assert "\x1b" not in plain.getvalue() and "\x1b" in live.getvalue()


def test_rates_leave_out_what_an_earlier_sitting_did() -> None:
    pace = Pace(100.0)
    before = {"programs": 50, "outcomes": {"passed": 50}}
    assert pace.rates(10, 40, before, 100.0) == {
        "unit_per_s": 0.0,
        "verdicts_per_s": 0.0,
        "outcomes_per_s": {"passed": 0.0},
    }
    found = pace.rates(20, 40, {"programs": 90, "outcomes": {"passed": 80, "failed": 10}}, 110.0)
    assert found == {
        "unit_per_s": 1.0,
        "left_s": 20.0,
        "verdicts_per_s": 4.0,
        "outcomes_per_s": {"passed": 3.0, "failed": 1.0},
    }
    assert in_words(found, "instructions") == "1.0 instructions/s, 4.0 verdicts/s (75 % passed, 25 % failed)"
    resumed = Pace(0.0)
    assert resumed.rates(31, 41, {"loss": 1.0}, 2.0) == {"unit_per_s": 0.5, "left_s": 20.0, "loss": 1.0}


def test_time_left_is_told_in_words() -> None:
    assert [clock(s) for s in (0.4, 59.4, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 05 min"]


def test_a_stage_tells_its_samples_tokens_and_outcomes(tmp_path: Path) -> None:
    told: list[tuple[str, int, dict[str, object]]] = []

    class Watching(Observer):
        def stage(self, round_: int, stage: str, unit: str) -> None:
            self.name = stage

        def progress(self, done: int, total: int, figures: Mapping[str, object] | None = None) -> None:
            told.append((self.name, done, dict(figures or {})))

    Rounds(make_config(tmp_path, rounds=1), FakeSource(), FakeEngine(), observer=Watching(), argv=["plum"]).go()
    samples = [(done, figures) for name, done, figures in told if name == "samples"]
    assert samples[0] == (0, {}) and samples[-1][0] == 8 and samples[-1][1]["samples"] == 8 * 4
    assert {"passed", "failed"} == set(next(f["outcomes"] for n, d, f in reversed(told) if n == "verdicts"))  # type: ignore[call-overload]


def test_events_are_one_object_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plum_core.rounds.events.EVERY_S", 0.0)
    out = io.StringIO()
    events = Events(out)
    folder = Rounds(make_config(tmp_path, rounds=1), FakeSource(), FakeEngine(), observer=events, argv=["plum"]).go()
    events.summary(summarise(folder), "report.html", True)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    kinds = Counter(line["event"] for line in lines)
    assert kinds["stage"] == kinds["finished"] == 7 and kinds["progress"] > 7 and lines[-1]["event"] == "summary"
    assert [e["round"] for e in lines[-1]["evaluations"]] == [0, 1]
    assert any("verdicts_per_s" in line for line in lines) and any("loss" in line for line in lines)
