"""Stage 1 where a generator writes reference and tests: its answers, parsed and filtered, to suites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from plum_core.execution import Executor
from plum_core.records import Instruction, TestSuite
from plum_core.seeds import coordinate_seed
from plum_core.testing.answers import parse_answer, signature_of
from plum_core.testing.dual import agreed
from plum_core.testing.filters import Candidate, FilterConfig, filter_candidates
from plum_core.testing.generators import Answer, AnswerRequest, Generator

Messages = Callable[[Instruction], tuple[dict[str, str], ...]]
NO_ANSWER = "no-answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskConfig:
    """What each question allows, and how often it is asked."""

    max_tokens: int = 2048
    temperature: float = 0.0
    samples: int = 1
    """Answers to each instruction. Of more than one, solutions and tests vote for each other (CodeT)."""
    least_share: float = 0.5
    """Of the solutions that must pass the same tests, where there are several."""

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 < self.least_share <= 1:
            raise ValueError(
                f"ask.samples must be >= 1 and ask.least_share in (0, 1], got {self.samples} and {self.least_share}"
            )
        if self.samples > 1 and not self.temperature > 0:
            raise ValueError("ask.samples > 1 needs ask.temperature > 0: greedy answers are all alike")


def write_authored_suites(
    instructions: Sequence[Instruction],
    generator: Generator,
    messages: Messages,
    executors: tuple[Executor, Executor],
    config: FilterConfig,
    *,
    seed: int,
    ask: AskConfig | None = None,
) -> Iterator[TestSuite]:
    """One suite an instruction, in order. ``extra`` of a kept one has ``entry_point`` and ``signature``, which belong
    into the policy's prompt; of one that the generator did not answer ``detail`` says why.

    executors: for the filters, the second with another hash seed. Requests have the instruction's id; of several
    answers the k-th (from 0) has ``ID/k``. Raises RuntimeError where the sandbox failed.
    """
    ask = ask or AskConfig()
    ids = {i.id: [i.id] if ask.samples == 1 else [f"{i.id}/{k}" for k in range(ask.samples)] for i in instructions}
    requests = [
        AnswerRequest(
            id=name,
            messages=messages(i),
            max_tokens=ask.max_tokens,
            temperature=ask.temperature,
            seed=coordinate_seed(seed, "generator", i.id, k),
        )
        for i in instructions
        for k, name in enumerate(ids[i.id])
    ]
    answers = {answer.id: answer for answer in generator.answers(requests)}
    parsed = {i.id: [_candidate(i.id, answers[name]) for name in ids[i.id]] for i in instructions}
    if ask.samples == 1:
        candidates = [parsed[i.id][0] for i in instructions]
    else:
        candidates = agreed(parsed, executors[0], ask.least_share, config.reference_cpu_s)
    for candidate, suite in zip(candidates, filter_candidates(candidates, *executors, config, seed=seed), strict=True):
        if suite.kept:
            signature = signature_of(candidate.reference, candidate.entry_point)
            told = {"entry_point": candidate.entry_point, "signature": signature}
            yield replace(suite, extra={**suite.extra, **told})
        elif suite.why == NO_ANSWER:
            yield replace(suite, extra={"detail": answers[ids[suite.instruction_id][0]].error})
        else:
            yield suite


def _candidate(instruction_id: str, answer: Answer) -> Candidate:
    if answer.error is not None:
        return Candidate(instruction_id=instruction_id, why=NO_ANSWER)
    return parse_answer(instruction_id, answer.text)


def with_signature(instruction: Instruction, suite: TestSuite) -> Instruction:
    """The instruction as the policy sees it: with the signature that the tests call.

    A function's line becomes the code that the answer continues; a class's interface stands in the prompt. An
    instruction that has a starter keeps it.
    """
    entry, signature = suite.extra.get("entry_point"), suite.extra.get("signature")
    if instruction.starter or not entry or not signature:
        return instruction
    if "\n" in signature or not signature.startswith(("def ", "async def ")):
        prompt = f"{instruction.prompt.rstrip()}\n\nThe tests use this interface:\n{signature}"
        return replace(instruction, prompt=prompt, entry_point=entry)
    return replace(instruction, starter=f"{signature}\n", entry_point=entry)
