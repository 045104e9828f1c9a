"""Weights that compute in bf16 while the optimizer moves fp32 copies of them (Micikevicius et al. 2018, section 3.1).

Forward and backward run in bf16: half the traffic and activations. A step of 1e-6 is lost in a bf16 weight near 1,
whose neighbours lie 8e-3 apart, so the fp32 masters take the steps, are saved, averaged and exported, and the bf16
weights are rounded from them after each step. A weight costs 2 bytes, its master 4, its gradient 4: the gradient of
one backward is bf16, and it is added in fp32 at once, so that micro-batches and ranks sum without rounding to bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


class Masters(nn.Module):
    """fp32 copies of a decoder's weights, under the decoder's names; the decoder is bf16 from then on.

    What reads weights by ``named_parameters`` (optimizers, the average, checkpoints) reads masters here. Raises
    ValueError where a weight is frozen, or is not fp32: a master of rounded weights would have nothing to keep.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        frozen = [name for name, weight in decoder.named_parameters() if not weight.requires_grad]
        if frozen:
            raise ValueError(
                f"optim.weights = bf16-master trains every weight, but {frozen[0]} is frozen: with adapters use fp32"
            )
        wrong = [(name, w.dtype) for name, w in decoder.named_parameters() if w.dtype != torch.float32]
        if wrong:
            raise ValueError(
                f"optim.weights = bf16-master makes its masters of fp32 weights, but {wrong[0][0]} is {wrong[0][1]}: "
                "load the checkpoint in fp32"
            )
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}  # (in use, master)
        for name, weight in decoder.named_parameters():
            master = nn.Parameter(weight.detach().clone())
            self._parameters[name.replace(".", "/")] = master  # a module's own names hold no dots
            self.pairs[name] = (weight, master)
        decoder.to(torch.bfloat16)
        self.hooks = [w.register_post_accumulate_grad_hook(self._taker(m)) for w, m in self.pairs.values()]

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Masters by the decoder's names."""
        return iter([(name, master) for name, (_, master) in self.pairs.items()])

    @staticmethod
    def _taker(master: nn.Parameter) -> Callable[[Tensor], None]:
        """A backward's bf16 gradient moves into the master's fp32 one."""

        def take(weight: Tensor) -> None:
            assert weight.grad is not None  # the hook runs when it was accumulated
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad.add_(weight.grad)
            weight.grad = None

        return take

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the weights in use."""
        for weight, master in self.pairs.values():
            weight.copy_(master)

    @torch.no_grad()
    def give_back(self) -> None:
        """The masters become the decoder's weights, fp32 again; these masters are of no use afterwards."""
        for hook in self.hooks:
            hook.remove()
        for weight, master in self.pairs.values():
            weight.grad = None
            weight.data = master.detach()
