"""Levenshtein's distance between token sequences, one big integer a column (Myers 1999, in Hyyroe's 2001 form)."""

from __future__ import annotations

from collections.abc import Sequence


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Fewest insertions, deletions and substitutions of tokens that turn ``a`` into ``b``.

    O(len(b)) operations on integers of len(a) bits, after a common beginning and end are cut off.
    """
    start, end_a, end_b = 0, len(a), len(b)
    while start < end_a and start < end_b and a[start] == b[start]:
        start += 1
    while end_a > start and end_b > start and a[end_a - 1] == b[end_b - 1]:
        end_a, end_b = end_a - 1, end_b - 1
    rows, columns = a[start:end_a], b[start:end_b]
    if not rows or not columns:
        return len(rows) + len(columns)
    return _myers(rows, columns)


def _myers(rows: Sequence[int], columns: Sequence[int]) -> int:
    """Bit i of ``up`` (``down``): row i + 1 of this column is one more (less) than row i."""
    positions: dict[int, int] = {}
    for i, token in enumerate(rows):
        positions[token] = positions.get(token, 0) | 1 << i
    mask, last = (1 << len(rows)) - 1, 1 << (len(rows) - 1)
    up, down, score = mask, 0, len(rows)
    for token in columns:
        match = positions.get(token, 0)
        zero = (((match & up) + up) ^ up) | match | down  # diagonal steps that cost nothing
        right_up = down | (mask & ~(zero | up))
        right_down = up & zero
        if right_up & last:
            score += 1
        elif right_down & last:
            score -= 1
        right_up = (right_up << 1 | 1) & mask
        up = ((right_down << 1) | (mask & ~(zero | right_up))) & mask
        down = right_up & zero
    return score
