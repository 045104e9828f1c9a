"""Rates and waits by a clock of the test's own."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from plum_core.testing.generators.limits import Budget, Ledger, Pace, Start
from plum_core.testing.generators.replies import backoff_s, retry_after_s


@pytest.mark.parametrize(("requests", "tokens"), [(7, 0), (0, 900), (7, 900), (1, 1)])
def test_no_minute_holds_more_than_the_limits(requests, tokens):
    rng, now = random.Random(4), [0.0]
    pace, starts = Pace(requests, tokens, clock=lambda: now[0]), []
    while len(starts) < 120:
        size = rng.randrange(1, 400)
        got = pace.enter(size)
        if isinstance(got, Start):
            starts.append((now[0], got.tokens))
            now[0] += rng.random()
        else:
            assert got > 0
            now[0] += got
    for at, _ in starts:
        minute = [n for t, n in starts if at <= t < at + 60]
        assert not requests or len(minute) <= requests
        assert not tokens or sum(minute) <= tokens
    assert now[0] < 60 * (120 + 1)  # and the limits are used, not only kept


def test_without_limits_nobody_waits():
    pace = Pace(0, 0, clock=lambda: 0.0)
    assert all(isinstance(pace.enter(10**9), Start) for _ in range(1000))


def test_what_a_request_did_not_use_is_given_back():
    pace = Pace(0, 100, clock=lambda: 0.0)
    start = pace.enter(100)
    assert isinstance(start, Start) and not isinstance(pace.enter(50), Start)
    pace.correct(start, 50)
    assert isinstance(pace.enter(50), Start) and not isinstance(pace.enter(1), Start)


def test_a_pause_that_the_endpoint_asked_for():
    now = [0.0]
    pace = Pace(0, 0, clock=lambda: now[0])
    pace.close_for(5)
    pace.close_for(3)  # the longer one holds
    assert pace.enter(1) == 5
    now[0] = 5.0
    assert isinstance(pace.enter(1), Start)


def test_the_ledger_holds_worst_cases_back():
    ledger = Ledger(Budget(tokens=100), 10, 10)
    assert ledger.promise(20, 40)
    assert not ledger.promise(10, 11) and ledger.promise(10, 10)
    ledger.settle((20, 40), (1, 1))
    assert ledger.promise(50, 8) and not ledger.promise(1, 0)


def test_back_off_doubles_with_a_jitter_that_repeats():
    waits = [backoff_s("key", n, first_s=1.0, most_s=60.0) for n in range(1, 12)]
    assert waits == [backoff_s("key", n, first_s=1.0, most_s=60.0) for n in range(1, 12)]
    for n, wait in enumerate(waits):
        assert 0.5 * min(60, 2**n) <= wait < min(60, 2**n)
    assert len({backoff_s(str(k), 1, first_s=1.0, most_s=60.0) for k in range(50)}) == 50
    assert backoff_s("key", 10_000, first_s=1.0, most_s=60.0) <= 60


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0), ("7", 7), ("0.5", 0.5), ("-3", 0), ("nan", 0), ("inf", 0), ("soon", 0), ("", 0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30), ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after(value, seconds):
    assert retry_after_s(value, datetime(2026, 11, 23, 12, tzinfo=UTC)) == seconds
