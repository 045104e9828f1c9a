"""preference_loss's kernel under Triton's interpreter; ``test_triton.py`` starts it, as it does triton_cases.py."""

from __future__ import annotations

import os

import pytest
import torch
from test_preference import CASES, SPECS, arguments, assert_same, outcome

from plum_kernels import preference_loss

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

from plum_kernels.preference import triton_backend

pytestmark = pytest.mark.poison
SORTED = ("aot", "aot_unpaired")


@pytest.mark.parametrize(("dtype", "scored"), [(torch.float64, True), (torch.float32, False)], ids=str)
@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] not in SORTED], ids=str)
def test_equal_to_the_reference(name, options, dtype, scored):
    for scale in (1.0, 2.0**-10):
        want = outcome(name, dtype, scored, options, scale=scale)
        assert_same(outcome(name, dtype, scored, options, backend="triton", scale=scale), want, dtype)


@pytest.mark.parametrize("name", [name for name in SPECS if name not in SORTED])
def test_saturated(name):
    exact = outcome(name, torch.float64, True, {}, scale=8192.0)
    for key, value in outcome(name, torch.float32, True, {}, backend="triton", scale=8192.0).items():
        assert value.isfinite().all()
        torch.testing.assert_close(value.double(), exact[key], rtol=1e-4, atol=1e-2, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", ["dpo", "orpo", "kto"])
def test_nothing_at_all(name):
    assert len(outcome(name, torch.float32, False, {}, backend="triton", lengths=())["losses"]) == 0


@pytest.mark.parametrize("name", ["dpo", "kto", "wpo", "ld_dpo", "bco_unpaired"])
def test_operator_is_well_registered_and_compiles(name):
    logps, cu, ref, call = arguments(name, torch.float32, True)
    options = SPECS[name].options
    point = call.get("kl", call.get("shift"))
    beside = (call["scored"], call.get("weights"), call.get("desirable"), point, call.get("alignment"))
    operands = (logps.requires_grad_(), cu, ref, *beside)
    settings = (name, list(options.values()))
    torch.library.opcheck(triton_backend._preference_loss, (*operands, *settings))
    compiled = torch.compile(preference_loss, fullgraph=True, backend="aot_eager")
    got = compiled(logps, cu, ref, backend="triton", **call).losses
    assert torch.equal(got, preference_loss(logps, cu, ref, backend="triton", **call).losses)


def test_twenty_runs_are_bit_equal():
    first = outcome("dpo", torch.float32, True, {}, backend="triton")
    for _ in range(19):
        again = outcome("dpo", torch.float32, True, {}, backend="triton")
        assert all(torch.equal(first[name], again[name]) for name in first)
