"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W x + (alpha / rank) B A x, with W frozen.

An adapted layer is still the nn.Linear that it was, its weight under its own name, with A and B beside it. So the
reference policy is the same decoder with its adapters off, and costs no second set of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_kernels import linear
from plum_models.linear import Linear

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "c_fc", "c_proj")
DEFAULT_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Which layers get adapters, and how large ones."""

    rank: int = 16
    alpha: float = 32.0  # what B A x is multiplied by, times the rank
    targets: tuple[str, ...] = DEFAULT_TARGETS  # names of linear layers; all of a name are adapted
    dropout: float = 0.0  # of the adapter's input, in training

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets must name at least one layer, each once, got {list(self.targets)}")
        for name in self.targets:
            if name not in TARGETS:
                raise ValueError(f"target {name!r} is no linear layer of a decoder: choose from {', '.join(TARGETS)}")


class LoraLinear(nn.Linear):
    """``base`` with an adapter: the same weight and bias, frozen; lora_A (R, in) and lora_B (out, R) fp32, trained."""

    def __init__(self, base: nn.Linear, config: LoraConfig, generator: torch.Generator) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a second weight
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        for parameter in base.parameters():
            parameter.requires_grad_(False)
        device, bound = base.weight.device, base.in_features**-0.5  # PEFT's start: A uniform in +-bound, B zero
        first = torch.empty(config.rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(first.to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.rank, device=device))
        self.config, self.scale = config, config.alpha / config.rank
        self.enabled, self.merged = True, False

    def delta(self) -> Tensor:
        """(alpha / rank) B A, (out, in) fp32."""
        return self.scale * (self.lora_B @ self.lora_A)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out) in x's dtype; the adapter's products are in that dtype too."""
        out = linear(x, self.weight, self.bias)
        if not self.enabled or self.merged:
            return out
        inner = linear(F.dropout(x, self.config.dropout, self.training), self.lora_A.to(x.dtype))
        return out + self.scale * linear(inner, self.lora_B.to(x.dtype))


def adapted(module: nn.Module) -> list[tuple[str, LoraLinear]]:
    """All adapted layers with their names."""
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLinear)]


def add_lora(decoder: nn.Module, config: LoraConfig, seed: int) -> None:
    """Freeze ``decoder`` and give its ``targets`` fresh adapters, which change nothing until they are trained.

    Raises ValueError where there are adapters already, where a target is in no layer, or names experts.
    """
    if adapted(decoder):
        raise ValueError("this decoder has adapters already: fold_lora it first")
    generator = torch.Generator().manual_seed(seed)
    chosen = [
        (name, layer)
        for name, layer in decoder.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in config.targets
    ]
    experts = [name for name, _ in chosen if ".experts." in name]
    if experts:
        raise ValueError(
            f"target {experts[0].rpartition('.')[2]!r} names experts, which take no adapters: "
            "choose from q_proj, k_proj, v_proj, o_proj"
        )
    missing = set(config.targets) - {name.rpartition(".")[2] for name, _ in chosen}
    if missing and config.targets != DEFAULT_TARGETS:
        raise ValueError(f"target {min(missing)!r} is in no layer of this decoder: leave it out of targets")
    decoder.requires_grad_(False)
    for name, layer in chosen:
        place, _, last = name.rpartition(".")
        setattr(decoder.get_submodule(place), last, LoraLinear(layer, config, generator))


@contextmanager
def adapter_off(decoder: nn.Module) -> Iterator[None]:
    """Inside, the decoder computes what it did before it was adapted. Raises ValueError where there is no adapter."""
    layers = [layer for _, layer in adapted(decoder)]
    if not layers:
        raise ValueError("this decoder has no adapters to switch off: add_lora gives it some")
    if any(layer.merged for layer in layers):
        raise ValueError("this decoder's adapters are merged into its weights: unmerge_lora them first")
    before = [layer.enabled for layer in layers]
    try:
        for layer in layers:
            layer.enabled = False
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.enabled = was


@torch.no_grad()
def merge_lora(decoder: nn.Module) -> None:
    """Add every adapter to its weight, so that it costs nothing to compute with; ``unmerge_lora`` undoes it."""
    for _, layer in adapted(decoder):
        if not layer.merged:
            layer.weight += layer.delta().to(layer.weight.dtype)
            layer.merged = True


@torch.no_grad()
def unmerge_lora(decoder: nn.Module) -> None:
    """The inverse of ``merge_lora``, up to the rounding of the weights' dtype."""
    for _, layer in adapted(decoder):
        if layer.merged:
            layer.weight -= layer.delta().to(layer.weight.dtype)
            layer.merged = False


def fold_lora(decoder: nn.Module) -> None:
    """Merge, and make plain trainable layers of the adapted ones: a decoder as any other, which ``save`` takes."""
    merge_lora(decoder)
    for name, layer in adapted(decoder):
        plain = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = layer.weight
        plain.bias = layer.bias
        place, _, last = name.rpartition(".")
        setattr(decoder.get_submodule(place), last, plain)
    decoder.requires_grad_(True)


def effective_weight(linear: nn.Linear) -> Tensor:
    """The matrix that ``linear`` multiplies by, its adapter included."""
    if isinstance(linear, LoraLinear) and linear.enabled and not linear.merged:
        return linear.weight + linear.delta().to(linear.weight.dtype)
    return linear.weight
