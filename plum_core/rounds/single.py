"""One stage from file to file: what the small runners share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from plum_core import settings
from plum_core.prompts import PromptStyle
from plum_core.records import Instruction, TestSuite, read_jsonl
from plum_core.rounds.chunks import Tally, claim_parts, run_chunks
from plum_core.rounds.config import ExecutionConfig
from plum_core.rounds.display import Display
from plum_core.rounds.engine import LocalEngine
from plum_core.rounds.observer import Observer
from plum_core.rounds.process import die_with_parent
from plum_core.training import World, init_world, world_size
from plum_core.training.stop import ends_on_sigterm

PLAIN_WIDTH = 120  # of a log file, where there is no terminal to ask


def make_console() -> Console:
    """Standard output, wide enough for tables where it is a file."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


@dataclass(frozen=True, slots=True)
class Bench:
    """An engine, the ranks and a display: where a single stage is done."""

    engine: LocalEngine
    world: World
    display: Display | None

    @property
    def is_main(self) -> bool:
        return self.world.is_main

    def chunked(
        self,
        target: Path,
        title: str,
        unit: str,
        items: Sequence[Any],
        size: int,
        work: Callable[[list[Any]], tuple[Sequence[Any], Tally]],
        config: Any,
    ) -> Tally:
        """``run_chunks`` under the config that made it; the tally of all chunks, on rank 0."""
        claim_parts(target, settings.plain(config), self.world)
        observer: Observer = self.display or Observer()
        if self.display:
            self.display.begin(title, unit)
        total: Tally = {}
        run_chunks(
            target,
            items,
            size,
            work,
            world=self.world,
            on_chunk=observer.progress,
            on_complete=lambda tally, _: total.update(tally),
        )
        if self.display:
            self.display.end(f"{len(items)} {unit} to {target}")
        return total


@contextmanager
def bench(
    *,
    sampler: Mapping[str, Any] | None = None,
    execution: ExecutionConfig | None = None,
    device: str = "auto",
    quiet: bool = False,
    prompts: PromptStyle = "comment",
) -> Iterator[Bench]:
    """A bench that is cleared at the end, whatever happens. SIGTERM ends the block, and the program with status 0.

    sampler: options of every policy's Sampler.
    """
    die_with_parent()
    with ends_on_sigterm(world_size()), ExitStack() as stack:
        world = init_world()
        stack.callback(world.close)
        display = stack.enter_context(Display(make_console())) if world.is_main and not quiet else None
        engine = LocalEngine(
            sampler=sampler, execution=execution or ExecutionConfig(), device=device, world=world, prompts=prompts
        )
        yield Bench(stack.enter_context(engine), world, display)


def read_tasks(instructions: Path, tests: Path) -> list[tuple[Instruction, TestSuite]]:
    """Instructions whose tests were kept, with them. Raises ValueError where none is left."""
    suites = {s.instruction_id: s for s in read_jsonl(tests, TestSuite) if s.kept}
    found = [(i, suites[i.id]) for i in read_jsonl(instructions, Instruction) if i.id in suites]
    if not found:
        raise ValueError(f"no instruction of {instructions} has kept tests in {tests}: do the ids agree?")
    return found
