"""How fast a stage goes: from counts so far to rates, words and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COUNTED = {"samples": "samples", "tokens": "tokens", "programs": "verdicts"}  # a tally's key, and its word


@dataclass
class Pace:
    """A stage under way. What an earlier sitting had done is the first thing that it is told, and no work of ours."""

    began: float  # seconds of a monotonic clock
    first_done: int | None = None
    first: Mapping[str, Any] = field(default_factory=dict)

    def rates(self, done: int, total: int, figures: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
        """``unit_per_s`` and ``left_s``, and per second whatever else ``figures`` counts; of a training step its row.

        ``figures``: a tally of the chunks so far, or a row of training metrics.
        """
        given = figures or {}
        if self.first_done is None:
            step = "loss" in given  # a step is told when it is done, and chunks also before the first one is
            self.first_done, self.first = (done - 1, {}) if step or not given else (done, given)
        seconds = max(1e-9, now - self.began)
        pace = (done - self.first_done) / seconds
        out: dict[str, Any] = {"unit_per_s": pace}
        if total and pace > 0:
            out["left_s"] = (total - done) / pace
        if "loss" in given:
            return out | {k: given[k] for k in ("loss", "rewards/margins") if k in given}
        for key, word in COUNTED.items():
            if key in given:
                out[f"{word}_per_s"] = (given[key] - self.first.get(key, 0)) / seconds
        before = self.first.get("outcomes", {})
        outcomes = {k: (n - before.get(k, 0)) / seconds for k, n in given.get("outcomes", {}).items()}
        return out | ({"outcomes_per_s": outcomes} if outcomes else {})


def in_words(rates: Mapping[str, Any], unit: str) -> str:
    """``rates`` for a person: ``loss 0.523, margin +1.20`` or ``2.1 instructions/s, 412 verdicts/s (61 % passed)``."""
    if "loss" in rates:
        margin = [f"margin {rates['rewards/margins']:+.3f}"] if "rewards/margins" in rates else []
        return ", ".join([f"loss {rates['loss']:.3f}", *margin])
    same = unit == "programs" and "verdicts_per_s" in rates  # a verdict each
    shown = [] if same else [f"{rates['unit_per_s']:.1f} {unit}/s"]
    shown += [
        f"{_short(rates[k])} {k[:-6]}/s" for k in ("samples_per_s", "tokens_per_s", "verdicts_per_s") if k in rates
    ]
    outcomes = rates.get("outcomes_per_s", {})
    whole = sum(outcomes.values())
    if whole > 0:
        most = sorted(outcomes.items(), key=lambda item: -item[1])[:3]
        shown[-1] += f" ({', '.join(f'{100 * n / whole:.0f} % {name}' for name, n in most)})"
    return ", ".join(shown)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def clock(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
