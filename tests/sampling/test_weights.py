"""Weights that change between two tokens, and memory given back between phases."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.sampling.pool import Pool
from plum_core.training.initial import initial_decoder
from plum_models import DecoderConfig
from plum_models.attention import causal_attention

VOCAB = 61
PARAMS = SamplingParams(max_new_tokens=14, temperature=3.0)


class Numbers:
    eos_token_ids = frozenset(range(6))  # some samples end early
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return "".join(f"{i};" for i in ids)


def make_decoder(seed):
    config = DecoderConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=96,
    )  # fmt: skip
    decoder = initial_decoder(config, seed=seed)
    with torch.no_grad():
        decoder.embed_tokens.weight.mul_(20)
    return decoder


def requests(*names):
    generator = torch.Generator().manual_seed(5)
    prompts = {name: tuple(torch.randint(2, VOCAB, (17,), generator=generator).tolist()) for name in "abc"}
    return [Request(id=n, token_ids=prompts[n[0]], seeds=tuple(range(ord(n[-1]), ord(n[-1]) + 3))) for n in names]


def exact(decoder, ids, first, cache=None):
    """Log-probs of ``ids[first:]``; ``cache``: keys and values of another decoder for the first positions."""
    kept = []

    def attend(layer, q, k, v):
        kept.append((k, v))
        if cache is None:
            return causal_attention(layer, q, k, v)
        k, v = (torch.cat((old, new), 1) for old, new in zip(cache[layer], (k, v), strict=True))
        past = k.shape[1] - q.shape[1]
        k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) * q.shape[-1] ** -0.5
        hidden = torch.arange(k.shape[1]) > torch.arange(past, k.shape[1]).unsqueeze(1)
        return torch.einsum("bhqk,bkhe->bqhe", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)

    start = 0 if cache is None else cache[0][0].shape[1]
    with torch.no_grad():
        hidden = decoder(torch.tensor([ids[start:]]), torch.arange(start, len(ids)), attend)
        logps = decoder.logits(hidden)[0].log_softmax(-1)
    tokens = torch.tensor(ids[first:])
    return logps[first - 1 - start : -1].gather(1, tokens.unsqueeze(1)).squeeze(1), kept


@pytest.mark.parametrize("options", [{}, {"kv_tokens": 400, "kv_block": 4}], ids=["contiguous", "paged"])
def test_an_update_between_tokens_is_recorded_and_keeps_older_keys_and_values(options):
    decoder, other = make_decoder(3), make_decoder(4)
    before = copy.deepcopy(decoder)
    sampler = Sampler(decoder, Numbers(), max_rows=6, **options)
    steps = 0

    def between(_):
        nonlocal steps
        steps += 1
        if steps == 5:
            decoder.load_state_dict(other.state_dict())
            assert sampler.update_weights() == 1

    done = list(sampler.sample(requests("a", "b"), PARAMS, on_step=between))
    assert len(done) == 6
    prompts = {r.id: r.token_ids for r in requests("a", "b")}
    changed = 0
    for c in done:
        old = c.weights_versions.count(0)
        assert c.weights_versions == (0,) * old + (1,) * (len(c.token_ids) - old)
        prompt = prompts[c.request_id]
        ids = prompt + c.token_ids
        cut = len(prompt) + old
        whole, cache = exact(before, ids[:cut], len(prompt))
        if cut < len(ids):  # the last token of the old weights is fed to the new ones
            changed += 1
            cache = [tuple(x[:, : cut - 1] for x in kv) for kv in cache]
            whole = torch.cat((whole, exact(other, ids, cut, cache)[0]))
        torch.testing.assert_close(torch.tensor(c.logprobs), whole, atol=1e-4, rtol=0)
    assert changed


def test_an_update_drops_the_prefix_cache():
    decoder, other = make_decoder(3), make_decoder(4)
    for update in (False, True):
        sampler = Sampler(decoder, Numbers(), max_rows=3, kv_tokens=400, kv_block=4)
        late = []
        for completion in sampler.sample((r for r in requests("a1", "a2")), PARAMS):
            if completion.request_id == "a1" and update and not sampler.version:
                decoder.load_state_dict(other.state_dict())
                sampler.update_weights()
            if completion.request_id == "a2":
                late.append(completion)
        assert len(late) == 3
        assert sampler.stats.reused_tokens == (0 if update else 16)
    for completion in late:
        expected, _ = exact(other, (*requests("a")[0].token_ids, *completion.token_ids), 17)
        assert set(completion.weights_versions) == {1}
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


def test_a_sleep_gives_the_memory_back_and_changes_no_token(monkeypatch):
    decoder = make_decoder(3)
    expected = {(c.request_id, c.index): c for c in Sampler(decoder, Numbers()).sample(requests("a", "b"), PARAMS)}
    pools = []
    plain = Pool.__init__
    monkeypatch.setattr(Pool, "__init__", lambda self, *a: pools.append(weakref.ref(self)) or plain(self, *a))
    sampler = Sampler(decoder, Numbers(), max_rows=6, kv_tokens=400, kv_block=4)
    completions = sampler.sample(requests("a", "b"), PARAMS)
    done = [next(completions)]
    sampler.sleep()
    gc.collect()
    assert [pool() for pool in pools] == [None]
    sampler.wake()
    done += list(completions)
    assert len(pools) == 2
    assert {(c.request_id, c.index): c.token_ids for c in done} == {k: c.token_ids for k, c in expected.items()}
    assert sum(len(c.token_ids) for c in done[1:]) > 10


def test_asleep_nothing_is_drawn():
    sampler = Sampler(make_decoder(3), Numbers(), kv_tokens=400)
    completions = sampler.sample(requests("a", "b"), PARAMS)
    next(completions)
    sampler.sleep()
    with pytest.raises(ValueError, match="wake"):
        sampler.sample(requests("c"), PARAMS)
    with pytest.raises(ValueError, match="wake"):
        list(completions)


def test_an_update_in_sleep_holds_for_what_is_drawn_after():
    decoder, other = make_decoder(3), make_decoder(4)
    sampler = Sampler(decoder, Numbers(), max_rows=6, kv_tokens=400)
    completions = sampler.sample(requests("a", "b"), PARAMS)
    next(completions)
    sampler.sleep()
    decoder.load_state_dict(other.state_dict())
    sampler.update_weights()
    sampler.wake()
    prompts = {r.id: r.token_ids for r in requests("a", "b")}
    for c in completions:
        expected, _ = exact(other, (*prompts[c.request_id], *c.token_ids), 17)
        new = c.weights_versions.count(0)
        assert set(c.weights_versions[new:]) <= {1}
        torch.testing.assert_close(torch.tensor(c.logprobs)[new:], expected[new:], atol=1e-4, rtol=0)


def test_the_contiguous_cache_sleeps_only_between_calls():
    sampler = Sampler(make_decoder(3), Numbers())
    completions = sampler.sample(requests("a", "b"), PARAMS)
    next(completions)
    with pytest.raises(ValueError, match="kv_tokens"):
        sampler.sleep()
    list(completions)
    sampler.sleep()
    sampler.wake()
    assert len(list(sampler.sample(requests("a"), PARAMS))) == 3
