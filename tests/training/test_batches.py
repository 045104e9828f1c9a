"""Batches: bounded, complete, seeded; rows that score what they should."""

from __future__ import annotations

import itertools

import pytest
import torch

from plum_core.training import Example, cycle
from plum_core.training.batches import plan_batches, split, stream_batches


def padded(batch, costs):
    return sum(costs[i][0] for i in batch) * max(costs[i][1] for i in batch)


def costs_of(count, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [(2, int(w)) for w in torch.randint(3, 60, (count,), generator=g)]


@pytest.mark.parametrize("count", [1, 2, 7, 500])
@pytest.mark.parametrize("budget", [120, 121, 1000, 10**6])
def test_every_item_once_and_no_batch_over_budget(count, budget):
    costs = costs_of(count)
    plan = plan_batches(costs, budget, seed=1)
    assert sorted(itertools.chain(*plan)) == list(range(count))
    assert all(padded(batch, costs) <= budget for batch in plan)


def test_the_seed_decides_the_order():
    costs = costs_of(200)
    assert plan_batches(costs, 1000, seed=1) == plan_batches(costs, 1000, seed=1)
    other = plan_batches(costs, 1000, seed=2)
    assert other != plan_batches(costs, 1000, seed=1)
    assert {frozenset(b) for b in other} != {frozenset(b) for b in plan_batches(costs, 1000, seed=1)}


def test_no_small_last_batch():
    costs = [(2, 10)] * 101  # 50 fit: a greedy cut would end in a batch of one
    plan = plan_batches(costs, 1000, seed=0)
    assert sorted(map(len, plan)) == [33, 34, 34]


def test_padding_is_little():
    costs = costs_of(500)
    plan = plan_batches(costs, 1000, seed=0)
    real = sum(rows * width for rows, width in costs)
    assert sum(padded(b, costs) for b in plan) < 1.1 * real


def test_an_item_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="item 1 takes 2 x 60 = 120 padded tokens, tokens_per_batch is 119"):
        plan_batches([(2, 5), (2, 60)], 119, seed=0)


def test_nothing_gives_no_batches():
    assert plan_batches([], 100, seed=0) == [] and split([], [], 100) == []


def test_split_keeps_order_and_budget():
    costs = [(2, 5)] * 10
    assert split(range(10), costs, None) == [list(range(10))]
    assert split(range(10), costs, 40) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(("prompt", "completion"), [((), (1,)), ((1,), ())])
def test_an_empty_side_is_refused(prompt, completion):
    with pytest.raises(ValueError, match="must hold a token each"):
        Example(prompt_ids=prompt, completion_ids=completion)


def test_stream_batches_cover_the_stream():
    examples = [Example(prompt_ids=(1,) * (1 + i % 7), completion_ids=(i,)) for i in range(100)]
    batches = list(stream_batches(examples, 40, seed=0, window=32))
    assert sorted(e.completion_ids[0] for b in batches for e in b) == list(range(100))
    assert all(len(b) * max(map(len, b)) <= 40 for b in batches)
    assert batches == list(stream_batches(examples, 40, seed=0, window=32))


def test_cycle_passes_over_all_in_new_orders():
    examples = [Example(prompt_ids=(1,), completion_ids=(i,)) for i in range(20)]
    drawn = [e.completion_ids[0] for e in itertools.islice(cycle(examples, 3), 60)]
    passes = [drawn[:20], drawn[20:40], drawn[40:]]
    assert all(sorted(p) == list(range(20)) for p in passes)
    assert passes[0] != passes[1] != passes[2]
    with pytest.raises(ValueError, match="no examples"):
        next(cycle([], 0))
