"""Files of answers: the layouts of batch APIs, each line with its place in an error."""

from __future__ import annotations

import json

import pytest

from plum_core.testing.generators import AnswerFile, AnswerRequest

OPENAI = {
    "id": "batch_req_1", "custom_id": "a", "error": None,
    "response": {"status_code": 200, "request_id": "x", "body": {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4}}},
}  # fmt: skip
ANTHROPIC = {
    "custom_id": "b",
    "result": {"type": "succeeded", "message": {
        "role": "assistant", "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 6},
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "B"},
                    {"type": "text", "text": "2"}]}},
}  # fmt: skip
PLAIN = {"id": "c", "answer": "C"}
REFUSED = {
    "custom_id": "d",
    "error": None,
    "response": {"status_code": 429, "body": {"error": {"message": "slow\ndown"}}},
}
ERRORED = {"custom_id": "e", "result": {"type": "errored", "error": {"type": "error", "error": {"message": "bad"}}}}
EXPIRED = {"custom_id": "f", "result": {"type": "expired"}}


def request(name: str) -> AnswerRequest:
    return AnswerRequest(id=name, messages=({"role": "user", "content": "?"},))


def written(folder, *rows):
    path = folder / "answers.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_every_layout_even_in_one_file(tmp_path):
    rows = (OPENAI, "", ANTHROPIC, PLAIN, REFUSED, ERRORED, EXPIRED)
    found = list(AnswerFile(written(tmp_path, *rows)).answers(map(request, "cabdefg")))
    assert [(a.id, a.text) for a in found] == [
        ("c", "C"), ("a", "A"), ("b", "B2"), ("d", ""), ("e", ""), ("f", ""), ("g", ""),
    ]  # fmt: skip
    assert [(a.finish_reason, a.prompt_tokens, a.completion_tokens) for a in found[:3]] == [
        ("", 0, 0), ("length", 3, 4), ("stop", 5, 6),
    ]  # fmt: skip
    errors = [a.error for a in found]
    assert errors[:3] == [None] * 3
    for error, word in zip(errors[3:], ("slow down", "bad", "expired", "no answer with the id 'g'"), strict=True):
        assert word in error and "\n" not in error


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"name": "x", "text": "y"}, "no known layout: wants {custom_id, response} or .* got the keys name, text"),
        ("[1]", "wants an object, got list"),
        ("{", "not JSON at column"),
        ({"id": 3, "answer": "x"}, "id wants a string, got int"),
        (OPENAI | {"response": {"status_code": 200, "body": {"choices": []}}}, "choices"),
        ({"custom_id": "x", "result": {"type": "succeeded"}}, "result.message wants an object"),
        (PLAIN, "the id 'c' is on line 1 already"),
    ],
)
def test_a_bad_line_has_its_place_told(tmp_path, row, words):
    with pytest.raises(ValueError, match=rf"answers\.jsonl:2: .*{words}"):
        AnswerFile(written(tmp_path, PLAIN, row))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        AnswerFile(tmp_path / "none.jsonl")
