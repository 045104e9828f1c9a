"""The text that the policy continues, and the program that its answer makes of it."""

from __future__ import annotations

from plum_core.records import Instruction


def render_prompt(instruction: Instruction) -> str:
    """``# prompt`` as a comment, line by line, then the code that the answer continues, if there is any."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in instruction.prompt.splitlines() or [""])
    return comment + (instruction.starter or "")


def program_code(instruction: Instruction, text: str) -> str:
    """The whole program of a sampled ``text``."""
    return (instruction.starter or "") + text
