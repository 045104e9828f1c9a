"""Activation checkpointing: the same gradients to the bit, and less kept."""

from __future__ import annotations

import pytest
import torch

from plum_core.training.batches import Example
from plum_core.training.logps import completion_logps
from plum_models import LoraConfig, add_lora

POLICIES = ["full", "every 1", "every 2", "matmuls"]
EXAMPLES = [Example(prompt_ids=(5, 6, 7), completion_ids=tuple(range(20, 20 + n))) for n in (3, 40)]


def kept_bytes(decoder, policy):
    """(bytes that the forward keeps for the backward, gradients)."""
    decoder.checkpointing = policy
    decoder.zero_grad()
    sizes: dict[int, int] = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = completion_logps(decoder, EXAMPLES).sum()
    loss.backward()
    return sum(sizes.values()), [p.grad.clone() for p in decoder.parameters() if p.grad is not None]


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_are_the_same_bits(make, policy):
    decoder = make.decoder(num_hidden_layers=4)
    _, plain = kept_bytes(decoder, "none")
    _, again = kept_bytes(decoder, policy)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_less_is_kept(make):
    decoder = make.decoder(num_hidden_layers=8)
    kept = {policy: kept_bytes(decoder, policy)[0] for policy in ("none", *POLICIES)}
    assert kept["full"] == kept["every 1"] < kept["every 2"] < kept["none"]
    assert kept["full"] < 0.6 * kept["none"]


def test_adapters_with_dropout_draw_the_same_in_both_passes(make):
    decoder = make.decoder()
    add_lora(decoder, LoraConfig(rank=2, dropout=0.4), seed=0)
    for name, p in decoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    _, plain = kept_bytes(decoder, "none")
    torch.manual_seed(3)
    _, again = kept_bytes(decoder, "full")
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_nothing_is_recomputed_without_gradients(make):
    decoder = make.decoder()
    decoder.checkpointing = "full"
    calls = []
    decoder.layers[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        decoder(torch.tensor([[1, 2, 3]]))
    assert len(calls) == 1


@pytest.mark.parametrize("policy", ["all", "every 0", "every", "every -1", ""])
def test_no_policy_is_refused(make, policy):
    decoder = make.decoder()
    decoder.checkpointing = policy
    with pytest.raises(ValueError, match="checkpointing must be none, full, matmuls or 'every N'"):
        decoder(torch.tensor([[1, 2, 3]]))
