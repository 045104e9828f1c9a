"""Every program of a run beside its tests and verdict, as one HTML file with the data in it.

The file holds tables by column and each text once. The page's script fills elements by ``textContent`` alone, and the
Content-Security-Policy forbids any other script, so what a model wrote is shown and never obeyed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plum_core.preferences import verdict_id
from plum_core.records import (
    Grade,
    Instruction,
    Label,
    Outcome,
    Pair,
    Sample,
    TestSuite,
    Verdict,
    read_jsonl,
    write_atomic,
)
from plum_core.records.files import decode_line
from plum_core.reporting.page import embedded, render
from plum_core.rounds import show
from plum_core.rounds.display import round_name
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.stages import SYNTAX
from plum_core.rounds.summary import summarise, visible

MOST_ROWS = 100_000
LEARNT = 9  # place in a row: 0 not learnt from, 1 as chosen or desirable, 2 as rejected or undesirable
MOST_CHARS = 20_000  # of one text: a flood says no more in full


@dataclass
class Tables:
    """What the page is given; the keys are those that inspector.js reads."""

    texts: list[str] = field(default_factory=list)
    instructions: list[list[Any]] = field(default_factory=list)  # [id, prompt, round, why, reference, [test, ...]]
    rows: list[list[Any]] = field(default_factory=list)  # see ``add_row``
    pairs: list[list[int]] = field(default_factory=list)  # [round, row of the chosen, row of the rejected]
    left_out: int = 0
    _places: dict[str, int] = field(default_factory=dict)

    def text(self, value: str) -> int:
        """The place of a text in ``texts``, made visible and not longer than ``MOST_CHARS``."""
        if value not in self._places:
            cut = value if len(value) <= MOST_CHARS else f"{value[:MOST_CHARS]}\n[{len(value) - MOST_CHARS} more]"
            self._places[value] = len(self.texts)
            self.texts.append(visible(cut))
        return self._places[value]

    def add_instruction(self, instruction: Instruction, suite: TestSuite | None, round_: int) -> int:
        tests: list[str] = [*suite.tests, *(f"{t.input!r} -> {t.output!r}" for t in suite.stdin_tests)] if suite else []
        why = "" if suite is None or suite.kept else suite.why or "no reason given"
        reference = suite.reference or "" if suite else ""
        prompt = f"{instruction.prompt}\n{instruction.starter or ''}".rstrip()
        texts = [self.text(t) for t in (instruction.id, prompt)]
        self.instructions.append([*texts, round_, self.text(why), self.text(reference), [self.text(t) for t in tests]])
        return len(self.instructions) - 1

    def add_row(self, at: int, round_: int, name: str, code: str, verdict: Verdict | None, tokens: int) -> int | None:
        """One program, ``name`` within its instruction; its place, or None past ``MOST_ROWS``. tokens: -1 where they
        were not kept."""
        if len(self.rows) >= MOST_ROWS:
            self.left_out += 1
            return None
        outcome = _outcome(verdict)
        bits = "".join("1" if p else "0" for p in verdict.passed) if verdict else ""
        detail = self.text(verdict.detail if verdict else "")
        cpu_ms = round(1000 * verdict.cpu_s, 1) if verdict else 0
        self.rows.append(
            [at, round_, self.text(name), self.text(outcome), self.text(code), detail, bits, tokens, cpu_ms, 0]
        )
        return len(self.rows) - 1


def write_inspector(folder: RunFolder) -> Path:
    """Write ``inspector.html`` into the run folder, of a run finished or not; its path."""
    summary = summarise(folder)
    tables = gather(folder)
    rounds = {row[1] for row in tables.rows} | {one[2] for one in tables.instructions}
    data = {
        "texts": tables.texts,
        "instructions": tables.instructions,
        "rows": tables.rows,
        "pairs": tables.pairs,
        "rounds": {str(n): _place_name(n) for n in sorted(rounds)},
    }
    page = render(
        "inspector.html",
        script="inspector.js",
        title=f"Inspector of {show.title(summary)}",
        data=embedded(data),
        left_out=tables.left_out,
        shown=len(tables.rows),
    )
    target = folder.path / "inspector.html"
    write_atomic(target, page)
    return target


def _place_name(number: int) -> str:
    """Negative numbers are evaluations: -1 before the first round, -2 after round 1, ..."""
    return round_name(number) if number > 0 else f"held out, {'after ' if number < -1 else ''}{round_name(-number - 1)}"


def gather(folder: RunFolder) -> Tables:
    """Everything that the run folder holds of programs, rounds first, evaluations after."""
    tables = Tables()
    numbers = sorted(int(p.name.removeprefix("round-")) for p in folder.path.glob("round-[0-9][0-9][0-9]"))
    for number in numbers:
        _gather_round(tables, folder.round(number), number)
    _gather_heldout(tables, folder, numbers)
    return tables


def _read(path: Path, cls: Any) -> Iterable[Any]:
    return read_jsonl(path, cls) if path.exists() else ()


def _gather_round(tables: Tables, place: Path, number: int) -> None:
    suites = {s.instruction_id: s for s in _read(place / "tests.jsonl", TestSuite)}
    at = {
        i.id: tables.add_instruction(i, suites.get(i.id), number)
        for i in _read(place / "instructions.jsonl", Instruction)
    }
    verdicts = {v.id: v for v in _read(place / "verdicts.jsonl", Verdict)}
    rows: dict[tuple[str, int], int] = {}
    for sample in _read(place / "samples.jsonl", Sample):
        where = at[sample.instruction_id]
        verdict, tokens = verdicts.get(verdict_id(sample)), len(sample.token_ids)
        row = tables.add_row(where, number, str(sample.index), sample.code, verdict, tokens)
        if row is not None:
            rows[sample.instruction_id, sample.index] = row
    _note_learnt(tables, place / "preferences.jsonl", rows, number)


def _note_learnt(tables: Tables, path: Path, rows: dict[tuple[str, int], int], number: int) -> None:
    """Mark the rows that training saw as good and as bad, and list the pairs. SFT's completions are no rows."""
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.readline()
    if first and "chosen" in decode_line(first):
        for pair in read_jsonl(path, Pair):
            chosen, rejected = (rows.get((pair.instruction_id, i)) for i in (pair.chosen_index, pair.rejected_index))
            if chosen is not None and rejected is not None:
                tables.pairs.append([number, chosen, rejected])
                tables.rows[chosen][LEARNT], tables.rows[rejected][LEARNT] = 1, 2
        return
    if first and "reward" in decode_line(first):
        _note_grades(tables, list(read_jsonl(path, Grade)), rows)
        return
    for label in read_jsonl(path, Label):
        row = rows.get((label.instruction_id, label.index))
        if row is not None:
            tables.rows[row][LEARNT] = 1 if label.label else 2


def _note_grades(tables: Tables, grades: list[Grade], rows: dict[tuple[str, int], int]) -> None:
    """Good and bad are above and below the mean of an instruction's grades; where all are equal nothing is learnt."""
    groups: dict[str, list[Grade]] = {}
    for one in grades:
        groups.setdefault(one.instruction_id, []).append(one)
    for members in groups.values():
        mean = sum(g.reward for g in members) / len(members)
        for one in members:
            row = rows.get((one.instruction_id, one.index))
            if row is not None and one.reward != mean:
                tables.rows[row][LEARNT] = 1 if one.reward > mean else 2


def _gather_heldout(tables: Tables, folder: RunFolder, numbers: list[int]) -> None:
    suites = {s.instruction_id: s for s in _read(folder.heldout / "tests.jsonl", TestSuite)}
    instructions = list(_read(folder.heldout / "instructions.jsonl", Instruction))
    at = {i.id: tables.add_instruction(i, suites.get(i.id), -1) for i in instructions}
    for number in numbers:
        for verdict in _read(folder.round(number) / "evaluation.jsonl", Verdict):
            task, _, name = verdict.id.rpartition("/")
            tables.add_row(at[task], -number - 1, name, verdict.extra.get("code", ""), verdict, -1)


def _outcome(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not run"
    if verdict.outcome == Outcome.ERROR and SYNTAX.search(verdict.detail):
        return "does not compile"
    return verdict.outcome.value
