"""A source and an engine of a few lines: policies are a number, programs pass when they say so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from plum_core.prompts import program_code, render_prompt
from plum_core.records import Instruction, Label, Outcome, Pair, Program, TestSuite, Verdict, write_atomic
from plum_core.rounds.config import DrawConfig, EvaluationConfig, RunConfig
from plum_core.rounds.engine import OnStep, Trained
from plum_core.sampling import Completion, Request, SamplingParams
from plum_core.training import PreferenceConfig


class FakeSource:
    note = "Nothing here is real."

    def __init__(self, count: int = 10, version: str = "1", heldout: int = 7) -> None:
        self.count, self.version, self.held = count, version, heldout

    def identity(self) -> dict[str, str]:
        return {"fake": self.version}

    def plum_instructions(self, round_: int) -> list[Instruction]:
        return [Instruction(id=f"r{round_}-{i}", prompt=f"task {i}") for i in range(self.count)]

    def make_tests(self, instructions: Sequence[Instruction]) -> Iterator[TestSuite]:
        for instruction in instructions:
            kept = int(instruction.id.rpartition("-")[2]) % 4 != 3
            why = "" if kept else "trivial"
            yield TestSuite(instruction_id=instruction.id, tests=("assert a", "assert b"), kept=kept, why=why)

    def heldout(self) -> list[tuple[Instruction, TestSuite]]:
        names = [f"h{i}" for i in range(self.held)]
        return [(Instruction(id=n, prompt=n), TestSuite(instruction_id=n, tests=("assert h",))) for n in names]

    def sft_examples(self) -> list[tuple[str, str]]:
        return [(f"# {i}\n", f"answer {i}") for i in range(5)]


class FakePolicy:
    """``quality`` per cent of its samples pass. ``tail`` ends all that it writes."""

    parameters, tail = 1, ""

    def __init__(self, folder: Path) -> None:
        self.quality = int((folder / "quality.txt").read_text())
        self.fingerprint = f"quality-{self.quality}"

    render, program, ask = staticmethod(render_prompt), staticmethod(program_code), staticmethod(str)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    encode_completion = encode_prompt

    def sample(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        for request in reversed(requests):  # out of order, as a real sampler's
            for index, seed in enumerate(request.seeds):
                roll = int(hashlib.sha256(f"{request.id} {seed} {params.temperature}".encode()).hexdigest(), 16)
                text = f"{'good' if roll % 100 < self.quality else 'bad'}{roll // 100 % 5}{self.tail}"
                yield Completion(
                    request_id=request.id,
                    index=index,
                    token_ids=tuple(text.encode()),
                    logprobs=(-0.1,) * len(text),
                    text=text,
                    finish_reason="stop",
                    seed=seed,
                )


class FakeEngine:
    """Training adds ten per cent of quality in three steps, and keeps its place in a file."""

    def __init__(self, *, fault: Outcome | None = None) -> None:
        self.judged, self.fault = 0, fault
        self.trained_on: list[tuple[str, int]] = []

    def policy(self, folder: Path) -> FakePolicy:
        return FakePolicy(folder)

    def judge(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        for program in sorted(programs, key=lambda p: p.id[::-1]):
            self.judged += 1
            good = "good" in program.code
            yield Verdict(
                id=program.id,
                outcome=self.fault or (Outcome.PASSED if good else Outcome.FAILED),
                passed=(good,) * len(program.tests),
                detail="" if good else "assert said no",
                wall_s=self.judged / 7,
                cpu_s=0.0,
                peak_mib=0.0,
            )

    def train(
        self,
        start: Path,
        reference: Path,
        records: Sequence[Pair] | Sequence[Label],
        replay: Sequence[tuple[str, str]],
        *,
        config: PreferenceConfig,
        seed: int,
        folder: Path,
        out: Callable[[int], Path],
        on_step: OnStep,
    ) -> Trained:
        self.trained_on.append((config.objective, len(records)))
        place = folder / "place.json"
        done = json.loads(place.read_text()) if place.exists() else 0
        for step in range(done, 3):
            on_step({"step": step + 1, "loss": 1.0 / (step + 1), "step_s": 0.5}, 3)
            write_atomic(place, json.dumps(step + 1))
        quality = FakePolicy(start).quality + 10
        write_atomic(out(3) / "quality.txt", str(quality))
        rows = tuple({"step": s + 1, "loss": 1.0 / (s + 1), "step_s": 0.25} for s in range(3))
        return Trained(steps=3, rows=rows, fingerprint=f"quality-{quality}")

    def close(self) -> None:
        pass


def make_config(folder: Path, **changes: object) -> RunConfig:
    """A run of two rounds in ``folder/run`` from a policy in ``folder/policy``, half of whose samples pass."""
    policy = folder / "policy"
    policy.mkdir(parents=True, exist_ok=True)
    (policy / "quality.txt").write_text("50")
    known: dict[str, object] = {
        "out": folder / "run",
        "policy": policy,
        "sampling": DrawConfig(n=4, chunk=3),
        "evaluation": EvaluationConfig(samples=2, ks=(1, 2), chunk=3),
    }
    return RunConfig(**(known | changes))  # type: ignore[arg-type]
