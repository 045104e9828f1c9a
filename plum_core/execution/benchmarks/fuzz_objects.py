"""Objects that answer every question as the asker would like it, and tests that ask for a number they do not know."""

from __future__ import annotations

from hypothesis import strategies as st

from plum_core.execution.benchmarks.fuzz_values import PRELUDE

_METHODS = (
    "__eq__(s, *a): return True",
    "__ne__(s, *a): return False",
    "__lt__(s, *a): return True",
    "__le__(s, *a): return True",
    "__gt__(s, *a): return True",
    "__ge__(s, *a): return True",
    "__hash__(s): return 1",
    "__bool__(s): return True",
    "__len__(s): return 10 ** 9",
    "__contains__(s, x): return True",
    "__iter__(s): return iter([s])",
    "__next__(s): return s",
    "__getitem__(s, i): return s",
    "__getattr__(s, n): return s",
    "__call__(s, *a, **k): return s",
    "__sub__(s, o): return 0",
    "__rsub__(s, o): return 0",
    "__abs__(s): return 0",
    "__index__(s): return 0",
    "__int__(s): return 0",
    "__float__(s): return 0.0",
    "__str__(s): return S()",
    "__repr__(s): return 'x' * 10 ** 7",
    "__reduce__(s): return (eval, ('1',))",
    "__instancecheck__(s, o): return True",
    "__class__ = int",
    "__class__ = property(lambda s: 1 / 0)",
    "__slots__ = ()",
    "__name__ = 'int'",
    "item(s): return 0",
    "bit_length(s): return 1 / 0",
    "as_tuple(s): return s",
    "isoformat(s): return '2024-01-01'",
    "tolist(s): return s",
    "__array__(s): return 0",
    "__eq__(s, *a): raise KeyboardInterrupt",
    "__hash__(s): raise SystemExit",
    "__bool__(s): raise MemoryError",
    "__eq__ = None",
    "__module__ = 'numpy'",
)
_BASES = (
    "object",
    "int",
    "str",
    "float",
    "list",
    "dict",
    "tuple",
    "set",
    "frozenset",
    "bytes",
    "type",
    "Exception",
    "Decimal",
    "deque",
)
_PLACES = (
    "{}",
    "[{}]",
    "({}, {})",
    "{{1: {}}}",
    "[[{}]]",
    "iter([{}])",
    "(x for x in [{}])",
    "type('T', (), {{}})",
    "lambda: {}",
)
_RETURNS = "def make():\n    try: return S()\n    except BaseException: return S\ndef f(*a): return {}\n"
_QUESTIONS = (
    *("assert f() == {S}", "assert {S} == f()", "assert not f() != {S}", "assert f() in [{S}]", "assert {S} in f()"),
    *("assert f() is {S}", "assert f() <= {S} and f() >= {S}", "assert isinstance(f(), int) and f() == {S}"),
    *("assert f()[0] == {S}", "assert list(f()) == [{S}]", "assert str(f()) == '{S}'", "assert abs(f() - {S}) < 1"),
    *("assert sorted(f()) == [{S}]", "assert sum(f()) == {S}", "assert len(f()) == {S}", "assert {{f()}} == {{{S}}}"),
    *("assert {{f(): 1}} == {{{S}: 1}}", "assert int(f()) == {S}", "assert f().item() == {S}"),
    *(
        "x = f()\nassert x == {S}",
        "x = f()\nassert not x != {S}",
        "x = f()\nassert x in [{S}]",
        "x = f()\nassert {S} in x",
    ),
    *(
        "x = f()\nassert x - {S} == 0",
        "x = f()\nassert not x - {S}",
        "x = f()\nassert str(x) == '{S}'",
        "x = f()\nassert x.a == {S}",
    ),
    *(
        "x = f()\nassert [y for y in x] == [{S}]",
        "x = f()\nassert not (x < {S} or x > {S})",
        "x = f()\nassert x() == {S}",
    ),
    *("with pytest.raises(ZeroDivisionError, match='{S}'):\n    f()", "assert f() == pytest.approx({S})"),
)


def _object(base: str, methods: list[str], place: str, questions: list[str]) -> tuple[str, tuple[str, ...]]:
    lines = "".join(f"    {'' if '=' in m.partition('(')[0] else 'def '}{m}\n" for m in methods) or "    pass\n"
    made = place.replace("{}", "make()").replace("{{", "{").replace("}}", "}")
    code = f"{PRELUDE}try:\n    class S({base}):\n" + "".join(f"    {line}\n" for line in lines.splitlines())
    code += "except BaseException:\n    class S: pass\n" + _RETURNS.format("{}").replace("{}", made)
    return code, tuple(questions)


odd_objects = st.builds(
    _object,
    st.sampled_from(_BASES),
    st.lists(st.sampled_from(_METHODS), max_size=8),
    st.sampled_from(_PLACES),
    st.lists(st.sampled_from(_QUESTIONS), min_size=1, max_size=4),
)
