"""Runs side by side: differences that are paired and right, and runs that cannot be compared refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from plum_core.records import Outcome, Verdict, read_jsonl, write_jsonl
from plum_core.reporting import write_comparison
from plum_core.reporting.compare import against, differing, read_runs, unique_names
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.loop import Rounds
from tests.reporting.pages import Page
from tests.rounds.fakes import FakeEngine, FakeSource, make_config


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Two equal runs of other seeds, but the second run's last greedy answers: three of its tasks went wrong."""
    made = []
    for seed in (0, 1):
        config = make_config(tmp_path_factory.mktemp(f"run{seed}"), seed=seed)
        made.append(Rounds(config, FakeSource(heldout=30), FakeEngine(), argv=["plum"]).go())
    path = made[1].round(2) / "evaluation.jsonl"
    right, out = 3, []
    first = {v.id: v for v in read_jsonl(made[0].round(2) / "evaluation.jsonl", Verdict)}
    for verdict in read_jsonl(path, Verdict):
        if verdict.id.endswith("/greedy"):
            verdict = first[verdict.id]
            if verdict.outcome == Outcome.PASSED and right:
                right -= 1
                verdict = dataclasses.replace(verdict, outcome=Outcome.FAILED, passed=(False,))
        out.append(verdict)
    write_jsonl(path, out)
    return made


def test_tasks_won_and_lost_are_counted(both: list[RunFolder]) -> None:
    runs = read_runs(both)
    found, back = against(runs[0], runs[1]), against(runs[1], runs[0])
    assert found.won == [] and len(found.lost) == 3 and found.lost == back.won
    assert found.greedy is not None and found.greedy.mean == pytest.approx(-3 / 30) and found.greedy.count == 30
    assert found.greedy.low < -0.1 < found.greedy.high
    assert (found.better, found.worse) == (back.worse, back.better)
    assert dict(differing(runs)) == {"seed": ["0", "1"], "policy": [str(r.folder.path.parent / "policy") for r in runs]}


def test_the_page_says_it_and_runs_nothing(both: list[RunFolder], tmp_path: Path) -> None:
    html = write_comparison(both, tmp_path / "compare.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "-10.0 [" in html and "3 that only" in html and "Settings that differ" in html
    assert "script" not in page.tags and page.links == [] and page.handlers == []
    assert page.policy["default-src"] == "'none'" and page.tags.count("svg") == 3


def test_what_cannot_be_compared_is_refused(both: list[RunFolder], tmp_path: Path) -> None:
    other = Rounds(make_config(tmp_path, rounds=0), FakeSource(heldout=5), FakeEngine(), argv=["plum"]).go()
    with pytest.raises(ValueError, match="evaluated on other tasks"):
        read_runs([both[0], other])
    (other.round(0) / "evaluation.jsonl").unlink()
    with pytest.raises(ValueError, match="has no evaluation yet"):
        read_runs([both[0], other])
    with pytest.raises(ValueError, match="given twice"):
        read_runs([both[0], both[0]])
    with pytest.raises(ValueError, match="two runs or more"):
        read_runs(both[:1])


def test_names_are_as_long_as_they_must_be() -> None:
    assert unique_names([Path("/a/x"), Path("/a/y")]) == ["x", "y"]
    assert unique_names([Path("/a/x/run"), Path("/a/y/run")]) == ["x/run", "y/run"]
