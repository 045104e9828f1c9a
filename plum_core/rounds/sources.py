"""Where instructions and tests come from: a small protocol, and the source that reads them from JSONL files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from plum_core.records import Instruction, TestSuite, read_jsonl
from plum_core.records.files import check_file, decode_line

R = TypeVar("R", Instruction, TestSuite)


class TaskSource(Protocol):
    """What the rounds need. Every answer depends on the source's settings and the arguments alone."""

    @property
    def note(self) -> str:
        """A line for the summary on what these tasks are; empty where there is nothing to be warned of."""

    def identity(self) -> dict[str, str]:
        """Name and hash of what the answers depend on; a run refuses to go on when one has changed."""

    def plum_instructions(self, round_: int) -> list[Instruction]:
        """The instructions of a round, counted from 1."""

    def make_tests(self, instructions: Sequence[Instruction]) -> Iterator[TestSuite]:
        """Stage 1: one suite an instruction, in their order; a rejected one with ``kept`` false and ``why``."""

    def heldout(self) -> list[tuple[Instruction, TestSuite]]:
        """Tasks of the evaluation, which no stage learns from."""

    def sft_examples(self) -> list[tuple[str, str]]:
        """(prompt, completion) as the policy was taught, for replay; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksConfig:
    """Instructions and tests from files."""

    instructions: Path | None = None
    """JSONL of {id, prompt, starter?}."""
    tests: Path | None = None
    """JSONL of {instruction_id, tests, ...}, as runners/make_tests.py writes it."""
    heldout_instructions: Path | None = None
    heldout_tests: Path | None = None
    sft: Path | None = None
    """JSONL of {prompt, completion}: what the policy was taught on, for replay; optional."""
    per_round: int = 0
    """Instructions a round, the next ones each time; 0: all of them in each round."""

    def __post_init__(self) -> None:
        if self.per_round < 0:
            raise ValueError(f"per_round must be 0 (all) or more, got {self.per_round}")


class JsonlSource:
    """Your own instructions and tests. Raises ValueError where files disagree or an id comes twice."""

    note = ""

    def __init__(self, config: TasksConfig) -> None:
        self.per_round = config.per_round
        self.files = {
            name: _given(config, name) for name in ("instructions", "tests", "heldout_instructions", "heldout_tests")
        }
        if config.sft is not None:
            self.files["sft"] = config.sft
        self.instructions = list(_by_id(self.files["instructions"], Instruction, "id").values())
        self.suites = _by_id(self.files["tests"], TestSuite, "instruction_id")
        self._heldout = self._join_heldout()

    def _join_heldout(self) -> list[tuple[Instruction, TestSuite]]:
        tasks = _by_id(self.files["heldout_instructions"], Instruction, "id")
        suites = _by_id(self.files["heldout_tests"], TestSuite, "instruction_id")
        for name in tasks:
            if name not in suites:
                raise ValueError(f"{self.files['heldout_tests']}: no tests for held-out instruction {name!r}")
        learned = {i.prompt for i in self.instructions}
        for task in tasks.values():
            if task.prompt in learned:
                raise ValueError(
                    f"held-out instruction {task.id!r} is also learned from: take it out of one of the files"
                )
        return [(task, suites[name]) for name, task in tasks.items()]

    def identity(self) -> dict[str, str]:
        return {name: file_hash(path) for name, path in self.files.items()}

    def plum_instructions(self, round_: int) -> list[Instruction]:
        count = len(self.instructions)
        if not self.per_round:
            return self.instructions
        start = (round_ - 1) * self.per_round
        return [self.instructions[i % count] for i in range(start, start + min(self.per_round, count))]

    def make_tests(self, instructions: Sequence[Instruction]) -> Iterator[TestSuite]:
        for instruction in instructions:
            yield self.suites.get(instruction.id) or TestSuite(
                instruction_id=instruction.id, kept=False, why="no tests in the file"
            )

    def heldout(self) -> list[tuple[Instruction, TestSuite]]:
        return self._heldout

    def sft_examples(self) -> list[tuple[str, str]]:
        return read_sft(self.files["sft"]) if "sft" in self.files else []


def _given(config: TasksConfig, name: str) -> Path:
    path: Path | None = getattr(config, name)
    if path is None:
        raise ValueError(f"tasks.{name} is not set: name the JSONL file")
    check_file(path)
    return path


def _by_id(path: Path, cls: type[R], key: str) -> dict[str, R]:
    found: dict[str, R] = {}
    for record in read_jsonl(path, cls):
        name: str = getattr(record, key)
        if name in found:
            raise ValueError(f"{path}: {key} {name!r} comes twice: ids must differ")
        found[name] = record
    if not found:
        raise ValueError(f"{path} holds no record: check the path")
    return found


def read_sft(path: Path) -> list[tuple[str, str]]:
    """(prompt, completion) of every line; ValueError ``file:line: what``."""
    check_file(path)
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(_prompt_and_completion(decode_line(line, first=number == 1)))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    return rows


def _prompt_and_completion(row: Any) -> tuple[str, str]:
    if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("prompt", "completion")):
        raise ValueError(f"wants {{prompt: string, completion: string}}, got {json.dumps(row)[:80]}")
    return row["prompt"], row["completion"]


def file_hash(path: Path) -> str:
    """16 hex digits of SHA-256 over a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
