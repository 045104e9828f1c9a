"""One frozen dataclass a record; the field names are the keys in the JSONL files."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a program ended. Only the first two say that the tests were answered."""

    PASSED = "passed"
    FAILED = "failed"  # a test said no
    ERROR = "error"  # an exception
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"  # flooded stdout or the answer channel
    CRASH = "crash"  # died by a signal
    VIOLATION = "violation"  # forbidden call, or a malformed message from the child
    EXIT = "exit"  # left before the tests were done
    SANDBOX_ERROR = "sandbox_error"  # our failure: says nothing about the program, never a label


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What the policy is asked. ``starter`` is the code that its answer continues (signature included)."""

    id: str
    prompt: str
    entry_point: str | None = None
    starter: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # unknown keys of the file, kept for the way back


@dataclass(frozen=True, slots=True, kw_only=True)
class StdinTest:
    input: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSuite:
    """Tests of one instruction; ``kept`` is false when a filter threw it out, ``why`` says which."""

    __test__ = False  # not a pytest class

    instruction_id: str
    tests: tuple[str, ...] = ()
    setup: str = ""
    reference: str | None = None
    stdin_tests: tuple[StdinTest, ...] = ()
    kept: bool = True
    why: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One draw of the policy. ``token_ids`` are what was sampled, an end-of-sequence id included."""

    instruction_id: str
    index: int
    text: str
    code: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # nats, of each of token_ids under the untempered policy
    prompt_token_ids: tuple[int, ...]
    finish_reason: str  # "stop" (an end id was drawn) or "length"
    policy: str  # fingerprint of the weights that drew it
    seed: int
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Code and its tests, as the executor takes them. ``limits`` overrides fields of the executor's."""

    id: str
    code: str
    tests: tuple[str, ...] = ()
    setup: str = ""
    stdin_tests: tuple[StdinTest, ...] = ()
    calls: tuple[dict[str, Any], ...] = ()  # {"call": "f(1, 2)", "expected": literal}
    limits: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``passed`` has one entry a test, in the program's order; a test that was never answered is false."""

    id: str
    outcome: Outcome
    passed: tuple[bool, ...]
    detail: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    attested: bool = True  # false: the child itself decided (tests that cannot be split); makes no label
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A preference in TRL's layout; training uses the sampled ids, never the text encoded again."""

    prompt: str
    chosen: str
    rejected: str
    instruction_id: str
    chosen_index: int
    rejected_index: int
    prompt_token_ids: tuple[int, ...]
    chosen_token_ids: tuple[int, ...]
    rejected_token_ids: tuple[int, ...]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What a sample's verdict is worth to a policy gradient, in [0, 1]; the sample itself stands in samples.jsonl."""

    instruction_id: str
    index: int
    reward: float
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """An unpaired verdict in TRL's KTO layout."""

    prompt: str
    completion: str
    label: bool
    instruction_id: str
    index: int
    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    extra: dict[str, Any] = field(default_factory=dict)
