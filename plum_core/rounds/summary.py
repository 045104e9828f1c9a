"""What a person wants to know of a run, gathered from its folder; the terminal and the HTML report show the same."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from plum_core.records import Instruction, Outcome, TestSuite, Verdict, read_jsonl
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.stages import GREEDY

Row = dict[str, Any]
EXAMPLES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigures:
    """Rows of metrics of one round, empty where a stage is not done; ``training`` has one a step."""

    number: int
    tests: Row
    samples: Row
    verdicts: Row
    preferences: Row
    training: list[Row]
    evaluation: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A held-out task that the first policy failed greedily and the last one solves. ``test``: the one that said no."""

    prompt: str
    before: str
    after: str
    outcome: str
    test: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    path: str
    note: str
    info: Row  # run.json
    rounds: list[RoundFigures]  # number 0: the policy as it came
    seconds: dict[str, dict[int, float]]  # by stage, then round
    examples: list[Example]
    won: int  # held-out tasks whose greedy answer came right, and went wrong
    lost: int


def summarise(folder: RunFolder) -> Summary:
    """Everything from the files of a run, finished or not. Raises FileNotFoundError where there is no run."""
    info = folder.info()
    rounds = _figures(folder.metrics())
    won, lost, examples = _changes(folder, rounds)
    return Summary(
        path=str(folder.path),
        note=info.get("note", ""),
        info=info,
        rounds=rounds,
        seconds=_seconds(folder.timings()),
        examples=examples,
        won=won,
        lost=lost,
    )


def _figures(rows: list[Row]) -> list[RoundFigures]:
    by_round: dict[int, dict[str, list[Row]]] = {}
    for row in rows:
        by_round.setdefault(row["round"], {}).setdefault(row["stage"], []).append(row)
    out = []
    for number, stages in sorted(by_round.items()):
        single = {name: rows[-1] for name, rows in stages.items()}
        names = ("tests", "samples", "verdicts", "preferences", "evaluation")
        figures = {name: single.get(name, {}) for name in names}
        out.append(RoundFigures(number=number, training=stages.get("training", []), **figures))
    return out


def _seconds(rows: list[Row]) -> dict[str, dict[int, float]]:
    """Wall seconds of all sittings that finished a stage."""
    out: dict[str, dict[int, float]] = {}
    for row in rows:
        by_round = out.setdefault(row["stage"], {})
        by_round[row["round"]] = by_round.get(row["round"], 0.0) + row["wall_s"]
    if "evaluation" in out:
        out["evaluation"] = out.pop("evaluation")  # it is done before the first round too, but closes each
    return out


def _greedy(folder: RunFolder, number: int) -> dict[str, Verdict]:
    """Greedy verdicts by task."""
    path = folder.round(number) / "evaluation.jsonl"
    if not path.exists():
        return {}
    end = f"/{GREEDY}"
    return {v.id.removesuffix(end): v for v in read_jsonl(path, Verdict) if v.id.endswith(end)}


def _changes(folder: RunFolder, rounds: list[RoundFigures]) -> tuple[int, int, list[Example]]:
    last = max((r.number for r in rounds if r.evaluation), default=0)
    before, after = _greedy(folder, 0), _greedy(folder, last)
    right = {
        side: {t for t, v in verdicts.items() if v.outcome == Outcome.PASSED}
        for side, verdicts in enumerate((before, after))
    }
    judged = before.keys() & after.keys()
    won, lost = sorted((right[1] - right[0]) & judged), (right[0] - right[1]) & judged
    if last == 0 or not won:
        return len(won), len(lost), []
    # those that failed by an assert say most, and the shorter ones are read sooner
    won.sort(key=lambda t: (before[t].outcome != Outcome.FAILED, len(before[t].extra.get("code", "")), t))
    tasks = {i.id: i for i in read_jsonl(folder.heldout / "instructions.jsonl", Instruction)}
    suites = {s.instruction_id: s for s in read_jsonl(folder.heldout / "tests.jsonl", TestSuite)}
    return len(won), len(lost), [_example(tasks[t], suites[t], before[t], after[t]) for t in won[:EXAMPLES]]


def _example(task: Instruction, suite: TestSuite, before: Verdict, after: Verdict) -> Example:
    first = next((i for i, passed in enumerate(before.passed) if not passed), None)
    return Example(
        prompt=task.prompt,
        before=before.extra.get("code", ""),
        after=after.extra.get("code", ""),
        outcome=before.outcome.value,
        test=suite.tests[first] if first is not None and first < len(suite.tests) else "",
        detail=before.detail,
    )


def visible(text: str) -> str:
    """Model text with what a terminal or a browser would obey, or not show, spelled out as escapes."""
    if text.replace("\n", "").replace("\t", "").isprintable():  # nearly always, and much faster
        return text
    return "".join(c if c in "\n\t" or not _hidden(unicodedata.category(c)) else ascii(c)[1:-1] for c in text)


def _hidden(category: str) -> bool:
    return category[0] == "C" or category in ("Zl", "Zp")


def outcome_mix(row: Row) -> list[tuple[str, int]]:
    """Outcomes with errors of syntax taken apart from other errors, most frequent first."""
    found: dict[str, int] = dict(row.get("outcomes", {}))
    syntax = row.get("syntax", 0)
    if syntax:
        found["error"] = found.get("error", 0) - syntax
        found["does not compile"] = syntax
    return sorted(((k, v) for k, v in found.items() if v), key=lambda item: -item[1])


EXCLUSIONS = {
    "duplicate": "the same program again",
    "unrunnable": "does not compile",
    "truncated": "passed, cut at the length limit",
    "flaky": "one program, both verdicts",
    "unattested": "verdict not attested",
    "sandbox_error": "our sandbox failed",
    "no_verdict": "without a verdict",
}


def exclusions(row: Row) -> list[tuple[str, int]]:
    """Why samples did not become preferences, in words."""
    return [(words, row[name]) for name, words in EXCLUSIONS.items() if row.get(name)]


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def interval(found: Row | None, *, signed: bool = False) -> str:
    """``48.6 [46.5, 50.7]``, in per cent; with signs for a gain."""
    if not found:
        return ""
    sign = "+" if signed else ""
    return f"{100 * found['mean']:{sign}.1f} [{100 * found['low']:{sign}.1f}, {100 * found['high']:{sign}.1f}]"
