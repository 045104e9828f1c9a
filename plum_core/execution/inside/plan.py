"""How the tests of a program are carried out: decided from the tests alone, never from what a program returns.

split     each assert becomes calls, which the program answers, and an expression over the answers, which the judge
          evaluates. The expected values never leave the judge.
remote    test code that cannot be split runs in a tester process against stand-ins for the program's functions.
inline    what even that cannot carry runs inside the program's own process: the verdict is not attested.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from typing import Any, NamedTuple

from plum_core.execution.inside import words
from plum_core.execution.inside.evaluate import (
    CONSUMERS,
    LIBRARY,
    Answers,
    Closure,
    Hole,
    Unsupported,
    compile_test,
    literal,
)

_BUILTINS = frozenset(dir(builtins))
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
MAX_TEXT = 200


class Check(NamedTuple):
    """One assert: its words, the judge's closure over the answers, and the index of its only call, or -1."""

    text: str
    holds: Closure
    call: int = -1


class Test(NamedTuple):
    """One test string. ``checks`` is None where it cannot be split; then ``source`` runs in a tester.

    ``asked``: the index of a call whose value is wanted and not judged.
    """

    source: str
    checks: list[Check] | None
    asked: int | None = None


class Plan(NamedTuple):
    """``tier``: 0 split, 1 some tests are remote, 2 inline. ``calls``, ``bind``, ``names``: see the child's modes."""

    tests: list[Test]
    calls: list[list[Any]]
    bind: dict[str, str]
    setup: str  # runs in the program's process
    tester_setup: str
    names: list[str]
    tier: int


class _Splitter:
    """Collects the calls of all split tests of one program."""

    def __init__(self, entries: frozenset[str]) -> None:
        self.calls: list[list[Any]] = []
        self.bind: dict[str, str] = {}
        self.entries = entries  # the functions under test; empty: any name that is not Python's own
        self._own: frozenset[str] = frozenset()  # what the test at hand defines itself

    def test(self, source: str) -> list[Check] | None:
        """The checks of one test string, or None when it has another form."""
        before = len(self.calls), dict(self.bind)
        try:
            tree = ast.parse(source)
            self._own = _defined(tree)
            return [self._check(statement) for statement in self._asserts(tree.body)]
        except (Unsupported, SyntaxError, ValueError, RecursionError, MemoryError):
            del self.calls[before[0] :]
            self.bind = before[1]
            return None

    def _asserts(self, body: list[ast.stmt]) -> list[ast.Assert]:
        """The asserts of a body that is nothing else, or of HumanEval's ``def check(candidate)`` and its call."""
        rest = [statement for statement in body if not _idle(statement)]
        if all(isinstance(statement, ast.Assert) for statement in rest):
            return [statement for statement in rest if isinstance(statement, ast.Assert)]
        if len(rest) != 2:
            raise Unsupported("statements other than assert")
        function, call = rest
        self._bind_check(function, call)
        assert isinstance(function, ast.FunctionDef)
        inner = [statement for statement in function.body if not _idle(statement)]
        if not all(isinstance(statement, ast.Assert) for statement in inner):
            raise Unsupported("statements other than assert")
        return [statement for statement in inner if isinstance(statement, ast.Assert)]

    def _bind_check(self, function: ast.stmt, call: ast.stmt) -> None:
        if not (isinstance(function, ast.FunctionDef) and isinstance(call, ast.Expr)):
            raise Unsupported("statements other than assert")
        arguments, value = function.args, call.value
        plain = not (arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.defaults)
        if function.decorator_list or not plain or len(arguments.args) != 1:
            raise Unsupported("a check function of another form")
        if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and len(value.args) == 1):
            raise Unsupported("a call of another form")
        if value.func.id != function.name or value.keywords or not _is_entry(value.args[0]):
            raise Unsupported("a call of another form")
        name, bound = arguments.args[0].arg, ast.unparse(value.args[0])
        if self.bind.setdefault(name, bound) != bound:
            raise Unsupported("one name for two functions")

    def _check(self, statement: ast.Assert) -> Check:
        text = ast.unparse(statement)
        first = len(self.calls)
        holds = compile_test(self._punch(statement.test))
        only = first if len(self.calls) == first + 1 else -1
        return Check(text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " ...", holds, only)

    def _punch(self, node: ast.expr) -> ast.expr:
        """``node`` with a hole in the place of each call of the program's."""
        if isinstance(node, ast.Call) and self._is_programs(node.func):
            return self.hole(node, lazy=False)
        if isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            raise Unsupported("a scope within a test")
        lazy = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CONSUMERS
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                setattr(node, field, self._punch(value))
            elif isinstance(value, list):
                setattr(node, field, [self._punch_item(item, lazy) for item in value])
        return node

    def _punch_item(self, item: Any, lazy: bool) -> Any:
        if isinstance(item, ast.keyword):
            item.value = self._punch(item.value)
            return item
        if not isinstance(item, ast.expr):
            return item
        if lazy and isinstance(item, ast.Call) and self._is_programs(item.func):
            return self.hole(item, lazy=True)
        return self._punch(item)

    def _is_programs(self, function: ast.expr) -> bool:
        """``f``, ``Class.method`` and ``Class(...).method``. The expected side of a test must not be among them."""
        root = _root(function)
        if root is None or root in self._own:
            return False
        if self.entries:
            return root in self.entries or root in self.bind
        return root not in _BUILTINS and root not in LIBRARY

    def hole(self, node: ast.Call, lazy: bool) -> Hole:
        self.calls.append(_spell(node, lazy))
        return Hole(len(self.calls) - 1)


def _spell(node: ast.Call, lazy: bool) -> list[Any]:
    """The call as the child reads it: plain arguments as data, anything else as an expression's source.

    A set goes as source: the order in which it iterates depends on how it was built.
    """
    if isinstance(node.func, ast.Name) and not any(isinstance(part, ast.Set) for part in ast.walk(node)):
        try:
            args = [literal(arg) for arg in node.args]
            kwargs = {keyword.arg: literal(keyword.value) for keyword in node.keywords if keyword.arg is not None}
            if len(kwargs) == len(node.keywords):
                return ["c", node.func.id, args, kwargs, lazy]
        except Unsupported:
            pass
    return ["x", ast.unparse(node), lazy]


def _root(function: ast.expr) -> str | None:
    """The global that a call starts from, for the forms that the program itself may answer."""
    if isinstance(function, ast.Name):
        return function.id
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value.func if isinstance(function.value, ast.Call) else function.value
    return owner.id if isinstance(owner, ast.Name) and owner.id[:1].isupper() else None


def _idle(statement: ast.stmt) -> bool:
    """Statements that a test can do without: docstrings, pass, bare names, and METADATA = {...}."""
    if isinstance(statement, ast.Pass):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, (ast.Constant, ast.Name))
    return (
        isinstance(statement, ast.Assign)
        and [ast.unparse(target) for target in statement.targets] == ["METADATA"]
        and isinstance(statement.value, ast.Dict)
    )


def _is_entry(node: ast.expr) -> bool:
    """A function's name, or ``Solution().method``."""
    if isinstance(node, ast.Name):
        return True
    if not isinstance(node, ast.Attribute):
        return False
    owner = node.value.func if isinstance(node.value, ast.Call) and not node.value.args else node.value
    return isinstance(owner, ast.Name)


def _imports_only(setup: str) -> bool:
    body = ast.parse(setup).body
    return all(isinstance(statement, (ast.Import, ast.ImportFrom)) or _idle(statement) for statement in body)


def _defined(tree: ast.Module) -> frozenset[str]:
    """Functions and classes that a test defines itself."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def _called(source: str) -> list[str]:
    """Roots of the calls of one test, in order of appearance, and what is handed to a function of the test's own."""
    tree = ast.parse(source)
    own = _defined(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls.sort(key=lambda node: (node.lineno, node.col_offset))
    roots: list[str] = []
    for node in calls:
        root = _root(node.func)
        if root in own:
            roots += [arg.id for arg in node.args if isinstance(arg, ast.Name)]
        elif root is not None:
            roots.append(root)
    return roots


def _entries(tests: Sequence[str]) -> frozenset[str]:
    """The functions under test, as far as the tests tell: what every one of them calls.

    A name of Python's own counts only where the tests call nothing else (MBPP has a task named ``sum``). Empty when
    the tests have no call in common.
    """
    called = [_called(source) for source in tests if _parses(source)]
    if not called:
        return frozenset()
    common = frozenset.intersection(*map(frozenset, called))
    own = common - _BUILTINS - LIBRARY.keys()
    foreign = _REFUSED_NAMES | LIBRARY.keys()
    if own or any(name not in _BUILTINS or name in foreign for names in called for name in names):
        return own
    return frozenset(called[0][:1])


def _loaded_names(sources: Sequence[str], entries: frozenset[str]) -> list[str]:
    """Every name that the sources read: the tester binds those that the program defines.

    Names of Python's own stay Python's, whatever the program makes of them.
    """
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name):
                names.add(node.id)
    return sorted((names - _BUILTINS - LIBRARY.keys() - LOCAL_MODULES.keys()) | (names & entries))


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


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


def _with_calls(source: str) -> str:
    """pytest's way: a test that only defines ``test_...()`` functions means that they are called."""
    body = ast.parse(source).body
    names = [s.name for s in body if isinstance(s, ast.FunctionDef) and s.name.startswith("test")]
    if not names or any(isinstance(statement, ast.Expr) for statement in body):
        return source
    return source + "".join(f"\n{name}()" for name in names) + "\n"


def inline(plan: Plan, setup: str) -> Plan:
    """The same tests, run beside the program: for what a tester found that it cannot carry."""
    return Plan([test._replace(checks=None) for test in plan.tests], [], {}, setup, "", [], 2)


def make_plan(tests: Sequence[str], setup: str, entry: str | None, calls: Sequence[dict[str, Any]] = ()) -> Plan:
    """Plan the tests of one program. ``entry`` names the function under test where the caller knows it.

    ``calls`` are ``{"call": expression, "expected": JSON value}`` and come after the tests; one without "expected"
    asks for its value, and passes when there is one. Raises ValueError when
    the setup or a call cannot be read.
    """
    if sum(map(len, tests)) + len(setup) > MAX_TEST_CHARS:
        raise ValueError(f"tests of more than {MAX_TEST_CHARS} characters")
    if not _parses(setup):
        raise ValueError("the setup is not Python")
    entries = frozenset([entry.split("(")[0].split(".")[0]]) if entry else _entries(tests)
    splitter = _Splitter(entries)
    simple_setup = _imports_only(setup)
    planned = [_plan_test(source, splitter if simple_setup else None) for source in tests]
    planned += [_plan_call(call, splitter) for call in calls]
    remote = [test.source for test in planned if test.checks is None]
    here = setup if simple_setup else ""
    if not remote:
        return Plan(planned, splitter.calls, splitter.bind, here, "", [], 0)
    if not all(_fit_for_a_tester(source) for source in [setup, *remote]):
        if calls:
            raise ValueError("calls cannot be combined with tests that only run beside the program")
        return inline(Plan(planned, [], {}, "", "", [], 2), setup)
    names = _loaded_names([setup, *remote], entries)
    local = [name for name in LOCAL_MODULES if any(name in source for source in remote)]
    tester_setup = "".join(_IMPORT.format(LOCAL_MODULES[name], name) for name in local) + setup
    return Plan(planned, splitter.calls, splitter.bind, here, tester_setup, names, 1)


def _plan_call(call: dict[str, Any], splitter: _Splitter) -> Test:
    """JSON knows neither tuples nor integer keys: both sides are compared as JSON would write them."""
    node = ast.parse(call["call"], mode="eval").body
    if not isinstance(node, ast.Call):
        raise ValueError(f"{call['call']!r} is not a call")
    hole = splitter.hole(node, lazy=True)
    index = hole.index
    if "expected" not in call:
        return Test(call["call"], [Check(call["call"], lambda answers: (answers[index](), True)[1])], index)
    expected = _as_json(call["expected"])
    return Test(call["call"], [Check(call["call"], lambda answers: _as_json(answers[index]()) == expected, index)])


def _as_json(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _as_json(item) for key, item in value.items()}
    return value


def _plan_test(source: str, splitter: _Splitter | None) -> Test:
    if not _parses(source):
        return Test(source, [Check("the test", _broken)])
    return Test(_with_calls(source), splitter.test(source) if splitter else None)


def wants(packages: Sequence[str], *sources: str) -> bool:
    """Whether a source names one of ``packages``, so that its child comes from the zygote that has them."""
    return any(package in source for package in packages for source in sources)
