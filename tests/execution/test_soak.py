"""The soak in its short form, and proof that it sees a leak, a wrong verdict and one that is missing."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from plum_core.execution import Executor
from plum_core.execution.benchmarks import report, soak, watch
from plum_core.execution.benchmarks.mix import ALL, HOSTILE, make_case
from plum_core.execution.benchmarks.soak import Config, Soak
from plum_core.records.types import Outcome, Program, Verdict

SHORT = Config(programs=1500, batch=250)
FAKE = Config(programs=90, warm=30, batch=30)
LEAKING_JUDGE = "import sys\nkept = []\nfor line in sys.stdin: kept.append(bytes([1]) * (1 << 19))"


def right(program: Program, **changes: object) -> Verdict:
    """The verdict that the program's case is due."""
    seed, index = map(int, program.id.split(":"))
    case = make_case(seed, index)
    fields = {
        "id": program.id,
        "outcome": case.outcome,
        "passed": case.passed,
        "extra": {"values": case.values} if case.values else {},
    }
    figures = {"detail": "", "wall_s": 0.0, "cpu_s": 0.0, "peak_mib": 0.0}
    return Verdict(**{**fields, **figures, **changes})  # type: ignore[arg-type]


def pretended(act: Callable[[], object] = lambda: None) -> soak.Run:
    """An executor that judges rightly and does ``act`` at each program."""

    def run(programs: Iterable[Program]) -> Iterator[Verdict]:
        for program in programs:
            act()
            yield right(program)

    return run


def test_a_short_soak() -> None:
    with watch.own_group() as group, Executor(workers=2) as executor:
        state = soak.soak(SHORT, executor.run, group)
        assert state.problems() == []
    assert state.ledger.done == SHORT.programs
    assert 500 <= state.warm_at <= 1000
    assert state.last is not None
    assert {role: state.last[role].count for role in ("judge", "zygote", "library zygote")} == {
        "judge": 2,
        "zygote": 2,
        "library zygote": 2,
    }
    assert state.peak_mib > 50
    assert state.ledger.outcomes.keys() == {outcome.value for outcome in Outcome} - {"sandbox_error"}


def test_a_case_depends_on_seed_and_index_alone() -> None:
    cases = [make_case(3, index) for index in range(300)]
    assert [make_case(3, index) for index in reversed(range(300))] == cases[::-1]
    assert {case.kind for case in cases[: len(ALL)]} == {name for name, (weight, _) in ALL.items() if weight}
    assert sum(case.kind in HOSTILE for case in cases) > 100
    assert make_case(4, 250).program.code != cases[250].program.code or make_case(4, 250).kind != cases[250].kind


def test_an_honest_pretence_has_no_problem() -> None:
    assert soak.soak(FAKE, pretended(), None).problems() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outcome": Outcome.CRASH}, "0:40: .* got .'crash'"),
        ({"outcome": Outcome.SANDBOX_ERROR}, "0:40: .* got .'sandbox_error'"),
        ({"passed": ()}, r"0:40: .* got \('[a-z]+', \(\)"),
        ({"attested": False}, "0:40: .*not attested"),
        ({"id": "0:99"}, "0:99: a verdict too many"),
    ],
)
def test_a_wrong_verdict_is_told_with_seed_and_index(changes: dict[str, object], words: str) -> None:
    def run(programs: Iterable[Program]) -> Iterator[Verdict]:
        for program in programs:
            yield right(program, **changes) if program.id == "0:40" else right(program)

    problems = soak.soak(FAKE, run, None).ledger.wrong
    assert any(re.match(words, problem) for problem in problems), problems


def test_a_missing_and_a_second_verdict_are_told() -> None:
    def run(programs: Iterable[Program]) -> Iterator[Verdict]:
        for program in programs:
            yield from [right(program)] * (0 if program.id == "0:7" else 2 if program.id == "0:8" else 1)

    assert soak.soak(FAKE, run, None).ledger.wrong == ["0:8: a verdict too many", "0:7: no verdict"]


def memory(kept: list[object]) -> None:
    fresh = mmap.mmap(-1, 1 << 18)  # pages of its own: malloc may have free ones that count already
    fresh.write(b"x" * (1 << 18))
    kept.append(fresh)


def descriptor(kept: list[object]) -> None:
    kept.append(open(os.devnull))  # noqa: SIM115 (the leak)


def zombie(kept: list[object]) -> None:
    if len(kept) < 3:
        kept.append(subprocess.Popen(["true"]))


def sleeper(kept: list[object]) -> None:
    kept.append(None)
    if len(kept) == 60:
        kept.append(subprocess.Popen(["sleep", "60"]))


LEAKS = {
    "trainer: RSS grew": memory,
    "trainer: descriptors grew": descriptor,
    "processes of the role zombie": zombie,
    "more processes that are neither": sleeper,
}


@pytest.mark.parametrize("words", LEAKS)
def test_a_leak_of_the_trainer_is_seen(words: str) -> None:
    kept: list[object] = []
    try:
        problems = soak.soak(FAKE, pretended(lambda: LEAKS[words](kept)), None).problems()
    finally:
        for thing in kept:
            if isinstance(thing, subprocess.Popen):
                thing.kill()
                thing.wait()
    assert any(words in problem for problem in problems), problems


def test_a_leak_of_a_judge_is_seen() -> None:
    """A process that looks like a judge and keeps half a mebibyte of every program."""
    judge = subprocess.Popen([sys.executable, "-c", LEAKING_JUDGE, "inside/boot.py"], stdin=subprocess.PIPE)
    assert judge.stdin is not None

    def act(stdin: object = judge.stdin) -> None:
        stdin.write(b"\n")  # type: ignore[attr-defined]
        stdin.flush()  # type: ignore[attr-defined]
        time.sleep(0.002)

    try:
        problems = soak.soak(FAKE, pretended(act), None).problems()
    finally:
        judge.stdin.close()
        judge.wait()
    assert any(problem.startswith("judge: RSS grew") for problem in problems), problems


def test_a_replaced_judge_is_seen() -> None:
    with Executor(workers=1) as executor:
        done = 0

        def run(programs: Iterable[Program]) -> Iterator[Verdict]:
            nonlocal done
            for verdict in executor.run(programs):
                done += 1
                if done == 60:
                    os.kill(executor._slots[0].worker._process.pid, 9)
                yield verdict

        problems = soak.soak(FAKE, run, None).problems()
    assert problems == ["1 workers had to be replaced"]


def test_what_a_hostile_program_wrote_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "written").touch()
    monkeypatch.setattr(soak, "WRITES_OF_HOSTILE", (str(tmp_path / "written"), str(tmp_path / "not")))
    assert soak.soak(FAKE, pretended(), None).problems() == [f"left behind: {tmp_path / 'written'}"]


def test_an_interrupted_soak_tells_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    def run(programs: Iterable[Program]) -> Iterator[Verdict]:
        for program in programs:
            if program.id == "0:70":
                raise KeyboardInterrupt
            yield right(program)

    state: Soak = soak.soak(FAKE, run, None)
    assert state.interrupted
    told = soak.text(state, state.problems())
    assert "70 programs" in told
    assert "interrupted" in told
    assert "| trainer | 1 -> 1 |" in told


def test_minutes_end_a_soak() -> None:
    slow = pretended(lambda: time.sleep(0.005))
    state = soak.soak(Config(programs=10_000, warm=20, batch=20, minutes=0.005), slow, None)
    assert 20 <= state.ledger.done < 1000


def test_a_start_goes_on_from_an_index() -> None:
    ids: list[str] = []

    def run(programs: Iterable[Program]) -> Iterator[Verdict]:
        for program in programs:
            ids.append(program.id)
            yield right(program)

    state = soak.soak(Config(programs=3, start=4711), run, None)
    assert "Too short" in soak.text(state, state.problems())
    assert ids == ["0:4711", "0:4712", "0:4713"]


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        Config(batch=0)


def test_a_table_is_kept(tmp_path: Path) -> None:
    report.save("soak", report.table([{"a": 1, "b": 2}]), {"rows": []}, tmp_path / "results")
    names = sorted(path.name[10:] for path in (tmp_path / "results").iterdir())
    assert names == ["-soak.json", "-soak.md"]
    assert "| a | b |\n|---|---|\n| 1 | 2 |" in next((tmp_path / "results").glob("*.md")).read_text()
    assert "and 5 more" in report.listing([str(n) for n in range(25)])
