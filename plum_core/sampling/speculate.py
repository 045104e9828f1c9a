"""Foretelling by copying: where a sample's last tokens stood before, what followed them may follow again.

Prompt lookup (Saxena 2023; the n-gram case of Yang et al. 2023, "Inference with reference"). A draw is a function of
the sample's seed and the token's number, so a foretold token is right exactly when it equals the draw, and what is
drawn is the same with and without: nothing is accepted or refused at random.
"""

from __future__ import annotations

from collections.abc import Sequence

MATCH = 3  # tokens that must agree; fewer foretell more often, and wrongly


def foretell(ids: Sequence[int], most: int, match: int = MATCH) -> list[int]:
    """At most ``most`` ids that followed the latest earlier place of the last ``match`` of ``ids``; [] where none."""
    if most < 1 or len(ids) <= match:
        return []
    last = list(ids[-match:])
    for start in range(len(ids) - match - 1, -1, -1):
        if ids[start + match - 1] == last[-1] and list(ids[start : start + match]) == last:
            return list(ids[start + match : start + match + most])
    return []
