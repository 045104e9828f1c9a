"""Stage 1: instructions to tests that a model wrote and execution filtered.

    python runners/make_tests.py --instructions instructions.jsonl --author CHECKPOINT --out tests.jsonl
    python runners/make_tests.py --instructions instructions.jsonl --generator CHECKPOINT --out tests.jsonl
    python runners/make_tests.py --instructions instructions.jsonl --answers batch-output.jsonl --out tests.jsonl
    python runners/make_tests.py --instructions instructions.jsonl --endpoint.url https://HOST/v1 \
        --endpoint.model NAME --endpoint.api-key-env API_KEY --out tests.jsonl

An author writes solutions, and what most of them answer becomes the tests. A generator (a checkpoint, a file of
answers, an endpoint) writes a reference and tests, which are kept where they hold against each other. Rejected suites
are in the file too, with ``kept`` false and the reason under ``why``. OUT.instructions.jsonl has the instructions of
the kept ones with the signature that the tests call. Killed, the same command goes on, and no answer is paid twice.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from plum_core import settings
from plum_core.execution import Executor, SandboxUnavailable
from plum_core.records import Instruction, TestSuite, read_jsonl, write_jsonl
from plum_core.rounds.chunks import Tally
from plum_core.rounds.config import ExecutionConfig
from plum_core.rounds.single import Bench, bench
from plum_core.rounds.stages import tally_tests
from plum_core.sampling import Sampler
from plum_core.testing import TestingConfig, write_suites
from plum_core.testing.authored import AskConfig, with_signature, write_authored_suites
from plum_core.testing.filters import REASONS, FilterConfig
from plum_core.testing.generators import AnswerFile, Generator, LocalGenerator
from plum_core.testing.generators.limits import Budget, BudgetReached
from plum_core.testing.prompts import Template, template
from plum_models import load


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointChoice:
    """An OpenAI-compatible endpoint; without a url none is asked."""

    url: str = ""  # up to and with the version, such as https://api.openai.com/v1
    model: str = ""
    api_key_env: str = ""  # the environment variable that holds the key
    cache: Path | None = None  # answers that were paid for; default: beside --out
    concurrency: int = 8
    requests_per_minute: int = 0  # 0: no limit
    tokens_per_minute: int = 0
    timeout_s: float = 120.0
    attempts: int = 6
    max_tokens_field: str = "max_tokens"  # or max_completion_tokens, which newer models want
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeTestsConfig:
    """What to write tests for, and by whom."""

    instructions: Path  # JSONL of {id, prompt, entry_point, starter}
    out: Path  # JSONL of test suites
    author: Path | None = None  # checkpoint folder of a model that writes solutions; the tests are what they agree on
    generator: Path | None = None  # checkpoint folder of a model that writes a reference and tests
    answers: Path | None = None  # JSONL of such answers, by instruction id: {id, answer}, or a batch API's output
    endpoint: EndpointChoice = field(default_factory=EndpointChoice)
    prompt: str = "teaching_assistant"  # a template of plum_core/testing/prompts, or a file of yours
    seed: int = 0
    chunk: int = 64  # instructions a unit of work
    max_rows: int = 512  # samples that decode together
    device: str = "auto"  # of the author or generator
    skip_bad: bool = False  # pass over lines that are no instruction, and count them
    quiet: bool = False
    ask: AskConfig = field(default_factory=AskConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)  # of what a generator wrote
    testing: TestingConfig = field(default_factory=TestingConfig)  # of an author's agreement
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        given = {"author": self.author, "generator": self.generator, "answers": self.answers}
        named = [name for name, path in given.items() if path] + (["endpoint.url"] if self.endpoint.url else [])
        if len(named) != 1:
            raise ValueError(
                f"give one of author, generator, answers and endpoint.url, got {' and '.join(named) or 'none'}"
            )
        if self.endpoint.url and not self.endpoint.model:
            raise ValueError("endpoint.url needs endpoint.model, the name of a model that it serves")


def make_generator(config: MakeTestsConfig, place: Bench) -> Generator:
    """Who is asked. Raises ValueError for an endpoint without httpx, or on several ranks."""
    if config.answers is not None:
        return AnswerFile(config.answers)
    if config.generator is not None:
        decoder, tokenizer = load(config.generator)
        return LocalGenerator(Sampler(decoder.to(place.engine.device), tokenizer, max_rows=config.max_rows))
    if place.world.size > 1:
        raise ValueError("an endpoint is asked by one process, which asks concurrently: run this without torchrun")
    try:
        from plum_core.testing.generators.endpoint import Endpoint, EndpointConfig
    except ImportError as error:
        raise ValueError(f"an endpoint needs httpx ({error}): pip install 'plum[endpoint]'") from None
    chosen = {name: getattr(config.endpoint, name) for name in EndpointChoice.__dataclass_fields__}
    chosen["cache"] = config.endpoint.cache or config.out.with_suffix(".answers.jsonl")
    return Endpoint(EndpointConfig(**chosen))


def by_author(config: MakeTestsConfig, place: Bench, instructions: list[Instruction]) -> Tally:
    """Tests by agreement."""
    assert config.author is not None
    decoder, tokenizer = load(config.author)
    author = Sampler(decoder.to(place.engine.device), tokenizer, max_rows=config.max_rows)

    def work(chunk: list[Instruction]) -> tuple[list[TestSuite], Tally]:
        suites = list(write_suites(chunk, author, place.engine.executor, config.testing, seed=config.seed))
        return suites, tally_tests(suites)

    title = "writing and filtering tests"
    return place.chunked(config.out, title, "instructions", instructions, config.chunk, work, config)


def by_generator(config: MakeTestsConfig, place: Bench, instructions: list[Instruction], words: Template) -> Tally:
    """Tests that come with a reference."""
    generator = make_generator(config, place)
    execution = config.execution
    with ExitStack() as stack:
        elsewhere = stack.enter_context(
            Executor(
                workers=execution.workers or None, limits=execution.limits, packages=execution.packages, hash_seed=1
            )
        )

        def work(chunk: list[Instruction]) -> tuple[list[TestSuite], Tally]:
            executors = (place.engine.executor, elsewhere)
            suites = list(
                write_authored_suites(
                    chunk, generator, words.messages, executors, config.filters, seed=config.seed, ask=config.ask
                )
            )
            return suites, tally_tests(suites)

        title = "asking for tests and filtering them"
        # a larger budget or another pace goes on where the last sitting stopped
        asked = EndpointChoice(url=config.endpoint.url, model=config.endpoint.model)
        lasting = replace(config, endpoint=asked)
        tally = place.chunked(config.out, title, "instructions", instructions, config.chunk, work, lasting)
    if place.is_main:
        suites = {s.instruction_id: s for s in read_jsonl(config.out, TestSuite) if s.kept}
        shown = (with_signature(i, suites[i.id]) for i in instructions if i.id in suites)
        write_jsonl(config.out.with_suffix(".instructions.jsonl"), shown)
    return tally


def report(tally: Tally, total: int) -> list[str]:
    """What each filter threw out, in their order, and what was left after it."""
    rejected = dict(tally.get("rejected", {}))
    order = [name for name in REASONS if name in rejected] + [name for name in rejected if name not in REASONS]
    lines, left = [f"{'filter':18}{'out':>6}{'left':>6}"], total
    for name in order:
        left -= rejected[name]
        lines.append(f"{name:18}{rejected[name]:6}{left:6}  {REASONS.get(name, '')}".rstrip())
    kept = tally.get("kept", 0)
    return [*(lines if order else []), f"{kept} of {total} kept, with {tally.get('tests', 0)} tests"]


def run(config: MakeTestsConfig) -> None:
    words = template(config.prompt)
    reader = read_jsonl(config.instructions, Instruction, skip_bad=config.skip_bad)
    instructions = list(reader)
    with bench(execution=config.execution, device=config.device, quiet=config.quiet) as place:
        if config.author is not None:
            tally = by_author(config, place, instructions)
        else:
            tally = by_generator(config, place, instructions, words)
        if place.is_main:
            print("\n".join(report(tally, len(instructions))))
            if reader.skipped:
                print(f"{reader.skipped} bad lines were passed over")


ERRORS = (SandboxUnavailable, BudgetReached)

if __name__ == "__main__":
    sys.exit(settings.main(run, MakeTestsConfig, doc=__doc__ or "", errors=ERRORS))
