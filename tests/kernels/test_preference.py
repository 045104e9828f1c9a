"""preference_loss against plum_core's objectives: values, gradients and metrics of every name, ragged and masked."""

from __future__ import annotations

import itertools

import pytest
import torch

from plum_core.objectives import OBJECTIVES
from plum_kernels import preference_loss
from plum_kernels.preference.formulas import SPECS, Given
from plum_kernels.preference.reference import sequence_of, token_slopes

OPTIONS = {
    "ipo": [{}, {"sums": 1.0}],
    "dpo": [{}, {"label_smoothing": 0.2, "beta": 0.3}],
    "simpo": [{}, {"gamma": 0.4, "label_smoothing": 0.1}],
    "kto": [{}, {"desirable_weight": 0.7, "undesirable_weight": 1.3}],
    "apo_zero_unpaired": [{}, {"desirable_weight": 0.7, "undesirable_weight": 1.3}],
    "ld_dpo": [{}, {"label_smoothing": 0.2}],
}
SINGLE = [name for name, spec in SPECS.items() if spec.single]
CASES = [(name, options) for name in SPECS for options in OPTIONS.get(name, [{}])]
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-6}


def ragged(dtype, *, scale=1.0, lengths=(1, 7, 31, 33, 32, 5, 64, 2), seed=0):
    """Packed log-probs with a gap in front, a tail that belongs to nobody, and some tokens that do not count.

    They are multiples of scale / 1024, so that sums over tokens are exact in any order: what differs is the formula.
    """
    g = torch.Generator().manual_seed(seed)
    cu = torch.tensor([2, *lengths]).cumsum(0)
    tokens = int(cu[-1]) + 3
    logps, ref = -torch.randint(1, 1024, (2, tokens), generator=g).to(dtype) * scale / 1024
    scored = torch.rand(tokens, generator=g) < 0.7
    scored[cu[:-1]] = True
    return logps, ref, cu, scored


def arguments(name, dtype, scored, **kwargs):
    logps, ref, cu, mask = ragged(dtype, **kwargs)
    call = {"objective": name, "scored": mask if scored else None}
    sequences = len(cu) - 1
    values = {
        "desirable": torch.arange(sequences) % 3 != 0,
        "kl": torch.tensor(0.3, dtype=dtype),
        "shift": torch.tensor(-0.4, dtype=dtype),
        "alignment": torch.linspace(-0.7, 0.2, sequences, dtype=dtype),
        "weights": (torch.arange(len(logps)) % 4).to(dtype) / 4,  # sums stay exact
    }
    call |= {need: values[need] for need in SPECS[name].needs}
    return logps, cu, ref if SPECS[name].reference else None, call


def outcome(name, dtype, scored, options, backend="reference", **kwargs):
    logps, cu, ref, call = arguments(name, dtype, scored, **kwargs)
    logps.requires_grad_()
    got = preference_loss(logps, cu, ref, backend=backend, **call, **options)
    weights = torch.linspace(0.5, 1.5, len(got.losses), dtype=dtype)
    (got.losses * weights).sum().backward()
    return {"losses": got.losses.detach(), "gradient": logps.grad, **got.metrics}


def by_the_book(name, dtype, scored, options, **kwargs):
    """The same from plum_core's function of sums."""
    logps, cu, ref, call = arguments(name, dtype, scored, **kwargs)
    logps.requires_grad_()
    mask = call["scored"] if scored else torch.ones_like(logps, dtype=torch.bool)
    weighted = mask * call.get("weights", torch.ones_like(logps))
    pieces = [slice(a, b) for a, b in itertools.pairwise(cu.tolist())]
    sums = torch.stack([(logps[p] * weighted[p]).sum() for p in pieces])
    lengths = torch.stack([mask[p].sum() for p in pieces])
    refs = None if ref is None else torch.stack([(ref[p] * weighted[p]).sum() for p in pieces])
    spec, single = OBJECTIVES[name], SPECS[name].single
    first = call["desirable"].nonzero()[:, 0] if single else torch.arange(0, len(pieces), 2)
    second = (~call["desirable"]).nonzero()[:, 0] if single else torch.arange(1, len(pieces), 2)
    parts = [sums[first], sums[second]] + ([] if refs is None else [refs[first], refs[second]])
    halves = {"lengths": lengths, "alignment": call.get("alignment")}
    needs = {n: (halves[n][first], halves[n][second]) if n in halves else call[n] for n in spec.needs}
    want = spec.compute(*parts, **spec.named(needs), **options)
    losses, metrics = want.losses, want.metrics
    if single:
        back = torch.cat((first, second)).argsort()
        losses = losses[back]
        both = {k: torch.cat((metrics[f"{k}/chosen"], metrics[f"{k}/rejected"]))[back] for k in ("rewards", "logps")}
        metrics = {**both, **{k: metrics[k] for k in ("kl", "delta") if k in metrics}}
    weights = torch.linspace(0.5, 1.5, len(losses), dtype=dtype)
    (losses * weights).sum().backward()
    return {"losses": losses.detach(), "gradient": logps.grad, **metrics}


def assert_same(got, want, dtype):
    assert got.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(
            got[key], value, rtol=CLOSE[dtype], atol=CLOSE[dtype], msg=lambda m, k=key: f"{k}: {m}"
        )


def test_every_objective_of_log_probs_is_here_with_its_options():
    ours = {name: (frozenset(s.options), s.reference) for name, s in SPECS.items()}
    theirs = {n: (s.options, s.needs_reference) for n, s in OBJECTIVES.items() if s.data in ("pairs", "labels")}
    assert ours == theirs


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_equal_to_the_objective(name, options, dtype, scored):
    want = by_the_book(name, dtype, scored, options)
    assert want["gradient"].abs().max() > 0
    assert_same(outcome(name, dtype, scored, options), want, dtype)


@pytest.mark.parametrize("name", SPECS)
def test_saturated(name):
    got = outcome(name, torch.float32, True, {}, scale=8192.0)
    assert all(value.isfinite().all() for value in got.values())


@pytest.mark.parametrize("name", SPECS)
def test_gradcheck(name):
    logps, cu, ref, call = arguments(name, torch.float64, True)
    assert torch.autograd.gradcheck(lambda x: preference_loss(x, cu, ref, **call).losses, logps.requires_grad_())


@pytest.mark.parametrize("name", SPECS)
def test_nothing_at_all(name):
    got = outcome(name, torch.float32, False, {}, lengths=())
    assert len(got["losses"]) == 0 and not got["gradient"].any()


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize(("name", "options"), [("ld_dpo", {"alpha": 0.25}), ("span_dpo", {"common_weight": 0.5})])
def test_token_weights_of_the_core_give_the_loss_that_its_sums_give(name, options, scored):
    logps, ref, cu, mask = ragged(torch.float64)
    g = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 5, (len(logps),), generator=g).tolist()
    weights = torch.zeros_like(logps)
    for a, b, z in zip(cu[0:-1:2].tolist(), cu[1::2].tolist(), cu[2::2].tolist(), strict=True):
        halves = OBJECTIVES[name].weigh(ids[a:b], ids[b:z], **options)
        weights[a:z] = torch.tensor(sum(halves, ()), dtype=weights.dtype)
    got = preference_loss(logps, cu, ref, objective=name, weights=weights, scored=mask if scored else None)
    plain = preference_loss(logps * weights, cu, ref * weights, objective="dpo", scored=mask if scored else None)
    torch.testing.assert_close(got.losses, plain.losses, rtol=1e-12, atol=1e-12)
    assert not torch.equal(weights, torch.ones_like(weights))


@pytest.mark.parametrize("name", ["orpo", "kto", "aot"])
def test_any_objective_takes_weights(name):
    logps, cu, ref, call = arguments(name, torch.float64, True)
    weights = torch.arange(len(logps)) % 3 / 4.0
    got = preference_loss(logps, cu, ref, weights=weights.double(), **call).losses
    want = preference_loss(logps * weights, cu, None if ref is None else ref * weights, **call).losses
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto", "aot", "wpo", "span_dpo"])
def test_compiles_as_one_graph(name):
    logps, cu, ref, call = arguments(name, torch.float32, True)
    compiled = torch.compile(preference_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logps, cu, ref, **call).losses, preference_loss(logps, cu, ref, **call).losses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "dop"}, "unknown objective 'dop'"),
        ({"gamma": 1.0}, "dpo cannot honour gamma=1.0"),
        ({"beta": 0.0}, "beta must be > 0"),
        ({"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\)"),
        ({"objective": "exo", "label_smoothing": 0.0}, "because its logarithm"),
        ({"objective": "ipo", "sums": 2.0}, "sums must be 0"),
        ({"objective": "dpop", "penalty": -1.0}, "penalty must be >= 0"),
        ({"logps": torch.zeros(4, dtype=torch.bfloat16)}, "fp32 or fp64"),
        ({"cu_seqlens": torch.tensor([0, 2, 3, 4])}, "must be even, got 3"),
        ({"cu_seqlens": torch.tensor([0.0, 4.0])}, "cu_seqlens must be"),
        ({"ref_logps": None}, "dpo needs ref_logps"),
        ({"objective": "cpo"}, "cpo has no reference"),
        ({"objective": "kto"}, "kto needs desirable"),
        ({"kl": torch.tensor(0.0)}, "dpo has no place for kl"),
        ({"objective": "bco_unpaired", "desirable": torch.ones(2).bool()}, "bco_unpaired needs shift"),
        ({"objective": "apo_zero_unpaired", "desirable": torch.ones(2)}, "desirable must be bool"),
        ({"objective": "wpo"}, "wpo needs alignment"),
        ({"objective": "wpo", "alignment": torch.zeros(1)}, "one a sequence, got"),
        ({"objective": "ld_dpo"}, "ld_dpo needs weights"),
        ({"weights": torch.ones(4).double()}, "weights must be torch.float32 as logps"),
        ({"scored": torch.ones(4)}, "scored must be bool"),
        ({"backend": "cuda"}, "backend must be one of auto, reference, triton"),
        ({"backend": "triton"}, "backend triton needs a GPU"),
        ({"backend": "triton", "objective": "aot"}, "sorts the whole batch"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_mistakes_are_refused(change, message):
    call = {"logps": torch.zeros(4), "cu_seqlens": torch.tensor([0, 2, 4]), "ref_logps": torch.zeros(4)}
    call |= {"objective": "dpo"} | change
    with pytest.raises(ValueError, match=message):
        preference_loss(**call)


def test_sums_in_fp32_stay_within_rounding_of_the_truth():
    g = torch.Generator().manual_seed(1)
    logps = -torch.rand(4096, generator=g)
    cu = torch.tensor([0, 3000, 4096])
    got = preference_loss(logps, cu, objective="cpo").metrics["logps/chosen"]
    truth = logps[:3000].double().sum()
    assert (got.double() - truth).abs() <= 3000 * 2**-24 * truth.abs()


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize(("name", "options"), [case for case in CASES if not case[0].startswith("aot")], ids=str)
def test_slopes_written_out_are_autograds(name, options, scored):
    for scale in (1.0, 2.0**-10, 64.0):
        want = outcome(name, torch.float64, scored, options, scale=scale)["gradient"]
        logps, cu, ref, call = arguments(name, torch.float64, scored, scale=scale)
        point = call.get("kl", call.get("shift"))
        given = Given(ref, call["scored"], call.get("weights"), call.get("desirable"), point, call.get("alignment"))
        got = token_slopes(logps, cu, given, name, SPECS[name].options | options)
        losses = len(cu) - 1 if SPECS[name].single else len(cu) // 2
        upstream = torch.cat((torch.linspace(0.5, 1.5, losses, dtype=logps.dtype), logps.new_zeros(2)))
        owner = sequence_of(len(logps), cu)
        owner = owner if SPECS[name].single else owner // 2
        torch.testing.assert_close(got * upstream[owner], want, rtol=1e-9, atol=1e-12)
