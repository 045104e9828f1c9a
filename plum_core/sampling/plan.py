"""Which samples enter the batch together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


def plan(requests: Iterable[Request | None], cohort_rows: int) -> Iterator[list[Piece] | None]:
    """Cohorts of at most ``cohort_rows`` samples, in the requests' order.

    A request that is larger than a cohort makes several, as equal as can be, of its own; others are never split.
    Requests are pulled one ahead of the cohort that is given out; None, "nothing has come yet", is passed on behind
    what came before it.
    """
    cohort: list[Piece] = []
    for number, request in enumerate(requests):
        count = 0 if request is None else len(request.seeds)
        if cohort and (request is None or count > cohort_rows - sum(map(len, cohort))):
            yield cohort
            cohort = []
        if request is None:
            yield None
        elif count > cohort_rows:
            parts = -(-count // cohort_rows)
            cuts = [count * i // parts for i in range(parts + 1)]
            for i in range(parts):
                yield [Piece(request, number, range(cuts[i], cuts[i + 1]), more=i + 1 < parts)]
        elif count:
            cohort.append(Piece(request, number, range(count)))
    if cohort:
        yield cohort
