"""The loop: tests, samples, verdicts, preferences, training, evaluation, as many rounds as wanted.

Every stage ends in one file that appears whole; a stage whose file is there is passed over. So the same command on
the same folder goes on where the last one stopped, and ends in the same bytes as a run that was never stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plum_core import settings as config_files
from plum_core.evaluation import greedy_gain, sampled_gain, score, task_results
from plum_core.evaluation.intervals import Interval
from plum_core.records import Instruction, Sample, TestSuite, Verdict, read_jsonl, write_atomic, write_jsonl
from plum_core.rounds import learning, stages
from plum_core.rounds.ahead import Beside, Job
from plum_core.rounds.chunks import Tally, make_part, read_part, run_chunks
from plum_core.rounds.config import INCIDENTAL, RunConfig
from plum_core.rounds.engine import Engine, Policy, Trained
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.observer import Observer
from plum_core.rounds.sources import TaskSource
from plum_core.sampling import SamplingParams
from plum_core.seeds import coordinate_seed
from plum_core.training import World
from plum_core.training.trackers import Tracker, flat_figures, make_trackers


class Rounds:
    """One run. ``go`` returns when all rounds are done; it may be called again to go on."""

    def __init__(
        self,
        config: RunConfig,
        source: TaskSource,
        engine: Engine,
        *,
        world: World | None = None,
        observer: Observer | None = None,
        argv: Sequence[str] | None = None,
    ) -> None:
        self.config, self.source, self.engine = config, source, engine
        self.world, self.observer = world or World(), observer or Observer()
        self.folder = RunFolder(config.out)
        self.argv = sys.argv if argv is None else argv
        self.trackers: list[Tracker] = []
        self.worked = False  # whether this sitting found anything left to do

    def go(self) -> RunFolder:
        """All rounds. Raises ValueError where the folder is in use or was begun with other settings."""
        try:
            self._begin()
            self._write_heldout()
            self._evaluate(0, self.config.policy)
            policy = self.config.policy
            for number in range(1, self.config.rounds + 1):
                policy = self._round(number, policy)
        finally:
            for tracker in self.trackers:
                tracker.close()
            self.folder.release()
        return self.folder

    def _begin(self) -> None:
        if self.world.is_main:
            self.folder.hold()
            self.folder.sweep()
            identity = self.source.identity()
            if self.config.off_policy:
                identity["off_policy"] = self.engine.policy(self.config.off_policy).fingerprint
            policy = self.engine.policy(self.config.policy)
            identity["policy"] = policy.fingerprint
            about = {"argv": list(self.argv), "note": self.source.note, "parameters": policy.parameters}
            self.folder.begin(self.config, identity, INCIDENTAL, about)
            self.trackers = make_trackers(self.config.trackers, self.folder.path, config_files.plain(self.config))
        self.world.barrier()

    def _round(self, number: int, policy: Path) -> Path:
        """One round from ``policy``; the policy that it ends in."""
        self._tests(number)
        self._samples(number, policy)
        self._verdicts(number)
        self._preferences(number)
        if self.config.staleness and number < self.config.rounds:
            self._tests(number + 1)  # what is drawn while this round trains
        policy = self._train(number, policy)
        self._evaluate(number, policy)
        return policy

    # The stages. ``path(n, name)`` is round n's file of that name.

    def path(self, number: int, name: str) -> Path:
        return self.folder.round(number) / f"{name}.jsonl"

    def _write_heldout(self) -> None:
        """Evaluation tasks once a run; an instruction's tests last, so that both files are there or neither counts."""
        tests = self.folder.heldout / "tests.jsonl"
        if self.world.is_main and not tests.exists():
            tasks = self.source.heldout()
            write_jsonl(self.folder.heldout / "instructions.jsonl", [i for i, _ in tasks])
            write_jsonl(tests, [suite for _, suite in tasks])
        self.world.barrier()

    @functools.cached_property
    def tasks(self) -> list[stages.Task]:
        """The evaluation's instructions and tests, from the run folder."""
        instructions = read_jsonl(self.folder.heldout / "instructions.jsonl", Instruction)
        suites = read_jsonl(self.folder.heldout / "tests.jsonl", TestSuite)
        return list(zip(instructions, suites, strict=True))

    def _tests(self, number: int) -> None:
        listing = self.path(number, "instructions")
        if self.world.is_main and not listing.exists():
            write_jsonl(listing, self.source.plum_instructions(number))
        self.world.barrier()

        def work(chunk: list[Instruction]) -> tuple[list[TestSuite], Tally]:
            suites = list(self.source.make_tests(chunk))
            return suites, stages.tally_tests(suites)

        instructions = list(read_jsonl(listing, Instruction))
        self._chunked(number, "tests", "instructions", instructions, self.config.sampling.chunk, work)

    def _kept(self, number: int) -> tuple[list[Instruction], dict[str, TestSuite]]:
        """Instructions whose tests were kept, and those tests by instruction."""
        suites = {s.instruction_id: s for s in read_jsonl(self.path(number, "tests"), TestSuite) if s.kept}
        instructions = read_jsonl(self.path(number, "instructions"), Instruction)
        return [i for i in instructions if i.id in suites], suites

    def _lagging(self, number: int, policy: Path) -> Path:
        """The policy that round ``number`` samples, where ``policy`` is the one that it starts from."""
        if self.config.off_policy:
            return self.config.off_policy
        return policy if not self.config.staleness else self._policy_after(number - 1 - self.config.staleness)

    def _policy_after(self, number: int) -> Path:
        """What round ``number`` ended in; the run's first policy before round 1."""
        if number < 1:
            return self.config.policy
        about = json.loads((self.folder.round(number) / "policy.json").read_text())
        return self.folder.path / about["folder"]

    def _samples(self, number: int, policy: Path) -> None:
        instructions, suites = self._kept(number)
        if not instructions:
            raise ValueError(f"round {number}: no instruction kept its tests; {self.path(number, 'tests')} says why")
        drawer = self._lagging(number, policy)

        def work(chunk: list[Instruction]) -> tuple[list[Sample], Tally]:
            return self._draw(number, self.engine.policy(drawer), chunk)

        size = self.config.sampling.chunk
        if not self.config.overlap or self.path(number, "samples").exists():
            self._chunked(number, "samples", "instructions", instructions, size, work)
            return
        with Beside() as judge:

            def on_part(part: int, samples: Sequence[Sample]) -> None:
                judge.put(lambda: self._judge_part(number, part, samples, suites))

            self._chunked(number, "samples", "instructions", instructions, size, work, on_part=on_part)

    def _draw(self, number: int, policy: Policy, chunk: list[Instruction]) -> tuple[list[Sample], Tally]:
        settings = self.config.sampling
        samples = stages.draw_samples(policy, chunk, settings.params(), settings.n, self.config.seed, number)
        return samples, stages.tally_samples(samples)

    def _judge(self, chunk: Sequence[Sample], suites: dict[str, TestSuite]) -> tuple[list[Verdict], Tally]:
        verdicts = stages.judge_samples(self.engine, chunk, suites)
        return verdicts, stages.tally_verdicts(verdicts)

    def _judge_part(self, number: int, part: int, samples: Sequence[Sample], suites: dict[str, TestSuite]) -> None:
        """The verdicts of one chunk of samples, ahead of their stage, whose chunks they are."""
        make_part(self.path(number, "verdicts"), part, functools.partial(self._judge, samples, suites))

    def _next_parts(self, number: int, policy: Policy) -> Iterator[Job]:
        """Round ``number``'s samples and verdicts, this rank's chunks in turn, for ``Beside``."""
        (instructions, suites), size = self._kept(number), self.config.sampling.chunk
        target = self.path(number, "samples")

        def job(part: int) -> None:
            chunk = instructions[part * size : (part + 1) * size]
            samples = make_part(target, part, functools.partial(self._draw, number, policy, chunk))
            if samples is None:
                samples = read_part(target, part, Sample)
            self._judge_part(number, part, samples, suites)

        if not target.exists():
            for part in range(self.world.rank, -(-len(instructions) // size), self.world.size):
                yield functools.partial(job, part)

    @contextmanager
    def _drawing_ahead(self, number: int) -> Iterator[None]:
        """While the block trains round ``number - 1``, samples and verdicts of round ``number`` as far as they come."""
        if not (self.config.staleness and self.config.overlap) or number > self.config.rounds:
            yield
            return
        policy = self.engine.policy(self._policy_after(number - 1 - self.config.staleness))
        with Beside(self._next_parts(number, policy)):
            yield

    def _verdicts(self, number: int) -> None:
        target = self.path(number, "verdicts")
        samples = [] if target.exists() else list(read_jsonl(self.path(number, "samples"), Sample))
        _, suites = self._kept(number)
        size = self.config.sampling.chunk * self.config.sampling.n
        self._chunked(number, "verdicts", "programs", samples, size, lambda chunk: self._judge(chunk, suites))

    def _preferences(self, number: int) -> None:
        target = self.path(number, "preferences")
        if self.world.is_main and not target.exists():
            with self._stage(number, "preferences", "instructions") as done:
                records, counts = self._make_preferences(number)
                row = {"learn": self.config.learn, **counts}
                self.folder.replace_metrics(number, "preferences", [row])
                if not records:
                    raise ValueError(learning.nothing_to_learn(number, counts))
                write_jsonl(target, records)
                done.update(row)
        self.world.barrier()

    def _make_preferences(self, number: int) -> tuple[learning.Made, dict[str, Any]]:
        instructions, _ = self._kept(number)
        samples = read_jsonl(self.path(number, "samples"), Sample)
        verdicts = read_jsonl(self.path(number, "verdicts"), Verdict)
        first = functools.partial(self.engine.policy, self.config.policy)
        records, row = learning.make_records(self.config, number, instructions, samples, verdicts, first)
        if self.config.learn == "sft" and records:
            records = learning.supervised(self.config, number, self.source.sft_examples(), first(), records)
        return records, row

    def _train(self, number: int, start: Path) -> Path:
        """Train from ``start``; the folder of the new policy. ``policy.json`` is written when all else is."""
        record = self.folder.round(number) / "policy.json"
        work = self.folder.round(number) / "training"
        done = record.exists()
        self.world.barrier()
        if not done:
            steps_before = self._steps_before(number)
            with self._stage(number, "training", "steps") as row:
                with self._drawing_ahead(number + 1):
                    trained = self._trained(number, start, steps_before)
                row.update({"steps": trained.steps} | (trained.rows[-1] if trained.rows else {}))
                if self.world.is_main:
                    self.folder.replace_metrics(number, "training", trained.rows)
                    steps = steps_before + trained.steps
                    about = {"steps": steps, "folder": str(self.folder.checkpoint(steps).relative_to(self.folder.path))}
                    write_atomic(record, json.dumps(about | {"fingerprint": trained.fingerprint}) + "\n")
            self.world.barrier()
        if self.world.is_main:
            shutil.rmtree(work, ignore_errors=True)
        return self._policy_after(number)

    def _trained(self, number: int, start: Path, steps_before: int) -> Trained:
        return self.engine.train(
            start,
            self.config.policy if self.config.reference == "initial" else start,
            learning.read_records(self.config, self.path(number, "preferences"), self.path(number, "samples")),
            self.source.sft_examples(),
            seed=coordinate_seed(self.config.seed, "training", number),
            folder=self.folder.round(number) / "training",
            out=lambda steps: self.folder.checkpoint(steps_before + steps),
            config=learning.training_of(self.config),
            on_step=functools.partial(self._on_step, number),
        )

    def _steps_before(self, number: int) -> int:
        if number == 1:
            return 0
        found: int = json.loads((self.folder.round(number - 1) / "policy.json").read_text())["steps"]
        return found

    def _on_step(self, number: int, row: dict[str, float], total: int) -> None:
        """A live row; the stage's end replaces them all, those of earlier sittings included."""
        self.folder.append_row("metrics.jsonl", {"round": number, "stage": "training", **row})
        self._track("train", row, self._steps_before(number) + int(row["step"]))
        self.observer.progress(int(row["step"]), total, row)

    def _track(self, kind: str, row: Mapping[str, Any], step: int) -> None:
        """A row of metrics after optimizer step ``step`` of the run, to those who draw curves."""
        for tracker in self.trackers:
            tracker.log(dict(flat_figures(row, kind)), step)

    def _evaluate(self, number: int, policy: Path) -> None:
        settings = self.config.evaluation
        params = SamplingParams(temperature=settings.temperature, max_new_tokens=self.config.sampling.max_new_tokens)

        def work(chunk: list[stages.Task]) -> tuple[list[Verdict], Tally]:
            drawer = self.engine.policy(policy)
            verdicts = stages.evaluate_tasks(self.engine, drawer, chunk, params, settings.samples, self.config.seed)
            return verdicts, stages.tally_verdicts(verdicts)

        complete = functools.partial(self._scores, number)
        self._chunked(number, "evaluation", "tasks", self.tasks, settings.chunk, work, complete)

    def _scores(self, number: int, parts: Sequence[Path]) -> dict[str, Any]:
        """What the verdicts in ``parts`` say of the policy, and its gain over the one that the run began with."""
        names = [i.id for i, _ in self.tasks]
        results = task_results(names, (v for part in parts for v in read_jsonl(part, Verdict)))
        found = score(results, self.config.evaluation.ks)
        row: dict[str, Any] = {"tasks": found.tasks, "samples": found.samples, "lost": found.lost}
        row |= {"sampled": _interval(found.sampled), "greedy": _interval(found.greedy)}
        row["pass_at"] = {str(k): value for k, value in found.pass_at.items()}
        if number:
            base = task_results(names, read_jsonl(self.path(0, "evaluation"), Verdict))
            row |= {"sampled_gain": _interval(sampled_gain(base, results))}
            row |= {"greedy_gain": _interval(greedy_gain(base, results))}
        self._track("eval", row, self._steps_before(number + 1))
        return row

    # What the stages share.

    def _chunked(
        self,
        number: int,
        name: str,
        unit: str,
        items: Sequence[Any],
        size: int,
        work: Callable[[list[Any]], tuple[Sequence[Any], Tally]],
        figures: Callable[[list[Path]], dict[str, Any]] | None = None,
        on_part: Callable[[int, Sequence[Any]], None] | None = None,
    ) -> None:
        """``run_chunks`` with its row of metrics: the tally, and what ``figures`` finds in the chunks' files."""
        if self.path(number, name).exists():
            run_chunks(
                self.path(number, name), items, size, work, world=self.world, on_chunk=_ignore, on_complete=_ignore
            )
            return
        with self._stage(number, name, unit) as row:

            def complete(tally: Tally, parts: list[Path]) -> None:
                row.update(tally | (figures(parts) if figures else {}))
                self.folder.replace_metrics(number, name, [row])

            run_chunks(
                self.path(number, name),
                items,
                size,
                work,
                world=self.world,
                on_chunk=self.observer.progress,
                on_complete=complete,
                on_part=on_part,
            )

    @contextmanager
    def _stage(self, number: int, name: str, unit: str) -> Iterator[dict[str, Any]]:
        """Tell the observer, and keep the time of this sitting; the caller fills in the row."""
        self.worked = True
        self.observer.stage(number, name, unit)
        began, row = time.perf_counter(), dict[str, Any]()
        yield row
        seconds = time.perf_counter() - began
        if self.world.is_main:
            timing = {"round": number, "stage": name, "wall_s": round(seconds, 3), "ranks": self.world.size}
            self.folder.append_row("timings.jsonl", timing)
        self.observer.finished(number, name, seconds, row)


def _ignore(*_: Any) -> None:
    """Nothing is left to tell of a stage that is done."""


def _interval(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)
