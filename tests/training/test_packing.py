"""The stream without padding: every token once, and the log-probs and gradients of rows computed alone."""

from __future__ import annotations

import pytest
import torch

from plum_core.training import Example
from plum_core.training.logps import completion_logps
from plum_core.training.packing import Packed


def alone(decoder, example):
    """The definition: the whole logits of one row."""
    tokens = torch.tensor([example.prompt_ids + example.completion_ids])
    log_p = decoder.logits(decoder(tokens)).log_softmax(-1)[0]
    return sum(log_p[i - 1, tokens[0, i]] for i in range(len(example.prompt_ids), len(example)))


def families(make):
    """Prompts with one, two and three completions, a prompt of one token, and a completion that occurs twice."""
    e = make.examples(9)
    shared = [Example(prompt_ids=e[0].prompt_ids, completion_ids=other.completion_ids) for other in e[3:5]]
    shared.append(Example(prompt_ids=e[2].prompt_ids, completion_ids=e[5].completion_ids))
    short = [Example(prompt_ids=(7,), completion_ids=(1,)), Example(prompt_ids=(7,), completion_ids=(2, 3))]
    return [*e, *short, *shared, e[1]]


def test_values_and_gradients_are_those_of_rows_alone(make):
    decoder, examples = make.decoder(), families(make)
    upstream = torch.randn(len(examples))
    got = completion_logps(decoder, examples)
    (got * upstream).sum().backward()
    gradient = torch.cat([w.grad.flatten() for w in decoder.parameters()])
    decoder.zero_grad()
    wanted = torch.stack([alone(decoder, e) for e in examples])
    (wanted * upstream).sum().backward()
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    exact = torch.cat([w.grad.flatten() for w in decoder.parameters()])
    torch.testing.assert_close(gradient, exact, rtol=1e-4, atol=1e-4)


def test_each_token_is_computed_once(make):
    examples = families(make)
    packed = Packed(examples)
    prompts = {e.prompt_ids for e in examples}
    unique = set(examples)
    assert packed.token_ids.numel() == sum(len(p) - 1 for p in prompts) + sum(len(e.completion_ids) for e in unique)
    assert packed.targets.tolist() == [t for e in dict.fromkeys(examples) for t in e.completion_ids]
    assert packed.lengths.sum() == len(packed.targets) and len(packed.which) == len(examples)


def test_neighbours_change_nothing(make):
    """A completion's log-prob is the same with and without a neighbour that shares its prompt."""
    decoder, examples = make.decoder(), families(make)
    with torch.no_grad():
        together = completion_logps(decoder, examples)
        for example, value in zip(examples, together, strict=True):
            torch.testing.assert_close(completion_logps(decoder, [example])[0], value, rtol=1e-5, atol=1e-5)


def test_completions_may_share_a_prompt_of_one_token(make):
    """Nothing of the stream has a second copy then, and an empty list of places must stay one of integers."""
    decoder = make.decoder()
    examples = [Example(prompt_ids=(7,), completion_ids=ids) for ids in ((1,), (2, 3))]
    got = completion_logps(decoder, examples)
    torch.testing.assert_close(got, torch.stack([alone(decoder, e) for e in examples]), rtol=1e-5, atol=1e-5)


def test_the_whole_sequence_can_be_scored(make):
    example = Example(prompt_ids=(1, 2, 3), completion_ids=(4, 5))
    assert example.with_scored_prompt() == Example(prompt_ids=(1,), completion_ids=(2, 3, 4, 5))
    with pytest.raises(ValueError, match="a token each"):
        Example(prompt_ids=(), completion_ids=(1,))
