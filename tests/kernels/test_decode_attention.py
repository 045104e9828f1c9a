"""decode_attention's definition beside torch's own attention, and what it refuses. Its kernel: triton cases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from plum_kernels.decode_attention import Shared, decode_attention

BLOCK, BLOCKS = 4, 60


def case(
    *, rows=5, heads=6, groups=2, width=16, own=(1, 4, 9, 40, 0), prompts=(7, 37), members=((0, 3, -1), (4, -1, 2)),
    dtype=torch.float32, seed=0,
):  # fmt: skip
    """Arguments, every block of the pool used once, in an order of its own; unused table entries point anywhere."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(rows, heads, width, generator=generator).to(dtype)
    keys, values = torch.randn(2, groups, BLOCKS, BLOCK, width, generator=generator).to(dtype)
    free = torch.randperm(BLOCKS, generator=generator).tolist()

    def table(lengths):
        widest = max(-(-n // BLOCK) for n in lengths)
        used = [[free.pop() for _ in range(-(-n // BLOCK))] for n in lengths]
        filled = [[*row, *[BLOCKS - 1] * (widest - len(row))] for row in used]
        return torch.tensor(filled, dtype=torch.int32).view(len(lengths), widest)

    lengths = torch.tensor(own[:rows], dtype=torch.int32)
    shared = Shared(
        tables=table(prompts),
        lengths=torch.tensor(prompts, dtype=torch.int32),
        members=torch.tensor(members, dtype=torch.int32),
    )
    return [q, keys, values, table(own[:rows]), lengths, shared]


def alone(arguments, row):
    """q (H, E) and the keys and values (G, S, E) of one row, prompt first."""
    q, keys, values, tables, lengths, shared = arguments
    blocks = tables[row].long()
    k, v = (pool[:, blocks].flatten(1, 2)[:, : lengths[row]] for pool in (keys, values))
    for entry, slots in enumerate(shared.members.tolist()):
        if row in slots:
            at = shared.tables[entry].long()
            before = (pool[:, at].flatten(1, 2)[:, : shared.lengths[entry]] for pool in (keys, values))
            k, v = (torch.cat(pair, 1) for pair in zip(before, (k, v), strict=True))
    return q[row], k, v


@pytest.mark.parametrize("window", [0, 3])
def test_reference_is_torchs_attention_row_by_row(window):
    arguments = case()
    out = decode_attention(*arguments, window=window)
    for row in range(5):
        q, k, v = alone(arguments, row)
        k, v = (x[:, -window:] if window else x for x in (k, v))
        expected = F.scaled_dot_product_attention(q.unsqueeze(1), k.repeat_interleave(3, 0), v.repeat_interleave(3, 0))
        torch.testing.assert_close(out[row], expected.squeeze(1), atol=1e-5, rtol=1e-5)


def test_softcap_and_scale_by_the_formula():
    arguments = case()
    out = decode_attention(*arguments, softcap=1.5, scale=0.4)
    q, k, v = alone(arguments, 3)
    scores = 1.5 * torch.tanh(torch.einsum("gje,gse->gjs", q.view(2, 3, -1), k) * 0.4 / 1.5)
    expected = torch.einsum("gjs,gse->gje", scores.softmax(-1), v).flatten(0, 1)
    torch.testing.assert_close(out[3], expected, atol=1e-5, rtol=1e-5)


def test_a_row_without_a_token_gets_zeros_and_no_rows_nothing():
    q, keys, values, tables, lengths, _ = case(own=(0, 2, 1, 1, 1))
    out = decode_attention(q, keys, values, tables, lengths)
    assert not out[0].any() and out[1].any()
    assert decode_attention(q[:0], keys, values, tables[:0], lengths[:0]).shape == (0, 6, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.__setitem__(3, a[3].long()), "tables must be int32"),
        (lambda a: a.__setitem__(4, a[4][:3]), "lengths must be int32"),
        (lambda a: a.__setitem__(0, a[0].half()), "one floating dtype"),
        (lambda a: a.__setitem__(0, a[0][:, :5]), "multiple of groups"),
        (lambda a: a.__setitem__(2, a[2][:, :9]), "one shape"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    arguments = case()
    change(arguments)
    with pytest.raises(ValueError, match=message):
        decode_attention(*arguments)


def test_back_ends_are_refused_by_name():
    with pytest.raises(ValueError, match="'flash'"):
        decode_attention(*case(), backend="flash")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="needs a GPU"):
            decode_attention(*case(), backend="triton")
