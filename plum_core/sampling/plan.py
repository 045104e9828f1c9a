"""Which samples enter the batch together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from plum_core.sampling.params import Request


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples ``indices`` of one request. more: further pieces of the same request follow."""

    request: Request
    request_number: int
    indices: range
    more: bool = False

    def __len__(self) -> int:
        return len(self.indices)


def plan(requests: Sequence[Request], cohort_rows: int) -> deque[list[Piece]]:
    """Cohorts of at most ``cohort_rows`` samples, in the requests' order.

    A request that is larger than a cohort makes several, as equal as can be, of its own; others are never split.
    """
    cohorts: deque[list[Piece]] = deque()
    room = 0
    for number, request in enumerate(requests):
        count = len(request.seeds)
        if count > cohort_rows:
            parts = -(-count // cohort_rows)
            cuts = [count * i // parts for i in range(parts + 1)]
            for i in range(parts):
                cohorts.append([Piece(request, number, range(cuts[i], cuts[i + 1]), more=i + 1 < parts)])
            room = 0
        elif count:
            if count > room:
                cohorts.append([])
                room = cohort_rows
            cohorts[-1].append(Piece(request, number, range(count)))
            room -= count
    return cohorts
