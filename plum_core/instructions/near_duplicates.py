"""Instructions that say almost the same: the Jaccard similarity of their word n-grams, exact and without all pairs.

Two sets of similarity t or more share a member among the first |x| - ceil(t |x|) + 1 of each, in any common order of
members (Chaudhuri, Ganti, Kaushik: A primitive operator for similarity joins, ICDE 2006; Bayardo, Ma, Srikant: Scaling
up all pairs similarity search, WWW 2007). The order here is rarest first, so that the sets which are compared are few.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plum_core.records import Instruction

WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """``id`` says what ``of`` said before it."""

    id: str
    of: str
    similarity: float


def words(text: str) -> list[str]:
    """Lower-case words and numbers, and every other mark by itself: ``+`` and ``-`` are different exercises."""
    return WORD.findall(text.lower())


def shingles(text: str, size: int) -> frozenset[int]:
    """64-bit hashes of the n-grams of ``size`` words; a shorter text is one n-gram by itself."""
    found = words(text)
    grams = [found[i : i + size] for i in range(max(1, len(found) - size + 1))]
    return frozenset(_hashed(" ".join(gram)) for gram in grams)


def _hashed(gram: str) -> int:
    return int.from_bytes(hashlib.blake2b(gram.encode(errors="replace"), digest_size=8).digest(), "big")


def similarity(one: frozenset[int], other: frozenset[int]) -> float:
    """Jaccard: shared members over all members."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def near_duplicates(
    instructions: Sequence[Instruction], *, threshold: float = 0.7, size: int = 3
) -> Iterator[Duplicate]:
    """Each instruction that is at least ``threshold`` similar to an earlier one that stays, with the most similar one
    (the earliest of equals). The first of its kind always stays, so the answer depends on the order alone.

    Raises ValueError for a threshold outside (0, 1] and a size below 1.
    """
    if not 0 < threshold <= 1 or size < 1:
        raise ValueError(f"near duplicates want a threshold in (0, 1] and a size of 1 or more, got {threshold}, {size}")
    sets = [shingles(i.prompt, size) for i in instructions]
    counts = Counter(member for members in sets for member in members)
    holders: dict[int, list[int]] = {}  # of a member: those that stay and have it in their beginning
    for number, members in enumerate(sets):
        order = sorted(members, key=lambda m: (counts[m], m))
        begin = order[: len(order) - math.ceil(threshold * len(order) - 1e-9) + 1]
        best: tuple[float, int] | None = None
        for candidate in sorted({c for member in begin for c in holders.get(member, ())}):
            found = similarity(members, sets[candidate])
            if found >= threshold and (best is None or found > best[0]):
                best = (found, candidate)
        if best is not None:
            yield Duplicate(id=instructions[number].id, of=instructions[best[1]].id, similarity=best[0])
            continue
        for member in begin:
            holders.setdefault(member, []).append(number)
