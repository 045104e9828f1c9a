"""What runs on the far side of the exec: judge, zygote, children. Imports nothing but the standard library."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of ``text``: how this package writes its long lists of names."""
    return frozenset(text.split())
