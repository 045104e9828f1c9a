"""Sequences in one row without padding, told apart by cu_seqlens, against transformers over each alone."""

from __future__ import annotations

import pytest
import torch

from plum_models import load_decoder, packed_forward
from tests.models.test_decoder import gradients_are_equal


def test_packed_logits_and_gradients_equal_transformers(make, hf_folder, layout):
    model = make.reference(layout)
    decoder = load_decoder(hf_folder(model))
    lengths = [17, 1, 2, 40 if "dynamic" in layout else 130]  # dynamic: the longest would change the others' angles
    cu = torch.tensor([0, *lengths]).cumsum(0)
    ids = torch.randint(0, 320, (int(cu[-1]),))
    ours = decoder.logits(packed_forward(decoder, ids, cu)).split(lengths)
    total = torch.zeros(())
    for got, part in zip(ours, ids.split(lengths), strict=True):
        want = model(part.unsqueeze(0)).logits[0]
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        total = total + want.logsumexp(-1).sum()
    total.backward()
    sum(got.logsumexp(-1).sum() for got in ours).backward()
    gradients_are_equal(decoder, model)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_empty_sequences_and_both_types_of_cu_seqlens(make, backend, dtype):
    decoder, ids = make.decoder(), torch.randint(0, 320, (9,))
    cu = torch.tensor([0, 0, 4, 4, 9, 9], dtype=dtype)
    got = packed_forward(decoder, ids, cu, backend=backend)
    want = torch.cat((decoder(ids[None, :4])[0], decoder(ids[None, 4:])[0]))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("cu", "message"),
    [
        ([0, 4], r"must rise from 0 to the 5 token_ids, got \[0, 4\]"),
        ([1, 5], "must rise from 0"),
        ([0, 4, 2, 5], "must rise from 0"),
        ([0], r"must be \(S \+ 1,\) int32 or int64"),
        ([0.0, 5.0], r"must be \(S \+ 1,\) int32 or int64"),
    ],
)
def test_what_does_not_fit_is_refused(make, cu, message):
    with pytest.raises(ValueError, match=message):
        packed_forward(make.decoder(), torch.zeros(5, dtype=torch.int64), torch.tensor(cu))
    with pytest.raises(ValueError, match=r"token_ids must be \(T,\) with T above 0, got \(1, 5\)"):
        packed_forward(make.decoder(), torch.zeros(1, 5, dtype=torch.int64), torch.tensor([0, 5]))
