"""What is asked of a generator and what it answers, whoever it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequest:
    """One conversation to go on with. Equal ``messages``, limits and ``seed`` are the same question, whatever the id.

    seed: in [0, 2**63), from coordinates, so that the answer does not depend on when it was asked for.
    """

    id: str
    messages: tuple[dict[str, str], ...]  # each with role and content, the last one the user's
    max_tokens: int = 2048
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError(f"request {self.id!r} has no message: there is nothing to answer")
        for message in self.messages:
            if set(message) != {"role", "content"} or message["role"] not in ROLES:
                raise ValueError(
                    f"request {self.id!r}: a message has a role ({', '.join(ROLES)}) and a content, got "
                    f"{sorted(message)} with role {message.get('role')!r}"
                )
        if self.max_tokens < 1 or not self.temperature >= 0:
            raise ValueError(
                f"request {self.id!r}: wants max_tokens of 1 or more and a temperature of 0 or more, got "
                f"{self.max_tokens} and {self.temperature}"
            )

    def question(self) -> dict[str, Any]:
        """All that decides the answer: everything but the id."""
        return {
            "messages": [dict(message) for message in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for the request ``id``. ``error`` says in one sentence why there is no text."""

    id: str
    text: str
    finish_reason: str = ""  # "stop", "length" or whatever else the generator says; "" where it says nothing
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None


class Generator(Protocol):
    """Anything that answers requests."""

    def answers(self, requests: Iterable[AnswerRequest]) -> Iterator[Answer]:
        """One answer for every request, as they are ready: in any order, each under its request's id."""
        ...
