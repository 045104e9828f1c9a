"""Verdicts while the batch decodes on: the same samples, and those that nobody needs are cancelled."""

from __future__ import annotations

import pytest
import torch

from plum_core.records import Instruction, Outcome, TestSuite, Verdict
from plum_core.rounds.config import DrawConfig
from plum_core.rounds.engine import LoadedPolicy
from plum_core.rounds.overlap import judged_samples
from plum_core.rounds.stages import draw_samples
from plum_core.sampling import SamplingParams
from tests.conftest import ROOT

TASKS = [
    (
        Instruction(id=f"t{i}", prompt=f"Return the number {i}."),
        TestSuite(instruction_id=f"t{i}", tests=("assert f()",)),
    )
    for i in range(3)
]
PARAMS = SamplingParams(max_new_tokens=40)
N = 10


class Judge:
    """Every other distinct program of an instruction passes; says at which step each came."""

    def __init__(self, policy):
        self.policy, self.steps, self.seen = policy, [], {}

    def judge(self, programs):
        for program in programs:
            self.steps.append(self.policy.sampler.stats.decode_steps)
            before = self.seen.setdefault(program.id.split("/")[0], {})
            number = before.setdefault(program.code, len(before))
            outcome, passed = (Outcome.FAILED, False) if number % 2 else (Outcome.PASSED, True)
            yield Verdict(
                id=program.id, outcome=outcome, passed=(passed,), detail="", wall_s=0.0, cpu_s=0.0, peak_mib=1.0
            )


@pytest.fixture(params=[{"max_rows": 12}, {"max_rows": 12, "kv_tokens": 4000}], ids=["contiguous", "budget"])
def policy(request):
    return LoadedPolicy(ROOT / "models" / "tiny" / "policy", torch.device("cpu"), request.param)


def test_samples_are_judged_as_they_finish_and_are_those_of_the_stage(policy):
    judge = Judge(policy)
    found = list(judged_samples(judge, policy, TASKS, PARAMS, N, seed=4, round_=2))
    assert judge.steps[0] < judge.steps[-1] == policy.sampler.stats.decode_steps  # the first came while others decoded
    assert [v.id for _, v in found] == [f"{s.instruction_id}/{s.index}" for s, _ in found]
    drawn = draw_samples(policy, [i for i, _ in TASKS], PARAMS, N, 4, 2)
    assert sorted((s.instruction_id, s.index, s.token_ids) for s, _ in found) == sorted(
        (s.instruction_id, s.index, s.token_ids) for s in drawn
    )


def test_a_decided_instructions_samples_are_cancelled(policy):
    whole = list(judged_samples(Judge(policy), policy, TASKS, PARAMS, N, seed=4))
    tokens = policy.sampler.stats.decode_tokens
    found = list(judged_samples(Judge(policy), policy, TASKS, PARAMS, N, seed=4, max_pairs=1))
    assert len(found) < len(whole) == 3 * N and policy.sampler.stats.decode_tokens < tokens
    for instruction, _ in TASKS:
        outcomes = {v.outcome for s, v in found if s.instruction_id == instruction.id}
        assert outcomes == {Outcome.PASSED, Outcome.FAILED}  # decided: a pair is there
    kept = {(s.instruction_id, s.index): s.token_ids for s, _ in whole}
    assert all(kept[s.instruction_id, s.index] == s.token_ids for s, _ in found)


def test_the_samplers_options_come_from_the_settings():
    config = DrawConfig(kv_tokens=512, speculate=2, max_rows=7)
    policy = LoadedPolicy(ROOT / "models" / "tiny" / "policy", torch.device("cpu"), config.options())
    sampler = policy.sampler
    assert (sampler.kv_tokens, sampler.speculate, sampler.max_rows, sampler.int8) == (512, 2, 7, False)
    with pytest.raises(ValueError, match="kv_tokens"):
        DrawConfig(speculate=2)
    with pytest.raises(ValueError, match="kv_tokens"):
        DrawConfig(native=True, kv_tokens=512)
