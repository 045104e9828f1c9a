"""Answers as models write them, with what is to be found in each and a wrong program that the tests must catch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    answer: str
    entry: str
    tests: int
    wrong: str  # a wrong program
    caught: int  # tests that it fails
    signature: str
    left_out: tuple[str, ...] = ()  # of the reference


CASES = [
    Case(
        "two blocks with prose",
        """
        Let me think about it. A **sum** is needed.

        1. The reference:
           ```python
           import math

           def total(xs: list[int], start: int = 0) -> int:
               # adds
               return _add(math.trunc(start), xs)

           def _add(start, xs):
               return start + sum(xs)
           ```
        2. The tests:
           ```Python title="tests"
           from solution import total
           cases = [1, 2]
           assert total([]) == 0, "empty"
           assert total(cases) == 3 and total(cases, 4) == 7
           assert total([5], start=1) == 6
           print("all passed")
           ```
        Hope this helps!
        """,
        "total", 4, "def total(xs, start=0):\n    return start", 3, "def total(xs: list[int], start: int=0) -> int:",
        ("cases", "print"),
    ),
    Case(
        "no fence",
        """
        Sure! Here is the function.

        def twice(x):
            return [
                x,
                x,
            ]

        And the tests:

        assert twice(1) == [1, 1]
        assert twice('a') == ['a', 'a']
        That is all.
        """,
        "twice", 2, "def twice(x):\n    return [x]", 2, "def twice(x):",
    ),
    Case(
        "unittest",
        """
        ~~~python
        import unittest

        class Account:
            def __init__(self, balance=0):
                self.balance = balance
            def deposit(self, amount):
                if amount <= 0:
                    raise ValueError("amount must be positive")
                self.balance += amount
            def _audit(self):
                return None

        class TestAccount(unittest.TestCase):
            START = 10
            def setUp(self):
                self.account = Account(self.START)
            def test_deposit(self):
                self.account.deposit(5)
                self.assertEqual(self.account.balance, 15, "fifteen")
                self.account.deposit(1)
                self.assertTrue(self.account.balance == 16)
            def test_refuses(self):
                with self.assertRaises(ValueError) as caught:
                    self.account.deposit(0)
                self.assertIn("positive", str(caught.exception))
                self.assertRaises(ValueError, self.account.deposit, -1)
            def test_near(self):
                self.account.deposit(0.1)
                self.assertAlmostEqual(self.account.balance, 10.1)
                self.assertAlmostEqual(self.account.balance, 10, delta=0.2)
                self.assertIsInstance(self.account.balance, float)

        if __name__ == "__main__":
            unittest.main()
        ~~~
        """,
        "Account", 8,
        "class Account:\n    def __init__(self, balance=0):\n        self.balance = balance\n"
        "    def deposit(self, amount):\n        self.balance += 7",
        8,
        """
        class Account:
            def __init__(self, balance=0):
            def deposit(self, amount):
        """,
        ("unittest", "TestAccount"),
    ),
    Case(
        "unittest that cannot be laid out straight",
        """
        ```python
        from unittest import TestCase
        import unittest
        def double(x):
            return 2 * x
        class Tests(TestCase):
            def same(self, x):
                self.assertEqual(double(x), x + x)
            def test_ints(self):
                self.same(3)
                self.same(4)
            def test_lists(self):
                self.assertCountEqual(double([1]), [1, 1])
            @unittest.skip("no")
            def test_never(self):
                self.assertEqual(double(1), 3)
        ```
        """,
        "double", 2, "def double(x):\n    return x", 2, "def double(x):",
    ),
    Case(
        "pytest",
        """
        ```python
        import pytest
        import math

        ROWS = [(4, 2.0), (9, 3.0)]

        def root(x):
            if x < 0:
                raise ValueError("negative: %d" % x)
            return math.sqrt(x)

        @pytest.mark.parametrize("x, want", ROWS)
        def test_rows(x, want):
            assert root(x) == want

        @pytest.mark.parametrize(("x", "want"), [pytest.param(2, 1.41421356, id="two")])
        @pytest.mark.slow
        def test_near(x, want):
            assert root(x) == pytest.approx(want, rel=1e-6)
            assert [root(1), root(2)] == pytest.approx([1, want])

        @pytest.fixture
        def big():
            number = 100
            return number

        class TestRoot:
            def setup_method(self):
                self.n = 16
            def test_field(self, big):
                got = root(self.n)
                assert got == 4
                assert root(big) == 10

        def test_negative():
            with pytest.raises(ValueError, match=r"negative: -\\d"):
                root(-1)

        def test_text(big):
            with pytest.raises(TypeError):
                root(str(big))

        @pytest.mark.skip
        def test_skipped():
            assert root(1) == 2
        def test_unknown_fixture(tmp_path):
            assert root(1) == 1
        ```
        """,
        "root", 8, "def root(x):\n    return x", 8, "def root(x):", ("pytest", "ROWS"),
    ),
    Case(
        "doctests",
        '''
        ```python
        def shout(s: str) -> str:
            """Upper case.

            >>> shout("a")
            'A'
            >>> t = "bc"
            >>> shout(t)
            'BC'
            >>> shout(3)
            Traceback (most recent call last):
                ...
            AttributeError: 'int' object has no attribute 'upper'
            >>> print(shout("x"))
            X
            """
            return s.upper()
        ```

        ```pycon
        >>> shout("")
        ''
        ```
        ''',
        "shout", 4, "def shout(s):\n    return str(s)", 3, "def shout(s: str) -> str:",
    ),
    Case(
        "helpers of the tests",
        """
        ```python
        class Node:
            def __init__(self, value, next=None):
                self.value, self.next = value, next

        def reverse(head: Node | None) -> Node | None:
            before = None
            while head:
                head.next, before, head = before, head, head.next
            return before
        ```
        ```python
        def make(values):
            head = None
            for value in values[::-1]:
                head = Node(value, head)
            return head
        def values(head):
            return [head.value, *values(head.next)] if head else []
        assert values(reverse(make([1, 2, 3]))) == [3, 2, 1]
        assert reverse(make([])) is None
        head = make([7])
        assert reverse(head) is head
        ```
        """,
        "reverse", 3, "class Node: pass\ndef reverse(head):\n    return head", 1,
        """
        class Node:
            def __init__(self, value, next=None):
        def reverse(head: Node | None) -> Node | None:
        """,
        ("make",),
    ),
    Case(
        "state between assertions",
        """
        ```python
        class Stack:
            def __init__(self): self.items = []
            def push(self, x): self.items.append(x)
            def pop(self): return self.items.pop()
        s = Stack()
        s.push(1)
        s.push(2)
        assert s.pop() == 2
        assert s.pop() == 1
        other = [s]
        other[0].push(9)
        assert s.pop() == 9
        s = Stack()
        s.push(5)
        assert s.pop() == 5
        ```
        """,
        "Stack", 4,
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def pop(self): return self.items.pop(0)",
        2,
        """
        class Stack:
            def __init__(self):
            def push(self, x):
            def pop(self):
        """,
    ),
    Case(
        "loops, a check function and a guard",
        """
        Signature:
        ```python
        def sign(x: int) -> int:
        ```
        ```python
        def sign(x: int) -> int:
            return (x > 0) - (x < 0)

        def check(candidate):
            for x, want in [(3, 1), (-3, -1), (0, 0)]:
                assert candidate(x) == want
            for x in range(3):
                assert candidate(x) >= 0
            for n, (x, want) in enumerate(zip([4, -4], [1, -1])):
                assert candidate(x) == want, n
            for x, want in {5: 1, -5: -1}.items():
                assert candidate(x) == want

        def run_tests():
            results = []
            for x in (1, 2):
                results.append(sign(x))
            assert results == [1, 1]

        def main():
            print(sign(int(input())))

        if __name__ == "__main__":
            check(sign)
            run_tests()
            main()
        ```
        """,
        "sign", 9, "def sign(x):\n    return 1", 4, "def sign(x: int) -> int:", ("main", "input", "check"),
    ),
    Case(
        "hand-made expectations of errors, async and early returns",
        """
        ```python
        import asyncio
        async def later(x):
            await asyncio.sleep(0)
            if x is None:
                raise TypeError("none")
            return x
        async def test_later():
            assert await later(1) == 1
        def test_error():
            try:
                asyncio.run(later(None))
                assert False, "no error"
            except TypeError:
                pass
        def test_early():
            if asyncio.run(later(2)) == 2:
                return
            assert False
        ```
        """,
        "later", 3, "async def later(x):\n    return 0", 3, "async def later(x):",
    ),
]  # fmt: skip
