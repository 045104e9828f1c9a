"""The report and the inspector as files: figures that are the run's, and model text that stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from plum_core.records import Label, Verdict, read_jsonl
from plum_core.reporting import write_inspector, write_report
from plum_core.reporting.page import embedded
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.loop import Rounds
from plum_core.training import PreferenceConfig
from tests.reporting.conftest import NASTY
from tests.reporting.pages import Page
from tests.rounds.fakes import FakeEngine, FakeSource, make_config

ENDS_A_BLOCK = ("</script", "<script", "<!--", "\u2028", "\u202e", "\x1b")


def pages(folder: RunFolder) -> tuple[Page, Page, str, str]:
    report = write_report(folder)
    texts = [p.read_text(encoding="utf-8") for p in (report, report.parent / "inspector.html")]
    return Page(texts[0]), Page(texts[1]), *texts


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_report_runs_nothing_and_fetches_nothing(folder: RunFolder) -> None:
    report, _, html, _ = pages(folder)
    assert "script" not in report.tags and "img" not in report.tags and report.handlers == []
    assert all(link.startswith("#") or link == "inspector.html" for link in report.links)
    assert report.policy["default-src"] == "'none'" and "script-src" not in report.policy
    assert report.policy["style-src"] == digest("".join(report.styles))
    assert "&lt;/script&gt;&lt;script&gt;document.title=" in html
    assert not any(c in html for c in ("\x1b", "\u202e", "\u2028"))


def test_links_of_the_report_lead_somewhere(folder: RunFolder) -> None:
    report = pages(folder)[0]
    assert {link[1:] for link in report.links if link.startswith("#")} <= set(report.ids)
    assert len(report.ids) == len(set(report.ids))


def test_the_report_says_what_the_run_did(folder: RunFolder) -> None:
    report, _, html, _ = pages(folder)
    for words in ("30 tasks that no stage saw", "Nothing here is real.", "passes all tests", "round 2", "quality-70"):
        assert words in html
    charts = (
        "Held-out tasks solved",
        "How the samples of each round ended",
        "Instructions by how many",
        "Lengths",
        "Loss",
        "Instructions that lost their tests",
        "Samples that could not be preferred",
        "Wall seconds by stage",
        "dpo does not estimate one",
    )
    assert [words for words in charts if words not in html] == []
    assert report.tags.count("svg") == report.tags.count("figure") >= 8


def test_the_only_script_of_the_inspector_is_ours(folder: RunFolder) -> None:
    _, inspector, _, html = pages(folder)
    assert [kind for kind, _ in inspector.scripts] == ["application/json", ""]
    assert inspector.policy["script-src"] == digest(inspector.scripts[1][1])
    assert inspector.policy["default-src"] == "'none'" and inspector.handlers == []
    block = html.split('id="data">')[1].split("</script>")[0]
    assert not any(mark in block for mark in (*ENDS_A_BLOCK, "<", ">", "&")) and block.isascii()
    assert "innerHTML" not in inspector.scripts[1][1] and "eval(" not in inspector.scripts[1][1]


def test_the_inspector_holds_every_program(folder: RunFolder) -> None:
    data = json.loads(pages(folder)[1].scripts[0][1])
    texts, rows = data["texts"], data["rows"]
    verdicts = [
        v
        for n in range(3)
        for name in ("verdicts", "evaluation")
        if (path := folder.round(n) / f"{name}.jsonl").exists()
        for v in read_jsonl(path, Verdict)
    ]
    assert len(rows) == len(verdicts)
    named = {f"{texts[data['instructions'][r[0]][0]]}/{texts[r[2]]}@{r[1]}": texts[r[3]] for r in rows}
    assert len(named) == len(rows)
    for verdict in read_jsonl(folder.round(1) / "verdicts.jsonl", Verdict):
        assert named[f"{verdict.id}@1"] == verdict.outcome
    assert all(texts[rows[good][3]] == "passed" != texts[rows[bad][3]] for _, good, bad in data["pairs"])
    learnt = {i for _, good, bad in data["pairs"] for i in (good, bad)}
    assert {i for i, row in enumerate(rows) if row[9]} == learnt
    assert data["pairs"] and {r[1] for r in rows} == {1, 2, -1, -2, -3}
    assert data["rounds"]["-1"] == "held out, before" and data["rounds"]["-3"] == "held out, after round 2"


@pytest.mark.parametrize("text", [NASTY, "</SCRIPT >", "<!--<script>", "\ud800", "a&lt;/script", "\u2029\x00"])
def test_embedded_data_comes_back_and_cannot_end_its_block(text: str) -> None:
    block = str(embedded({"a": [text]}))
    assert json.loads(block) == {"a": [text]}
    assert not any(mark in block.lower() for mark in ENDS_A_BLOCK) and "<" not in block
    page = Page(f'<script type="application/json">{block}</script><p>after</p>')
    assert page.tags == ["script", "p"] and page.scripts == [("application/json", block)]


def test_the_parser_would_notice(folder: RunFolder) -> None:
    """The check above can fail: the same text embedded as it is breaks out."""
    block = json.dumps({"a": [NASTY]})
    assert Page(f'<script type="application/json">{block}</script>').tags != ["script"]


def test_labels_mark_what_was_learnt_from(tmp_path: Path) -> None:
    config = make_config(tmp_path, rounds=1, training=PreferenceConfig(objective="kto"))
    folder = Rounds(config, FakeSource(), FakeEngine(), argv=["plum"]).go()
    data = json.loads(pages(folder)[1].scripts[0][1])
    labels = list(read_jsonl(folder.round(1) / "preferences.jsonl", Label))
    marked = [row for row in data["rows"] if row[9]]
    assert data["pairs"] == [] and len(marked) == len(labels) > 0
    assert all((data["texts"][row[3]] == "passed") == (row[9] == 1) for row in marked)


def test_programs_past_the_cap_are_counted(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plum_core.reporting.inspector.MOST_ROWS", 20)
    page = Page(html := write_inspector(folder).read_text(encoding="utf-8"))
    assert len(json.loads(page.scripts[0][1])["rows"]) == 20 and "programs more are in the run folder" in html


def test_an_unfinished_run_has_its_pages(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.train = None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        Rounds(make_config(tmp_path), FakeSource(), engine, argv=["plum"]).go()
    report, inspector, html, _ = pages(RunFolder(tmp_path / "run"))
    assert "round 1" in html and "svg" in report.tags and json.loads(inspector.scripts[0][1])["pairs"]


def test_controls_stand_beside_the_run(folder: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "random-labels"
    shutil.copytree(folder.path, copy)
    html = write_report(folder, [RunFolder(copy)]).read_text(encoding="utf-8")
    assert "Beside its controls: pass@1 sampled" in html and "random-labels" in html
    (copy / "heldout" / "tests.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"is no control of .* held-out tasks differ"):
        write_report(folder, [RunFolder(copy)])
