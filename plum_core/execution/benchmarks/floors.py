"""What no executor that forks goes below: a fork alone, and the programs alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from plum_core.execution.benchmarks.tasks import Task
from plum_core.execution.inside.zygote import COMMON

FORKS = """
import gc, os, sys
count, what, *modules = sys.argv[1:]
for name in modules: __import__(name)
code = "def f(a, b):\\n    c = 0\\n    for i in range(a):\\n        c += i * 77 + b\\n    return c\\n"
def run():
    space = {}
    exec(compile(code, "<program>", "exec"), space)
    for a in 4, 5, 9: space["f"](a, 3)
for _ in range(20): run()
gc.collect(); gc.disable(); gc.freeze()
for _ in range(int(count)):
    pid = os.fork()
    if pid == 0:
        if what == "program": run()
        os._exit(0)
    os.waitpid(pid, 0)
"""
# What a fork alone costs: of an interpreter with the zygote's modules, of a bare one, and of that with a program in it.
FLOORS = {
    "fork and exit with the zygote's modules": ("exit", *COMMON),
    "fork and exit of a bare interpreter": ("exit",),
    "the same and one trivial program: compile, run, three calls": ("program",),
}


def floors_ms(count: int = 1000) -> dict[str, float]:
    """CPU milliseconds of each of ``FLOORS``: without confinement, without a judge."""
    return {name: _fork_ms(count, arguments) for name, arguments in FLOORS.items()}


def _fork_ms(count: int, arguments: tuple[str, ...]) -> float:
    usage = {}
    for n in (0, count):
        before = os.times()
        subprocess.run([sys.executable, "-I", "-S", "-c", FORKS, str(n), *arguments], check=True)
        after = os.times()
        usage[n] = after.children_user + after.children_system - before.children_user - before.children_system
    return 1000 * (usage[count] - usage[0]) / count


def alone_ms(tasks: Sequence[Task]) -> float:
    """CPU milliseconds of a program and its tests in one warm interpreter: compile and run, no fork, no confinement."""
    for _ in range(2):  # the first round imports
        began = time.process_time()
        for task in tasks:
            space: dict[str, object] = {}
            try:
                exec(compile("\n".join([task.code, *task.tests]), "<program>", "exec", 0, True), space)
            except AssertionError:
                assert not task.right
        spent = time.process_time() - began
    return 1000 * spent / len(tasks)
