"""The words of the grammar: what one operation is, and the tables that list them.

An operation carries its English and its Python. Placeholders: ``{x}`` the value it works on, ``{n}`` the plural
noun of its elements, ``{e}`` one element, and the operation's own constants by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation of the grammar.

    form: filter (a predicate over {e}), map (an expression over {e}), step and reduce (an expression over {x}).
    says: noun phrases; a filter's hold {n}, the others' hold {x}; a boolean's are clauses with {x}.
    orders: imperative forms, for step-by-step instructions; a filter's are made from ``says``.
    consts: the values each constant is drawn from.
    loop: (start, update over {e}, result) of an accumulator ``out``, where there is a natural one.
    """

    name: str
    form: str
    takes: str
    gives: str
    says: tuple[str, ...]
    code: str
    orders: tuple[str, ...] = ()
    consts: dict[str, Sequence[int | str]] = field(default_factory=dict)
    loop: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A type of value that pipelines carry: its element's name in code, its noun, and its name as a variable."""

    element: str
    noun: str
    variable: str


KINDS = {
    "ints": Kind(element="x", noun="numbers", variable="xs"),
    "strs": Kind(element="w", noun="words", variable="ws"),
    "chars": Kind(element="c", noun="characters", variable="t"),
    "rows": Kind(element="row", noun="rows", variable="rs"),
    "dict": Kind(element="value", noun="entries", variable="d"),
}


def filters(kind: str, *rows: tuple[str, str, str] | tuple[str, str, str, dict]) -> list[Op]:
    """(name, code, "phrase | phrase", consts) to filters of one kind."""
    return [
        Op(
            name=f"{kind}.{row[0]}",
            form="filter",
            takes=kind,
            gives=kind,
            code=row[1],
            says=tuple(row[2].split(" | ")),
            consts=row[3] if len(row) > 3 else {},
        )
        for row in rows
    ]


def others(form: str, takes: str, gives: str, *rows: tuple) -> list[Op]:
    """(name, code, "phrase | phrase", "order | order", consts, loop) to maps, steps or reductions."""
    return [
        Op(
            name=f"{takes}.{row[0]}",
            form=form,
            takes=takes,
            gives=gives,
            code=row[1],
            says=tuple(row[2].split(" | ")),
            orders=tuple(row[3].split(" | ")) if len(row) > 3 and row[3] else (),
            consts=row[4] if len(row) > 4 else {},
            loop=row[5] if len(row) > 5 else None,
        )
        for row in rows
    ]
