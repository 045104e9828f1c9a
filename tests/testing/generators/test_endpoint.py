"""An endpoint that misbehaves costs time, never an answer, and no answer is paid for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from plum_core.testing.generators import AnswerRequest
from plum_core.testing.generators.limits import Budget, BudgetReached
from plum_core.testing.generators.replies import EndpointRefused
from tests.conftest import ROOT
from tests.testing.generators import unruly as u

httpx = pytest.importorskip("httpx")  # the extra `endpoint`
from plum_core.testing.generators.endpoint import Endpoint, EndpointConfig, worst_case  # noqa: E402

FAST: dict[str, Any] = {"first_wait_s": 0.01, "most_wait_s": 0.02, "timeout_s": 5.0}


@pytest.fixture
def place(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with u.unruly() as server:
        yield server


def asked(count: int, **fields: Any) -> list[AnswerRequest]:
    rows = (({"role": "user", "content": f"q{n}"},) for n in range(count))
    return [AnswerRequest(id=f"r{n}", messages=m, max_tokens=100, **fields) for n, m in enumerate(rows)]


def config(place: u.Unruly, folder: Path, **changes: Any) -> EndpointConfig:
    return EndpointConfig(url=place.url, model="m", cache=folder / "cache.jsonl", **FAST | changes)


def answers(place: u.Unruly, folder: Path, requests: list[AnswerRequest], **changes: Any) -> dict[str, Any]:
    found = list(Endpoint(config(place, folder, **changes)).answers(requests))
    assert len(found) == len({a.id for a in found}) == len(requests)
    return {a.id: a for a in found}


def test_every_request_is_answered_once_and_concurrently(place, tmp_path):
    place.otherwise = u.slow(0.05)
    requests = asked(20, temperature=0.5, seed=7)
    found = answers(place, tmp_path, requests, concurrency=4, options={"top_p": 0.9})
    assert {a.id: a.text for a in found.values()} == {f"r{n}": f"echo q{n}" for n in range(20)}
    assert {(a.finish_reason, a.prompt_tokens, a.completion_tokens, a.error) for a in found.values()} == {
        ("stop", 10, 5, None)
    }
    assert 2 <= place.most_at_once <= 4 and set(place.seen.values()) == {1}
    sent = place.bodies[0]
    assert {k: sent[k] for k in sent if k != "messages"} == {
        "model": "m", "temperature": 0.5, "seed": 7, "max_tokens": 100, "top_p": 0.9,
    }  # fmt: skip
    assert place.keys == {None}


FAULTS = {
    "429": u.status(429),
    "500": u.status(500),
    "503": u.status(503),
    "cut body": u.cut,
    "cut chunks": u.cut_chunks,
    "no reply": u.mute,
    "slow": u.slow(0.6),
    "drip": u.drip,
    "not json": u.raw(b'{"choices": ['),
    "not utf-8": u.raw(b"\xff\xfe{}"),
    "deep json": u.raw(b"[" * 100_000),
    "wrong schema": u.raw(b'{"choices": []}'),
    "a list": u.raw(b"[1, 2]"),
    "no text": u.raw(b'{"choices": [{"message": {"content": null}}]}'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_outlived(place, tmp_path, fault):
    place.script = [FAULTS[fault]] * 2
    found = answers(place, tmp_path, asked(1), timeout_s=0.4)
    assert found["r0"].text == "echo q0" and place.requests == 3


@pytest.mark.parametrize(("fault", "words"), [("500", "status 500 (no)"), ("not json", "not JSON (13 bytes)")])
def test_a_fault_that_stays_is_an_error_of_its_request_alone(place, tmp_path, fault, words):
    place.script = [FAULTS[fault]] * 3
    found = answers(place, tmp_path, asked(2), concurrency=1, attempts=3)
    assert found["r0"].text == "" and words in found["r0"].error and "3 attempts" in found["r0"].error
    assert found["r1"].text == "echo q1"
    assert answers(place, tmp_path, asked(2))["r0"].text == "echo q0"  # an error is not kept
    assert place.seen == {"q0": 4, "q1": 1}


def test_retry_after_holds_for_every_request(place, tmp_path):
    place.script = [u.status(429, Retry_After="0.5")]
    answers(place, tmp_path, asked(3), concurrency=1)
    gaps = [b - a for a, b in zip(place.times_s, place.times_s[1:], strict=False)]
    assert gaps[0] >= 0.5 and place.requests == 4


def test_too_long_a_retry_after_gives_up(place, tmp_path):
    place.script = [u.status(429, Retry_After="3600")]
    found = answers(place, tmp_path, asked(1))
    assert "1 attempts, the last ended with status 429" in found["r0"].error and place.requests == 1


@pytest.mark.parametrize(("code", "words"), [(401, "api_key_env"), (403, "may not"), (404, "model"), (302, "moved")])
def test_a_refusal_of_all_ends_at_once_in_one_sentence(place, tmp_path, monkeypatch, code, words):
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret")
    place.otherwise = u.status(code, "Incorrect API key provided: sk-very-secret", Location="/elsewhere")
    with pytest.raises(EndpointRefused, match=words) as caught:
        list(Endpoint(config(place, tmp_path, api_key_env="SECRET_KEY", concurrency=2)).answers(asked(50)))
    assert place.requests <= 3 and "\n" not in str(caught.value) and "sk-very" not in str(caught.value)
    assert place.keys == {"Bearer sk-very-secret"}  # it was sent, and written nowhere
    assert all(b"sk-very" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_400_is_that_requests_own_matter(place, tmp_path):
    place.script = [u.status(400, "context\nlength exceeded")]
    found = answers(place, tmp_path, asked(3), concurrency=1)
    assert found["r0"].error.endswith("status 400 (context length exceeded)")
    assert [found[r].text for r in ("r1", "r2")] == ["echo q1", "echo q2"] and place.requests == 3


def test_resume_pays_for_nothing_twice(place, tmp_path):
    answers(place, tmp_path, asked(6))
    again = answers(place, tmp_path, asked(9))
    assert set(place.seen.values()) == {1} and len(place.seen) == 9
    assert [again[f"r{n}"].text for n in range(9)] == [f"echo q{n}" for n in range(9)]
    answers(place, tmp_path, asked(9, seed=1))  # another question
    assert set(place.seen.values()) == {2}


def test_one_question_under_two_ids_is_asked_once(place, tmp_path):
    place.otherwise = u.slow(0.1)
    twin = AnswerRequest(id="twin", messages=asked(1)[0].messages, max_tokens=100)
    found = answers(place, tmp_path, [*asked(2), twin])
    assert found["twin"].text == found["r0"].text == "echo q0" and place.seen["q0"] == 1


def test_a_caller_who_leaves_loses_no_answer(place, tmp_path):
    place.otherwise = u.slow(0.05)
    stream = Endpoint(config(place, tmp_path, concurrency=3)).answers(asked(9))
    next(stream)
    stream.close()
    paid = place.requests
    assert paid < 9
    answers(place, tmp_path, asked(9))
    assert place.requests == 9  # those under way at the end were kept


def test_kill_9_loses_no_answer_that_arrived(place, tmp_path):
    place.otherwise = u.slow(0.03)
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.testing.generators.test_endpoint import *\n"
        f"place = u.Unruly(url={place.url!r})\n"
        f"for answer in Endpoint(config(place, Path({str(tmp_path)!r}), concurrency=1)).answers(asked(200)):\n"
        "    print(answer.id, flush=True)\n"
    )
    paths = os.pathsep.join([str(ROOT), *(str(ROOT / n) for n in ("kernels", "models", "runners")), *sys.path])
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths}, cwd=ROOT
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(5)]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0.1)  # the request in hand reaches the server, its answer nobody
    with (tmp_path / "cache.jsonl").open("ab") as file:
        file.write(b'{"key": "torn')  # a crash of the machine may leave this
    before = place.seen.copy()
    assert lines[0] == b"r0\n" and before.total() < 200
    answers(place, tmp_path, asked(before.total() + 3))
    twice = [q for q, count in place.seen.items() if count > 1]
    assert len(twice) <= 1  # at most the one in hand


def test_the_budget_of_tokens_is_never_passed_and_resumes(place, tmp_path):
    budget = Budget(tokens=400)
    found = []
    with pytest.raises(BudgetReached, match="of 400 tokens"):
        for answer in Endpoint(config(place, tmp_path, concurrency=4, budget=budget)).answers(asked(50)):
            found.append(answer)
    worst = sum(worst_case(asked(1)[0]))
    spent = 15 * place.requests  # what each really costs
    assert 400 - worst - 15 < spent <= 400 and len(found) == place.requests
    with pytest.raises(BudgetReached):  # what earlier runs spent counts
        list(Endpoint(config(place, tmp_path, budget=budget)).answers(asked(50)))
    assert 15 * place.requests == spent
    assert len(answers(place, tmp_path, asked(50))) == 50 and set(place.seen.values()) == {1}


def test_a_lost_answer_counts_as_billed(place, tmp_path):
    place.otherwise = u.cut
    with pytest.raises(BudgetReached):
        list(Endpoint(config(place, tmp_path, budget=Budget(tokens=400), attempts=9)).answers(asked(1)))
    assert place.requests == 400 // sum(worst_case(asked(1)[0]))
    lines = [json.loads(line) for line in (tmp_path / "cache.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == [None] * 3


def test_the_budget_in_money(place, tmp_path):
    budget = Budget(money=1.0, price_prompt=1000.0, price_completion=8000.0)  # 0.05 an answer, worst case 0.818
    with pytest.raises(BudgetReached, match=r"and 0\.\d+ of 1\.0000 in money"):
        list(Endpoint(config(place, tmp_path, budget=budget, concurrency=1)).answers(asked(50)))
    assert place.requests == 4  # 3 x 0.05 + 0.818 <= 1 < 4 x 0.05 + 0.818
    with pytest.raises(ValueError, match="price"):
        Budget(money=1.0)


def test_two_processes_do_not_share_a_cache(place, tmp_path):
    stream = Endpoint(config(place, tmp_path)).answers(asked(2))
    next(stream)
    with pytest.raises(ValueError, match="in use by another process"):
        list(Endpoint(config(place, tmp_path)).answers(asked(1)))
    stream.close()
    list(Endpoint(config(place, tmp_path)).answers(asked(1)))


def test_a_strange_line_in_the_cache_has_its_place_told(place, tmp_path):
    answers(place, tmp_path, asked(1))
    with (tmp_path / "cache.jsonl").open("ab") as file:
        file.write(b'{"key": 3}\n')
    with pytest.raises(ValueError, match=r"cache\.jsonl:2: key 'key' wants a string"):
        answers(place, tmp_path, asked(1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "ftp://x"}, "http"),
        ({"concurrency": 0}, "concurrency"),
        ({"options": {"model": "n"}}, "may not hold model"),
        ({"max_tokens_field": "max"}, "max_completion_tokens"),
        ({"api_key_env": "PLUM_NO_SUCH_KEY"}, "PLUM_NO_SUCH_KEY, which api_key_env names, is not set"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_asked(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        Endpoint(EndpointConfig(**{"url": "http://127.0.0.1:1/v1", "model": "m", "cache": tmp_path / "c"} | changes))
