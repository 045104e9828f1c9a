"""What an endpoint may be asked: so many requests and tokens in any minute, and so much in all."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 60.0


class BudgetReached(RuntimeError):
    """The next request might cost more than is left. What was paid for is in the cache; a larger budget goes on."""


@dataclass(slots=True)
class Start:
    """A request that was let through, and the tokens it counts for."""

    at_s: float
    tokens: int


class Pace:
    """At most so many requests and tokens within any 60 seconds; 0 means no limit. Safe between threads."""

    def __init__(
        self, requests_per_minute: int, tokens_per_minute: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_requests, self._most_tokens, self._clock = requests_per_minute, tokens_per_minute, clock
        self._starts: deque[Start] = deque()
        self._tokens = 0
        self._closed_until_s = 0.0
        self._lock = threading.Lock()

    def enter(self, tokens: int) -> Start | float:
        """A start where there is room for ``tokens``, else the seconds until it is worth asking again.

        One request of more tokens than the minute's limit counts as the whole limit: it would else never start.
        """
        tokens = min(tokens, self._most_tokens) if self._most_tokens else tokens
        with self._lock:
            now = self._clock()
            if now < self._closed_until_s:
                return self._closed_until_s - now
            while self._starts and self._starts[0].at_s <= now - WINDOW_S:
                self._tokens -= self._starts.popleft().tokens
            full = self._most_requests and len(self._starts) >= self._most_requests
            if full or (self._most_tokens and self._tokens + tokens > self._most_tokens):
                return max(self._starts[0].at_s + WINDOW_S - now, 0.001)
            start = Start(now, tokens)
            self._starts.append(start)
            self._tokens += tokens
            return start

    def correct(self, start: Start, tokens: int) -> None:
        """The request turned out to have ``tokens``, fewer than it was let in for."""
        with self._lock:
            if tokens < start.tokens and self._starts and self._starts[0].at_s <= start.at_s:
                self._tokens -= start.tokens - tokens
                start.tokens = tokens

    def close_for(self, seconds: float) -> None:
        """Nobody starts for so long: the endpoint asked for it."""
        with self._lock:
            self._closed_until_s = max(self._closed_until_s, self._clock() + seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Most that a cache file may have cost, answers of earlier runs included; 0 means no limit.

    Money is in the currency of the prices, which are for a million tokens, as endpoints list them.
    """

    tokens: int = 0
    money: float = 0.0
    price_prompt: float = 0.0
    price_completion: float = 0.0

    def __post_init__(self) -> None:
        if min(self.tokens, self.money, self.price_prompt, self.price_completion) < 0:
            raise ValueError(f"a budget and its prices must be 0 (off) or more, got {self}")
        if self.money and not self.price_prompt + self.price_completion:
            raise ValueError(
                "budget.money needs budget.price_prompt and budget.price_completion: without prices nothing adds up"
            )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.price_prompt + completion_tokens * self.price_completion) / 1e6


class Ledger:
    """What was spent and what is promised to requests under way. Safe between threads.

    A request is let through only where its worst case still fits, so the budget is never passed.
    """

    def __init__(self, budget: Budget, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        self.budget = budget
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens
        self._promised = [0, 0]
        self._lock = threading.Lock()

    def promise(self, prompt_tokens: int, completion_tokens: int) -> bool:
        """Whether the worst case fits; it is then held back until ``settle``."""
        with self._lock:
            prompt = self.prompt_tokens + self._promised[0] + prompt_tokens
            completion = self.completion_tokens + self._promised[1] + completion_tokens
            if self.budget.tokens and prompt + completion > self.budget.tokens:
                return False
            if self.budget.money and self.budget.cost(prompt, completion) > self.budget.money:
                return False
            self._promised[0] += prompt_tokens
            self._promised[1] += completion_tokens
            return True

    def settle(self, promised: tuple[int, int], spent: tuple[int, int]) -> None:
        """The request that held ``promised`` (prompt, completion) cost ``spent``."""
        with self._lock:
            for kind in (0, 1):
                self._promised[kind] -= promised[kind]
            self.prompt_tokens += spent[0]
            self.completion_tokens += spent[1]

    def reached(self) -> BudgetReached:
        """The error that says where things stand."""
        tokens, money = (
            self.prompt_tokens + self.completion_tokens,
            self.budget.cost(self.prompt_tokens, self.completion_tokens),
        )
        spent = f"{tokens} of {self.budget.tokens} tokens" if self.budget.tokens else f"{tokens} tokens"
        if self.budget.money:
            spent += f" and {money:.4f} of {self.budget.money:.4f} in money"
        return BudgetReached(
            f"the budget is reached ({spent}), and the next request could pass it: every answer is kept, so raise the "
            "budget and run the same command to go on"
        )
