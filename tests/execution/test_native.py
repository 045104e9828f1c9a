"""The C of inside/ beside its reference: equal verdicts, attacks on both, and no silence where it is missing."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.execution import Executor, Limits, compiled, workers
from plum_core.execution.inside import native
from plum_core.records.types import Outcome, Program, Verdict
from tests.execution.attacks import ATTACKS, Attack

LIMITS = Limits(cpu_s=1.0, wall_s=1.0, memory_mib=512)


@pytest.fixture(scope="module")
def in_python() -> Iterator[Executor]:
    """An executor as it is where there is no compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "compiled_core", lambda: None)
        made = Executor(workers=2, limits=LIMITS)
    with made:
        yield made


@pytest.fixture(scope="module")
def in_c() -> Iterator[Executor]:
    assert compiled.compiled_core() is not None, "a C compiler is among what the tests need"
    with Executor(workers=2, limits=LIMITS) as made:
        yield made


def verdicts(executor: Executor, programs: list[Program]) -> dict[str, Verdict]:
    return {verdict.id: verdict for verdict in executor.run(programs)}


def told(verdict: Verdict) -> tuple[Any, ...]:
    return verdict.outcome, verdict.passed, verdict.detail, verdict.attested, verdict.extra


@pytest.fixture(scope="module")
def attacked(in_python: Executor) -> dict[str, Verdict]:
    return verdicts(in_python, [Program(id=a.name, code=a.code, tests=a.tests) for a in ATTACKS])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_on_the_reference(attack: Attack, attacked: dict[str, Verdict]) -> None:
    """test_attacks.py has the same by C."""
    assert attacked[attack.name].outcome.value in attack.expected, attacked[attack.name].detail


def test_shared_attacks_on_the_reference(in_python: Executor, shared_data: Callable[[str], Path]) -> None:
    rows = [json.loads(line) for line in shared_data("attacks.jsonl").read_text(encoding="utf-8").splitlines()]
    found = verdicts(in_python, [Program(id=r["id"], code=r["code"], tests=tuple(r["tests"])) for r in rows])
    assert [(r["id"], found[r["id"]]) for r in rows if found[r["id"]].outcome.value not in r["expected"]] == []


# Each is one program: a module, and a call whose value is asked for.
SHAPES = {
    "none": ("def f(): return None", "f()"),
    "missing": ("x = 1", "f()"),
    "no_function": ("f = 3", "f()"),
    "raises": ("def f(): raise ValueError('a' * 500)", "f()"),
    "exits": ("def f(): raise SystemExit(3)", "f()"),
    "not_python": ("def f(:", "f()"),
    "null_byte": ("x = '\0'\ndef f(): return 1", "f()"),
    "surrogate": ("def f(): return '\ud800'", "f()"),
    "raises_at_load": ("1 / 0", "f()"),
    "exits_at_load": ("raise SystemExit(0)", "f()"),
    "leaves_at_load": ("import os\nos._exit(0)", "f()"),
    "class": ("class A:\n    def g(self, x): return x", "A().g(3)"),
    "named_argument": ("def f(a, *, b): return [a, b]", "f(1, b=2)"),
    "starred": ("def f(*a): return a", "f(*[1, 2], 3)"),
    "set_argument": ("def f(a): return sorted(a)", "f({3, 1, 2})"),
    "builtin": ("def f(): return 1", "max(3, 4)"),
    "shadowed": ("def max(a, b): return 'mine'", "max(3, 4)"),
    "generator": ("def f():\n    yield 1\n    yield 2", "f()"),
    "lazy_that_raises": ("def f():\n    yield 1\n    raise KeyError('k')", "f()"),
    "map": ("def f(): return map(str, range(3))", "f()"),
    "object": ("class A: pass\ndef f(): return A()", "f()"),
    "subclass": ("class L(list): pass\ndef f(): return L([1, 2])", "f()"),
    "own_equality": ("class I(int):\n    __eq__ = lambda s, o: True\ndef f(): return I(1)", "f()"),
    "huge_integer": ("def f(): return [2 ** 63, -2 ** 63, 2 ** 63 - 1, 10 ** 300]", "f()"),
    "floats": ("def f(): return [0.1, -0.0, 1e300, 1e16, 5e-324, 3.0, float('inf')]", "f()"),
    "nan": ("def f(): return float('nan')", "f()"),
    "deep": ("def f():\n    x = []\n    for _ in range(90): x = [x]\n    return x", "f()"),
    "too_deep": ("def f():\n    x = []\n    for _ in range(300): x = (x,)\n    return x", "f()"),
    "cycle": ("def f():\n    x = []\n    x.append(x)\n    return x", "f()"),
    "containers": ("def f(): return {1: (2, []), 'k': {3, 1}, (): frozenset('a'), None: b'x'}", "f()"),
    "empty_containers": ("def f(): return [(), [], {}, set(), '']", "f()"),
    "escapes": ("def f(): return ''.join(map(chr, range(200))) + '\\\\\"/'", "f()"),
    "long": ("def f(): return list(range(50000)) + ['x' * 50000]", "f()"),
    "rebinds": ("def f():\n    globals()['f'] = lambda: 2\n    return 1", "f()"),
    "patched_builtins": ("import builtins\nbuiltins.compile = builtins.eval = None\ndef f(): return 1", "f()"),
    "patched_json": ("import json\njson.JSONEncoder.encode = lambda *a: 'x'\ndef f(): return {1}", "f()"),
    "future": ("x: undefined = 1\ndef f(): return 1", "f()"),
    "module": ("import sys\ndef f(): return [__name__, sys.modules[__name__].__dict__ is globals()]", "f()"),
    "trace": ("import sys\nsys.settrace(lambda *a: 1 / 0)\ndef f(): return 1", "f()"),
    "collection": ("import gc\ndef f(): return gc.isenabled()", "f()"),
}  # fmt: skip


def test_equal_verdicts(in_python: Executor, in_c: Executor) -> None:
    programs = [
        Program(id=f"{name} {how}", code=code, tests=tests, calls=calls)
        for name, (code, call) in SHAPES.items()
        for how, tests, calls in (
            ("asked", (), ({"call": call},)),
            ("tested", (f"assert {call} == 1", f"assert list({call}) == [1, 2]", f"assert not {call}"), ()),
            ("checked", ("def check(g):\n    assert g() == 1\n    assert g() != 2\ncheck(f)",), ()),
        )
    ]
    ours, reference = verdicts(in_c, programs), verdicts(in_python, programs)
    assert {k: told(v) for k, v in ours.items()} == {k: told(v) for k, v in reference.items()}


def test_setups_and_bindings(in_python: Executor, in_c: Executor) -> None:
    code = "class Solution:\n    def g(self, x): return math.floor(x)\ndef f(x): return x"
    check = "def check(candidate):\n    assert candidate(2.5) == 2\ncheck({})"
    programs = [
        Program(id=f"{n}", code=code, setup=setup, tests=(check.format(bound),))
        for n, (setup, bound) in enumerate(
            (setup, bound)
            for setup in ("import math", "", "import missing_module", "from math import *")
            for bound in ("Solution().g", "f", "missing", "Solution.g")
        )
    ]
    ours, reference = verdicts(in_c, programs), verdicts(in_python, programs)
    assert ours["0"].outcome is Outcome.PASSED
    assert {k: told(v) for k, v in ours.items()} == {k: told(v) for k, v in reference.items()}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.integers() | st.text(max_size=3) | st.booleans(), inner, max_size=3),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(VALUES, min_size=20, max_size=20))
def test_values_are_written_as_the_reference_writes_them(in_c: Executor, values: list[Any]) -> None:
    code = f"from math import inf, nan\nVALUES = {values!r}\ndef f(i): return VALUES[i]\n"
    program = Program(id="0", code=code, calls=tuple({"call": f"f({i})"} for i in range(len(values))))
    (found,) = in_c.run([program])
    assert found.outcome is Outcome.PASSED, found.detail
    for value, text in zip(values, found.extra["values"], strict=True):
        if text is not None:  # infinities have no literal
            assert text == repr(value)


def test_no_compiler_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(workers, "compiled_core", compiled.compiled_core.__wrapped__)
    compiled.announce.cache_clear()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(2):
            with Executor(workers=1) as executor:
                (found,) = executor.run([Program(id="0", code="def f(): return 1", tests=("assert f() == 1",))])
            assert found.outcome is Outcome.PASSED
    assert [str(w.message) for w in heard] == [
        "sandboxed programs cost more CPU here: the fork server needs a C compiler and none is on PATH;"
        " install gcc, or name one in CC"
    ]


def test_a_library_that_does_not_load_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "core.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(workers, "compiled_core", lambda: str(broken))
    compiled.announce.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"cost more CPU here: .*core\.so"), Executor(workers=1) as executor:
        (found,) = executor.run([Program(id="0", code="def f(): return 1", tests=("assert f() == 1",))])
    assert found.outcome is Outcome.PASSED


def test_a_source_that_does_not_compile_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("this is no C")
    monkeypatch.setattr(compiled, "SOURCES", [source])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"could not compile the fork server: .*broken\.c"):
        compiled._library()
    assert list((tmp_path / "plum").iterdir()) == []


def test_a_folder_that_cannot_be_preloaded_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a folder"))
    monkeypatch.setattr(workers, "compiled_core", compiled.compiled_core.__wrapped__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Executor(workers=1) as executor:
            (found,) = executor.run([Program(id="0", code="def f(): return 1", tests=("assert f() == 1",))])
    assert found.outcome is Outcome.PASSED
    assert [path.suffix for path in (tmp_path / "a folder" / "plum").iterdir()] == [".so"]


def mappings(executor: Executor) -> int:
    """Of the zygote of the first worker."""
    judge = executor._slots[0].worker._process.pid
    zygote = Path(f"/proc/{judge}/task/{judge}/children").read_text().split()[0]
    return Path(f"/proc/{zygote}/smaps").read_text().count("VmFlags")


def test_a_zygote_of_fewer_mappings(in_c: Executor, in_python: Executor) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root: a zygote lets nobody else look at it")
    assert mappings(in_c) < 0.7 * mappings(in_python)


def test_every_symbol_of_the_interpreter_is_looked_for() -> None:
    header = Path(native.__file__).with_name("cpython.h").read_text()
    lines = [line for line in header.splitlines() if line.startswith("PYTHON ")]
    declared = {name for line in lines for name in re.findall(r"\b_?Py[A-Z]?\w+", line.split("(")[0])}
    assert declared == native.USED
    assert len(lines) > 30


def test_an_interpreter_without_a_symbol_goes_without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "USED", frozenset({"PyObject_Call", "PyNothing_OfTheKind"}))
    with pytest.raises(OSError, match="this interpreter has no PyNothing_OfTheKind"):
        native.load("")
