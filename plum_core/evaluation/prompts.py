"""A task as a base model's or a chat model's prompt, and the program that their answers make."""

from __future__ import annotations

from plum_core.evaluation.benchmark import Task
from plum_core.prompts import answer_code


def chat_messages(task: Task) -> list[dict[str, str]]:
    """One user's turn, for a chat template or an endpoint."""
    return [{"role": "user", "content": task.request}]


def cut_at_stops(text: str, stops: tuple[str, ...]) -> str:
    """``text`` up to the first stop word."""
    ends = [found for stop in stops if (found := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def from_completion(task: Task, text: str) -> str:
    """The whole solution of a base model's completion."""
    return (task.prefix if task.continues else "") + cut_at_stops(text, task.stops)


def from_answer(task: Task, text: str) -> str:
    """The whole solution of a chat model's answer; see ``answer_code``."""
    return answer_code(text, task.entry_point, task.prefix if task.continues else "")
