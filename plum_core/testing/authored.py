"""Stage 1 where a generator writes reference and tests: its answers, parsed and filtered, to suites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from plum_core.execution import Executor
from plum_core.records import Instruction, TestSuite
from plum_core.seeds import coordinate_seed
from plum_core.testing.answers import parse_answer, signature_of
from plum_core.testing.filters import Candidate, FilterConfig, filter_candidates
from plum_core.testing.generators import Answer, AnswerRequest, Generator

Messages = Callable[[Instruction], tuple[dict[str, str], ...]]
NO_ANSWER = "no-answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskConfig:
    """What each question allows."""

    max_tokens: int = 2048
    temperature: float = 0.0


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

    executors: for the filters, the second with another hash seed. Raises RuntimeError where the sandbox failed.
    """
    ask = ask or AskConfig()
    requests = [
        AnswerRequest(
            id=i.id,
            messages=messages(i),
            max_tokens=ask.max_tokens,
            temperature=ask.temperature,
            seed=coordinate_seed(seed, "generator", i.id),
        )
        for i in instructions
    ]
    answers = {answer.id: answer for answer in generator.answers(requests)}
    candidates = [_candidate(answers[i.id]) for i in instructions]
    for candidate, suite in zip(candidates, filter_candidates(candidates, *executors, config, seed=seed), strict=True):
        if suite.kept:
            signature = signature_of(candidate.reference, candidate.entry_point)
            told = {"entry_point": candidate.entry_point, "signature": signature}
            yield replace(suite, extra={**suite.extra, **told})
        elif suite.why == NO_ANSWER:
            yield replace(suite, extra={"detail": answers[suite.instruction_id].error})
        else:
            yield suite


def _candidate(answer: Answer) -> Candidate:
    if answer.error is not None:
        return Candidate(instruction_id=answer.id, why=NO_ANSWER)
    return parse_answer(answer.id, answer.text)


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
