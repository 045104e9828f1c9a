"""No right program is taken for an endless one, however loaded the machine is."""

from __future__ import annotations

import pytest

from plum_core.execution.benchmarks import timeouts
from plum_core.execution.benchmarks.timeouts import Config


def test_no_false_timeout_on_busy_cores() -> None:
    found = timeouts.measure(Config(programs=200))
    assert found.outcomes == {"passed": 200}
    # the control: a clock on the wall would have struck most of them
    assert found.past_limit > 100
    assert found.past_sleep > 100


def test_programs_past_their_limit_are_counted() -> None:
    found = timeouts.measure(Config(programs=16, least=1.3, most=1.5, busy=1))
    assert found.outcomes == {"timeout": 16}
    assert (found.false_timeouts, found.wrong) == (16, 16)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0 and 8"):
        Config(programs=0)
    with pytest.raises(ValueError, match="in this order"):
        Config(least=0.5, most=0.4)
