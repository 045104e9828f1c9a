"""The embedded policy's world: solutions agree, splits share nothing, streams repeat."""

from __future__ import annotations

import ast
import tomllib
from itertools import combinations, islice
from pathlib import Path

import pytest

from plum_core.grammar import problems, split_of
from plum_core.grammar.tasks import SPLITS, compile_solution
from plum_core.prompts import render_prompt
from plum_core.rounds import grammar_source
from plum_core.rounds.grammar_source import GrammarConfig, GrammarSource

CONFIGS = Path(__file__).parents[2] / "runners" / "configs"


@pytest.fixture(scope="module")
def drawn():
    return {split: list(islice(problems(split, 3), 250)) for split in SPLITS}


def test_every_style_of_solution_gives_the_same_outputs(drawn):
    for split in drawn.values():
        for problem in split:
            for body in problem.solutions:
                solve = compile_solution(problem.starter, body)
                assert [solve(*args) for args in problem.arguments] == list(problem.outputs), problem.starter + body


def test_tasks_are_not_trivial(drawn):
    for problem in drawn["heldout"]:
        least = 2 if "-> bool" in problem.starter else 3
        assert len({repr(out) for out in problem.outputs}) >= least
        assert len(problem.tests()) == 8


def test_tests_are_asserts_that_the_solution_passes(drawn):
    for problem in drawn["plum"][:50]:
        namespace = {"solve": compile_solution(problem.starter, problem.solutions[0])}
        for test in problem.tests():
            assert isinstance(ast.parse(test).body[0], ast.Assert)
            exec(test, namespace)


def test_splits_are_disjoint_by_composition(drawn):
    skeletons = {split: {p.skeleton for p in found} for split, found in drawn.items()}
    for split, found in skeletons.items():
        assert {split_of(s) for s in found} == {split}
    assert not skeletons["sft"] & skeletons["plum"]
    assert not skeletons["sft"] & skeletons["heldout"]
    assert not skeletons["plum"] & skeletons["heldout"]


def test_what_the_main_job_uses_is_disjoint(tmp_path):
    """SFT replay, three rounds of training and evaluation as the default config draws them."""
    config = GrammarConfig(per_round=300, heldout=300, sft_problems=600)
    source = GrammarSource(config, tmp_path, seed=0, executor=None)
    taught = {prompt for prompt, _ in source.sft_examples()}
    rounds = [{render_prompt(i) for i in source.plum_instructions(r)} for r in (1, 2, 3)]
    heldout = {render_prompt(i) for i, _ in source.heldout()}
    sets = [taught, *rounds, heldout]
    for i, one in enumerate(sets):
        for other in sets[i + 1 :]:
            assert not one & other
    assert [len(r) for r in rounds] == [300] * 3


def test_no_composition_is_in_two_stages_of_the_main_job(tmp_path, monkeypatch):
    """All that tiny.toml's three rounds and its evaluation draw, and the first 3,000 of what taught each checkpoint."""
    seen: dict[str, set[str]] = {}

    def recorded(stage, *args, **options):
        for problem in problems(*args, **options):
            seen.setdefault(stage, set()).add(problem.skeleton)
            yield problem

    main = tomllib.loads((CONFIGS / "tiny.toml").read_text())
    given = {name: main["grammar"][name] for name in ("per_round", "heldout")}
    source = GrammarSource(GrammarConfig(**given), tmp_path, seed=main["seed"], executor=None)
    for stage, draw in {
        "replay": source.sft_examples,
        "rounds": lambda: [source.plum_instructions(r + 1) for r in range(main["rounds"])],
        "evaluation": source.heldout,
    }.items():
        monkeypatch.setattr(grammar_source, "problems", lambda *a, stage=stage, **o: recorded(stage, *a, **o))
        assert draw()
    for recipe in ("sft-policy", "sft-author"):
        data = tomllib.loads((CONFIGS / f"{recipe}.toml").read_text())["data"]
        list(islice(recorded(recipe, "sft", data["seed"], mix=data["mix"], tests=4), 3000))
    assert all(len(skeletons) > 400 for skeletons in seen.values()) and len(seen) == 5
    taught = seen["replay"] | seen["sft-policy"] | seen["sft-author"]
    for one, other in combinations((taught, seen["rounds"], seen["evaluation"]), 2):
        assert not one & other


def test_a_stream_repeats_itself_and_seeds_differ():
    first = [(p.id, p.prompt, p.solutions, p.arguments) for p in islice(problems("plum", 9), 20)]
    again = [(p.id, p.prompt, p.solutions, p.arguments) for p in islice(problems("plum", 9), 20)]
    other = [(p.id, p.prompt, p.solutions, p.arguments) for p in islice(problems("plum", 10), 20)]
    assert first == again
    assert first != other


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="sft, plum, heldout"):
        next(problems("test", 1))
