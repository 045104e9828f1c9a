"""The chunked stages: what is computed of one chunk, and its tally."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from plum_core.preferences import verdict_id
from plum_core.records import Instruction, Outcome, Program, Sample, TestSuite, Verdict
from plum_core.rounds.chunks import Tally
from plum_core.rounds.engine import Engine, Policy
from plum_core.sampling import Completion, Request, SamplingParams
from plum_core.seeds import coordinate_seed

Task = tuple[Instruction, TestSuite]
SYNTAX = re.compile(r"(?:^|: )(?:SyntaxError|IndentationError|TabError): ")  # in a verdict's detail
GREEDY = "greedy"


def tally_tests(suites: Sequence[TestSuite]) -> Tally:
    """How many were kept, and why the others were not."""
    why = Counter(s.why or "no reason given" for s in suites if not s.kept)
    kept = [s for s in suites if s.kept]
    tests = sum(len(s.tests) + len(s.stdin_tests) for s in kept)
    return {"instructions": len(suites), "kept": len(kept), "tests": tests, "rejected": dict(sorted(why.items()))}


def draw_samples(
    policy: Policy, instructions: Sequence[Instruction], params: SamplingParams, n: int, seed: int, round_: int
) -> list[Sample]:
    """``n`` samples an instruction, by instruction and index. Seeds: (run, round, instruction, index)."""
    requests = [
        request_of(policy, i, tuple(coordinate_seed(seed, "sample", round_, i.id, k) for k in range(n)))
        for i in instructions
    ]
    return [
        sample_of(instruction, request, completion, policy)
        for instruction, request, completion in _in_order(policy, instructions, requests, params)
    ]


def request_of(policy: Policy, instruction: Instruction, seeds: tuple[int, ...]) -> Request:
    return Request(id=instruction.id, token_ids=policy.encode_prompt(policy.render(instruction)), seeds=seeds)


def _in_order(
    policy: Policy, instructions: Sequence[Instruction], requests: Sequence[Request], params: SamplingParams
) -> Iterator[tuple[Instruction, Request, Completion]]:
    """Completions by request and index; the sampler hands them out as they finish."""
    drawn: dict[str, list[Completion]] = {r.id: [] for r in requests}
    for completion in policy.sample(requests, params):
        drawn[completion.request_id].append(completion)
    for instruction, request in zip(instructions, requests, strict=True):
        for completion in sorted(drawn[request.id], key=lambda c: c.index):
            yield instruction, request, completion


def sample_of(instruction: Instruction, request: Request, completion: Completion, policy: Policy) -> Sample:
    return Sample(
        instruction_id=instruction.id,
        index=completion.index,
        text=completion.text,
        code=policy.program(instruction, completion.text),
        token_ids=tuple(completion.token_ids),
        logprobs=tuple(float(f"{x:.9g}") for x in completion.logprobs),  # nine digits give every fp32 back
        prompt_token_ids=tuple(request.token_ids),
        finish_reason=completion.finish_reason,
        policy=policy.fingerprint,
        seed=completion.seed,
    )


def tally_samples(samples: Sequence[Sample]) -> Tally:
    """Sums that means are made of; ``distinct`` counts different programs of one instruction."""
    return {
        "samples": len(samples),
        "tokens": sum(len(s.token_ids) for s in samples),
        "truncated": sum(s.finish_reason != "stop" for s in samples),
        "distinct": len({(s.instruction_id, s.code) for s in samples}),
        "logprob_sum": round(sum(map(sum, (s.logprobs for s in samples))), 6),
    }


def program_of(name: str, code: str, suite: TestSuite) -> Program:
    return Program(id=name, code=code, tests=suite.tests, setup=suite.setup, stdin_tests=suite.stdin_tests)


def judge_samples(engine: Engine, samples: Sequence[Sample], suites: dict[str, TestSuite]) -> list[Verdict]:
    """One verdict a sample, in their order."""
    return judge_all(engine, [program_of(verdict_id(s), s.code, suites[s.instruction_id]) for s in samples])


def judge_all(engine: Engine, programs: Sequence[Program]) -> list[Verdict]:
    """Verdicts in the order of ``programs``. Programs that differ only in their id are run once."""
    first: dict[tuple[object, ...], str] = {}
    same = [first.setdefault((p.code, p.tests, p.setup, p.stdin_tests), p.id) for p in programs]
    leaders = set(same)
    verdicts = {v.id: v for v in engine.judge(p for p in programs if p.id in leaders)}
    return [dataclasses.replace(verdicts[leader], id=p.id) for p, leader in zip(programs, same, strict=True)]


def tally_verdicts(verdicts: Sequence[Verdict]) -> Tally:
    """Outcomes, and how many of the errors were in the program's syntax."""
    found = Counter(v.outcome.value for v in verdicts)
    return {
        "programs": len(verdicts),
        "outcomes": {o.value: found[o.value] for o in Outcome if found[o.value]},
        "syntax": sum(v.outcome == Outcome.ERROR and SYNTAX.search(v.detail) is not None for v in verdicts),
        "unattested": sum(not v.attested for v in verdicts),
    }


def evaluate_tasks(
    engine: Engine, policy: Policy, tasks: Sequence[Task], params: SamplingParams, n: int, seed: int
) -> list[Verdict]:
    """Verdicts ``TASK/0`` to ``TASK/n-1`` and ``TASK/greedy``, with text and code of each in ``extra``.

    Seeds leave the round out: the same draws before and after a round take their noise out of the difference.
    """
    instructions = [i for i, _ in tasks]
    drawn = [
        request_of(policy, i, tuple(coordinate_seed(seed, "evaluation", i.id, k) for k in range(n)))
        for i in instructions
    ]
    best = [request_of(policy, i, (0,)) for i in instructions]
    greedy = dataclasses.replace(params, temperature=0.0, top_p=1.0, top_k=0)
    answers = {
        name: text
        for name, text in (
            *_named(_in_order(policy, instructions, drawn, params), None),
            *_named(_in_order(policy, instructions, best, greedy), GREEDY),
        )
    }
    programs = [
        program_of(name, policy.program(instruction, answers[name]), suite)
        for instruction, suite in tasks
        for name in (*(f"{instruction.id}/{k}" for k in range(n)), f"{instruction.id}/{GREEDY}")
    ]
    verdicts = judge_all(engine, programs)
    return [dataclasses.replace(v, extra={"code": p.code}) for v, p in zip(verdicts, programs, strict=True)]


def _named(
    completions: Iterable[tuple[Instruction, Request, Completion]], name: str | None
) -> Iterator[tuple[str, str]]:
    for instruction, _, completion in completions:
        yield f"{instruction.id}/{name or completion.index}", completion.text
