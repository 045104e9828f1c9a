"""Schedules under a budget: whatever comes, stops, is cancelled or preempted, every sample is answered as if alone."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.pool import Pool
from plum_core.training.initial import initial_decoder
from plum_models import DecoderConfig

VOCAB, LONGEST = 61, 24


class Numbers:
    """Ids as text; few ends, so that samples last."""

    eos_token_ids = frozenset({0, 1})
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return "".join(f"{i};" for i in ids)


@pytest.fixture(scope="module")
def decoder():
    config = DecoderConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=96, sliding_window=11, sliding_layers=(1,),
    )  # fmt: skip
    decoder = initial_decoder(config, seed=3)
    with torch.no_grad():
        decoder.embed_tokens.weight.mul_(20)  # far from uniform, so that a wrong position shows
    return decoder


def make_requests(count: int) -> list[Request]:
    """The first half of the prompts begins in the same way."""
    rng = random.Random(8)
    start = tuple(rng.randrange(2, VOCAB) for _ in range(13))
    requests = []
    for i in range(count):
        tail = tuple(rng.randrange(2, VOCAB) for _ in range(rng.choice((1, 3, 8, 21))))
        seeds = tuple(rng.getrandbits(63) for _ in range(4))
        requests.append(Request(id=f"r{i}", token_ids=start + tail if i < count // 2 else tail, seeds=seeds))
    return requests


REQUESTS = make_requests(10)
PARAMS = SamplingParams(max_new_tokens=LONGEST, temperature=1.5)


@pytest.fixture(scope="module")
def alone(decoder):
    """Every sample drawn from the contiguous cache, one request at a time."""
    done = Sampler(decoder, Numbers(), max_rows=4).sample(REQUESTS, PARAMS)
    return {(c.request_id, c.index): c for c in done}


def all_free(batch):
    scheduler = batch.scheduler
    return scheduler.manager.free == len(scheduler.manager.holders) and not any(scheduler.manager.holders)


@pytest.fixture
def batches(monkeypatch):
    """The batches that samplers make, to look at their memory afterwards."""
    made = []
    plain = Sampler._batch
    monkeypatch.setattr(Sampler, "_batch", lambda *a: made.append(plain(*a)) or made[-1])
    return made


plans = st.fixed_dictionaries(
    {
        "order": st.permutations(range(len(REQUESTS))).flatmap(
            lambda order: st.integers(1, len(order)).map(lambda n: order[:n])
        ),
        "samples": st.lists(st.integers(0, 3), min_size=10, max_size=10),
        "new": st.integers(1, LONGEST),
        "stop": st.sampled_from([(), ("7;",), ("3;1", "5;")]),
        "stop_ids": st.sampled_from([(), (9, 30)]),
        "gaps": st.lists(st.integers(0, 3), min_size=10, max_size=10),
        "cancel": st.dictionaries(st.integers(0, 25), st.integers(0, 9), max_size=3),
        "block": st.sampled_from([1, 3, 4, 8]),
        "spare": st.integers(0, 60),
        "rows": st.integers(1, 9),
        "step": st.integers(1, 40),
        "ahead": st.sampled_from([0, 0, 3]),
    }
)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans)
def test_any_schedule_answers_every_sample_once_and_as_if_alone(decoder, alone, batches, plan):
    requests = [replace(REQUESTS[i], seeds=REQUESTS[i].seeds[: plan["samples"][i]]) for i in plan["order"]]
    params = replace(PARAMS, max_new_tokens=plan["new"], stop=plan["stop"], stop_token_ids=plan["stop_ids"])
    block = plan["block"]
    need = max(-(-(len(r.token_ids) + plan["new"]) // block) for r in requests) * block  # one sample alone
    sampler = Sampler(
        decoder, Numbers(), max_rows=plan["rows"], kv_tokens=need + plan["spare"], kv_block=block,
        step_tokens=plan["rows"] * (1 + plan["ahead"]) + plan["step"], speculate=plan["ahead"],
    )  # fmt: skip
    steps = 0

    def arrivals():
        for request, gap in zip(requests, plan["gaps"], strict=False):
            yield from [None] * gap
            yield request

    def between(stats):
        nonlocal steps
        if steps in plan["cancel"]:
            sampler.cancel(f"r{plan['cancel'][steps]}")
        steps += 1

    done = list(sampler.sample(arrivals(), params, on_step=between))
    assert sorted((c.request_id, c.index) for c in done) == [
        (r.id, i) for r in sorted(requests, key=lambda r: r.id) for i in range(len(r.seeds))
    ]
    cancelled = {f"r{i}" for i in plan["cancel"].values()}
    for c in done:
        whole = alone[c.request_id, c.index]
        assert c.token_ids == whole.token_ids[: len(c.token_ids)]
        torch.testing.assert_close(c.logprobs, whole.logprobs[: len(c.token_ids)], atol=1e-4, rtol=0)
        assert len(c.sampled_logprobs) == len(c.weights_versions) == len(c.token_ids)
        if c.finish_reason == "cancelled":
            assert c.request_id in cancelled
            continue
        assert c.finish_reason == "stop" or len(c.token_ids) == plan["new"]
        one_less = Numbers().decode(c.token_ids[:-1])
        assert not any(s in one_less for s in plan["stop"])
        ended = whole.token_ids[len(c.token_ids) - 1] in (*Numbers.eos_token_ids, *plan["stop_ids"])
        assert (c.finish_reason == "stop") == (ended or any(s in Numbers().decode(c.token_ids) for s in plan["stop"]))
    assert all_free(batches.pop())


def draw_all(decoder, requests, params, **options):
    sampler = Sampler(decoder, Numbers(), **options)
    done = list(sampler.sample(requests, params))
    return {(c.request_id, c.index): c.token_ids for c in done}, sampler.stats


def test_tight_memory_preempts_and_shared_beginnings_are_computed_once(decoder, alone):
    expected = {k: c.token_ids for k, c in alone.items()}
    prompts = sum(len(r.token_ids) for r in REQUESTS)
    ids, tight = draw_all(decoder, REQUESTS, PARAMS, max_rows=16, kv_tokens=72, kv_block=4)
    assert ids == expected
    assert tight.preemptions > 0 and tight.prefilled_tokens + tight.reused_tokens > prompts
    ids, loose = draw_all(decoder, REQUESTS, PARAMS, max_rows=4, kv_tokens=2000, kv_block=4)
    assert ids == expected and loose.preemptions == 0
    assert loose.reused_tokens >= 4 * 12  # of five prompts that begin with 13 tokens
    assert loose.prefilled_tokens + loose.reused_tokens == prompts


def test_the_kernel_is_given_what_it_needs(decoder, alone, monkeypatch):
    """Decode attention by its definition in place of the gathers: what a GPU's kernel is launched with."""
    plain = Pool.__init__

    def with_kernel(self, *arguments):
        plain(self, *arguments)
        self.kernel = "reference"

    monkeypatch.setattr(Pool, "__init__", with_kernel)
    params = replace(PARAMS, max_new_tokens=8)
    ids, stats = draw_all(decoder, REQUESTS[3:7], params, max_rows=7, kv_tokens=120, kv_block=4)
    assert ids == {k: alone[k].token_ids[:8] for k in ids} and len(ids) == 16
    assert stats.decode_steps > 0


def test_a_long_prompt_is_computed_in_chunks_while_others_decode(decoder):
    """The live rows draw a token in every step, also in those that compute a part of the long prompt."""
    long = Request(id="long", token_ids=tuple(2 + i % 50 for i in range(70)), seeds=(5,))
    sampler = Sampler(decoder, Numbers(), max_rows=8, kv_tokens=400, step_tokens=12)
    steps = []

    def count(s):
        steps.append((s.decode_tokens, s.prefilled_tokens))

    list(sampler.sample([REQUESTS[0], long], PARAMS, on_step=count))
    work = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(steps)]
    assert sum(decoded > 0 and filled > 0 for decoded, filled in work) >= 70 // 12
    assert all(decoded + filled <= 12 for decoded, filled in work)


@pytest.mark.parametrize("samples", [1, 4])
def test_peak_bytes_are_those_that_the_schedule_needs(decoder, samples, batches):
    """Within 10 %: of each step, the distinct tokens that live rows attend to, by two numbers of 32 bits a place."""
    rng = random.Random(4)
    requests = [
        Request(
            id=f"q{i}",
            token_ids=tuple(rng.randrange(2, VOCAB) for _ in range(rng.randint(30, 60))),
            seeds=tuple(rng.getrandbits(63) for _ in range(samples)),
        )
        for i in range(12)
    ]
    needs = [0]

    def between(_):
        live = batches[0].scheduler.live
        prompts = {line.number: len(line.sample.request.token_ids) for line in live}
        own = sum(line.table.length - len(line.sample.request.token_ids) for line in live)
        needs.append(sum(prompts.values()) + own)

    sampler = Sampler(decoder, Numbers(), max_rows=8, kv_tokens=2000, kv_block=2)
    list(sampler.sample(requests, PARAMS, on_step=between))
    config = decoder.config
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    # a step's last tokens are held before its finished rows leave: one row's at most are not seen between steps
    assert max(needs) * token_bytes <= sampler.stats.peak_kv_bytes <= 1.1 * max(needs) * token_bytes
    assert batches[0].pool.kv.nbytes == (2000 // 2 + 1) * batches[0].pool.block_bytes  # what is accounted is allocated


def test_requests_are_pulled_as_there_is_room(decoder):
    pulled = []

    def arrivals():
        for request in REQUESTS:
            pulled.append(request.id)
            yield request

    for options in ({"kv_tokens": 2000}, {"cohort_rows": 4}):
        pulled.clear()
        completions = Sampler(decoder, Numbers(), max_rows=4, **options).sample(arrivals(), PARAMS)
        next(completions)
        assert len(pulled) <= 3
        assert len(list(completions)) == 39 and len(pulled) == 10


def test_cancelling_ends_a_request_and_no_other(decoder, alone):
    for options in ({"kv_tokens": 300}, {"cohort_rows": 4}, {"cohort_rows": 2}):
        sampler = Sampler(decoder, Numbers(), max_rows=4, **options)
        done = []
        for completion in sampler.sample(REQUESTS, PARAMS):
            done.append(completion)
            if len(done) == 2:
                sampler.cancel("r0")
                sampler.cancel("r7")
        ends = {(c.request_id, c.index): c.finish_reason for c in done}
        assert len(ends) == len(done) == 40
        assert {ends["r7", i] for i in range(4)} == {"cancelled"}
        assert {k[0] for k, reason in ends.items() if reason == "cancelled"} <= {"r0", "r7"}
        for c in done:
            whole = alone[c.request_id, c.index].token_ids
            assert c.token_ids == (whole[: len(c.token_ids)] if c.finish_reason == "cancelled" else whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculate": 2}, "kv_tokens"),
        ({"kv_tokens": 4}, "block"),
        ({"kv_tokens": 64, "max_rows": 8, "step_tokens": 8}, "step_tokens"),
        ({"kv_tokens": 64, "speculate": -1}, "speculate"),
    ],
)
def test_budgets_that_cannot_work_are_refused(decoder, options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(decoder, Numbers(), **options)


def test_a_request_that_never_fits_is_refused_before_anything_runs(decoder):
    with pytest.raises(ValueError, match="kv_tokens=40"):
        Sampler(decoder, Numbers(), kv_tokens=40).sample([REQUESTS[0]], PARAMS)
