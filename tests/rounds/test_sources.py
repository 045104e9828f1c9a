"""Tasks from files, prompts from tasks, and flags that torchrun does not swallow."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from plum_core import settings
from plum_core.prompts import program_code, render_prompt
from plum_core.records import Instruction, TestSuite, write_jsonl
from plum_core.rounds.config import EvaluationConfig, RunConfig
from plum_core.rounds.sources import JsonlSource, TasksConfig


def files(folder: Path, **changes: object) -> TasksConfig:
    learned = [Instruction(id=f"i{k}", prompt=f"learn {k}") for k in range(5)]
    held = [Instruction(id=f"h{k}", prompt=f"hold {k}") for k in range(3)]
    write_jsonl(folder / "i.jsonl", learned)
    write_jsonl(folder / "t.jsonl", [TestSuite(instruction_id=i.id, tests=("assert x",)) for i in learned[:4]])
    write_jsonl(folder / "h.jsonl", held)
    write_jsonl(folder / "ht.jsonl", [TestSuite(instruction_id=i.id, tests=("assert y",)) for i in reversed(held)])
    names = {"instructions": "i", "tests": "t", "heldout_instructions": "h", "heldout_tests": "ht"}
    known: dict[str, object] = {name: folder / f"{file}.jsonl" for name, file in names.items()}
    return TasksConfig(**(known | changes))  # type: ignore[arg-type]


def test_files_are_a_source(tmp_path: Path) -> None:
    source = JsonlSource(files(tmp_path, per_round=3))
    assert [i.id for i in source.plum_instructions(1)] == ["i0", "i1", "i2"]
    assert [i.id for i in source.plum_instructions(2)] == ["i3", "i4", "i0"]
    suites = list(source.make_tests(source.plum_instructions(2)))
    assert [(s.instruction_id, s.kept, s.why) for s in suites] == [
        ("i3", True, ""), ("i4", False, "no tests in the file"), ("i0", True, ""),
    ]  # fmt: skip
    assert [(i.id, s.instruction_id) for i, s in source.heldout()] == [(f"h{k}", f"h{k}") for k in range(3)]
    assert source.sft_examples() == [] and source.note == ""
    assert len(JsonlSource(files(tmp_path)).plum_instructions(7)) == 5


def test_identity_follows_the_bytes(tmp_path: Path) -> None:
    before = JsonlSource(files(tmp_path)).identity()
    assert set(before) == {"instructions", "tests", "heldout_instructions", "heldout_tests"}
    config = files(tmp_path)
    with (tmp_path / "t.jsonl").open("a") as file:
        file.write("\n")
    after = JsonlSource(config).identity()
    assert [name for name in before if before[name] != after[name]] == ["tests"]


def test_replay_comes_from_a_file_too(tmp_path: Path) -> None:
    sft = tmp_path / "sft.jsonl"
    sft.write_text('{"prompt": "# a\\n", "completion": "b", "more": 1}\n\n{"prompt": "", "completion": "d"}\n')
    source = JsonlSource(files(tmp_path, sft=sft))
    assert source.sft_examples() == [("# a\n", "b"), ("", "d")] and "sft" in source.identity()
    sft.write_text('{"prompt": "a"}\n')
    with pytest.raises(ValueError, match=r"sft.jsonl:1: wants \{prompt: string"):
        source.sft_examples()


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("i", '{"id":"h0","prompt":"hold 0"}\n', r"held-out instruction 'h0' is also learned from"),
        ("i", '{"id":"a","prompt":"p"}\n' * 2, r"i.jsonl: id 'a' comes twice"),
        ("ht", '{"instruction_id":"h0"}\n', r"no tests for held-out instruction 'h1'"),
        ("t", "", r"t.jsonl holds no record"),
        ("h", '{"id":1}\n', r"h.jsonl:1: key 'id' wants a string"),
    ],
)
def test_files_that_disagree_are_refused(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    config = files(tmp_path)
    (tmp_path / f"{name}.jsonl").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        JsonlSource(config)


def test_a_missing_file_or_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tasks.tests is not set"):
        JsonlSource(files(tmp_path, tests=None))
    with pytest.raises(FileNotFoundError, match=r"nowhere.jsonl does not exist"):
        JsonlSource(files(tmp_path, tests=tmp_path / "nowhere.jsonl"))


def test_prompts_and_programs() -> None:
    task = Instruction(id="a", prompt="Add.\n\nThen stop.", starter="def f():\n")
    assert render_prompt(task) == "# Add.\n#\n# Then stop.\ndef f():\n"
    assert program_code(task, "    pass\n") == "def f():\n    pass\n"
    assert render_prompt(Instruction(id="a", prompt="")) == "#\n"
    assert program_code(Instruction(id="a", prompt=""), "x = 1") == "x = 1"


def test_torchrun_takes_none_of_our_flags_for_its_own() -> None:
    """argparse lets a user shorten torchrun's options, and looks for them behind the script's name too."""
    theirs = [o for action in get_args_parser()._actions for o in action.option_strings]
    ours = [f"--{name}" for name in settings.flag_names(RunConfig)] + ["--config", "--dry-run", "--debug", "--smoke"]
    assert [o for o in ours if any(t.startswith(o) for t in theirs)] == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"samples": 2, "ks": (3,)}, "ks must lie between 1 and samples=2"),
        ({"temperature": 0.0}, "temperature must be > 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        EvaluationConfig(**changes)  # type: ignore[arg-type]
