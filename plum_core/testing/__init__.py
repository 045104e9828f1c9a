"""Stage 1: test suites for instructions, written by a model and filtered by execution.

An author model writes several solutions of an instruction; a typed generator proposes inputs from the signature
that the tests will call; every solution runs on every input in the executor. What most solutions agree on, over all
inputs, becomes the expected outputs (self-consistency in the manner of PFPO, dual execution as in CodeT), and one of
those solutions the reference. Instructions without agreement, with too few inputs or with tests that a trivial
program passes are thrown out, each with its reason.
"""

from plum_core.testing.agreement import Agreement, agree
from plum_core.testing.stage import TestingConfig, write_suites
from plum_core.typed_inputs import propose_calls

__all__ = ["Agreement", "TestingConfig", "agree", "propose_calls", "write_suites"]
