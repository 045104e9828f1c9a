"""runners/execute.py: a file of programs to a file of verdicts, and back to work after a kill."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import execute
from plum_core import settings
from plum_core.execution import SandboxUnavailable
from tests.conftest import ROOT

ADD = {"id": "0", "code": "def f(a, b): return a + b", "tests": ["assert f(1, 2) == 3"]}


def command(*words: object) -> list[str]:
    return [sys.executable, str(ROOT / "runners" / "execute.py"), *map(str, words)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command(*words), capture_output=True, text=True, env=env, timeout=100, check=False)


def main(*words: object) -> int:
    """The same within this process, where only messages and files matter."""
    return settings.main(execute.run, execute.ExecuteConfig, list(map(str, words)), errors=(SandboxUnavailable,))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_programs_to_verdicts(tmp_path: Path) -> None:
    rows = [ADD, {**ADD, "id": "1", "code": "def f(a, b): return a"}, {**ADD, "id": "2", "limits": {"cpu_s": 1}}]
    out = tmp_path / "verdicts.jsonl"
    result = run("--programs", write(tmp_path / "programs.jsonl", rows), "--out", out, "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "3 verdicts: 2 passed, 1 failed" in result.stdout
    verdicts = {row["id"]: row for row in read(out)}
    assert [verdicts[i]["outcome"] for i in "012"] == ["passed", "failed", "passed"]
    assert set(verdicts["1"]) == set(
        ["id", "outcome", "passed", "detail", "wall_s", "cpu_s", "peak_mib", "attested", "layers"]
    )
    assert set(verdicts["1"]["layers"]) >= {"no_new_privs", "seccomp", "rlimits", "landlock"}


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (None, [], "does not exist"),
        ('{"id": "0", "code": "x", "tests": []}\n{oops\n', [], "programs.jsonl:2: not JSON"),
        ('{"id": "0", "code": 3}\n', [], "programs.jsonl:1: "),
        ('{"id": "0", "code": "x", "limits": {"cpu": 1}}\n', [], "program '0': unknown limit 'cpu'"),
        ("", [], "holds no program"),
        ('{"id": "0", "code": "x"}\n', ["--limits.cpu_s", "-1"], "cpu_s must be a number"),
        ('{"id": "0", "code": "x"}\n', ["--worker", "1"], "did you mean --workers"),
        ('{"id": "0", "code": "x"}\n', ["--python", "/nothing"], "cannot run the interpreter"),
        ('{"id": "0", "code": "x"}\n', ["--format", "humaneval"], "programs.jsonl:1: wants a string under 'task_id'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, flags: list[str], message: str
) -> None:
    programs, out = tmp_path / "programs.jsonl", tmp_path / "out" / "verdicts.jsonl"
    if text is not None:
        programs.write_text(text, encoding="utf-8")
    assert main("--programs", programs, "--out", out, *flags) != 0
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_bad_lines_can_be_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    programs = tmp_path / "programs.jsonl"
    programs.write_text("{oops\n" + json.dumps(ADD) + "\n", encoding="utf-8")
    assert main("--programs", programs, "--out", tmp_path / "v.jsonl", "--skip_bad") == 0
    assert "1 bad lines were passed over" in capsys.readouterr().out
    assert len(read(tmp_path / "v.jsonl")) == 1


def test_the_same_command_resumes_after_a_kill(tmp_path: Path) -> None:
    code = "import time\ntime.sleep(0.05)\n" + ADD["code"]
    rows = [{**ADD, "id": str(i), "code": f"{code}# {i}"} for i in range(40)]  # equal ones would share one run
    programs, out = write(tmp_path / "programs.jsonl", rows), tmp_path / "verdicts.jsonl"
    words = ("--programs", programs, "--out", out, "--workers", 1)
    process = subprocess.Popen(command(*words), env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    while process.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = out.read_bytes()
    assert 5 <= before.count(b"\n") < 40
    out.write_bytes(before + b'{"id":"half')  # as if the kill had struck within a line
    assert run(*words).returncode == 0
    assert out.read_bytes().startswith(before)
    verdicts = read(out)
    assert sorted(int(row["id"]) for row in verdicts) == list(range(40))
    assert {row["outcome"] for row in verdicts} == {"passed"}
    assert "0 run" in run(*words).stdout
    assert read(out) == verdicts


def test_a_cache_order_and_what_was_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**ADD, "id": str(i), "code": f"{ADD['code']}  # {i % 4}"} for i in range(12)]
    words = ("--programs", write(tmp_path / "p.jsonl", rows), "--cache", tmp_path / "cache.jsonl", "--ordered")
    assert main(*words, "--out", tmp_path / "a.jsonl") == 0
    assert "8 shared the run of an equal program, 0 were in the cache\n4 run in" in capsys.readouterr().out
    assert main(*words, "--out", tmp_path / "b.jsonl") == 0
    said = capsys.readouterr().out
    assert "0 run in" in said
    assert [row["id"] for row in read(tmp_path / "a.jsonl")] == [str(i) for i in range(12)]
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "b.jsonl")
    assert main(*words, "--out", tmp_path / "cache.jsonl") != 0
    assert "--cache" in capsys.readouterr().err
    assert main("--programs", tmp_path / "p.jsonl", "--out", tmp_path / "c", "--cache", tmp_path / "p.jsonl") != 0
    assert "p.jsonl is no cache of verdicts" in capsys.readouterr().err


PROBLEM = {
    "task_id": "T/0",
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}


def test_samples_of_humaneval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = tmp_path / "problems.jsonl.gz"
    problems.write_bytes(gzip.compress(json.dumps(PROBLEM).encode()))
    completions = ["    return a + b\n", "    return a - b\n", "    return 3\n"]
    samples = write(tmp_path / "samples.jsonl", [{"task_id": "T/0", "completion": c} for c in completions])
    out = tmp_path / "v.jsonl"
    flags = ("--format", "humaneval", "--programs", problems, "--samples", samples)
    assert main(*flags, "--out", out) == 0
    assert {row["id"]: row["outcome"] for row in read(out)} == {
        "T/0/0": "passed",
        "T/0/1": "failed",
        "T/0/2": "passed",
    }
    write(samples, [{"task_id": "T/9", "completion": ""}])
    assert main(*flags, "--out", tmp_path / "w.jsonl") != 0
    assert "samples.jsonl:1: task_id 'T/9' is not in the problems file" in capsys.readouterr().err


def test_canonical_solutions_of_humaneval_pass(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    problems = shared_data("humaneval/HumanEval.jsonl.gz")
    out = tmp_path / "v.jsonl"
    result = run("--format", "humaneval", "--programs", problems, "--samples", "canonical", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "164 verdicts: 164 passed" in result.stdout
    verdicts = read(out)
    assert len({row["id"] for row in verdicts}) == 164
    assert all(row["attested"] for row in verdicts)


def test_canonical_solutions_of_mbpp_pass(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    rows = json.loads(shared_data("mbpp/sanitized-mbpp.json").read_text(encoding="utf-8"))
    programs = [
        {
            "id": str(row["task_id"]),
            "code": row["code"],
            "setup": "\n".join(row["test_imports"]),
            "tests": row["test_list"],
        }
        for row in rows
    ]
    out = tmp_path / "v.jsonl"
    assert main("--programs", write(tmp_path / "p.jsonl", programs), "--out", out) == 0
    verdicts = read(out)
    assert len(verdicts) == len(rows)
    # the reference solution of task 123 needs about 4 CPU seconds
    assert {row["id"] for row in verdicts if row["outcome"] != "passed"} <= {"123"}
