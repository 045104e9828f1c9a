"""Python for a task, in four styles: step by step, fused, loop and functional."""

from __future__ import annotations

import re

from plum_core.grammar.compose import Step, Task
from plum_core.grammar.ops import KINDS

STYLES = ("steps", "fused", "loop", "functional")
NAME = re.compile(r"[a-z_]+\Z")
SOLE_ARGUMENT = re.compile(r"(?:sum|sorted|set|any|all|'[^']*'\.join|math\.prod)\(\{x\}\)\Z")


class Body:
    """The lines of one function body, and the expression that holds the value so far."""

    def __init__(self, expression: str) -> None:
        self.lines: list[str] = []
        self.now = expression

    def assign(self, kind: str) -> None:
        """Give the value a name, so that it can be used twice or read more easily."""
        if not NAME.match(self.now):
            name = KINDS[kind].variable
            self.lines.append(f"{name} = {self.now}")
            self.now = name


def comprehension(run: list[Step], iterable: str) -> str:
    """A run of filters followed by maps as one comprehension."""
    kind = KINDS[run[0].op.takes]
    if run[0].op.takes == "dict":
        conditions = " and ".join(s.fill(s.op.code) for s in run)
        return f"{{key: value for key, value in {iterable}.items() if {conditions}}}"
    element, conditions = element_and_conditions(run)
    tail = f" if {conditions}" if conditions else ""
    inner = f"{element} for {kind.element} in {iterable}{tail}"
    return f"''.join({inner})" if run[0].op.takes == "chars" else f"[{inner}]"


def element_and_conditions(run: list[Step]) -> tuple[str, str]:
    element = KINDS[run[0].op.takes].element
    conditions = []
    for step in run:
        if step.op.form == "filter":
            conditions.append(step.fill(step.op.code, e=element))
        else:
            element = step.fill(step.op.code, e=element if NAME.match(element) else f"({element})")
    return element, " and ".join(conditions)


def runs(steps: tuple[Step, ...]) -> list[list[Step]]:
    """Split into runs that fit one comprehension (filters, then at most one map) and single other steps."""
    out: list[list[Step]] = []
    for step in steps:
        previous = out[-1] if out else []
        if step.op.form in ("filter", "map") and previous and previous[-1].op.form == "filter":
            previous.append(step)
        else:
            out.append([step])
    return out


def _is_comprehension(expression: str) -> bool:
    """Whether the whole expression is one list comprehension, whose brackets a sole argument can do without."""
    if not expression.startswith("[") or " for " not in expression:
        return False
    depth = 0
    for i, character in enumerate(expression):
        depth += (character in "[(") - (character in ")]")
        if depth == 0:
            return i == len(expression) - 1
    return False


def _is_element_wise(run: list[Step]) -> bool:
    return run[0].op.form in ("filter", "map")


def _apply(body: Body, run: list[Step]) -> None:
    step = run[0]
    if _is_element_wise(run):
        if "for " in body.now and len(body.now) > 40:
            body.assign(step.op.takes)
        body.now = comprehension(run, body.now)
        return
    if (step.op.code.count("{x}") > 1 or len(body.now) > 60) and step.op.takes in KINDS:
        body.assign(step.op.takes)
    code = step.op.code
    if SOLE_ARGUMENT.match(code) and _is_comprehension(body.now):
        body.now = step.fill(code, x=body.now[1:-1])
    else:
        if code.startswith("{x}") and " + " in body.now:
            body.assign(step.op.takes)  # a sum binds less tightly than an index or a method
        body.now = step.fill(code, x=body.now)


def _functional(step: Step, value: str) -> str:
    kind = KINDS[step.op.takes]
    call = "filter" if step.op.form == "filter" else "map"
    mapped = f"{call}(lambda {kind.element}: {step.fill(step.op.code, e=kind.element)}, {value})"
    return f"''.join({mapped})" if step.op.takes == "chars" else f"list({mapped})"


def _loop(body: Body, run: list[Step], last: Step | None) -> bool:
    """A for loop that appends, or that accumulates the reduction. Returns whether ``last`` was used up."""
    kind = KINDS[run[0].op.takes]
    element, conditions = element_and_conditions(run)
    start, update, result = ("[]", "out.append({e})", "out") if last is None else last.op.loop or ("", "", "")
    body.lines.append(f"out = {start}")
    body.lines.append(f"for {kind.element} in {body.now}:")
    indent = "    "
    if conditions:
        body.lines.append(f"{indent}if {conditions}:")
        indent *= 2
    body.lines.append(indent + update.format(e=element))
    body.now = result
    return last is not None


def pipeline_body(steps: tuple[Step, ...], value: str, style: str) -> Body:
    """The statements of one pipeline; ``Body.now`` is the expression of its result."""
    body = Body(value)
    parts = [[s] for s in steps] if style in ("functional", "steps") else runs(steps)
    looped = False
    while parts:
        run = parts.pop(0)
        listy = run[0].op.takes in ("ints", "strs", "rows")
        if style == "loop" and not looped and _is_element_wise(run) and listy:
            looped = True
            last = parts[0][0] if parts and parts[0][0].op.loop else None
            if _loop(body, run, last):
                parts.pop(0)
            continue
        if style == "functional" and _is_element_wise(run) and run[0].op.takes != "dict":
            body.now = _functional(run[0], body.now)
        else:
            _apply(body, run)
        if style == "steps" and parts:
            body.assign(run[0].op.gives)
    return body


def _reassign(body: Body, name: str) -> list[str]:
    return [*body.lines, f"{name} = {body.now}"]


def solution(task: Task, style: str) -> str:
    """The function's body, four spaces deep, each line ended."""
    bodies = [pipeline_body(steps, task.param, style) for steps in task.pipelines]
    if task.shape == "plain":
        lines = [*bodies[0].lines, f"return {bodies[0].now}"]
    elif task.shape == "choice":
        condition, yes, no = bodies
        lines = [*condition.lines, f"if {condition.now}:"]
        lines += ["    " + line for line in (*yes.lines, f"return {yes.now}")]
        lines += [*no.lines, f"return {no.now}"]
    else:
        first, second = bodies
        lines = [*_reassign(first, "first"), *_reassign(second, "second")]
        ending = {"compare": "first > second", "pair": "(first, second)", "arith": "first - second"}
        lines.append(f"return {ending[task.shape]}")
    if any("math." in line for line in lines):
        lines.insert(0, "import math")
    return "".join(f"    {line}\n" for line in lines)


def signature(task: Task) -> str:
    """The line that the policy's answer continues."""
    params = [f"{name}: {task.source.annotation}" for name in task.param.split(",")]
    params += ["k: int"] if task.argument else []
    return f"def solve({', '.join(params)}) -> {task.gives}:\n"
