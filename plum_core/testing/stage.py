"""Stage 1 from end to end for a batch of instructions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plum_core.execution import Executor
from plum_core.prompts import encode_prompt, program_code, render_prompt
from plum_core.records import Instruction, Outcome, Program, TestSuite
from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.seeds import coordinate_seed
from plum_core.testing.agreement import agree
from plum_core.typed_inputs import propose_calls


@dataclass(frozen=True, slots=True, kw_only=True)
class TestingConfig:
    """How tests are written and which are kept."""

    __test__ = False  # not a pytest class

    solutions: int = 8  # that the author writes for each instruction
    temperature: float = 0.6
    max_new_tokens: int = 128
    inputs: int = 8  # proposed for each instruction
    least_share: float = 0.625  # of the solutions must agree on all outputs
    least_tests: int = 5
    least_outputs: int = 3  # different ones (2 for booleans)

    def __post_init__(self) -> None:
        if self.solutions < 2 or self.inputs < self.least_tests:
            raise ValueError(
                f"testing needs 2 or more solutions and at least least_tests ({self.least_tests}) inputs, got "
                f"{self.solutions} and {self.inputs}"
            )
        if not 0 < self.least_share <= 1:
            raise ValueError(f"testing.least_share must be in (0, 1], got {self.least_share}")


def write_suites(
    instructions: Sequence[Instruction], author: Sampler, executor: Executor, config: TestingConfig, *, seed: int
) -> Iterator[TestSuite]:
    """One suite an instruction, in order; ``kept`` is false and ``why`` set where a filter threw it out.

    Every draw is seeded by (seed, instruction id, solution), so the batch does not matter.
    """
    solutions = _solutions(instructions, author, config, seed)
    calls = {
        i.id: propose_calls(i.starter or "", i.entry_point or "", config.inputs, coordinate_seed(seed, "inputs", i.id))
        for i in instructions
    }
    answers = _answers(instructions, solutions, calls, executor)
    suites = []
    for i in instructions:
        found = agree(
            calls[i.id],
            [(code, answers[i.id, code]) for code in solutions[i.id]],
            least_share=config.least_share,
            least_tests=config.least_tests,
            least_outputs=config.least_outputs,
        )
        suites.append(
            TestSuite(
                instruction_id=i.id,
                tests=found.tests,
                reference=found.reference,
                kept=not found.why,
                why=found.why,
                extra={"agreement": found.share},
            )
        )
    yield from _consistent(suites, executor)


def _solutions(
    instructions: Sequence[Instruction], author: Sampler, config: TestingConfig, seed: int
) -> dict[str, list[str]]:
    requests = [
        Request(
            id=i.id,
            token_ids=encode_prompt(author.tokenizer, render_prompt(i)),
            seeds=tuple(coordinate_seed(seed, "author", i.id, n) for n in range(config.solutions)),
        )
        for i in instructions
    ]
    params = SamplingParams(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
    by_id = {i.id: i for i in instructions}
    found: dict[str, list[str]] = {i.id: [""] * config.solutions for i in instructions}
    for completion in author.sample(requests, params):
        found[completion.request_id][completion.index] = program_code(by_id[completion.request_id], completion.text)
    return found


def _answers(
    instructions: Sequence[Instruction],
    solutions: dict[str, list[str]],
    calls: dict[str, list[str]],
    executor: Executor,
) -> dict[tuple[str, str], tuple[str | None, ...]]:
    """The answers of every different solution; a failure of ours is asked again by the executor, then raised."""
    jobs = [(i.id, code) for i in instructions for code in dict.fromkeys(solutions[i.id])]
    programs = (
        Program(
            id=str(n),
            code=code,
            calls=tuple({"call": call} for call in calls[instruction]),
            extra={"entry_point": "solve"},
        )
        for n, (instruction, code) in enumerate(jobs)
    )
    found: dict[tuple[str, str], tuple[str | None, ...]] = {}
    for verdict in executor.run(programs):
        instruction, code = jobs[int(verdict.id)]
        if verdict.outcome is Outcome.SANDBOX_ERROR:
            raise RuntimeError(f"the sandbox failed three times on a solution of {instruction}: {verdict.detail}")
        values = verdict.extra.get("values") or []
        found[instruction, code] = tuple(values) if values else (None,) * len(calls[instruction])
    return found


def _consistent(suites: Sequence[TestSuite], executor: Executor) -> Iterator[TestSuite]:
    """The consistency filter: a suite stays only when its own reference passes it in a run of its own."""
    kept = {s.instruction_id: s for s in suites if s.kept}
    programs = (Program(id=s.instruction_id, code=s.reference or "", tests=s.tests) for s in kept.values())
    passed = {v.id for v in executor.run(programs) if v.outcome is Outcome.PASSED}
    for suite in suites:
        if suite.kept and suite.instruction_id not in passed:
            yield TestSuite(instruction_id=suite.instruction_id, kept=False, why="inconsistent", extra=suite.extra)
        else:
            yield suite
