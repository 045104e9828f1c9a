"""Whether more verdicts of one instruction could still be of use: for a sampler that may stop early."""

from __future__ import annotations


def decided(passes: int, failures: int, *, max_pairs: int) -> bool:
    """Whether ``passes`` and ``failures``, counted over distinct usable programs, already fill ``max_pairs`` pairs.

    True when as many disjoint pairs exist as the cap allows: every further sample could only replace one of them.
    It does change which are chosen, so a caller that stops here samples something else than one that does not.
    Raises ValueError for negative counts or a cap below one.
    """
    if passes < 0 or failures < 0:
        raise ValueError(f"passes and failures must be >= 0, got {passes} and {failures}")
    if max_pairs < 1:
        raise ValueError(f"max_pairs must be >= 1, got {max_pairs}")
    return min(passes, failures) >= max_pairs
