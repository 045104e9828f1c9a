"""The head in parts over ranks: values and gradients of the whole one, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from plum_kernels import linear_logprob, linear_preference
from plum_kernels.logprob.parallel import logsumexp_over
from tests.training.forks import on_ranks

ROWS, WIDTH, VOCABULARY = 23, 16, 53  # 53 is even over no number of ranks


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # forks of a process whose pool of threads has run would wait for it
    yield
    torch.set_num_threads(before)


CASES = {
    "plain": {},
    "reference": {"backend": "reference"},
    "transformed": {"temperature": 0.7, "logit_scale": 1.3, "softcap": 5.0, "entropy": True},
    "with a bias": {"bias": True, "entropy": True},
    "frozen": {"frozen": True},
}


def problem(dtype, *, frozen=False, bias=False, **options):
    draw = torch.Generator().manual_seed(5)
    hidden = torch.randn(ROWS, WIDTH, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw, dtype=torch.float64).to(dtype)
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=draw)
    targets[::5] = -100
    shift = torch.randn(VOCABULARY, generator=draw, dtype=torch.float64).to(dtype) if bias else None
    if shift is not None:
        shift[3] = -torch.inf
        targets[targets == 3] = 4
    upstream = torch.randn(3, ROWS, generator=draw, dtype=torch.float64)
    return hidden, weight.requires_grad_(not frozen), targets, shift, upstream, options


def score(hidden, weight, targets, shift, upstream, options):
    """All outputs, then all gradients, whole."""
    out = linear_logprob(hidden, weight, targets, bias=shift, **options)
    kept = [part for part in out if part is not None]
    loss = sum((part * g.to(part.dtype)).sum() for part, g in zip(kept, upstream, strict=False))
    loss.backward()
    grads = [x.grad for x in (hidden, weight, shift) if x is not None and x.requires_grad]
    return [part.detach() for part in kept], [g.full_tensor() if hasattr(g, "full_tensor") else g for g in grads]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_rank_has_the_values_and_gradients_of_the_whole(ranks, tmp_path):
    def work(world):
        mesh = init_device_mesh("cpu", (ranks,))
        found = []
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            for options in CASES.values():
                hidden, weight, targets, shift, upstream, rest = problem(dtype, **options)
                weight = distribute_tensor(weight.detach(), mesh, [Shard(0)]).requires_grad_(weight.requires_grad)
                if shift is not None:
                    shift = distribute_tensor(shift, mesh, [Shard(0)]).requires_grad_()
                found.append(score(hidden, weight, targets, shift, upstream, rest))
        return found

    if ranks == 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
        try:
            found = [work(None)]
        finally:
            torch.distributed.destroy_process_group()
    else:
        found = on_ranks(tmp_path, ranks, work)
    k = 0
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 3e-2)):
        for name, options in CASES.items():
            hidden, weight, targets, shift, upstream, rest = problem(dtype, **options)
            if shift is not None:
                shift.requires_grad_()
            outputs, gradients = score(hidden, weight, targets, shift, upstream, rest)
            for of_rank in found:
                for got, want in zip(of_rank[k][0], outputs, strict=True):
                    torch.testing.assert_close(got, want, rtol=min(near, 1e-5), atol=min(near, 1e-5), msg=name)
                for got, want in zip(of_rank[k][1], gradients, strict=True):
                    assert got.dtype == want.dtype
                    torch.testing.assert_close(got, want, rtol=near, atol=near, msg=name)
                for one, other in zip(of_rank[k][0], found[0][k][0], strict=True):
                    assert torch.equal(one, other)
            k += 1


def test_what_does_not_fit_is_refused(tmp_path):
    def work(world):
        mesh = init_device_mesh("cpu", (2,))
        hidden, weight, targets, shift, _, _ = problem(torch.float32, bias=True)
        rows = distribute_tensor(weight.detach(), mesh, [Shard(0)])
        said = []
        for head, wanted, bias in (
            (distribute_tensor(weight.detach(), mesh, [Shard(1)]), targets, None),
            (distribute_tensor(weight.detach(), mesh, [Replicate()]), targets, None),
            (distribute_tensor(weight.detach()[:1], mesh, [Shard(0)]), targets, None),
            (rows, targets, shift),
            (rows, targets + VOCABULARY, None),
        ):
            with pytest.raises(ValueError) as problem_:
                linear_logprob(hidden, head, wanted, bias=bias)
            said.append(str(problem_.value))
        with pytest.raises(ValueError, match="parts over ranks: use linear_logprob and preference_loss"):
            linear_preference(
                hidden, rows, targets, torch.tensor([0, 11, ROWS]), hidden[:, 0].detach(), objective="dpo"
            )
        return said

    for said in on_ranks(tmp_path, 2, work):
        assert said[0].startswith("a head weight in parts must be split by rows over one mesh dimension")
        assert said[1].startswith("a head weight in parts must be split by rows")
        assert said[2] == "a vocabulary of 1 does not go over 2 ranks"
        assert said[3] == "the bias of a head weight in parts must be split as the weight is: [Shard(0)]"
        assert said[4] == "targets must lie in [0, 53) or be -100, the ignored"


def test_a_logsumexp_over_ranks(tmp_path):
    draw = torch.Generator().manual_seed(1)
    x = 100 * torch.randn(3, 7, generator=draw)

    def work(world):
        return logsumexp_over(x[world.rank], torch.distributed.group.WORLD)

    for got in on_ranks(tmp_path, 3, work):
        torch.testing.assert_close(got, x.logsumexp(0))
