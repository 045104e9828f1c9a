"""Answers of every style become a reference and tests that stand alone; what is read is never run by the parser."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.testing.answers import ParsedAnswer, read_answer
from plum_core.testing.answers.parse import WHYS
from tests.testing.answer_cases import CASES, Case


def passes(code: str, test: str) -> bool:
    """Our own snippets, so they may run here."""
    place: dict[str, object] = {"__name__": "program"}
    exec(compile(code, "program", "exec"), place)
    try:
        exec(compile(test, "test", "exec"), place)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_each_style(case: Case):
    found = read_answer(textwrap.dedent(case.answer))
    assert (found.why, found.entry_point, len(found.tests)) == ("", case.entry, case.tests), found.tests
    assert found.signature == textwrap.dedent(case.signature).strip()
    assert found.reference is not None
    verdicts = [passes(found.reference, test) for test in found.tests]
    assert all(verdicts), [t for t, v in zip(found.tests, verdicts, strict=True) if not v]
    wrong = [passes(textwrap.dedent(case.wrong), test) for test in found.tests]
    assert wrong.count(False) == case.caught, [t for t, v in zip(found.tests, wrong, strict=True) if v]
    assert all("pytest" not in test for test in found.tests)
    for name in case.left_out:
        assert name not in found.reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no-code"),
        ("I am sorry, I cannot help with that.\n\n- First: think.\n- Note: nothing", "no-code"),
        ("Done\nSure\nNote: x", "no-code"),
        ("```javascript\nfunction f(x) { return x }\n```", "language"),
        ("~~~ c++\nint main() {}\n~~~", "language"),
        ("```python\nfunction f(x) { return x }\n```", "syntax"),
        ("```\n#include <iostream>\nint main() { return 0; }\n```", "syntax"),
        ("```python\nprint('hello')\n```", "no-code"),
        ("```python\ndef f(x):\n    return x\n```", "no-tests"),
        ("```python\ndef f(x):\n    return x\nassert True\nassert 1 == 1\n```", "no-tests"),  # nothing of f
        ("```python\ndef f(x):\n    return x\nassert g(1) == 1\n```", "no-tests"),  # nowhere defined
        ("```python\nassert f(1) == 1\n```", "no-reference"),
        ("```python\ndef f(x): ...\nassert f(1) == 1\n```", "no-reference"),  # a signature is no program
        ("x" * 400_001, "too-long"),
        ("```python\nx = " + "(" * 5000 + "\n```", "syntax"),
        ("```python\ndef f(x):\n    return x\nassert f(" + "-" * 20_000 + "1) == 1\n```", "no-tests"),
        ("```python\ndef f(x):\n    return x\nassert f(" + "1+" * 20_000 + "1) == 1\n```", "no-tests"),
    ],
)  # fmt: skip
def test_what_is_missing_has_a_name(text, why):
    assert read_answer(text).why == why


def test_tests_without_a_reference_are_kept():
    found = read_answer("assert add(1, 2) == 3\nassert add(0, 0) == 0")
    assert (found.why, found.entry_point, len(found.tests), found.reference) == ("no-reference", "add", 2, None)


def test_a_fixed_entry_point_decides():
    text = "def f(x):\n    return g(x)\ndef g(x):\n    return x\nassert g(1) == 1\nassert g(2) == 2\nassert f(1) == 1\n"
    free, fixed = read_answer(text), read_answer(text, entry_point="f")
    assert (free.entry_point, len(free.tests)) == ("g", 3)
    assert free.signature == "def f(x):\ndef g(x):"  # whatever the tests call must be asked for
    assert (fixed.entry_point, fixed.tests, fixed.dropped) == ("f", ("assert f(1) == 1",), 2)
    assert fixed.signature == "def f(x):"


def test_the_instruction_breaks_a_tie():
    text = "def enc(x):\n    return x + 1\ndef dec(x):\n    return x - 1\nassert dec(enc(3)) == 3\n"
    assert read_answer(text, prompt="Write enc.").entry_point == "enc"
    assert read_answer(text, prompt="Write dec.").entry_point == "dec"


def test_a_cut_answer_keeps_what_was_whole():
    text = "```python\ndef f(x):\n    return [\n        x,\n    ]\n\nassert f(1) == [1]\nassert f(2) == [2]\nassert f("
    found = read_answer(text)
    assert (found.why, found.tests) == ("", ("assert f(1) == [1]", "assert f(2) == [2]"))


def test_nothing_is_run(tmp_path):
    trace = tmp_path / "ran"
    text = f"open({str(trace)!r}, 'w')\ndef f(x=open({str(trace)!r}, 'w')):\n    return 1\nassert f() == 1\n"
    assert read_answer(f"```python\n{text}```").why == ""
    assert not trace.exists()


LOOPS = "".join("    " * n + f"for x{n} in {list(range(60))}:\n" for n in range(6)) + "    " * 6 + "assert f(x0) == 1\n"
HUGE = {
    "a signature without end": "```python\n" + "def f(\n" * 20_000,
    "loops in loops": f"def f(x):\n    return 1\n{LOOPS}",
    "steps that build up": "def f(x):\n    return x\nxs = []\n" + "xs.append(1)\nassert f(xs) == xs\n" * 150,
    "fences": "```\n" * 60_000,
    "tests": "def f(x):\n    return x\n" + "".join(f"assert f({n}) == {n}\n" for n in range(900)),
}


@pytest.mark.timeout(20)  # seconds: without their caps the first two run for minutes
@pytest.mark.parametrize("name", HUGE)
def test_a_huge_answer_costs_little(name):
    found = read_answer(HUGE[name])
    well_formed(found)
    assert len(found.tests) <= 256 and all(test.count("\n") <= 100 for test in found.tests)


def well_formed(found: ParsedAnswer) -> None:
    assert found.why in WHYS
    for code in (*found.tests, found.reference or ""):
        compile(code, "x", "exec", dont_inherit=True)
    if found.why == "":
        assert found.tests and found.reference and found.entry_point
    assert len(set(found.tests)) == len(found.tests)


LINES = st.sampled_from(
    [line for case in CASES for line in textwrap.dedent(case.answer).splitlines()]
    + ["```", "~~~", "```python", "    ", "\x00", "'''", '"""', ">>> f(", "...", "\\", "if __name__ == '__main__':"]
    + ["return", "yield", "await x", "global f", "del f", "nonlocal x", "assert (y := f(1))", "f'{f(1)!r:>{2}}'"]
)


@settings(max_examples=250, deadline=None)
@given(st.lists(LINES, max_size=40).map("\n".join) | st.text(max_size=300))
def test_any_text_is_read(text):
    well_formed(read_answer(text))
    well_formed(read_answer(text, entry_point="f", prompt="p"))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CASES), st.data())
def test_a_cut_or_broken_answer_is_read(case, data):
    text = textwrap.dedent(case.answer)
    at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 20))
    well_formed(read_answer(text[:at]))
    well_formed(read_answer(text[:at] + data.draw(st.text(max_size=3)) + text[at + length :]))


def test_a_test_carries_no_definition_of_what_it_tests():
    for case in CASES:
        found = read_answer(textwrap.dedent(case.answer))
        for test in found.tests:
            defined = [n.name for n in ast.walk(ast.parse(test)) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            assert found.entry_point not in defined
