"""Hostile, awkward and honest programs: what each tries, and the outcomes that are right for it.

``PASS`` rows are honest programs that a sandbox easily breaks. ``LEAK`` rows return "blocked" where the forbidden
act was refused. In all others only a forged pass, a hang or damage would be wrong.
"""

from __future__ import annotations

from typing import NamedTuple


class Attack(NamedTuple):
    """One program; ``expected`` holds the outcomes that are right."""

    name: str
    why: str
    expected: frozenset[str]
    code: str
    tests: tuple[str, ...]


SUM = ("assert f(1, 2) == 3", "assert f(2, 2) == 4", "assert f(0, 0) == 0")
NOT_PASSED = frozenset({"failed", "error", "exit", "timeout", "memory", "crash", "violation", "output"})
PASS = frozenset({"passed"})
LEAK = frozenset({"passed", "violation", "error"})


def _leak(name: str, why: str, act: str) -> Attack:
    """``act`` must raise or be killed."""
    body = "\n".join("        " + line for line in act.splitlines())
    code = f"def f():\n    try:\n{body}\n        return 'leak'\n    except BaseException:\n        return 'blocked'\n"
    return Attack(name, why, LEAK, code, ("assert f() == 'blocked'",))


def _forge(name: str, why: str, code: str, tests: tuple[str, ...] = SUM) -> Attack:
    return Attack(name, why, NOT_PASSED, code, tests)


def _syscall(number: int, *args: object) -> str:
    shown = ", ".join(map(str, (number, *args)))
    return f"import ctypes\nassert ctypes.CDLL(None).syscall({shown}) >= 0"


# what a program can find out about its own job: the object itself is in its memory
_NONCE = (
    "import gc, json, os\n"
    "(n,) = [o['n'] for o in gc.get_objects() if type(o) is dict and {'n', 'mode', 'code'} <= o.keys()]\n"
)

FORGED = [
    _forge(
        "equal_to_all",
        "an object that says yes to every comparison",
        "class E:\n"
        "    def __eq__(s, o): return True\n"
        "    __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __eq__\n"
        "    def __hash__(s): return 3\n"
        "def f(a, b): return E()\n",
        ("assert f(1, 2) == 3", "assert 3 == f(1, 2)", "assert f(0, 0) in [0]", "assert f(0, 0) < 1"),
    ),
    _forge(
        "equal_inside",
        "the same, within containers",
        "class E:\n    def __eq__(s, o): return True\n    def __hash__(s): return hash(3)\n"
        "def f(a, b): return [(E(),), {'k': E()}, {E()}]\n",
        ("assert f(1, 2) == [(3,), {'k': 3}, {3}]",),
    ),
    _forge(
        "int_subclass",
        "an int that equals everything",
        "class I(int):\n    def __eq__(s, o): return True\n    __hash__ = int.__hash__\ndef f(a, b): return I(9)\n",
    ),
    _forge(
        "str_subclass",
        "a str whose methods say what the test wants",
        "class S(str):\n    def isupper(s): return True\n    def __eq__(s, o): return True\n"
        "    def __len__(s): return 3\n    __hash__ = str.__hash__\ndef f(): return S('low')\n",
        ("assert f().isupper()", "assert f() == 'LOW'", "assert len(f()) == 99", "x = f()\nassert 'L' in x"),
    ),
    _forge(
        "lying_class",
        "__class__ and a metaclass that answer isinstance",
        "class M(type):\n    def __instancecheck__(c, o): return True\n    def __eq__(c, o): return True\n"
        "    __hash__ = type.__hash__\n"
        "class X(metaclass=M):\n    __class__ = int\n    def __eq__(s, o): return True\ndef f(): return X()\n",
        ("assert isinstance(f(), int)", "assert type(f()) == int", "assert f() == 1"),
    ),
    _forge(
        "lying_iteration",
        "a list whose iteration differs from its content",
        "class L(list):\n    def __iter__(s): return iter([3])\n    def __len__(s): return 1\n"
        "    def __getitem__(s, i): return 3\ndef f(a, b): return L([9, 9])\n",
        ("assert f(1, 2) == [3]", "assert f(1, 2)[0] == 3", "assert len(f(1, 2)) == 1"),
    ),
    _forge(
        "redefined_builtins",
        "the program defines what the test calls",
        "def abs(x): return 0\ndef len(x): return 3\ndef isinstance(*a): return True\ndef sorted(x): return [1]\n"
        "def all(x): return True\ndef f(x): return 99.0\n",
        (
            "assert abs(f(1) - 0.5) < 1e-6",
            "assert len([f(1)]) == 3",
            "assert isinstance(f(1), str)",
            "assert sorted([f(1)]) == [1]",
            "assert all([f(1) == x for x in [1, 2]])",
        ),
    ),
    _forge(
        "own_math",
        "a module of the program's under a name that the tests use",
        "class math:\n    def isclose(*a, **k): return True\n    pi = 3\nclass np:\n    allclose = math.isclose\n"
        "def f(x): return 99.0\n",
        ("assert math.isclose(f(1), 0.5)", "assert np.allclose(f(1), 0.5)", "x = f(1)\nassert math.isclose(x, 1)"),
    ),
    _forge(
        "own_counter",
        "the expected side is built by a name that the program redefines",
        "class Counter:\n    def __new__(c, *a): return 0\nFraction = Decimal = Counter\ndef f(x): return 0\n",
        ("assert f(1) == Counter({'a': 1})", "assert f(1) == Fraction(1, 3)", "assert f(1) == Decimal('1.5')"),
    ),
    _forge(
        "patched_encoder",
        "replaces our encoder through the frames of the call",
        "import sys\n"
        "def f(a, b):\n"
        "    fr = sys._getframe()\n"
        "    while fr:\n"
        "        codec = fr.f_globals.get('codec') or getattr(fr.f_globals.get('child'), 'codec', None)\n"
        "        if codec: codec.encode = lambda *k: {'x': 'passed'}\n"
        "        fr = fr.f_back\n"
        "    return 41\n",
    ),
    _forge(
        "answers_by_itself",
        "steals the nonce and answers every call before it is made",
        _NONCE + "for i in range(3): os.write(4, json.dumps([n, i, 'v', True]).encode() + b'\\n')\n"
        "os.write(3, b'.')\nos._exit(0)\n",
    ),
    _forge(
        "answers_twice",
        "steals the nonce, and puts an answer that knows the next call's arguments before the honest one",
        _NONCE + "def f(a, b):\n    os.lseek(4, 0, 0)\n"
        "    os.write(4, json.dumps([n, 0, 'v', a]).encode() + b'\\n')\n    return a\n",
    ),
    _forge(
        "says_that_it_is_done",
        "ends the conversation before its answers are asked for",
        "import os\nos.write(3, b'.')\ndef f(a, b):\n    while True: pass\n",
    ),
    _forge(
        "verdict_words",
        "writes what a verdict looks like on every descriptor",
        "import os\nfor fd in range(1, 8):\n    for w in (b'passed', b'{\"outcome\": \"passed\"}'):\n"
        "        try: os.write(fd, len(w).to_bytes(4, 'little') + w)\n        except OSError: pass\n"
        "def f(a, b): return 41\n",
    ),
    _forge("exit_status", "leaves with status 0 after one right answer", "n = [0]\nimport os\n"
           "def f(a, b):\n    n[0] += 1\n    if n[0] > 1: os._exit(0)\n    return a + b\n"),
    _forge("system_exit", "SystemExit out of a call", "def f(a, b): raise SystemExit(0)\n"),
    _forge("kill_self", "dies by its own hand", "import os\ndef f(a, b): os.kill(os.getpid(), 15)\n"),
    _forge(
        "named_exceptions",
        "exceptions named like ours",
        "class Untransportable(Exception): pass\nclass Passed(Exception): pass\n"
        "def f(a, b): raise Untransportable('x')\n",
        ("x = 1\nassert f(1, 2) == 3", "assert f(1, 2) == 3"),
    ),
    _forge(
        "remote_equality",
        "an object behind a handle that equals everything, in a test that cannot be split",
        "class P:\n    def __init__(s, v=0): s.v = 7\n"
        "    def __eq__(s, o): return True\n    def __hash__(s): return 1\n"
        "    def same(s, o): return P()\n",
        ("p = P(1)\nassert p == 3", "p = P(1)\nassert p.same(2) == P(2)", "p = P(1)\nassert p.v == 1"),
    ),
    _forge(
        "remote_answers",
        "an object that answers the questions one asks of data",
        "class A:\n    def __getattr__(s, n): return lambda *a: True\n    def __contains__(s, x): return True\n"
        "    def __len__(s): return 2\n    def __bool__(s): return True\n    def __iter__(s): return iter('ab')\n"
        "class f:\n    def __new__(c, *a): return A()\n",
        (
            "assert f(1).startswith('a')",
            "x = f(1)\nassert 'a' in x",
            "x = f(1)\nassert x.keys()",
            "x = f(1)\nassert len(x) == 2",
            "assert f(1).is_integer()",
        ),
    ),
    _forge(
        "remote_arithmetic",
        "an object that is told the expected value by an operator, and makes the difference nothing",
        "class A:\n    def __sub__(s, o): return 0\n    def __add__(s, o): return o\n    def __mul__(s, o): return o\n"
        "    def __neg__(s): return -3\ndef f(x): return A()\n",
        (
            "x = f(1)\nassert x - 3 == 0",
            "x = f(1)\nassert abs(x - 3) < 1e-6",
            "x = f(1)\nassert not x - 3",
            "x = f(1)\nassert x + 3 == 3",
            "x = f(1)\nassert x * 3 == 3",
            "x = f(1)\nassert -x == -3",
        ),
    ),
    _forge(
        "remote_mutation",
        "hands back changed arguments to spoil the test's own data",
        "def f(xs):\n    xs.clear()\n    return []\n",
        ("xs = [1, 2]\nassert f(xs) == [1, 2]", "want = [1, 2]\nxs = list(want)\nf(xs)\nassert xs == want"),
    ),
    _forge("nan_answer", "nan equals nothing", "def f(a, b): return float('nan')\n"),
    _forge("bool_for_none", "None, 0, False and '' are not the same thing", "def f(a, b): return False\n",
           ("assert f(0, 0) is None", "assert f(0, 0) == ''", "assert f(0, 0) == []", "assert f(0, 0) is 0")),
    _forge("tuple_for_list", "a tuple is no list", "def f(): return (1, [2])\n",
           ("assert f() == [1, [2]]", "assert f() == (1, (2,))")),
    _forge("huge_range", "a range that a test would spell out", "def f(): return range(10 ** 12)\n",
           ("assert list(f()) == [0]", "assert sum(f()) == 3", "assert set(f()) == {0}")),
    _forge("endless_generator", "a lazy answer without end", "import itertools\ndef f(): return itertools.count()\n",
           ("assert list(f()) == [0]",)),
    _forge("deep_answer", "nested a thousand levels",
           "def f():\n    x = 0\n    for _ in range(1000): x = [x]\n    return x\n", ("assert f() == [0]",)),
    _forge("long_answer", "an answer of 100 MB", "def f(): return 'x' * 10 ** 8\n", ("assert f() == 'x'",)),
    _forge("many_digits", "an integer that takes minutes to print", "def f(): return 9 ** 10 ** 6\n",
           ("assert f() == 9", "assert str(f()) == '9'")),
]  # fmt: skip

WIRE = [
    _forge("short_header", "half a frame, then silence", "import os, time\nos.write(3, b'\\x08\\0')\ntime.sleep(99)\n"),
    _forge("long_header", "announces 4 GB", "import os\nos.write(3, b'\\xff' * 4)\n"),
    _forge("not_json", "a frame of garbage", "import os\nos.write(3, b'\\x04\\0\\0\\0\\xff\\xfe{[')\n"),
    _forge("deep_json", "JSON nested beyond any parser", "import os\nb = b'[' * 100000\n"
           "os.write(3, len(b).to_bytes(4, 'little') + b)\n"),
    _forge("colliding_set", "a set whose hashes all collide, of the right length",
           _NONCE + "m = (1 << 61) - 1\nb = json.dumps([n, 0, 'v', {'s': [i * m for i in range(20000)]}]).encode()\n"
           "os.write(4, b + b'\\n')\nos.write(3, b'.')\n", ("assert f() == {1}",)),
    _forge("half_a_line", "half an answer in the file, then silence",
           "import os, time\nos.write(4, b'[\"x\"')\ntime.sleep(99)\n"),
    _forge("file_not_json", "garbage in the answer file",
           "import os\nos.write(4, b'\\xff\\xfe{[\\n')\nos.write(3, b'.')\n"),
    _forge("file_deep_json", "JSON nested beyond any parser, in the file",
           "import os\nos.write(4, b'[' * 100000 + b'\\n')\nos.write(3, b'.')\n"),
    _forge("file_flood", "fills the answer file", "import os\nwhile True: os.write(4, b'[]' * 100000)\n"),
    _forge("file_lines", "a million empty answers", "import os\nos.write(4, b'\\n' * 10 ** 6)\nos.write(3, b'.')\n"),
    _forge("file_grown", "makes the answer file long without writing",
           "import os\ntry: os.ftruncate(4, 1 << 40)\nexcept OSError: os.lseek(4, 1 << 30, 0); os.write(4, b'x')\n"),
    _forge("file_mapped", "maps the answer file, to change it while it is read",
           "import mmap, os\nos.write(4, b' ' * 4096)\nm = mmap.mmap(4, 4096)\nos.write(3, b'.')\n"
           "while True: m[0:4] = b'[\"x\"'\n"),
    _forge("closed_channel", "closes every descriptor", "import os\nos.closerange(0, 99)\ndef f(a, b): return a + b\n"),
    _forge("flood", "answers without end", "import os\nwhile True: os.write(3, b'\\x02\\0\\0\\0[]' * 1000)\n"),
]  # fmt: skip

RESOURCES = [
    _forge("spin", "an endless loop that swallows exceptions",
           "def f(a, b):\n    while True:\n        try:\n            while True: pass\n"
           "        except BaseException: pass\n"),
    _forge("sleep", "sleeps", "import time\ndef f(a, b): time.sleep(1e6)\n"),
    _forge("stop", "stops itself", "import os, signal\ndef f(a, b): os.kill(os.getpid(), signal.SIGSTOP)\n"),
    _forge("small_objects", "memory by many small objects",
           "def f(a, b):\n    x = []\n    while True: x.append([None] * 1000)\n"),
    _forge("one_object", "memory by one object", "def f(a, b): return len(bytearray(1 << 40))\n"),
    _forge("c_stack", "recursion in C until the stack ends",
           "import sys\nsys.setrecursionlimit(10 ** 9)\nclass A:\n    def __repr__(s): return repr([s])\n"
           "def f(a, b): return repr(A())\n"),
    _forge("descriptors", "opens until it may not", "import os\nfds = []\n"
           "def f(a, b):\n    while True: fds.append(os.dup(0))\n"),
    _forge("threads", "threads without end", "import threading, time\n"
           "def f(a, b):\n    while True: threading.Thread(target=time.sleep, args=(99,)).start()\n"),
    _forge("forks", "forks without end", "import os\ndef f(a, b):\n    while True: os.fork()\n"),
    _forge("stdout", "prints without end", "def f(a, b):\n    while True: print('x' * 10000)\n"),
    _forge("parser", "a source that the parser gives up on", "x = " + "(" * 5000 + ")" * 5000 + "\n"),
    _forge("null_byte", "a NUL in the source", "x = 1\0\ndef f(a, b): return a + b\n"),
]  # fmt: skip

FORBIDDEN = [
    _leak("read_passwd", "reads outside its folders", "open('/etc/passwd').read()"),
    _leak("list_home", "lists outside its folders", "import os\nos.listdir('/home')"),
    _leak("read_memory", "reads a process's memory", "import os\nos.open(f'/proc/{os.getppid()}/mem', os.O_RDONLY)"),
    _leak("read_own_fds", "re-opens its channel", "open('/proc/self/fd/3', 'rb')"),
    _leak("write_file", "leaves a file", "open('/tmp/plum_attack', 'w').write('x')"),
    _leak("write_shm", "leaves shared memory", "open('/dev/shm/plum_attack', 'w').write('x')"),
    _leak("make_folder", "leaves a folder", "import os\nos.mkdir('/tmp/plum_attack')"),
    _leak("chmod", "changes a mode", "import os\nos.chmod('/tmp', 0o777)"),
    _leak("tcp", "a TCP socket", "import socket\nsocket.socket()"),
    _leak("udp", "a UDP socket", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)"),
    _leak("unix", "an abstract socket", "import socket\nsocket.socket(socket.AF_UNIX).bind('\\0plum')"),
    _leak("exec", "another program", "import os\nos.execv('/bin/true', ['true'])"),
    _leak("subprocess", "a subprocess", "import subprocess\nsubprocess.run(['/bin/true'])"),
    _leak("kill_zygote", "signals its parent", "import os\nos.kill(os.getppid(), 0)"),
    _leak("kill_all", "signals everyone", "import os\nos.kill(-1, 0)"),
    _leak("new_session", "leaves its session", "import os\nos.setsid()"),
    _leak("raise_limit", "raises a limit", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"),
    _leak("memfd", "memory outside RLIMIT_AS", "import os\nos.memfd_create('x')"),
    _leak("outlive", "drops the death with the parent",
          "import ctypes\nassert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0"),
    _leak("ptrace", "ptrace", "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0"),
    _leak("io_uring", "io_uring_setup", _syscall(425, 1, "ctypes.create_string_buffer(120)")),
    _leak("bpf", "bpf", _syscall(321, 0, "ctypes.create_string_buffer(120)", 120)),
    _leak("keyctl", "add_key", _syscall(248, "b'user'", "b'plum'", "b'x'", 1, -3)),
    _leak("userfault", "userfaultfd", _syscall(323, 0)),
    _leak("namespace", "unshare(NEWUSER)", "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0"),
    _leak("x32", "the x32 numbers", _syscall(0x40000000 + 39)),
    _leak("own_filter", "a seccomp filter of its own", _syscall(317, 1, 0, "ctypes.create_string_buffer(16)")),
]  # fmt: skip

HONEST = [
    Attack("plain", "baseline", PASS, "def f(a, b): return a + b\n", SUM),
    Attack("prints", "300 kB of prints", PASS, "def f(a, b):\n    print('y' * 300000)\n    return a + b\n", SUM),
    Attack("dataclass", "looks its module up", PASS,
           "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
           "def f(a, b): return P(a).x + b\n", SUM),
    Attack("recursion", "honest deep recursion", PASS,
           "import sys\nsys.setrecursionlimit(20000)\ndef g(n): return n and 1 + g(n - 1)\n"
           "def f(a, b): return a + b if g(9000) == 9000 else None\n", SUM),
    Attack("asyncio", "needs epoll and a socket pair", PASS,
           "import asyncio\nasync def g(a, b):\n    await asyncio.sleep(0)\n    return a + b\n"
           "def f(a, b): return asyncio.run(g(a, b))\n", SUM),
    Attack("alarm", "a timer on itself", PASS,
           "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\n"
           "signal.setitimer(signal.ITIMER_REAL, 0.001)\n"
           "def f(a, b): return a + b\n", SUM),
    Attack("future", "annotations that name nothing yet", PASS,
           "from __future__ import annotations\ndef f(a: Later, b) -> Later: return a + b\n", SUM),
    Attack("enum", "an IntEnum is its number", PASS,
           "import enum\nclass E(enum.IntEnum):\n    A = 3\ndef f(a, b): return E.A if a == 1 else a + b\n", SUM),
    Attack("named_tuple", "a namedtuple is its tuple", PASS,
           "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(a, b): return P(a, b)\n",
           ("assert f(1, 2) == (1, 2)",)),
    Attack("numbers", "Decimal, Fraction and complex compare as numbers", PASS,
           "from decimal import Decimal\nfrom fractions import Fraction\n"
           "def f(a, b): return [Decimal(a) + b, Fraction(a) + b, complex(a + b)][a]\n",
           ("assert f(0, 2) == 2", "assert f(1, 2) == 3", "assert f(2, 2) == 4")),
    Attack("exact_floats", "floats to the last bit", PASS, "def f(): return [0.1 + 0.2, float('inf'), -0.0]\n",
           ("assert f() == [0.30000000000000004, 1e400, 0.0]",)),
    Attack("surrogates", "lone surrogates are not a character", PASS, "def f(): return '\\ud83d\\ude00'\n",
           ("assert f() == '\\ud83d\\ude00'", "assert f() != '\\U0001f600'")),
    Attack("big_int", "an integer of 3000 digits", PASS, "def f(): return 7 ** 3500\n", ("assert f() == 7 ** 3500",)),
    Attack("shadowing", "a function named like one of Python's", PASS, "def sum(a, b): return a + b\n",
           ("assert sum(1, 2) == 3", "def check(candidate):\n    assert sum(4, 4) == 8\ncheck(sum)")),
    Attack("crlf", "line ends of another system", PASS, "def f(a, b):\r\n    return a + b\r\n", SUM),
    Attack("random", "seeded alike in every child", PASS, "import random\ndef f(): return random.random()\n",
           ("assert 0 <= f() < 1",)),
    Attack("os_words", "words that deny-lists ban", PASS,
           "import os, threading, subprocess, socket\ndef f(a, b): return a + b if os.getpid() else 0\n", SUM),
]  # fmt: skip

ATTACKS = [*FORGED, *WIRE, *RESOURCES, *FORBIDDEN, *HONEST]
