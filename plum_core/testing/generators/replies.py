"""A reply of an OpenAI-compatible endpoint: an answer, a reason to ask again, or one to stop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from plum_core.seeds import coordinate_seed

FATAL = {
    401: "the key was refused: check the environment variable that api_key_env names",
    402: "the account has no credit left",
    403: "the key may not use this model or this address",
    404: "there is no such model or address: check url and model",
}
RETRIED = frozenset({408, 409, 425, 429}) | frozenset(range(500, 600))


class EndpointRefused(ValueError):
    """The endpoint will refuse every request as it refused this one."""


class AskAgain(Exception):
    """This attempt failed, another may not. ``billed``: the endpoint may have charged for the answer that was lost."""

    def __init__(self, why: str, *, wait_s: float = 0.0, billed: bool = False) -> None:
        super().__init__(why)
        self.wait_s, self.billed = wait_s, billed


class NoAnswer(Exception):
    """This request cannot be answered, others can."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint said; tokens are None where it did not count them."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None


def read_reply(status: int, headers: Mapping[str, str], body: bytes, now: datetime | None = None) -> Reply:
    """Raises EndpointRefused, AskAgain or NoAnswer; their messages hold the endpoint's own words, cut to 200."""
    if status == 200:
        return _read_body(body)
    said = _said(body)
    if status in FATAL or "insufficient_quota" in said:
        raise EndpointRefused(f"status {status}: {FATAL.get(status, 'the quota is used up')}{_quoted(said)}")
    if status in RETRIED:
        wait_s = retry_after_s(headers.get("retry-after"), now or datetime.now(UTC))
        raise AskAgain(f"status {status}{_quoted(said)}", wait_s=wait_s)
    if 300 <= status < 400:
        raise EndpointRefused(f"status {status}: the address has moved; name its final form as url")
    raise NoAnswer(f"status {status}{_quoted(said)}")


def _read_body(body: bytes) -> Reply:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise AskAgain(f"a reply that is not JSON ({len(body)} bytes)", billed=True) from None
    try:
        choice = value["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise AskAgain("a reply without choices[0].message.content", billed=True) from None
    if not isinstance(text, str):
        raise AskAgain(f"a reply whose content is {type(text).__name__}, not text", billed=True)
    usage = value.get("usage")
    return Reply(text, str(reason or ""), _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))


def _count(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and found >= 0 else None


def _said(body: bytes) -> str:
    """The error's message where the body has one, else the start of the body."""
    try:
        error = json.loads(body)["error"]
        words = f"{error.get('code') or ''} {error.get('message') or ''}" if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError, RecursionError):
        words = body[:400].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())


def _quoted(said: str) -> str:
    return f" ({said[:200]})" if said else ""


def retry_after_s(value: str | None, now: datetime) -> float:
    """Seconds that a Retry-After header asks for (a number, or a date as RFC 9110, 10.2.3); 0 where it says nothing."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds()
    return seconds if 0 < seconds < float("inf") else 0.0


def backoff_s(key: str, attempt: int, *, first_s: float, most_s: float) -> float:
    """Before attempt ``attempt`` (1, 2, ...): doubling, times a jitter in [0.5, 1) drawn by (key, attempt)."""
    jitter = 0.5 + coordinate_seed("retry", key, attempt) / 2**64
    return float(min(most_s, first_s * 2 ** min(attempt - 1, 60)) * jitter)
