"""The text that the policy continues, and the program that its answer makes of it.

Three styles. ``comment``: the task as a comment over the code that the answer continues, as the embedded policy was
taught. ``completion``: the task's own text, then that code, for a base model. ``chat``: a user's turn in the
checkpoint's chat template; the program is the code block of the answer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from plum_core.records import Instruction
from plum_models.tokenizer import Tokenizer

PromptStyle = Literal["comment", "completion", "chat"]
FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.S | re.M)
PYTHON = ("", "python", "python3", "py", "python2")
MARK = "Plum's answer"  # stands for an answer where a template shows how it ends one


def render_prompt(instruction: Instruction) -> str:
    """``# prompt`` as a comment, line by line, then the code that the answer continues, if there is any."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in instruction.prompt.splitlines() or [""])
    return comment + (instruction.starter or "")


def program_code(instruction: Instruction, text: str) -> str:
    """The whole program of a sampled ``text``."""
    return (instruction.starter or "") + text


def encode_prompt(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Token ids of a prompt, after one beginning-of-sequence id where the policy has one."""
    ids = tuple(tokenizer.encode(text))
    if tokenizer.bos_token_id is None or ids[:1] == (tokenizer.bos_token_id,):
        return ids
    return (tokenizer.bos_token_id, *ids)


@dataclass(frozen=True, slots=True)
class Prompts:
    """How one tokenizer's policy is asked and understood. Raises ValueError for chat without a fit template."""

    tokenizer: Tokenizer
    style: PromptStyle = "comment"

    def __post_init__(self) -> None:
        if self.style == "chat":
            self.chat_end()

    def render(self, instruction: Instruction) -> str:
        """The text that the policy continues."""
        if self.style == "comment":
            return render_prompt(instruction)
        if self.style == "completion":
            prompt = instruction.prompt
            joint = "\n" if instruction.starter and not prompt.endswith("\n") else ""
            return prompt + joint + (instruction.starter or "")
        return self.ask(request(instruction))

    def ask(self, text: str) -> str:
        """A supervised example's prompt as the policy reads it: a user's turn in the style chat, else as it is."""
        return self.tokenizer.render_chat([_turn("user", text)]) if self.style == "chat" else text

    def program(self, instruction: Instruction, text: str) -> str:
        """The whole program of a sampled ``text``."""
        if self.style == "chat":
            return answer_code(text, instruction.entry_point or "", instruction.starter or "")
        return program_code(instruction, text)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a rendered prompt: a chat template writes its own beginning, before other text stands at most one."""
        return tuple(self.tokenizer.encode(text)) if self.style == "chat" else encode_prompt(self.tokenizer, text)

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """Ids of a completion that ends, for supervised examples; what was sampled is never encoded again."""
        if self.style == "chat":
            return (*self.tokenizer.encode(text), *self.chat_end())
        return (*self.tokenizer.encode(text), self.tokenizer.eos_token_id)

    def chat_end(self) -> tuple[int, ...]:
        """The ids with which the chat template ends an answer, the last of them an end of sequence.

        ValueError where it ends in none that stops a sample: the policy would be taught an end that nothing reads.
        """
        told = self.tokenizer.render_chat([_turn("user", "?"), _turn("assistant", MARK)], add_generation_prompt=False)
        after = self.tokenizer.encode(told.rpartition(MARK)[2]) if MARK in told else []
        for place, token in enumerate(after):
            if token in self.tokenizer.eos_token_ids:
                return tuple(after[: place + 1])
        shown = told.rpartition(MARK)[2][:40]
        raise ValueError(
            f"prompts = chat: the chat template ends an answer with {shown!r}, which is no end-of-sequence id of this "
            "checkpoint: add its id to eos_token_id in generation_config.json"
        )


def _turn(role: str, content: str) -> Mapping[str, str]:
    return {"role": role, "content": content}


def request(instruction: Instruction) -> str:
    """What a user asks of a chat model: the task, and the code to complete where there is any."""
    if not instruction.starter:
        return instruction.prompt
    return (
        f"{instruction.prompt.rstrip()}\n\nComplete this code, and answer with the whole of it in one Python code "
        f"block.\n\n```python\n{instruction.starter.rstrip()}\n```"
    )


def answer_code(text: str, entry_point: str, prefix: str) -> str:
    """The whole program of a chat model's answer: the code block that defines the entry point, else the longest.

    Text without a fence is taken as code. A block that only holds a body, as some models answer, follows ``prefix``,
    which is empty where the task gives no code.
    """
    blocks = [body for language, body in FENCE.findall(text) if language.lower() in PYTHON]
    entry = entry_point.split("(")[0].split(".")[0]
    holding = [block for block in blocks if defines(block, entry)]
    code = holding[-1] if holding else max(blocks, key=len, default=text)
    if prefix:
        if not defines(code, entry):
            return prefix + code
        if not holding or parses(code):
            return _imports(prefix) + code
    return code


def defines(code: str, name: str) -> bool:
    """Whether a function or class ``name`` begins in ``code``; true for no name."""
    return not name or re.search(rf"^\s*(?:async\s+def|def|class)\s+{re.escape(name)}\b", code, re.M) is not None


def parses(code: str) -> bool:
    """Whether ``code`` is Python."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _imports(prefix: str) -> str:
    """Import lines and helper definitions that a prefix has before its last function: answers take them for granted."""
    head, found, _ = prefix.rpartition("\ndef ")
    return head + "\n" if found and parses(head) else ""
