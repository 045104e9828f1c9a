"""Benchmarks from their own files: reference solutions are right, wrong ones are not, other tools' samples are read."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.evalplus import load as load_plus
from plum_core.evaluation.figures import figures
from plum_core.evaluation.grade import grade, results_at
from plum_core.evaluation.livecodebench import load as load_lcb
from plum_core.evaluation.livecodebench import unpacked
from plum_core.evaluation.plus_rules import all_right
from plum_core.evaluation.prompts import from_answer, from_completion
from plum_core.evaluation.registry import FILES, load_tasks
from plum_core.evaluation.samples import Solution, read_solutions, write_solutions
from plum_core.execution import Executor, Limits


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=2, limits=Limits(cpu_s=20.0)) as made:
        yield made


def judged(tasks: list[Task], codes: dict[str, str], executor: Executor) -> dict[str, dict[str, Any]]:
    solutions = [Solution(task=task, index="0", code=code) for task, code in codes.items()]
    return {row.task: row.right for row in grade(tasks, solutions, executor)}


@pytest.mark.parametrize(
    ("name", "count"), [("humaneval", 164), ("mbpp-sanitized", 427), ("cruxeval-input", 800), ("cruxeval-output", 800)]
)
def test_reference_solutions_are_right(
    name: str, count: int, executor: Executor, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    tasks = load_tasks(name, shared_data(FILES[name]), executor, tmp_path)
    found = judged(tasks, {task.id: task.canonical or "" for task in tasks}, executor)
    assert len(found) == count
    assert [task for task, right in found.items() if right != {"base": True}] == []


def plus_row(number: int, entry: str, code: str, base: list[Any], plus: list[Any], atol: float = 0) -> dict[str, Any]:
    return {
        "task_id": f"Mbpp/{number}",
        "prompt": '"""words"""\n',
        "entry_point": entry,
        "canonical_solution": code,
        "base_input": base,
        "plus_input": plus,
        "atol": atol,
    }


HALF = "def half(x):\n    return x / {}\n"
PLUS = [
    plus_row(9001, "half", HALF.format(2), [[1.0], [3.0]], [[1e9], [0.1]]),
    plus_row(9002, "twice", "def twice(x):\n    return x * 2\n", [[1], [[2]]], [["a" * 900], [{"k": 1}.get("no", 3)]]),
    plus_row(9003, "Diff", "def Diff(a, b):\n    return sorted(set(a) ^ set(b))\n", [[[1, 2], [2, 3]]], [[[1], []]]),
    plus_row(
        9004, "check_str", "import re\ndef check_str(s):\n    return re.match('a', s)\n", [["ab"], ["b"]], [["a"]]
    ),
]


@pytest.mark.parametrize(
    ("task", "code", "right"),
    [
        (9001, HALF.format("2.000001"), (True, False)),  # off by 5e-7 of itself: within 1e-6 at 1, past 1e-7 of 1e9
        (9001, HALF.format("2.1"), (False, False)),
        (9001, "def half(x):\n    return x * 0.5 + 1e-9\n", (True, True)),
        (9001, "def half(x):\n    return str(x / 2)\n", (False, False)),
        (9002, "def twice(x):\n    return x + x if x != 3 else 7\n", (True, False)),
        (9002, "def twice(x):\n    return [2, 2] if x == [2] else 2.0 if x == 1 else x * 2\n", (True, True)),
        (9002, "def twice(x):\n    return (2, 2) if x == [2] else x * 2\n", (False, False)),
        (9002, "def twice(x):\n    raise SystemExit(0)\n", (False, False)),
        (9002, "def twice(x):\n    while True: pass\n", (False, False)),
        (9002, "class A(list):\n    __eq__ = lambda a, b: True\ndef twice(x):\n    return A()\n", (False, False)),
        (9002, "import hashlib\nhashlib.sha256 = None\ndef twice(x):\n    return x * 2\n", (False, False)),
        (9003, "def Diff(a, b):\n    return tuple(set(b) ^ set(a)) * 2\n", (True, True)),
        (9003, "def Diff(a, b):\n    return [x for x in a if x not in b]\n", (False, False)),
        (9004, "def check_str(s):\n    return s[0] == 'a'\n", (True, True)),
        (9004, "def check_str(s):\n    return 'yes'\n", (False, False)),
    ],
)
def test_evalplus_rules(task: int, code: str, right: tuple[bool, bool], executor: Executor, tmp_path: Path) -> None:
    """Each verdict is what EvalPlus's rules say of the task's four kinds: floats, equality, sets, existence."""
    path = tmp_path / "plus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PLUS if row["task_id"] == f"Mbpp/{task}"))
    tasks = load_plus(path, executor, tmp_path / "cache")
    again = load_plus(path, executor, tmp_path / "cache")  # from the cache
    for read in (tasks, again):
        assert judged(read, {f"Mbpp/{task}": read[0].canonical or ""}, executor)[f"Mbpp/{task}"]["plus"]
        base, plus = right
        assert judged(read, {f"Mbpp/{task}": code}, executor) == {f"Mbpp/{task}": {"base": base, "plus": plus}}


def test_tolerance_stays_once_it_is_set() -> None:
    """As in EvalPlus's loop, where the variable is not reset: an exact task turns tolerant after a float."""
    assert all_right("f", 0.0, [[1], [2]], ["0.5", "[1, 2.0]"], ["0.5", "[1, 2.0000001]"])
    assert not all_right("f", 0.0, [[2]], ["[1, 2.0]"], ["[1, 2.0000001]"])
    assert all_right("f", 0.0, [[1]], ["[inf, 1.0]"], ["[inf, 1.0000001]"])
    assert not all_right("f", 1e-4, [[1]], ["0.3"], ["0.30000000000000004"], exact_floats=True)
    assert all_right("find_zero", 1e-4, [[[-6, 2]]], ["3.0"], ["3.0000001"], exact_floats=True)  # its own rule stays


def lcb_file(path: Path) -> Path:
    def row(name: str, day: str, public: Any, hidden: str, starter: str, meta: Any) -> dict[str, Any]:
        return {
            "question_id": name,
            "question_content": "words",
            "contest_date": f"{day}T00:00:00",
            "starter_code": starter,
            "public_test_cases": json.dumps(public),
            "private_test_cases": hidden,
            "metadata": json.dumps(meta),
        }

    def pack(cases: Any) -> str:
        return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()

    echo = [{"input": "3\n", "output": "6\n", "testtype": "stdin"}]
    calls = [{"input": '[1, 2]\n"x"', "output": "[2, 1]", "testtype": "functional"}]
    starter = "class Solution:\n    def turn(self, a, b):\n"
    rows = [
        row("a", "2024-01-05", echo, pack([{**echo[0], "input": "4", "output": "8"}]), "", {}),
        row("b", "2024-06-05", calls, pack(calls), starter, {"func_name": "turn"}),
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_livecodebench_has_both_forms_and_dates(executor: Executor, tmp_path: Path) -> None:
    path = lcb_file(tmp_path / "lcb.jsonl")
    tasks = load_lcb(path)
    turn = "class Solution:\n    def turn(self, a: List[int], b):\n        return {}\n"
    assert judged(tasks, {"a": "print(2 * int(input()))", "b": turn.format("a[::-1]")}, executor) == {
        "a": {"base": True},
        "b": {"base": True},
    }
    assert judged(tasks, {"a": "print(6)", "b": turn.format("a")}, executor) == {
        "a": {"base": False},
        "b": {"base": False},
    }
    assert [task.id for task in load_lcb(path, since=date(2024, 2, 1))] == ["b"]
    assert [task.id for task in load_lcb(path, until=date(2024, 1, 5))] == ["a"]


def test_hidden_tests_are_not_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    with pytest.raises(ValueError, match="only text is read"):
        unpacked(base64.b64encode(zlib.compress(pickle.dumps(Trap()))).decode())
    assert not (tmp_path / "sprung").exists()


def test_samples_go_there_and_back(tmp_path: Path, executor: Executor) -> None:
    tasks = load_lcb(lcb_file(tmp_path / "lcb.jsonl"))
    given = [Solution(task="a", index="0", code="x = 1"), Solution(task="a", index="1", code="y = 2")]
    for layout in ("evalplus", "human-eval", "livecodebench"):
        path = tmp_path / layout
        write_solutions(path, given, tasks, layout)  # type: ignore[arg-type]
        assert read_solutions(path, tasks) == (given, [])
    (tmp_path / "odd").write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match="wants task_id"):
        read_solutions(tmp_path / "odd", tasks)


def test_answers_become_programs() -> None:
    task = Task(
        id="t",
        prefix="import math\n\ndef f(x):\n    'doc'\n",
        request="",
        program=lambda n, c: None,
        entry_point="f",  # type: ignore[arg-type, return-value]
    )
    body = "def f(x):\n    return math.pi\n"
    assert from_answer(task, f"Sure:\n```python\nprint(1)\n```\nor\n```python\n{body}```\nDone.").endswith(body)
    assert from_answer(task, f"```python\n{body}```").startswith("import math")
    assert from_answer(task, "```python\n    return 1\n```") == task.prefix + "    return 1\n"
    assert from_completion(task, "    return 1\nprint(f(2))") == task.prefix + "    return 1"


def test_runs_are_compared_task_by_task(executor: Executor, tmp_path: Path) -> None:
    tasks = load_lcb(lcb_file(tmp_path / "lcb.jsonl"))
    turn = "class Solution:\n    def turn(self, a, b):\n        return {}\n"

    def run(a: str, b: str) -> Any:
        return list(
            grade(tasks, [Solution(task="a", index="0", code=a), Solution(task="b", index="0", code=b)], executor)
        )

    before, after = run("print(2 * int(input()))", turn.format("a")), run("print(6)", turn.format("a[::-1]"))
    old, new = results_at(before, "base"), results_at(after, "base")
    assert figures(new, (), old)[-2:] == ["better: 1 tasks (b)", "worse: 1 tasks (a)"]
    assert [(r.id, r.passed, r.n) for r in new] == [("a", 0, 1), ("b", 1, 1)]
