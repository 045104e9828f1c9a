"""How the tests of a program are carried out: decided from the tests alone, never from what a program returns.

split     each assert becomes calls, which the program answers, and an expression over the answers, which the judge
          evaluates. The expected values never leave the judge.
remote    test code that cannot be split runs in a tester process against stand-ins for the program's functions.
inline    what even that cannot carry runs inside the program's own process: the verdict is not attested.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from plum_core.execution.inside import words
from plum_core.execution.inside.evaluate import LIBRARY, Answers
from plum_core.execution.inside.parsed import Parsed, called, imports_only
from plum_core.execution.inside.split import BUILTINS, Check, Splitter

# With these, data from the program could become code in the tester.
_REFUSED_NAMES = words(
    "eval exec compile open input breakpoint globals locals vars getattr setattr delattr memoryview exit quit"
)
_SAFE_IMPORTS = words(
    """
    abc array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools hashlib
    heapq itertools json math numbers numpy operator pytest random re statistics string struct textwrap time typing
    types unicodedata uuid zlib base64
    """
)
_IMPORT = "try: import {} as {}\nexcept ImportError: pass\n"
# Names that a tester takes from the standard library (or numpy) itself, never from the program.
LOCAL_MODULES = {**{name: name for name in _SAFE_IMPORTS}, "np": "numpy"}
MAX_TEST_CHARS = 1 << 20


class Test(NamedTuple):
    """One test string. ``checks`` is None where it cannot be split; then ``source`` runs in a tester.

    ``asked``: the index of a call whose value is wanted and not judged. ``end``: calls of the plan up to its own.
    """

    source: str
    checks: list[Check] | None
    asked: int | None = None
    end: int = 0


class Plan(NamedTuple):
    """``tier``: 0 split, 1 some tests are remote, 2 inline. ``calls``, ``bind``, ``names``: see the child's modes."""

    tests: list[Test]
    calls: list[list[Any]]
    bind: dict[str, str]
    setup: str  # runs in the program's process
    tester_setup: str
    names: list[str]
    tier: int


def _entries(tests: Sequence[Parsed]) -> frozenset[str]:
    """The functions under test, as far as the tests tell: what every one of them calls.

    A name of Python's own counts only where the tests call nothing else (MBPP has a task named ``sum``). Empty when
    the tests have no call in common.
    """
    roots = [called(test.tree) for test in tests if test.tree is not None]
    if not roots:
        return frozenset()
    common = frozenset.intersection(*map(frozenset, roots))
    own = common - BUILTINS - LIBRARY.keys()
    foreign = _REFUSED_NAMES | LIBRARY.keys()
    if own or any(name not in BUILTINS or name in foreign for names in roots for name in names):
        return own
    return frozenset(roots[0][:1])


def _is_module(source: str, name: str) -> bool:
    """Whether test code means the module of that name: not where it calls a function, or a class, named like one."""
    attribute = r"(datetime|date|time|timedelta|timezone|tzinfo|UTC|MINYEAR|MAXYEAR)\b" if name == "datetime" else ""
    return re.search(rf"\b{name}\s*\.\s*{attribute}", source) is not None


def _loaded_names(sources: Sequence[str], entries: frozenset[str], local: Sequence[str]) -> list[str]:
    """Every name that the sources read: the tester binds those that the program defines.

    Names of Python's own stay Python's, whatever the program makes of them.
    """
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name):
                names.add(node.id)
    return sorted((names - BUILTINS - LIBRARY.keys() - set(local)) | (names & entries))


def _broken(answers: Answers) -> Any:
    raise SyntaxError("the test is not Python")


def _fit_for_a_tester(source: str) -> bool:
    """Whether test code may run beside data from the program: no way from data to code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and (node.id in _REFUSED_NAMES or node.id.startswith("__")):
            return False
        if isinstance(node, ast.Attribute) and node.attr.startswith("__"):
            return False
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        if any(module.split(".")[0] not in _SAFE_IMPORTS for module in modules):
            return False
    return True


def _with_calls(source: str, tree: ast.Module) -> str:
    """pytest's way: a test that only defines ``test_...()`` functions means that they are called."""
    names = [s.name for s in tree.body if isinstance(s, ast.FunctionDef) and s.name.startswith("test")]
    if not names or any(isinstance(statement, ast.Expr) for statement in tree.body):
        return source
    return source + "".join(f"\n{name}()" for name in names) + "\n"


def inline(plan: Plan, setup: str) -> Plan:
    """The same tests, run beside the program: for what a tester found that it cannot carry."""
    return Plan([test._replace(checks=None) for test in plan.tests], [], {}, setup, "", [], 2)


def make_plan(tests: Sequence[str], setup: str, entry: str | None, calls: Sequence[dict[str, Any]] = ()) -> Plan:
    """Plan the tests of one program. ``entry`` names the function under test where the caller knows it.

    ``calls`` are ``{"call": expression, "expected": JSON value}`` and come after the tests; one without "expected"
    asks for its value, and passes when there is one. Raises ValueError when the setup or a call cannot be read.
    """
    if sum(map(len, tests)) + len(setup) > MAX_TEST_CHARS:
        raise ValueError(f"tests of more than {MAX_TEST_CHARS} characters")
    parsed = [Parsed(source) for source in tests]
    entries = frozenset([entry.split("(")[0].split(".")[0]]) if entry else _entries(parsed)
    splitter = Splitter(entries)
    simple_setup = not setup or _imports_only(setup)
    planned = [
        _plan_test(test, splitter if simple_setup else None)._replace(end=len(splitter.calls)) for test in parsed
    ]
    planned += [_plan_call(call, splitter) for call in calls]
    remote = [test.source for test in planned if test.checks is None]
    here = setup if simple_setup else ""
    if not remote:
        return Plan(planned, splitter.calls, splitter.bind, here, "", [], 0)
    if not all(_fit_for_a_tester(source) for source in [setup, *remote]):
        if calls:
            raise ValueError("calls cannot be combined with tests that only run beside the program")
        return inline(Plan(planned, [], {}, "", "", [], 2), setup)
    local = [name for name in LOCAL_MODULES if name not in entries and _is_module("\n".join(remote), name)]
    names = _loaded_names([setup, *remote], entries, local)
    tester_setup = "".join(_IMPORT.format(LOCAL_MODULES[name], name) for name in local) + setup
    return Plan(planned, splitter.calls, splitter.bind, here, tester_setup, names, 1)


def _imports_only(setup: str) -> bool:
    tree = Parsed(setup).tree
    if tree is None:
        raise ValueError("the setup is not Python")
    return imports_only(tree)


def _plan_call(call: dict[str, Any], splitter: Splitter) -> Test:
    """JSON knows neither tuples nor integer keys: both sides are compared as JSON would write them."""
    text = call["call"]
    node = ast.parse(text, mode="eval").body
    if not isinstance(node, ast.Call):
        raise ValueError(f"{text!r} is not a call")
    hole = splitter.hole(node, lazy=True)
    index = hole.index
    if "expected" not in call:
        return Test(text, [Check(lambda: text, lambda answers: (answers[index](), True)[1])], index, index + 1)
    expected = _as_json(call["expected"])
    check = Check(lambda: text, lambda answers: _as_json(answers[index]()) == expected, index)
    return Test(text, [check], end=index + 1)


def _as_json(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _as_json(item) for key, item in value.items()}
    return value


def _plan_test(test: Parsed, splitter: Splitter | None) -> Test:
    if test.tree is None:
        return Test(test.source, [Check(lambda: "the test", _broken)])
    return Test(_with_calls(test.source, test.tree), splitter.test(test) if splitter else None)


def wants(packages: Sequence[str], *sources: str) -> bool:
    """Whether a source names one of ``packages``, so that its child comes from the zygote that has them."""
    return any(package in source for package in packages for source in sources)
