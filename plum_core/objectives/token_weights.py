"""Which tokens of a pair count, and how much: the weight of each in its completion's log-prob.

A weighted log-prob is sum over t of w_t * log p_t, under the policy and the reference alike; any objective of pairs
takes it in place of the plain sum.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from plum_core.objectives.pairs import check_not_negative

Weights = tuple[float, ...]
# (chosen ids, rejected ids, **options) -> their weights
TokenWeights = Callable[..., tuple[Weights, Weights]]


def ld_weights(
    chosen: Sequence[Hashable], rejected: Sequence[Hashable], *, alpha: float = 0.5
) -> tuple[Weights, Weights]:
    """LD-DPO's (Liu et al. 2024, arXiv 2409.06411): 1 up to the shorter one's length, ``alpha`` beyond it.

    alpha 1 is DPO; at 0 what only the longer completion has says nothing. Raises ValueError for alpha outside
    [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha of ld_dpo must be in [0, 1], got {alpha}: 1 is plain DPO")
    shared = min(len(chosen), len(rejected))
    of_chosen, of_rejected = ((1.0,) * shared + (float(alpha),) * (len(ids) - shared) for ids in (chosen, rejected))
    return of_chosen, of_rejected


def span_weights(
    chosen: Sequence[Hashable], rejected: Sequence[Hashable], *, common_weight: float = 0.1
) -> tuple[Weights, Weights]:
    """Span-focused: 1 on the tokens in which the two differ, ``common_weight`` on those that they share.

    Shared is what a longest common subsequence holds. The idea is Focused-DPO's (Zhang et al. 2025, arXiv
    2502.11475): where right and wrong code differ in a line, the rest only adds noise. Two equal
    completions have the common weight throughout. Raises ValueError for a negative weight.
    """
    check_not_negative(common_weight=common_weight)
    masks = common_tokens(chosen, rejected)
    of_chosen, of_rejected = (tuple(float(common_weight) if same else 1.0 for same in mask) for mask in masks)
    return of_chosen, of_rejected


def common_tokens(a: Sequence[Hashable], b: Sequence[Hashable]) -> tuple[list[bool], list[bool]]:
    """For each place of ``a`` and of ``b`` whether one longest common subsequence holds it.

    Hyyro's bit-parallel recurrence (2004): row j is an integer whose i-th bit is 0 where the subsequence of a[:i + 1]
    and b[:j] is longer than that of a[:i] and b[:j]; O(len(a) * len(b) / 64) time, and as many bits of memory.
    """
    places: dict[Hashable, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    rows = [full]
    for token in b:
        row = rows[-1]
        hit = row & places.get(token, 0)
        rows.append(((row + hit) | (row - hit)) & full)
    in_a, in_b = [False] * len(a), [False] * len(b)
    i, j = len(a) - 1, len(b)
    while i >= 0 and j > 0:
        if rows[j] >> i & 1:
            i -= 1  # a[i] lengthens nothing
        elif rows[j - 1] >> i & 1:
            in_a[i] = in_b[j - 1] = True
            i, j = i - 1, j - 1
        else:
            j -= 1  # it was as long without b[j - 1]
    return in_a, in_b
