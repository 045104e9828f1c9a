"""A generator's answer, which is text, to a reference and tests that stand alone. Nothing here runs any of it."""

from plum_core.testing.answers.parse import parse_answer, signature_of

__all__ = ["parse_answer", "signature_of"]
