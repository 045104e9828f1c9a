"""Samples and verdicts at once: each finished sample goes to the executor while the batch decodes on.

An instruction whose verdicts already fill its pairs needs no further samples: they are cancelled. Which samples that
leaves depends on how fast programs run, so the stages of a run, which must come out the same whoever computes them, do
not use it with ``max_pairs``; a trainer of its own may.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from plum_core.preferences import verdict_id
from plum_core.preferences.decided import decided
from plum_core.records import Outcome, Program, Sample, Verdict
from plum_core.rounds.engine import Engine, LoadedPolicy
from plum_core.rounds.stages import Task, program_of, request_of, sample_of
from plum_core.sampling import SamplingParams
from plum_core.seeds import coordinate_seed


@dataclass(slots=True)
class _Seen:
    """Distinct programs of one instruction, by what became of them."""

    passes: set[str] = field(default_factory=set)
    failures: set[str] = field(default_factory=set)


def judged_samples(
    engine: Engine,
    policy: LoadedPolicy,
    tasks: Sequence[Task],
    params: SamplingParams,
    n: int,
    *,
    seed: int,
    round_: int = 1,
    max_pairs: int | None = None,
) -> Iterator[tuple[Sample, Verdict]]:
    """``n`` samples an instruction with their verdicts, as the verdicts come; seeds are those of ``draw_samples``.

    max_pairs: where so many passing and as many failing distinct programs of an instruction are known, its remaining
    samples are cancelled; those are not given out. None: nothing is cancelled.
    """
    requests = {
        i.id: request_of(policy, i, tuple(coordinate_seed(seed, "sample", round_, i.id, k) for k in range(n)))
        for i, _ in tasks
    }
    by_id = dict((i.id, (i, suite)) for i, suite in tasks)
    running: dict[str, Sample] = {}
    cancelled: deque[str] = deque()

    def programs() -> Iterator[Program]:
        for completion in policy.sample(list(requests.values()), params):
            while cancelled:
                policy.sampler.cancel(cancelled.popleft())
            if completion.finish_reason == "cancelled":
                continue
            instruction, suite = by_id[completion.request_id]
            sample = sample_of(instruction, requests[instruction.id], completion, policy)
            name = verdict_id(sample)
            running[name] = sample
            yield program_of(name, sample.code, suite)

    seen = {i.id: _Seen() for i, _ in tasks}
    for verdict in engine.judge(programs()):
        sample = running.pop(verdict.id)
        found = seen[sample.instruction_id]
        if verdict.outcome == Outcome.PASSED:
            found.passes.add(sample.code)
        elif verdict.outcome != Outcome.SANDBOX_ERROR:
            found.failures.add(sample.code)
        if max_pairs is not None and decided(len(found.passes), len(found.failures), max_pairs=max_pairs):
            cancelled.append(sample.instruction_id)
        yield sample, verdict
