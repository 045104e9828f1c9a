"""Decode steps from static buffers, with a recording in place of CUDA graphs: shapes, padding, reuse, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from plum_core.sampling import Request, Sampler, SamplingParams, graphs
from plum_core.sampling.pool import Pool
from plum_core.training.initial import initial_decoder
from plum_models import DecoderConfig

PARAMS = SamplingParams(max_new_tokens=9, temperature=1.5)
CONFIG = DecoderConfig(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=96, sliding_window=11, sliding_layers=(1,),
)  # fmt: skip


class Numbers:
    eos_token_ids = frozenset({0, 1})
    eos_token_id = 0
    pad_token_id = None

    def decode(self, ids):
        return "".join(f"{i};" for i in ids)


class Recorder:
    """Like a graph: captured once, and replayed from the same memory into the same memory."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, work):
        self.captures += 1
        out = work()
        out.fill_(float("nan"))  # what the capture left is not the answer

        def replay():
            self.replays += 1
            return out.copy_(work())

        return replay


@pytest.fixture(scope="module")
def decoder():
    decoder = initial_decoder(CONFIG, seed=3)
    with torch.no_grad():
        decoder.embed_tokens.weight.mul_(20)  # far from uniform, so that a wrong position shows
    return decoder


@pytest.fixture(autouse=True)
def with_kernel(monkeypatch):
    """Decode attention by its definition: the path that a GPU's step takes."""
    plain = Pool.__init__

    def init(self, *arguments):
        plain(self, *arguments)
        self.kernel = "reference"

    monkeypatch.setattr(Pool, "__init__", init)


def requests(count=4):
    prompt = tuple(range(5, 18))
    tails = [(), (3, 4), (7,) * 9, (21, 22, 23)]
    return [
        Request(id=f"r{i}", token_ids=prompt + tails[i], seeds=tuple(range(10 * i, 10 * i + 1 + i)))
        for i in range(count)
    ]


def drawn(decoder, capture=None, rows=7, **options):
    sampler = Sampler(decoder, Numbers(), max_rows=rows, kv_tokens=240, kv_block=4, **options)
    sampler.capture = capture
    return {(c.request_id, c.index): (c.token_ids, c.logprobs) for c in sampler.sample(requests(), PARAMS)}


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_replayed_steps_draw_the_same_ids(decoder, rows):
    capture = Recorder()
    want, got = drawn(decoder, rows=rows), drawn(decoder, capture, rows=rows)
    assert {k: v[0] for k, v in got.items()} == {k: v[0] for k, v in want.items()}
    for key, (_, logprobs) in want.items():
        assert got[key][1] == pytest.approx(logprobs, abs=1e-5)
    assert capture.replays > 2 * capture.captures > 0


def test_steps_of_one_bucket_share_a_graph_and_others_do_not(decoder):
    calls = []
    pool = Pool(CONFIG, 8, 4, decoder.head_weight)
    steps = graphs.StepGraphs(decoder, pool, lambda work: calls.append(1) or work)

    def step(rows):
        tables = torch.arange(rows, dtype=torch.int32).unsqueeze(1)
        shared = graphs.Shared(
            tables=torch.zeros(1, 0, dtype=torch.int32),
            lengths=torch.zeros(1, dtype=torch.int32),
            members=torch.full((1, rows), -1, dtype=torch.int32),
        )
        given = graphs.KernelStep(tables[:, 0].long() * 4, tables, torch.ones(rows, dtype=torch.int32), shared)
        return steps(torch.full((rows, 1), 7), torch.zeros(rows, 1, dtype=torch.int64), given)

    with torch.no_grad():
        three, four, five = step(3), step(4), step(5)
    assert len(calls) == len(steps) == 2  # 3 and 4 rows are one bucket, 5 the next
    assert three.shape == (3, 1, 32) and torch.equal(three, four[:3])
    torch.testing.assert_close(five[:4], four)
    assert not pool.kv[:, :, :, 5:8].any()  # padded rows wrote into the scratch block alone


def test_new_weights_are_captured_anew(decoder):
    def captures(update_at):
        sampler = Sampler(decoder, Numbers(), max_rows=2, kv_tokens=240, kv_block=4)
        sampler.capture = capture = Recorder()
        steps = []

        def on_step(_):
            steps.append(1)
            if len(steps) == update_at:
                sampler.update_weights()

        list(sampler.sample(requests(1), replace(PARAMS, max_new_tokens=6), on_step=on_step))
        return capture.captures

    assert captures(3) == captures(None) + 1


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 1), (2, 2), (3, 4), (9, 16), (64, 64), (65, 128), (640, 640)])
def test_buckets(count, size):
    assert graphs.bucket(count) == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "graphs cannot be captured: CUDA graphs need a GPU, the decoder is on cpu"),
        ({"device": "cuda", "kv_tokens": None}, "they need a budget of keys and values and no speculation"),
        ({"device": "cuda", "speculate": 2}, "give kv_tokens, and speculate=0"),
        ({"device": "cuda", "sparse_layers": (0,)}, "sparse layers and dynamic rotary scaling look at numbers"),
    ],
    ids=str,
)
def test_what_cannot_be_captured_is_refused(decoder, change, message):
    config = CONFIG if "sparse_layers" not in change else type("C", (), {"sparse_layers": (0,)})
    if not change:
        with pytest.raises(ValueError, match=message):
            Sampler(decoder, Numbers(), kv_tokens=240, graphs=True)
        return
    reason = graphs.why_not(config, torch.device("cuda"), change.get("kv_tokens", 240), change.get("speculate", 0))
    assert message in reason
