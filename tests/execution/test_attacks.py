"""The adversarial suites: ours, and the shared one where it is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plum_core.execution import Executor, Limits
from plum_core.records.types import Program, Verdict
from tests.execution.attacks import ATTACKS, FORGED, Attack

DAMAGE = ("/tmp/plum_attack", "/dev/shm/plum_attack")


def run_all(programs: list[Program], limits: Limits) -> dict[str, Verdict]:
    with Executor(workers=2, limits=limits) as executor:
        return {verdict.id: verdict for verdict in executor.run(programs)}


@pytest.fixture(scope="module", params=[{}, {"test_cpu_s": 0.4, "test_wall_s": 0.4}], ids=["whole", "deadlines"])
def verdicts(request: pytest.FixtureRequest) -> Iterator[dict[str, Verdict]]:
    programs = [Program(id=a.name, code=a.code, tests=a.tests) for a in ATTACKS]
    yield run_all(programs, Limits(cpu_s=1.0, wall_s=1.0, memory_mib=512, **request.param))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[attack.name]
    assert verdict.outcome.value in attack.expected, verdict.detail
    assert verdict.attested
    assert len(verdict.passed) == len(attack.tests)


@pytest.mark.parametrize("attack", FORGED, ids=lambda attack: attack.name)
def test_no_test_of_a_forger_passes_by_luck(attack: Attack, verdicts: dict[str, Verdict]) -> None:
    """Each test of the forgeries is wrong by itself; state-dependent ones may answer their first call rightly."""
    honest_at_first = {"exit_status": 1, "remote_mutation": 1}
    assert sum(verdicts[attack.name].passed) <= honest_at_first.get(attack.name, 0)


def test_nothing_is_left_behind(verdicts: dict[str, Verdict]) -> None:
    assert len(verdicts) == len(ATTACKS)
    assert not [path for path in DAMAGE if Path(path).exists()]


def test_shared_attacks(shared_data: Callable[[str], Path]) -> None:
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in shared_data("attacks.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    programs = [Program(id=row["id"], code=row["code"], tests=tuple(row["tests"])) for row in rows]
    verdicts = run_all(programs, Limits(cpu_s=1.0, wall_s=1.0))
    wrong = [
        (row["id"], verdicts[row["id"]].outcome.value, verdicts[row["id"]].detail)
        for row in rows
        if verdicts[row["id"]].outcome.value not in row["expected"]
    ]
    assert wrong == []
