"""Broken and adversarial answers of a generator, none of which may become a suite: 20 problems, each broken in 12 ways,
and some that are made to get through."""

from __future__ import annotations

from collections.abc import Iterator

# name: (signature, body, five calls with their right answers)
PROBLEMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "double": ("x", "return x * 2", {"2": "4", "0": "0", "-3": "-6", "10": "20", "7": "14"}),
    "is_even": ("n", "return n % 2 == 0", {"2": "True", "3": "False", "0": "True", "-1": "False", "8": "True"}),
    "rev": ("s", "return s[::-1]", {"'ab'": "'ba'", "''": "''", "'abc'": "'cba'", "'xyz'": "'zyx'", "'no'": "'on'"}),
    "total": ("xs", "return sum(xs)", {"[1, 2]": "3", "[]": "0", "[5]": "5", "[-1, 4]": "3", "[2, 2, 2]": "6"}),
    "biggest": ("xs", "return max(xs)", {"[1, 2]": "2", "[5]": "5", "[3, 9, 1]": "9", "[-4, -2]": "-2", "[0, 7]": "7"}),
    "vowels": (
        "s",
        "return sum(c in 'aeiou' for c in s)",
        {"'apple'": "2", "'sky'": "0", "'queue'": "4", "'a'": "1", "'banana'": "3"},
    ),
    "fact": (
        "n",
        "r = 1\n    for i in range(2, n + 1):\n        r *= i\n    return r",
        {"0": "1", "3": "6", "5": "120", "4": "24", "6": "720"},
    ),
    "evens": (
        "xs",
        "return [x for x in xs if x % 2 == 0]",
        {"[1, 2]": "[2]", "[]": "[]", "[4, 6]": "[4, 6]", "[1]": "[]", "[0, 3, 8]": "[0, 8]"},
    ),
    "title": (
        "s",
        "return s.title()",
        {"'ab cd'": "'Ab Cd'", "''": "''", "'x'": "'X'", "'hi you'": "'Hi You'", "'one two'": "'One Two'"},
    ),
    "unique": (
        "xs",
        "return sorted(set(xs))",
        {"[2, 1, 2]": "[1, 2]", "[]": "[]", "[3, 3]": "[3]", "[5, 4]": "[4, 5]", "[9, 1, 9]": "[1, 9]"},
    ),
    "clamp": (
        "x, low, high",
        "return max(low, min(x, high))",
        {"5, 0, 3": "3", "-1, 0, 3": "0", "2, 0, 3": "2", "9, 1, 9": "9", "4, 5, 6": "5"},
    ),
    "gcd": (
        "a, b",
        "while b:\n        a, b = b, a % b\n    return a",
        {"12, 8": "4", "7, 3": "1", "10, 5": "5", "9, 6": "3", "100, 75": "25"},
    ),
    "count": (
        "s, c",
        "return s.count(c)",
        {"'aab', 'a'": "2", "'', 'a'": "0", "'xyx', 'x'": "2", "'b', 'b'": "1", "'ccc', 'c'": "3"},
    ),
    "flat": (
        "xs",
        "return [y for x in xs for y in x]",
        {"[[1], [2]]": "[1, 2]", "[]": "[]", "[[3, 4]]": "[3, 4]", "[[], [5]]": "[5]", "[[1, 2], [3]]": "[1, 2, 3]"},
    ),
    "palin": (
        "s",
        "return s == s[::-1]",
        {"'aba'": "True", "'ab'": "False", "''": "True", "'abc'": "False", "'noon'": "True"},
    ),
    "squares": (
        "n",
        "return [i * i for i in range(n)]",
        {"3": "[0, 1, 4]", "0": "[]", "1": "[0]", "2": "[0, 1]", "4": "[0, 1, 4, 9]"},
    ),
    "merge": (
        "a, b",
        "return {**a, **b}",
        {
            "{}, {}": "{}",
            "{'a': 1}, {}": "{'a': 1}",
            "{'a': 1}, {'a': 2}": "{'a': 2}",
            "{}, {'b': 3}": "{'b': 3}",
            "{'x': 1}, {'y': 2}": "{'x': 1, 'y': 2}",
        },
    ),
    "digits": (
        "n",
        "return [int(c) for c in str(n)]",
        {"12": "[1, 2]", "0": "[0]", "305": "[3, 0, 5]", "9": "[9]", "77": "[7, 7]"},
    ),
    "words": (
        "s",
        "return len(s.split())",
        {"'a b'": "2", "''": "0", "'one'": "1", "'x y z'": "3", "' pad '": "1"},
    ),
    "swap": (
        "p",
        "return p[1], p[0]",
        {"(1, 2)": "(2, 1)", "('a', 'b')": "('b', 'a')", "(0, 0)": "(0, 0)", "(3, 1)": "(1, 3)", "(9, 8)": "(8, 9)"},
    ),
}


def answer(reference: str, tests: str, language: str = "python") -> str:
    """As a teaching assistant writes it."""
    return (
        f"Here is the solution.\n\n```{language}\n{reference}\n```\n\nAnd its tests:\n\n```{language}\n{tests}\n```\n"
    )


def asserts(name: str, calls: dict[str, str]) -> str:
    return "\n".join(f"assert {name}({given}) == {right}" for given, right in calls.items())


def good_answers() -> Iterator[tuple[str, str]]:
    """(name, answer): what the others were before they were broken."""
    for name, (signature, body, calls) in PROBLEMS.items():
        yield name, answer(f"def {name}({signature}):\n    {body}", asserts(name, calls))


def broken_answers() -> Iterator[tuple[str, str]]:
    """(kind, answer)."""
    for name, (signature, body, calls) in PROBLEMS.items():
        head, tests = f"def {name}({signature}):", asserts(name, calls)
        right = f"{head}\n    {body}"
        first, *_, last = calls
        yield "wrong assert", answer(right, f"{tests}\nassert {name}({first}) == 'wrong'")
        yield "all asserts wrong", answer(right, asserts(name, dict.fromkeys(calls, "'nothing of this kind'")))
        yield "vacuous asserts", answer(right, "\n".join(f"assert {name}({given}) or True" for given in calls))
        yield "always true", answer(right, "\n".join(f"assert isinstance({name}({given}), object)" for given in calls))
        yield (
            "compared with itself",
            answer(right, "\n".join(f"assert {name}({given}) == {name}({given})" for given in calls)),
        )
        yield "infinite reference", answer(f"{head}\n    while True:\n        pass\n    {body}", tests)
        yield "prose only", f"The function {name} is easy to write: think of {body.split()[0]} and test it by hand."
        yield (
            "wrong language",
            answer(
                f"function {name}({signature}) {{ return null; }}",
                "\n".join(f"console.assert({name}({given}) === null);" for given in calls),
                "javascript",
            ),
        )
        yield "no syntax", answer(f"{head}\n    return ((", tests)
        yield "another function", answer(right, tests.replace(name, f"{name}_fast"))
        yield (
            "exceptions swallowed",
            answer(
                right,
                "\n".join(f"try:\n    assert {name}({given}) == 'x'\nexcept Exception:\n    pass" for given in calls),
            ),
        )
        yield "too few", answer(right, "\n".join([f"assert {name}({last}) == {calls[last]}"] * 6))
    yield from adversarial()


def adversarial() -> Iterator[tuple[str, str]]:
    """Made to be kept."""
    name, (signature, body, calls) = "double", PROBLEMS["double"]
    tests, wrong = asserts(name, calls), asserts(name, dict.fromkeys(calls, "999"))
    right = f"def {name}({signature}):\n    {body}"
    yield (
        "equal to everything",
        answer(
            f"class E(int):\n    def __eq__(self, other):\n        return True\n\n\ndef {name}(x):\n    return E(1)",
            wrong,
        ),
    )
    yield "leaves before the tests", answer(f"import os\n\ndef {name}(x):\n    os._exit(0)", wrong)
    yield "exits with success", answer(f"def {name}(x):\n    raise SystemExit(0)", wrong)
    yield "patches the judge", answer(f"import builtins\nbuiltins.AssertionError = ValueError\n{right}", wrong)
    yield "redefines in the tests", answer(right, f"def {name}(x):\n    return 999\n\n{wrong}")
    yield "constant", answer(f"def {name}(x):\n    return 4", asserts(name, dict.fromkeys(calls, "4")))
    yield "the argument", answer(f"def {name}(x):\n    return x", asserts(name, {given: given for given in calls}))
    yield (
        "clock",
        answer(
            f"import time\n\ndef {name}(x):\n    return int(time.time() // 10**9)",
            asserts(name, dict.fromkeys(calls, "1")),
        ),
    )
    yield (
        "random",
        answer(
            f"import random\n\ndef {name}(x):\n    return random.randint(0, 0) + x",
            asserts(name, {g: g for g in calls}),
        ),
    )
    yield "file", answer(f"def {name}(x):\n    return len(open('/etc/hostname').read()) * 0 + 2 * x", tests)
    yield (
        "hidden clock",
        answer(
            f"def {name}(x):\n    return vars(__import__('time'))['time']() // 10**12 + 2 * x",
            tests,
        ),
    )
    yield (
        "hash order",
        answer(
            f"def {name}(x):\n    return list({{'a', 'b', 'c', str(x)}})[0]", asserts(name, dict.fromkeys(calls, "'a'"))
        ),
    )
    yield (
        "counts its calls",
        answer(
            f"N = []\n\ndef {name}(x):\n    N.append(x)\n    return len(N)",
            asserts(name, {given: str(n) for n, given in enumerate(calls, 1)}),
        ),
    )
    yield "memory", answer(f"def {name}(x):\n    return len([0] * 10**10) * 0 + 2 * x", tests)
    yield "flood", answer(f"def {name}(x):\n    print('x' * 10**9)\n    return 2 * x", tests)
    yield "recursion", answer(f"def {name}(x):\n    return {name}(x)", tests)
    yield "fork", answer(f"import os\n\ndef {name}(x):\n    os.fork()\n    return 2 * x", tests)
    yield "deep source", answer(f"def {name}(x):\n    return " + "(" * 500 + "x" + ")" * 500, tests)
    yield "empty fences", "```python\n```\n```python\n```"
    yield "cut off", answer(right, tests)[:60]
    yield "nothing", ""
    yield "nul bytes", answer(right + "\0", tests)
    yield "tests only", f"```python\n{tests}\n```"
    yield "reference only", f"```python\n{right}\n```"
    yield (
        "a class of the tests",
        answer(
            f"def {name}(x):\n    return x.value",
            "\n".join(f"class V{n}:\n    value = {n}\nassert {name}(V{n}()) == {n}" for n in range(5)),
        ),
    )
    yield "not implemented", answer(f"def {name}(x):\n    raise NotImplementedError", tests)
    yield (
        "expects the failure",
        answer(
            f"def {name}(x):\n    raise ValueError",
            "import unittest\n\nclass T(unittest.TestCase):\n"
            + "\n".join(
                f"    def test_{n}(self):\n        with self.assertRaises(Exception):\n            {name}({n})"
                for n in range(5)
            ),
        ),
    )
    yield "sleeps", answer(f"import time\n\ndef {name}(x):\n    time.sleep(100)\n    return 2 * x", tests)
    yield (
        "java",
        "```java\nclass A { static int twice(int x) { return 2 * x; } }\n```\n" + tests.replace("==", "equals"),
    )
