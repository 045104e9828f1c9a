"""Stage 2c: verdicts become pairs or labelled completions, and everything left out is counted."""

from __future__ import annotations

from plum_core.preferences.config import PreferenceCounts, SelectionConfig
from plum_core.preferences.decided import decided
from plum_core.preferences.distance import edit_distance
from plum_core.preferences.groups import verdict_id
from plum_core.preferences.labels import make_labels
from plum_core.preferences.pairs import make_pairs, mean_length_difference

__all__ = [
    "PreferenceCounts",
    "SelectionConfig",
    "decided",
    "edit_distance",
    "make_labels",
    "make_pairs",
    "mean_length_difference",
    "verdict_id",
]
