"""A mistake in what a user hands over costs one clear sentence: non-zero exit, a remedy, nothing half-written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plum_models import Decoder, DecoderConfig, Tokenizer, save
from tests.conftest import ROOT

GOOD = json.dumps({"id": "a", "code": "x = 1", "tests": ["assert x == 1"]})
# What a run folder holds before the policy is asked for anything: each written whole.
WHOLE_AT_ONCE = {"run/.lock", "run/run.json", "run/heldout/instructions.jsonl", "run/heldout/tests.jsonl"}
WITHOUT_SECCOMP = (sys.executable, str(ROOT / "tests" / "house" / "without_seccomp.py"))


def refusal(folder: Path, runner: str, *words: object, under: tuple[str, ...] = ()) -> str:
    """The one sentence with which a runner refuses. It must fail, say nothing else, and leave the folder as it was."""
    before = snapshot(folder)
    command = [*under, sys.executable, str(ROOT / "runners" / runner), *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode != 0, done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    after = snapshot(folder)
    begun = {name for name in set(after) - set(before) if name in WHOLE_AT_ONCE and json.loads(after[name])}
    assert {name: after[name] for name in set(after) - begun} == before
    return lines[0]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    path = tmp_path / "programs.jsonl"
    path.write_text(GOOD + "\n")
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.train(["return the sum of nums\n"] * 4, 270)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    decoder = Decoder(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(std=0.02)
    save(decoder, tokenizer, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def truncate(checkpoint: Path, keep: float) -> Path:
    (weights,) = checkpoint.glob("*.safetensors")
    data = weights.read_bytes()
    weights.write_bytes(data[: int(len(data) * keep)])
    return weights


def test_a_good_file_is_taken(programs: Path, tmp_path: Path) -> None:
    """The refusals below mean something only if the same command works on good input."""
    out = tmp_path / "verdicts.jsonl"
    command = [sys.executable, str(ROOT / "runners" / "execute.py"), "--programs", str(programs), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    assert json.loads(out.read_text())["outcome"] == "passed"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    said = refusal(tmp_path, "execute.py", "--programs", "nowhere.jsonl", "--out", "verdicts.jsonl")
    assert "nowhere.jsonl" in said
    assert "does not exist" in said


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"id": "b", "code": ', "JSON"),
        ('["b"]', "object"),
        ('{"id": "b", "tests": []}', "code"),
        ('{"id": 7, "code": "x = 1"}', "id"),
    ],
)
def test_a_bad_line_is_named(programs: Path, line: str, what: str) -> None:
    programs.write_text(f"{GOOD}\n{line}\n")
    said = refusal(programs.parent, "execute.py", "--programs", programs, "--out", "verdicts.jsonl")
    assert "programs.jsonl:2:" in said
    assert what in said


def test_an_unknown_key_gets_the_nearest_name(programs: Path) -> None:
    config = programs.parent / "mine.toml"
    config.write_text("[limits]\ncpu_seconds = 3\n")
    words = ("--programs", programs, "--out", "verdicts.jsonl")
    assert "cpu_s" in refusal(programs.parent, "execute.py", "--config", config, *words)
    assert "limits.cpu_s" in refusal(programs.parent, "execute.py", *words, "--limits.cpus", 3)


def test_a_value_out_of_range_is_told_the_range(programs: Path) -> None:
    said = refusal(programs.parent, "execute.py", "--programs", programs, "--out", "v.jsonl", "--limits.cpu_s", 0)
    assert re.search(r"limits\.cpu_s.* 0\.01 to 3600", said)


def test_a_kernel_without_seccomp_is_refused(programs: Path) -> None:
    """A real refusal of the kernel's: the runner starts under a filter that plays one without seccomp."""
    words = ("--programs", programs, "--out", "verdicts.jsonl")
    said = refusal(programs.parent, "execute.py", *words, under=WITHOUT_SECCOMP)
    assert "seccomp" in said
    assert "CONFIG_SECCOMP_FILTER" in said  # the remedy


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.9])  # nothing, within the header, within the tensors
def test_a_truncated_checkpoint_is_refused(checkpoint: Path, keep: float) -> None:
    weights = truncate(checkpoint, keep)
    (checkpoint.parent / "examples.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    words = ("--init", checkpoint, "--data.file", "examples.jsonl", "--out", "out")
    said = refusal(checkpoint.parent, "sft.py", *words)
    assert weights.name in said
    assert "again" in said  # the remedy: copy it again


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    said = refusal(tmp_path, "sft.py", "--init", "empty", "--data.file", "examples.jsonl", "--out", "out")
    assert "empty/config.json" in said


@pytest.fixture
def rounds(checkpoint: Path) -> tuple[str, ...]:
    """The words of a small run of everything: a policy that knows nothing, one task to learn, one held out."""
    folder = checkpoint.parent
    for name, k in (("train", 2), ("held", 3)):
        instruction = {"id": name, "prompt": f"Add {k} to a.", "entry_point": "f", "starter": "def f(a):\n"}
        suite = {"instruction_id": name, "tests": [f"assert f({a}) == {a + k}" for a in (1, 2, 5)]}
        (folder / f"{name}.jsonl").write_text(json.dumps(instruction) + "\n")
        (folder / f"{name}-tests.jsonl").write_text(json.dumps(suite) + "\n")
    flags = {
        "policy": checkpoint,
        "out": "run",
        "rounds": 1,
        "source": "files",
        "tasks.instructions": "train.jsonl",
        "tasks.tests": "train-tests.jsonl",
        "tasks.heldout_instructions": "held.jsonl",
        "tasks.heldout_tests": "held-tests.jsonl",
        "sampling.n": 2,
        "sampling.max_new_tokens": 4,
        "execution.workers": 1,
    }
    return tuple(str(word) for name, value in flags.items() for word in (f"--{name}", value))


def test_the_rounds_take_good_input(rounds: tuple[str, ...], tmp_path: Path) -> None:
    """Evaluation alone, for a policy of noise passes nothing and leaves nothing to learn from."""
    command = [sys.executable, str(ROOT / "runners" / "plum.py"), *rounds, "--rounds", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_rounds_without_a_single_preference_say_so(rounds: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "runners" / "plum.py"), *rounds]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode != 0
    assert re.search(r"error: round 1: .*no preference.*raise sampling\.n", done.stderr)


def test_the_rounds_refuse_a_truncated_policy(rounds: tuple[str, ...], checkpoint: Path) -> None:
    weights = truncate(checkpoint, 0.9)
    assert weights.name in refusal(checkpoint.parent, "plum.py", *rounds)


def test_the_rounds_refuse_an_unknown_key(rounds: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[sampling]\ntemprature = 1.0\n")
    said = refusal(tmp_path, "plum.py", "--config", "mine.toml", *rounds)
    assert "mine.toml" in said
    assert "did you mean sampling.temperature" in said


@pytest.mark.parametrize(("line", "where"), [('{"id": ', "held.jsonl:2:"), ('{"prompt": "x"}', "held.jsonl:2:")])
def test_the_rounds_refuse_a_bad_line(rounds: tuple[str, ...], tmp_path: Path, line: str, where: str) -> None:
    with (tmp_path / "held.jsonl").open("a") as file:
        file.write(line + "\n")
    assert where in refusal(tmp_path, "plum.py", *rounds)


def test_the_rounds_refuse_a_missing_file(rounds: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "train-tests.jsonl").unlink()
    assert "train-tests.jsonl" in refusal(tmp_path, "plum.py", *rounds)


def test_the_rounds_refuse_a_kernel_without_seccomp(rounds: tuple[str, ...], tmp_path: Path) -> None:
    said = refusal(tmp_path, "plum.py", *rounds, under=WITHOUT_SECCOMP)
    assert "seccomp" in said
    assert "CONFIG_SECCOMP_FILTER" in said
