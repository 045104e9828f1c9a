"""A mixture of experts in place of the dense MLP: the plain form, one expert after the other.

Letters in shapes: T tokens, D width, X experts, K experts a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_models.config import DecoderConfig
from plum_models.linear import Linear
from plum_models.lora import effective_weight
from plum_models.mlp import GatedMLP


class SparseMLP(nn.Module):
    """The weighted sum of the K experts that the router likes best (Shazeer et al. 2017; no capacity, none dropped).

    Weights are the router's softmax over all experts, of which K are kept; ``norm_topk_prob`` makes those sum to one.
    Shared experts, where the layout has them, answer every token (DeepSeekMoE, arXiv 2401.06066, section 3.2).
    """

    def __init__(self, c: DecoderConfig) -> None:
        super().__init__()
        self.gate = Linear(c.hidden_size, c.num_experts, bias=False)
        self.experts = nn.ModuleList(GatedMLP(c, c.moe_intermediate_size) for _ in range(c.num_experts))
        self.per_token, self.normalised = c.num_experts_per_tok, c.norm_topk_prob
        self.scale, self.fp32 = c.routed_scaling_factor, c.fp32_router
        self.shared_experts = GatedMLP(c, c.moe_intermediate_size * c.n_shared_experts) if c.n_shared_experts else None

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(T, D) to weights (T, K) in x's dtype and experts (T, K) int64."""
        # fp32: near ties between experts must not be made by the softmax's rounding
        liking = F.linear(x.float(), effective_weight(self.gate).float()) if self.fp32 else self.gate(x)
        weights, chosen = liking.softmax(-1, dtype=torch.float32).topk(self.per_token, dim=-1)
        if self.normalised:
            weights = weights / weights.sum(-1, keepdim=True)
        return (weights * self.scale).to(x.dtype), chosen

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        tokens = x.flatten(0, -2)
        weights, chosen = self.route(tokens)
        out = torch.zeros_like(tokens)
        for number in chosen.unique().tolist():
            rows, slots = (chosen == number).nonzero(as_tuple=True)
            answer = self.experts[number](tokens.index_select(0, rows))
            out.index_add_(0, rows, answer * weights[rows, slots].unsqueeze(-1))
        if self.shared_experts is not None:
            out = out + self.shared_experts(tokens)
        return out.view(x.shape)
