"""What is fired: a program with its tests, and what its verdict must not be."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from plum_core.records.types import Program


@dataclass(frozen=True, slots=True)
class Shot:
    """``wanted``: whether the program must pass; None where only a wrong pass, a hang or our failure is a fault."""

    kind: str
    code: str
    tests: tuple[str, ...]
    setup: str = ""
    wanted: bool | None = None
    may_pass: bool = False

    def program(self, name: str) -> Program:
        return Program(id=name, code=self.code, tests=self.tests, setup=self.setup)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def secret(code: str) -> int:
    """A number of 128 bits that ``code`` does not know."""
    return int.from_bytes(hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()[:16], "little") | 1 << 127
