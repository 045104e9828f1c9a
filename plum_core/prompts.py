"""The text that the policy continues, and the program that its answer makes of it."""

from __future__ import annotations

from plum_core.records import Instruction
from plum_models.tokenizer import Tokenizer


def render_prompt(instruction: Instruction) -> str:
    """``# prompt`` as a comment, line by line, then the code that the answer continues, if there is any."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in instruction.prompt.splitlines() or [""])
    return comment + (instruction.starter or "")


def program_code(instruction: Instruction, text: str) -> str:
    """The whole program of a sampled ``text``."""
    return (instruction.starter or "") + text


def encode_prompt(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Token ids of a prompt, after the beginning-of-sequence id where the policy has one."""
    begin = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    return (*begin, *tokenizer.encode(text))
