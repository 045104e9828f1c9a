"""Under an outer filter: a stock container's restrictions, and kernels that lack a mandatory layer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# An outer seccomp filter made with our own assembler: {call: errno}, and prctl options that are refused.
OUTER = """
import ctypes, errno, sys
from plum_core.execution.inside import kernel, seccomp
from plum_core.execution.inside.syscalls import table

def outer(refused, prctl_options=()):
    blocks = {name: [(0x06, 0, 0, seccomp.ERRNO | number)] for name, number in refused.items()}
    if prctl_options:
        tests = [(0x15, len(prctl_options) - i, 0, option) for i, option in enumerate(prctl_options)]
        allow, refuse = (0x06, 0, 0, seccomp.ALLOW), (0x06, 0, 0, seccomp.ERRNO | errno.EINVAL)
        blocks["prctl"] = [(0x20, 0, 0, 16), *tests, allow, refuse]
    machine = kernel.machine()
    program = [*seccomp._prologue(machine), *seccomp._dispatch(machine, blocks), (0x06, 0, 0, seccomp.ALLOW)]
    packed = seccomp.pack(program)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    kernel.load_filter(ctypes.create_string_buffer(packed, len(packed)))
"""

# moby's default profile without CAP_SYS_ADMIN, as far as the executor could meet it
CONTAINER = (
    OUTER
    + """
kernel.drop_capabilities()
outer({"unshare": errno.EPERM, "setns": errno.EPERM, "mount": errno.EPERM, "clone3": errno.ENOSYS,
       "pidfd_getfd": errno.EPERM, "bpf": errno.EPERM, "io_uring_setup": errno.EPERM, "keyctl": errno.EPERM,
       "add_key": errno.EPERM, "userfaultfd": errno.EPERM, "perf_event_open": errno.EPERM, "ptrace": errno.EPERM})
from plum_core.execution import Executor, Limits
from plum_core.records.types import Program
from tests.execution.attacks import FORBIDDEN, HONEST, WIRE
attacks = {attack.name: attack for attack in [*FORBIDDEN, *HONEST, *WIRE]}
with Executor(workers=2, packages=(), limits=Limits(cpu_s=1, wall_s=1)) as executor:
    print(*executor.layers)
    programs = [Program(id=a.name, code=a.code, tests=a.tests) for a in attacks.values()]
    verdicts = list(executor.run(programs))
print(len(verdicts) == len(attacks))
print([(v.id, v.outcome.value, v.detail) for v in verdicts if v.outcome.value not in attacks[v.id].expected])
"""
)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_in_an_unprivileged_container() -> None:
    result = python(CONTAINER)
    assert result.returncode == 0, result.stderr
    layers, complete, wrong = result.stdout.splitlines()
    assert layers == "no_new_privs seccomp rlimits landlock"  # no namespace to be had there
    assert complete == "True"
    assert wrong == "[]"


@pytest.mark.parametrize(
    ("layer", "filter_call"),
    [
        ("seccomp", "outer({'seccomp': errno.ENOSYS}, [22])"),  # PR_SET_SECCOMP
        ("landlock", "outer({'landlock_restrict_self': errno.EOPNOTSUPP})"),
        ("rlimits", "outer({'prlimit64': errno.EPERM, 'setrlimit': errno.EPERM})"),
        ("no_new_privs", "outer({}, [38])"),
    ],
)
def test_a_kernel_without_a_mandatory_layer_is_refused(layer: str, filter_call: str) -> None:
    """The layer is really missing: found out by trying it, not by a version number."""
    result = python(
        OUTER + filter_call + "\nfrom plum_core.execution import Executor, SandboxUnavailable\n"
        "try:\n    Executor(workers=1)\nexcept SandboxUnavailable as problem:\n    print(problem)\n"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"the sandbox needs {layer}, which this machine does not offer (")
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize("path", ["NativeConfinement(load(compiled_core()), False)", "Confinement(False)"])
@pytest.mark.parametrize(
    ("filter_call", "said"),
    [
        ("outer({}, [1])", "STEPS[0]"),  # PR_SET_PDEATHSIG
        ("outer({'getppid': errno.EPERM})", "STEPS[1]"),
        ("outer({'setsid': errno.EPERM})", "STEPS[2]"),
        ("outer({}, [22])", "STEPS[3]"),  # PR_SET_SECCOMP
        ("outer({})", "''"),
    ],
    ids=["death", "parent", "session", "seccomp", "none"],
)
def test_each_step_of_a_childs_confinement_is_named(path: str, filter_call: str, said: str) -> None:
    """By forkserver.c and by its reference: whatever fails is found out before there is a program, under its name."""
    result = python(
        OUTER + "from plum_core.execution.compiled import compiled_core\n"
        "from plum_core.execution.inside.native import NativeConfinement, load\n"
        "from plum_core.execution.inside.confine import STEPS, Confinement, failed_step\n"
        f"confined = {path}\n{filter_call}\n"
        f"found = failed_step(confined.enter)\nassert found == {said}, found\n"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("left_out", ["_filter.load", "enter"])
def test_a_child_that_is_not_closed_in_is_found_out(left_out: str) -> None:
    result = python(
        OUTER + "from plum_core.execution.inside.confine import Confinement, failed_step\n"
        f"confined = Confinement(False)\nconfined.{left_out} = lambda *_: True\n"
        "found = failed_step(confined.enter)\nassert found == 'a fork by a child was not refused', found\n"
    )
    assert result.returncode == 0, result.stderr


def test_the_runner_says_it_in_one_sentence(tmp_path: object) -> None:
    result = python(
        OUTER + "outer({'seccomp': errno.ENOSYS}, [22])\n"
        "import json, pathlib, runpy\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / 'p.jsonl').write_text(json.dumps({'id': '0', 'code': 'x = 1', 'tests': ['assert True']}))\n"
        "sys.argv = ['execute.py', '--programs', str(folder / 'p.jsonl'), '--out', str(folder / 'v.jsonl')]\n"
        "try:\n    runpy.run_path('runners/execute.py', run_name='__main__')\n"
        "finally:\n    print(sorted(path.name for path in folder.iterdir()))\n"
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: the sandbox needs seccomp")
    assert result.stderr.count("\n") == 1
    assert result.stdout == "['p.jsonl']\n"
