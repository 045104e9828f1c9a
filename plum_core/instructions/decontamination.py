"""Instructions that have a benchmark's task in them: a run of n words that both share (13, as GPT-3's authors took it:
Brown et al. 2020, appendix C).

Words are compared without case, marks and line breaks, so that a changed layout hides nothing. A run that many tasks
share is how a contest writes its headings, and tells nothing. Code repeats itself more than prose does (two nested
loops over a table are 13 words), so a canonical solution is looked for by longer runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from plum_core.evaluation import livecodebench, plain
from plum_core.evaluation.benchmark import Task
from plum_core.records import Instruction

WORD = re.compile(r"\w+")
READERS = {"humaneval": plain.load_humaneval, "mbpp": plain.load_mbpp, "livecodebench": livecodebench.load}
LEAST_STATEMENT = 8  # words that a short task must have, to be looked for as a whole
LEAST_CODE = 20  # and a short solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """``ngram``: the first run of words that they share. ``shared``: how many of them."""

    instruction_id: str
    benchmark: str
    task_id: str
    where: str  # "prompt" or "solution"
    ngram: str
    shared: int


class BenchmarkIndex:
    """The n-grams of benchmarks' tasks: prompts, statements and canonical solutions.

    size, code_size: words in a run of a task, and of its solution. most_tasks: a run in more tasks is left out.
    """

    def __init__(self, *, size: int = 13, code_size: int = 30, most_tasks: int = 4) -> None:
        if min(size, code_size) < 2 or most_tasks < 1:
            raise ValueError(
                "an index wants a size and a code_size of 2 or more and most_tasks of 1 or more, got "
                f"{size}, {code_size} and {most_tasks}"
            )
        self.size, self.code_size, self.most_tasks = size, code_size, most_tasks
        self._owners: dict[str, dict[tuple[str, str], None]] = {}
        self._sizes: set[int] = {size, code_size}

    @classmethod
    def of_files(cls, files: Mapping[str, Path], **settings: int) -> BenchmarkIndex:
        """From each benchmark's own file, by name (humaneval, mbpp, livecodebench); ``settings`` as above.

        Raises ValueError for an unknown name, and as the benchmark's reader does.
        """
        index = cls(**settings)
        for name, path in files.items():
            if name not in READERS:
                raise ValueError(f"no benchmark {name!r} to look for: there are {', '.join(READERS)}")
            index.add(name, READERS[name](path))
        return index

    def add(self, benchmark: str, tasks: Iterable[Task]) -> None:
        for task in tasks:
            for text in _shown(task):
                self._enter(text, self.size, LEAST_STATEMENT, (benchmark, task.id))
            answer = (task.canonical or "").removeprefix(task.prefix)
            self._enter(answer, self.code_size, LEAST_CODE, (benchmark, task.id))

    def _enter(self, text: str, size: int, least: int, owner: tuple[str, str]) -> None:
        found = WORD.findall(text.lower())
        if least <= len(found) < size:
            size = len(found)
            self._sizes.add(size)
        for gram in _grams(found, size):
            self._owners.setdefault(gram, {})[owner] = None

    def __len__(self) -> int:
        return sum(len(owners) <= self.most_tasks for owners in self._owners.values())

    def matches(self, instruction: Instruction) -> list[Match]:
        """One for each task and place, in the order of the tasks' first shared runs."""
        solution = instruction.extra.get("solution")
        places = {"prompt": instruction.prompt, "solution": solution if isinstance(solution, str) else ""}
        found: list[Match] = []
        for where, text in places.items():
            shared: dict[tuple[str, str], dict[str, None]] = {}
            spoken = WORD.findall(text.lower())
            for size in sorted(self._sizes):
                for gram in _grams(spoken, size):
                    owners = self._owners.get(gram, {})
                    for owner in owners if len(owners) <= self.most_tasks else ():
                        shared.setdefault(owner, {})[gram] = None
            found += [
                Match(
                    instruction_id=instruction.id,
                    benchmark=benchmark,
                    task_id=task,
                    where=where,
                    ngram=next(iter(grams)),
                    shared=len(grams),
                )
                for (benchmark, task), grams in shared.items()
            ]
        return found


def _shown(task: Task) -> list[str]:
    """What a task shows. MBPP's statement stands before its tests, so it is taken by itself too."""
    shown = task.prefix or task.request
    statement = [] if task.continues else [shown.strip().strip('"').strip().partition("\n")[0]]
    return [shown, *statement]


def _grams(words: list[str], size: int) -> Iterator[str]:
    for at in range(len(words) - size + 1):
        yield " ".join(words[at : at + size])


def decontaminate(
    instructions: Iterable[Instruction], index: BenchmarkIndex, report: list[Match]
) -> Iterator[Instruction]:
    """Those without a match, as they come; what matched is put into ``report``."""
    for instruction in instructions:
        found = index.matches(instruction)
        if found:
            report += found
        else:
            yield instruction
