"""Seeds from coordinates: what is drawn decides the draw, never when or by whom it is drawn."""

from __future__ import annotations

import hashlib


def coordinate_seed(*coordinates: int | str) -> int:
    """A seed in [0, 2**63) from coordinates such as (run seed, round, instruction id, sample index).

    SHA-256 of the coordinates with their types and lengths, so that ("a", "bc") and ("ab", "c"), or 1 and "1",
    are different draws.
    """
    text = "".join(f"{type(c).__name__}:{len(str(c))}:{c};" for c in coordinates)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
