"""How preferences are chosen, and the count of everything that was not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """Which verdicts become preferences."""

    max_pairs: int = 4
    """Most pairs of one instruction."""
    max_labels: int = 8
    """Most labelled completions of one instruction and verdict (for objectives that learn from single labels)."""
    max_total: int | None = None
    """Most pairs or labels of a round, drawn over all instructions: for runs that are compared at one size."""
    choice: Literal["nearest", "random", "hardest"] = "nearest"
    """Pairs that come first: the fewest token edits apart, any, or the failing program that passes most tests."""
    labels: Literal["verdict", "random"] = "verdict"
    """random: the control. Verdicts are shuffled among each instruction's samples, so all counts stay the same."""
    same: Literal["syntax", "names"] = "syntax"
    """Programs that count as one: equal syntax trees, or equal ones without docstrings and the names of locals."""
    order: Literal["given", "id"] = "given"
    """id: instructions sorted by id, so that the order of the file makes no difference."""
    balance_lengths: bool = False
    """Pairs that come first: those that bring the summed length difference (chosen - rejected) closest to zero."""
    chosen_share: float = 1.0
    """Graded labels: a program is chosen that passes at least this share of its tests. 1: all of them."""
    rejected_share: float = 1.0
    """Graded labels: one that is not chosen is rejected if it passes at most this share. 1: whatever it passes."""
    faster: float = 0.0
    """Pairs of two programs that both pass, the faster one chosen, where the other takes so many times its CPU
    seconds, to fill up what other pairs leave of max_pairs. 0: none."""
    label_ratio: float = 0.0
    """Most labels of the more frequent verdict for each of the other, over the round. 0: as many as there are."""
    unrunnable: bool = False
    """Take programs that do not compile as rejected too."""
    mixed_only: bool = True
    """Labels only from instructions where some samples passed and some failed."""

    def __post_init__(self) -> None:
        for name in ("max_pairs", "max_labels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.max_total is not None and self.max_total < 1:
            raise ValueError(f"max_total must be >= 1 or unset, got {self.max_total}")
        if not 0 < self.chosen_share <= 1 or not 0 <= self.rejected_share <= 1:
            raise ValueError(
                f"chosen_share must be in (0, 1] and rejected_share in [0, 1], got {self.chosen_share} and "
                f"{self.rejected_share}"
            )
        if self.chosen_share < 1 and self.rejected_share >= self.chosen_share:
            raise ValueError(
                f"rejected_share must be below chosen_share={self.chosen_share}, or a program may be both, got "
                f"{self.rejected_share}"
            )
        if self.faster and not self.faster > 1:
            raise ValueError(f"faster must be 0 (off) or more than 1, got {self.faster}")
        if self.label_ratio and not self.label_ratio >= 1:
            raise ValueError(f"label_ratio must be 0 (off) or 1 or more, got {self.label_ratio}")
        for name, known in (
            ("choice", ("nearest", "random", "hardest")),
            ("labels", ("verdict", "random")),
            ("same", ("syntax", "names")),
            ("order", ("given", "id")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


@dataclass(slots=True, kw_only=True)
class PreferenceCounts:
    """What became of every instruction and sample. Exclusions are counted within instructions that can yield."""

    instructions: int = 0
    mixed: int = 0  # some samples passed, some failed
    all_passed: int = 0
    all_failed: int = 0
    unjudged: int = 0  # no sample with a usable verdict
    one_sided: int = 0  # mixed, until the exclusions below took all of one side
    samples: int = 0
    no_verdict: int = 0
    sandbox_error: int = 0  # our failure: says nothing about the program
    unattested: int = 0  # the program itself had a hand in the verdict
    duplicate: int = 0  # the same program, layout and comments aside
    flaky: int = 0  # one program with both verdicts
    between: int = 0  # passes too few tests to be chosen and too many to be rejected
    truncated: int = 0  # passed, but was cut at the length limit
    unrunnable: int = 0  # does not compile
    chosen: int = 0  # distinct programs that could be chosen
    rejected: int = 0
    capped: int = 0  # possible pairs or labels beyond the caps
    faster: int = 0  # of the kept pairs: both programs pass, one of them takes longer
    kept: int = 0  # pairs or labels
