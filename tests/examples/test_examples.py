"""The embedding examples against the real peers: they run, and what they replace gives the same numbers."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from plum_core.execution import Executor
from plum_core.records import Outcome, Verdict
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``examples/NAME.py`` as a module; it names files from the root of the checkout."""
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested_and_says_its_command() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert re.search(rf'load\("{path.stem}"', here), f"{path.name} is not run by a test"
        assert f"python examples/{path.name}" in path.read_text(encoding="utf-8").split('"""')[1]


def test_the_sampler_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("sampler_alone", monkeypatch)
    passed = example.main(["--samples", "8"])
    assert len(passed) == 16 and 0 < sum(passed.values()) < 16
    assert "log-prob -" in capsys.readouterr().out
    few, many = example.draw(3), example.draw(6)
    assert [c.token_ids for c in few] == [c.token_ids for c in many if c.index < 3], "a draw depends on the batch"


def test_an_objective_in_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = load("plain_loop", monkeypatch).main(["--steps", "6"])
    assert after > before + 3


def test_our_log_probs_in_trl_give_trls_own_losses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = load("logprob_in_trl", monkeypatch)
    ours = example.main(["--steps", "3"])
    trainer = example.make_trainer(example.DPOTrainer, 3, str(tmp_path))
    trainer.train()
    theirs = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert ours == pytest.approx(theirs, abs=2e-4) and ours[0] > ours[-1] + 1e-3  # TRL rounds what it logs


def test_the_executor_rewards_in_grpo(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = load("executor_reward", monkeypatch).main(["--steps", "2"])
    assert len(rewards) == 2 and all(0 < reward < 1 for reward in rewards)


def test_a_reward_is_the_share_of_tests_and_a_fault_of_ours_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("executor_reward", monkeypatch)
    tests = ["assert f() == 1", "assert f() > 0"]
    with Executor(workers=1, packages=()) as executor:
        reward = example.TestsPassed(executor)
        codes = ["    return 1\n", "    return 2\n", "    import os; os._exit(0)\n", "    return (\n"]
        assert reward(codes, [tests] * 4, ["def f():\n"] * 4, prompts=[""] * 4) == [1.0, 0.5, 0.0, 0.0]

    class Broken:
        def run(self, programs: list[object], ordered: bool) -> list[Verdict]:
            none = dict(passed=(), detail="", wall_s=0.0, cpu_s=0.0, peak_mib=0.0)
            return [Verdict(id="0", outcome=Outcome.SANDBOX_ERROR, **none)]  # type: ignore[arg-type]

    assert example.TestsPassed(Broken())(codes[:1], [tests], ["def f():\n"]) == [None]
