"""English for a task: a noun phrase grown from the inside out, or orders step by step."""

from __future__ import annotations

import random

from plum_core.grammar.compose import Step, Task
from plum_core.grammar.ops import KINDS


def _noun(kind: str) -> str:
    return KINDS[kind].noun if kind in KINDS else "values"


def _grow(phrase: str, step: Step, bare: bool, rng: random.Random) -> str:
    said = rng.choice(step.op.says)
    noun = _noun(step.op.takes)
    if step.op.form == "filter":
        return f"the {step.fill(said, n=noun)} {'in' if bare else 'among'} {phrase}"
    if bare and said.startswith(("the number of {x}", "how many {x}")):
        phrase = f"{noun} in {phrase}"
    elif said.startswith(("the number of {x}", "how many {x}", "the number of distinct {x}", "how many different {x}")):
        phrase = phrase.removeprefix("the ")
    return step.fill(said, x=phrase, n=noun)


def noun_phrase(steps: tuple[Step, ...], param: str, rng: random.Random) -> str:
    """The whole pipeline as one noun phrase (a clause, where it ends in a boolean)."""
    phrase = param
    for step in steps:
        phrase = _grow(phrase, step, phrase == param, rng)
    return phrase


def orders(steps: tuple[Step, ...], param: str, rng: random.Random) -> str:
    """The pipeline as orders: "take nums, keep only the even numbers, square each of them, and return ..."."""
    *middle, last = steps
    said = []
    for step in middle:
        if step.op.form == "filter":
            said.append("keep only the " + step.fill(rng.choice(step.op.says), n=_noun(step.op.takes)))
        else:
            said.append(step.fill(rng.choice(step.op.orders or step.op.says), x=param, n=_noun(step.op.takes)))
    opening = [] if middle[0].op.takes == "source" else [f"{rng.choice(('take', 'start with'))} {param}"]
    result = rng.choice(("the result", "what remains", f"those {_noun(last.op.takes)}"))
    if last.op.says[0].startswith(("the number of {x}", "how many {x}")):
        ending = f"return the number of {_noun(last.op.takes)} left"
    else:
        ending = _returns(last.op.gives, _grow(result, last, False, rng), rng)
    return f"{', '.join(opening + said)}{rng.choice((', and ', ', then '))}{ending}"


def _returns(gives: str, phrase: str, rng: random.Random) -> str:
    if gives == "bool":
        return rng.choice((f"return whether {phrase}", f"return True if {phrase}, otherwise False"))
    if phrase.startswith("how "):
        return rng.choice(("count ", "return ")) + phrase
    return rng.choice(("return", "return", "return", "compute", "find")) + " " + phrase


def instruction(task: Task, rng: random.Random) -> str:
    """One English sentence that says what the function returns."""
    if task.shape == "plain":
        steps = task.pipelines[0]
        if len(steps) > 2 and rng.random() < 0.4:
            body = orders(steps, task.param, rng)
        else:
            body = _returns(steps[-1].op.gives, noun_phrase(steps, task.param, rng), rng)
    else:
        body = _combined(task, rng)
    if rng.random() < 0.2:
        described = task.source.described.format(p=task.param.replace(",", " and "))
        described += " and an integer k" if task.argument else ""
        body = f"given {described}, {body}"
    return body[0].upper() + body[1:] + "."


def _combined(task: Task, rng: random.Random) -> str:
    parts = [noun_phrase(steps, task.param, rng) for steps in task.pipelines]
    if task.shape == "choice":
        return f"if {parts[0]}, return {parts[1]}; otherwise return {parts[2]}"
    a, b = parts
    if task.shape == "compare":
        return _returns("bool", f"{a} is greater than {b}", rng)
    if task.shape == "pair":
        return _returns("tuple", rng.choice((f"a tuple of {a} and {b}", f"both {a} and {b} as a tuple")), rng)
    return _returns("int", rng.choice((f"{a} minus {b}", f"the result of subtracting {b} from {a}")), rng)
