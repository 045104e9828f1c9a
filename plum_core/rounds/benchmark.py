"""A policy on a published benchmark: its samples, and the most likely answer, as whole programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.prompts import chat_messages, from_answer, from_completion
from plum_core.evaluation.samples import Solution
from plum_core.rounds.engine import Policy
from plum_core.rounds.stages import GREEDY
from plum_core.sampling import Request, SamplingParams
from plum_core.seeds import coordinate_seed

Style = Literal["base", "chat"]  # continue the task's code, or answer its request in the policy's chat template


def answer_tasks(
    policy: Policy, tasks: Sequence[Task], params: SamplingParams, n: int, seed: int, style: Style
) -> list[Solution]:
    """Task by task ``n`` solutions with the indices 0 to n - 1, then the greedy one.

    Seeds: (run, task, sample), so that neither the order of tasks nor what else is drawn changes a text, and two
    policies share their draws. Raises ValueError where style is chat and the policy has no template.
    """
    by_id = {task.id: task for task in tasks}
    prompts = {task.id: encode_task(policy, task, style) for task in tasks}
    likely = dataclasses.replace(params, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0)
    texts: dict[tuple[str, str], str] = {}
    for stops in dict.fromkeys(task.stops for task in tasks):
        alike = [task for task in tasks if task.stops == stops]
        ends = stops if style == "base" else ()
        for how, name in ((params, None), (likely, GREEDY)):
            count = n if name is None else 1
            requests = [
                Request(id=task.id, token_ids=prompts[task.id], seeds=_seeds(seed, task.id, count)) for task in alike
            ]
            for completion in policy.sample(requests, dataclasses.replace(how, stop=ends)) if count else ():
                texts[completion.request_id, name or str(completion.index)] = completion.text
    make = from_completion if style == "base" else from_answer
    return [
        Solution(task=task.id, index=index, code=make(by_id[task.id], texts[task.id, index]))
        for task in tasks
        for index in (*map(str, range(n)), GREEDY)
    ]


def encode_task(policy: Policy, task: Task, style: Style) -> tuple[int, ...]:
    """Token ids of a task's prompt."""
    if style == "chat":
        return policy.encode_chat(chat_messages(task))
    return policy.encode_prompt(task.prefix or commented(task.request))


def commented(request: str) -> str:
    """What a base model continues where a task has no code of its own: its request as a comment."""
    return "".join(f"# {line}".rstrip() + "\n" for line in request.splitlines())


def _seeds(seed: int, task: str, count: int) -> tuple[int, ...]:
    return tuple(coordinate_seed(seed, "benchmark", task, number) for number in range(count))
