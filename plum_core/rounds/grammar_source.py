"""The embedded policy's tasks: instructions from the grammar, tests by its author model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from plum_core.execution import Executor
from plum_core.grammar import problems
from plum_core.prompts import render_prompt
from plum_core.records import Instruction, TestSuite
from plum_core.rounds.sources import file_hash
from plum_core.sampling import Sampler
from plum_core.seeds import coordinate_seed
from plum_core.testing import TestingConfig, write_suites
from plum_models import load

NOTE = (
    "These tasks come from a synthetic grammar and the policy is tiny: the gain shows that the method works here, "
    "not what it would give on your model. Solutions and expected outputs were written by models and executed; "
    "the tests' inputs were proposed by a generator from the argument types."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarConfig:
    """Tasks of the embedded policy."""

    author: Path | None = None
    """Checkpoint folder of the author model, which writes the solutions that tests are made of."""
    per_round: int = 1000
    """Instructions a round, before the filters; no two rounds share one."""
    heldout: int = 1000
    """Held-out instructions, of compositions that no other stage sees, with hidden tests by the grammar itself."""
    heldout_tests: int = 8
    heldout_seed: int = 5
    """Apart from the run's seed, so that runs with other seeds are judged on the same tasks."""
    sft_problems: int = 3000
    """Of the policy's own supervised set, for replay."""
    sft_seed: int = 1
    """The seed of that set, as in the recipe that made the policy."""
    testing: TestingConfig = field(default_factory=TestingConfig)

    def __post_init__(self) -> None:
        for name in ("per_round", "heldout", "heldout_tests"):
            if getattr(self, name) < 1:
                raise ValueError(f"grammar.{name} must be at least 1, got {getattr(self, name)}")


class GrammarSource:
    """Tasks of the grammar for one run. ``executor`` runs the author's solutions; it is shared, never closed here."""

    note = NOTE

    def __init__(self, config: GrammarConfig, author: Path, seed: int, executor: Executor) -> None:
        self.config, self.author_folder, self.seed, self.executor = config, author, seed, executor
        self.instruction_seed = coordinate_seed(seed, "instructions")

    @cached_property
    def author(self) -> Sampler:
        decoder, tokenizer = load(self.author_folder)
        return Sampler(decoder, tokenizer)

    def identity(self) -> dict[str, str]:
        """The author's weights and the grammar's own code, by hash."""
        code = hashlib.sha256()
        for path in sorted((Path(__file__).parents[1] / "grammar").glob("*.py")):
            code.update(path.read_bytes())
        return {
            "author": file_hash(self.author_folder / "model.safetensors"),
            "grammar": code.hexdigest()[:16],
        }

    def plum_instructions(self, round_: int) -> list[Instruction]:
        count = self.config.per_round
        drawn = problems("plum", self.instruction_seed)
        return [p.instruction() for p in islice(drawn, (round_ - 1) * count, round_ * count)]

    def make_tests(self, instructions: Sequence[Instruction]) -> Iterator[TestSuite]:
        yield from write_suites(instructions, self.author, self.executor, self.config.testing, seed=self.seed)

    def heldout(self) -> list[tuple[Instruction, TestSuite]]:
        drawn = problems("heldout", self.config.heldout_seed, tests=self.config.heldout_tests)
        return [
            (p.instruction(), TestSuite(instruction_id=p.id, tests=p.tests(), reference=p.starter + p.solutions[0]))
            for p in islice(drawn, self.config.heldout)
        ]

    def sft_examples(self) -> list[tuple[str, str]]:
        drawn = islice(problems("sft", self.config.sft_seed, tests=4), self.config.sft_problems)
        return [(render_prompt(p.instruction()), body) for p in drawn for body in p.solutions]
