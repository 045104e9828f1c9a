"""Where the executor and a published verdict differ, looked into one by one. None is a wrong verdict of a program.

A reason that starts with ``slow`` depends on the machine and on the CPU limit: such a program may agree as well.
"""

from __future__ import annotations

from plum_core.execution.inside import words

INPUTS = "EvalPlus runs inputs of its own here, on which the program and the reference agree"
REFERENCE = "EvalPlus takes what its corrected reference returns for right, not what the test text says"
LAST_BIT = "published as failed at an answer that differs from the expected one in the last bit of a float"
SLOW = "slow: needs more CPU seconds than the limit, or than the publisher granted"
INVALID = "the published row itself is broken: plain Python says the same"
OBJECTS = "the test treats the program's objects as data or types, which a tester refuses whoever wrote the program"
PACKAGE = "needs pandas"

_CORRECTED = words("143 229 400 431 442 461 574")  # passes there, fails the text
_STRICTER = words("3 117 396 780")  # fails there on inputs that the text has not, or by a corrected answer
_OWN_RULE = words("164 249 295")

EXPLAINED: dict[str, dict[str, str]] = {
    "starcoder2 MBPP": {"Mbpp/87": INPUTS, "Mbpp/312": LAST_BIT, "Mbpp/123": SLOW},
    "starcoder2 MBPP sanitized": {
        "Mbpp/87": INPUTS,
        "Mbpp/312": LAST_BIT,
        "Mbpp/123": SLOW,
        **{f"Mbpp/{task}": REFERENCE for task in _CORRECTED | _STRICTER | _OWN_RULE},
    },
    "starcoder2 MBPP, EvalPlus base": {"Mbpp/312": LAST_BIT, "Mbpp/123": SLOW},
    "starcoder2 HumanEval, EvalPlus plus": {"HumanEval/21": LAST_BIT},
    "starcoder2 MBPP, EvalPlus plus": {
        **{f"Mbpp/{task}": LAST_BIT for task in (14, 276, 287, 312)},
        "Mbpp/123": SLOW,
        "Mbpp/599": SLOW,
    },
    "MBPP": {"MBPP/123": SLOW},
    "SandboxFusion": {
        "EvoEval:EvoEval_combine_EvoEval/16": INVALID,
        **{f"shadow_humaneval_python:{row}": INVALID for row in (1, 12, 32, 33, 37)},
        **{f"can_it_edit:{row}": OBJECTS for row in (11,)},
        "can_it_edit:15": PACKAGE,
    },
    "LeetCode v0.3.1 test": {
        "33:maximum-number-of-moves-to-kill-all-pawns": SLOW,
        "59:sorted-gcd-pair-queries": SLOW,
        "64:find-the-number-of-possible-ways-for-an-event": SLOW,
        "80:total-characters-in-string-after-transformations-i": SLOW,
        "81:find-the-number-of-subsequences-with-equal-gcd": SLOW,
        "82:total-characters-in-string-after-transformations-ii": SLOW,
        "83:find-the-number-of-k-even-arrays": SLOW,
        "115:minimum-time-to-break-locks-i": SLOW,
        "116:digit-operations-to-make-two-integers-equal": SLOW,
        "213:count-beautiful-numbers": SLOW,
    },
    "LeetCode v0.1.0 train": {
        "88:word-ladder-ii": "its order depends on the hash seed: plain Python fails with three of four"
    },
}


def unexplained(suite: str, disagreeing: set[str]) -> tuple[set[str], set[str]]:
    """Disagreements without a reason, and reasons that no longer hold."""
    known = EXPLAINED.get(suite, {})
    settled = {name for name, why in known.items() if not why.startswith("slow")}
    return disagreeing - known.keys(), settled - disagreeing
