"""A run from its config: source, engine and loop put together."""

from __future__ import annotations

from plum_core.rounds.config import RunConfig
from plum_core.rounds.engine import LocalEngine
from plum_core.rounds.grammar_source import GrammarSource
from plum_core.rounds.sources import JsonlSource, TaskSource
from plum_core.training import World


def make_engine(config: RunConfig, world: World | None = None) -> LocalEngine:
    """Models and sandbox of this rank; close it at the end."""
    return LocalEngine(
        sampler=config.sampling.options(),
        execution=config.execution,
        device=config.device,
        world=world,
        prompts=config.prompts,
    )


def make_source(config: RunConfig, engine: LocalEngine) -> TaskSource:
    """The source that ``config.source`` names. Raises ValueError where a setting of it is missing."""
    if config.source == "files":
        return JsonlSource(config.tasks)
    if config.grammar.author is None:
        raise ValueError("grammar.author is not set: name the author's checkpoint, such as models/tiny/author")
    return GrammarSource(config.grammar, config.grammar.author, config.seed, engine.executor)
