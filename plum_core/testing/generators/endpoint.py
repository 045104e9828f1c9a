"""Answers of an OpenAI-compatible endpoint (``POST .../chat/completions``), none of them paid for twice.

Needs httpx (``pip install plum[endpoint]``). Answers are kept in ``cache`` before anybody sees them; the same
requests, asked again, come from there and cost nothing. The key comes from the environment and goes into one header:
no file and no message holds it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from plum_core.testing.generators.cache import AnswerCache, request_key
from plum_core.testing.generators.interface import Answer, AnswerRequest
from plum_core.testing.generators.limits import Budget, Ledger, Pace, Start
from plum_core.testing.generators.replies import AskAgain, EndpointRefused, NoAnswer, Reply, backoff_s, read_reply

OVERHEAD_TOKENS = 16  # that a chat template may add to a message
MOST_REPLY_BYTES = 1 << 24  # an answer of 16 MiB is an attack or a mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """Where to ask, how hard and for how much."""

    url: str  # up to and with the version, such as https://api.openai.com/v1
    model: str
    cache: Path  # JSONL of the answers that were paid for
    api_key_env: str = ""  # name of the environment variable that holds the key; empty: no key is sent
    concurrency: int = 8
    requests_per_minute: int = 0  # 0: no limit
    tokens_per_minute: int = 0
    timeout_s: float = 120.0  # for a whole answer, from connecting to its last byte
    attempts: int = 6
    first_wait_s: float = 1.0  # before the second attempt; doubles from there, with jitter
    most_wait_s: float = 60.0
    most_retry_after_s: float = 600.0  # an endpoint that asks for more patience is given up
    max_tokens_field: str = "max_tokens"  # or max_completion_tokens, which newer models want
    options: dict[str, Any] = field(default_factory=dict)  # further fields of the request, such as top_p
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"endpoint.url must begin with http:// or https://, got {self.url!r}")
        if self.concurrency < 1 or self.attempts < 1 or not self.timeout_s > 0:
            raise ValueError(
                "endpoint.concurrency and endpoint.attempts must be 1 or more and endpoint.timeout_s above 0, got "
                f"{self.concurrency}, {self.attempts} and {self.timeout_s}"
            )
        if min(self.requests_per_minute, self.tokens_per_minute, self.first_wait_s, self.most_wait_s) < 0:
            raise ValueError("endpoint's rates and waits must be 0 or more")
        if self.max_tokens_field not in ("max_tokens", "max_completion_tokens"):
            raise ValueError(
                f"endpoint.max_tokens_field is max_tokens or max_completion_tokens, got {self.max_tokens_field!r}"
            )
        taken = sorted(
            {"model", "messages", "temperature", "seed", "stream", "n", self.max_tokens_field} & {*self.options}
        )
        if taken:
            raise ValueError(f"endpoint.options may not hold {', '.join(taken)}: the request sets it")


class _Stopped(Exception):
    """The caller went away, or another request met the end of all."""


class Endpoint:
    """A ``Generator``. Raises ValueError where the key's variable is not set, and as AnswerCache does."""

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self._key = _key_of(config.api_key_env)
        self._url = config.url.rstrip("/") + "/chat/completions"

    def answers(self, requests: Iterable[AnswerRequest]) -> Iterator[Answer]:
        """Answers as they arrive. A request that failed on every attempt has ``error`` set and is not kept.

        Raises EndpointRefused where every request would be refused (key, model, address) and BudgetReached before a
        request whose worst case passes the budget, both after what was under way has been kept.
        """
        with AnswerCache(self.config.cache) as cache:
            yield from _Run(self.config, self._url, self._key, cache).answers(requests)


def _key_of(variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"the environment variable {variable}, which api_key_env names, is not set: export the key")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the environment variable {variable} holds what no header can carry: copy the key again")
    return key


class _Run:
    """One call of ``answers``. The caller's thread deals requests out; the pool's threads wait for the endpoint."""

    def __init__(self, config: EndpointConfig, url: str, key: str, cache: AnswerCache) -> None:
        self.config, self.url, self.key, self.cache = config, url, key, cache
        self.pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        self.ledger = Ledger(config.budget, cache.prompt_tokens, cache.completion_tokens)
        self.stop = threading.Event()
        self.waiting: dict[str, list[str]] = {}  # ids of the requests that wait for a question, by key
        self.running: dict[Future[Answer], str] = {}

    def answers(self, requests: Iterable[AnswerRequest]) -> Iterator[Answer]:
        config = self.config
        headers = {"content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        limits = httpx.Limits(max_connections=config.concurrency)
        with httpx.Client(headers=headers, timeout=config.timeout_s, limits=limits) as client:
            pool = ThreadPoolExecutor(config.concurrency, "plum-endpoint")
            try:
                for request in requests:
                    key = request_key(request, config.model, config.options)
                    kept = self.cache.get(key, request.id)
                    if kept is not None:
                        yield kept
                    elif key in self.waiting:  # the same question under another id
                        self.waiting[key].append(request.id)
                    else:
                        yield from self._make_room(worst_case(request))
                        self.waiting[key] = [request.id]
                        self.running[pool.submit(self._answer, client, key, request)] = key
                while self.running:
                    yield from self._finished()
            finally:
                self.stop.set()
                pool.shutdown(wait=True, cancel_futures=True)  # what is under way is kept in the cache

    def _make_room(self, worst: tuple[int, int]) -> Iterator[Answer]:
        """Wait for a free thread, and until the worst case fits into the budget; it is then promised."""
        while len(self.running) >= self.config.concurrency:
            yield from self._finished()
        while not self.ledger.promise(*worst):
            if not self.running:
                raise self.ledger.reached()
            yield from self._finished()

    def _finished(self) -> Iterator[Answer]:
        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
            key = self.running.pop(future)
            answer = future.result()
            for request_id in self.waiting.pop(key):
                yield replace(answer, id=request_id)

    def _answer(self, client: httpx.Client, key: str, request: AnswerRequest) -> Answer:
        """In a thread of the pool: the first attempt's worst case is promised already."""
        worst, why = worst_case(request), ""
        for attempt in range(self.config.attempts):
            if attempt and not self.ledger.promise(*worst):
                raise self.ledger.reached()
            spent = (0, 0)
            try:
                start = self._start(sum(worst))
                try:
                    reply = self._ask(client, request)
                    spent = _spent(reply, worst)
                    self.pace.correct(start, sum(spent))
                    answer = Answer(
                        id=request.id,
                        text=reply.text,
                        finish_reason=reply.finish_reason,
                        prompt_tokens=spent[0],
                        completion_tokens=spent[1],
                    )
                    self.cache.put(key, answer)
                    return answer
                except AskAgain as failure:
                    why = str(failure)
                    if failure.billed:
                        spent = worst
                        self.cache.lose(key, *worst)
                    wait_s = self._patience(key, attempt + 1, failure)
            except NoAnswer as refusal:
                return self._failed(request, str(refusal))
            finally:
                self.ledger.settle(worst, spent)
            if wait_s is None:
                break
            if attempt + 1 < self.config.attempts and self.stop.wait(wait_s):
                raise _Stopped
        return self._failed(request, f"no answer in {attempt + 1} attempts, the last ended with {why}")

    def _start(self, tokens: int) -> Start:
        while True:
            if self.stop.is_set():
                raise _Stopped
            start = self.pace.enter(tokens)
            if isinstance(start, Start):
                return start
            self.stop.wait(start)

    def _patience(self, key: str, attempt: int, failure: AskAgain) -> float | None:
        """Seconds before the next attempt, or None where the endpoint asks for too many."""
        config = self.config
        if failure.wait_s > config.most_retry_after_s:
            return None
        if failure.wait_s:
            self.pace.close_for(failure.wait_s)  # what holds for one request holds for all
        return max(failure.wait_s, backoff_s(key, attempt, first_s=config.first_wait_s, most_s=config.most_wait_s))

    def _ask(self, client: httpx.Client, request: AnswerRequest) -> Reply:
        config = self.config
        question = request.question()
        body = {
            **config.options,
            "model": config.model,
            "messages": question["messages"],
            "temperature": request.temperature,
            "seed": request.seed,
            config.max_tokens_field: request.max_tokens,
        }
        deadline = time.monotonic() + config.timeout_s
        try:
            with client.stream("POST", self.url, content=json.dumps(body).encode()) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if time.monotonic() > deadline:  # a slow drip never trips the time-out of a single read
                        raise AskAgain(f"no whole answer in {config.timeout_s:g} s", billed=True)
                    if len(content) > MOST_REPLY_BYTES:
                        raise AskAgain(f"a reply past {MOST_REPLY_BYTES} bytes", billed=True)
                return read_reply(response.status_code, response.headers, bytes(content))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise AskAgain(f"no connection ({self._safe(error)})") from None
        except httpx.TimeoutException:
            raise AskAgain(f"no whole answer in {config.timeout_s:g} s", billed=True) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise AskAgain(f"a reply cut short ({self._safe(error)})", billed=True) from None
        except EndpointRefused as refusal:
            raise EndpointRefused(f"{config.url}: {self._safe(refusal)}") from None

    def _failed(self, request: AnswerRequest, why: str) -> Answer:
        return Answer(id=request.id, text="", error=f"{self.config.url}: {self._safe(why)}")

    def _safe(self, words: object) -> str:
        """An endpoint may quote the key it was sent."""
        return str(words).replace(self.key, "[key]") if self.key else str(words)


def worst_case(request: AnswerRequest) -> tuple[int, int]:
    """Most tokens of prompt and answer. A token of a byte-level vocabulary has at least one byte."""
    prompt = sum(len(m["content"].encode(errors="replace")) + OVERHEAD_TOKENS for m in request.messages)
    return prompt, request.max_tokens


def _spent(reply: Reply, worst: tuple[int, int]) -> tuple[int, int]:
    """What the endpoint counted, or the worst case where it does not say."""
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    return worst[0] if prompt is None else prompt, worst[1] if completion is None else completion
