"""decode_attention's kernels under Triton's interpreter; ``test_triton.py`` starts it, as it does triton_cases.py."""

from __future__ import annotations

import os

import pytest
import torch
from test_decode_attention import case

from plum_kernels.decode_attention import decode_attention

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

pytestmark = pytest.mark.poison
SHAPES = [
    {},
    {"heads": 7, "groups": 1, "width": 24},  # a head width that is no power of two
    {"heads": 4, "groups": 4, "members": ((0, 1, 2, 3), (4, -1, -1, -1))},
    {"heads": 10, "groups": 1, "prompts": (5, 66), "members": ((2, -1, -1), (0, 1, 4))},  # two tiles, three parts
]


def exact(arguments, **options):
    q, keys, values, *rest = arguments
    return decode_attention(q.double(), keys.double(), values.double(), *rest, backend="reference", **options)


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "window": 6}, {"window": 34, "scale": 0.1}], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equal_to_the_reference(shape, options):
    arguments = case(**shape)
    out = decode_attention(*arguments, backend="triton", **options)
    torch.testing.assert_close(out.double(), exact(arguments, **options), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_within_four_roundings_of_the_plain_result(dtype):
    arguments = case(dtype=dtype)
    truth = exact(arguments)
    plain = decode_attention(*arguments, backend="reference")
    out = decode_attention(*arguments, backend="triton")
    error = (out.double() - truth).abs().max()
    # weights are rounded to the operands' dtype before they meet the values, as flash attention does
    assert error <= 4 * (plain.double() - truth).abs().max() + 1e-6


def test_own_tokens_alone():
    q, keys, values, tables, lengths, _ = case(own=(1, 70, 3, 0, 33))
    out = decode_attention(q, keys, values, tables, lengths, backend="triton")
    torch.testing.assert_close(out.double(), exact([q, keys, values, tables, lengths]), atol=1e-5, rtol=1e-5)


def test_a_row_gets_the_same_bits_in_any_batch():
    q, keys, values, tables, lengths, shared = case()
    whole = decode_attention(q, keys, values, tables, lengths, shared, backend="triton")
    for row in (1, 3):  # row 1 has no prompt; row 3 shares one
        members = torch.where(shared.members == row, 0, -1).int()
        alone = type(shared)(tables=shared.tables, lengths=shared.lengths, members=members)
        at = slice(row, row + 1)
        out = decode_attention(q[at], keys, values, tables[at], lengths[at], alone, backend="triton")
        assert torch.equal(out[0], whole[row])
