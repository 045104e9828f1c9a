"""A checkpoint as a generator: the chat template where there is one, and draws that depend on the request alone."""

from __future__ import annotations

import pytest

from plum_core.sampling import Request, Sampler, SamplingParams
from plum_core.testing.generators import AnswerRequest, LocalGenerator
from plum_core.training.initial import initial_decoder
from plum_models import DecoderConfig, Tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def sampler():
    tokenizer = Tokenizer.train(["def f(x):\n    return x\n<user><a>question"], vocab_size=280)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    return Sampler(initial_decoder(config, seed=1), tokenizer, max_rows=8)


def asked(count: int, **fields) -> list[AnswerRequest]:
    return [
        AnswerRequest(id=f"r{n}", messages=({"role": "user", "content": f"question {n}"},), seed=n, **fields)
        for n in range(count)
    ]


def test_answers_do_not_depend_on_company(sampler):
    requests = asked(5, max_tokens=6, temperature=1.0) + asked(1, max_tokens=3)
    together = sorted(LocalGenerator(sampler).answers(requests), key=lambda a: (a.id, a.text))
    apart = sorted((a for r in requests for a in LocalGenerator(sampler).answers([r])), key=lambda a: (a.id, a.text))
    chunked = sorted(LocalGenerator(sampler, chunk=2).answers(iter(requests)), key=lambda a: (a.id, a.text))
    assert together == apart == chunked and len(together) == 6
    assert len({a.text for a in together}) > 1
    for answer in together:
        assert answer.error is None and 0 < answer.completion_tokens <= 6 and answer.prompt_tokens > 0
        assert answer.finish_reason in ("stop", "length")


def test_the_answer_is_the_samplers(sampler):
    request = asked(3, max_tokens=8, temperature=0.7)[2]
    [answer] = LocalGenerator(sampler).answers([request])
    ids = tuple(sampler.tokenizer.encode("question 2\n"))
    drawn = sampler.sample(
        [Request(id="x", token_ids=ids, seeds=(2,))], SamplingParams(temperature=0.7, max_new_tokens=8)
    )
    assert [c.text for c in drawn] == [answer.text]


def test_a_chat_model_gets_its_template(sampler):
    told = Tokenizer(sampler.tokenizer.inner, eos_token_ids=[0], settings={"chat_template": TEMPLATE})
    chat = LocalGenerator(Sampler(sampler.decoder, told))
    assert told.decode(chat.prompt_ids(asked(1)[0])) == "<user>question 0<a>"
    assert sampler.tokenizer.decode(LocalGenerator(sampler).prompt_ids(asked(1)[0])) == "question 0\n"


def test_a_prompt_without_room_is_its_own_error(sampler):
    long = AnswerRequest(id="long", messages=({"role": "user", "content": "x = 1\n" * 40},), max_tokens=6)
    found = {a.id: a for a in LocalGenerator(sampler).answers([long, *asked(1, max_tokens=6)])}
    assert "pass the 64 positions" in found["long"].error and found["r0"].error is None


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": ()},
        {"messages": ({"role": "tool", "content": "x"},)},
        {"messages": ({"role": "user", "text": "x"},)},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
    ],
)
def test_a_bad_request_is_refused(fields):
    with pytest.raises(ValueError, match="request 'r'"):
        AnswerRequest(**{"id": "r", "messages": ({"role": "user", "content": "x"},)} | fields)
