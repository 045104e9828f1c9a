"""What a step of training holds in memory, from the sizes of a decoder: the sum that docs/memory.md is made of.

Letters: P weights, D width, F inner width, A and G the widths of all query and of all key/value heads, T tokens of a
micro-batch's stream (prompts that its completions share once), C scored ones, R padded positions of its rows.

What a layer keeps of a token for its backward, in elements of the products' type: the inputs of both norms and what
they gave, 4 D; the output of attention, A; gate, its activation, up and their product, 4 F. Attention keeps, of each
position of the padded rows, its q, k, v and output, 2 (A + G), and one fp32 a head.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from plum_core.training.optim import OptimConfig
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder
from plum_models.lora import LoraConfig

GIB = 2**30
HEAD_BLOCK = 4 * 2**20  # bytes of logits that are held at once; what comes on top stays below a few times that


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one device puts through one forward."""

    tokens: int  # T
    scored: int  # C
    positions: int  # R: rows x the longest

    def __post_init__(self) -> None:
        if not 0 < self.scored <= self.tokens <= self.positions:
            raise ValueError(
                "a batch needs 0 < scored <= tokens <= positions, got "
                f"{self.scored}, {self.tokens} and {self.positions}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes on one device. ``total`` is the most at any one time: not all of these are there together."""

    weights: int  # as they compute
    masters: int  # fp32 copies of those, where they compute in bf16
    moments: int  # of the optimizer
    average: int  # running mean of the weights
    gradients: int
    activations: int  # kept for the backward
    gathered: int  # sharded: what is whole for a moment
    total: int

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / GIB:.2f}" for name, value in asdict(self).items() if value)
        return f"{parts} GiB"


def footprint(
    config: DecoderConfig,
    optim: OptimConfig,
    batch: Batch,
    *,
    lora: LoraConfig | None = None,
    checkpointing: Literal["none", "full"] = "none",
    averaged: bool = True,
    ranks: int = 1,
    sharded: bool = False,
) -> Footprint:
    """The memory of training a dense decoder on ``batch``, on each of ``ranks`` devices.

    averaged: whether the weights' mean is kept (``average_last`` above 0). sharded: weights, gradients, moments and
    mean in ``ranks`` parts, gathered layer by layer; else each rank has all of it, and a flat copy of the gradients
    while they are summed. Raises ValueError for a sparse decoder or one with latent attention: not counted here.
    """
    if config.sparse_layers or config.kv_lora_rank or not config.gated_mlp:
        raise ValueError("footprint counts dense layers with a gated MLP and plain attention, not this decoder's")
    size = 2 if optim.weights == "bf16-master" else 4
    own, matrices, layer, adapters = _counts(config, lora)
    every, trained = own + adapters, adapters if lora else own
    head = config.vocab_size * config.hidden_size * 4 * (lora is None)
    parts = ranks if sharded else 1

    weights, masters = size * every // parts, 4 * every // parts * (size == 2)
    by_muon = (adapters if lora else matrices) if optim.name == "muon" else 0
    moments = (8 * trained - 4 * by_muon) // parts  # two fp32 a weight for AdamW, one for Muon
    average, gradients = 4 * trained // parts * averaged, 4 * trained // parts
    kept = _kept(config, batch, size, 1 if checkpointing == "full" else config.num_hidden_layers)
    if checkpointing == "full":
        kept += size * config.num_hidden_layers * config.hidden_size * batch.tokens
    gathered = 0 if parts == 1 else size * (2 * layer + config.vocab_size * config.hidden_size) + 4 * layer
    always = weights + masters + moments + average + gathered
    # gradients on their way through a layer; in bf16, norms and rotations work on fp32 copies
    moving = size * (config.intermediate_size + 2 * config.hidden_size) * batch.tokens
    moving += 16 * config.hidden_size * batch.tokens * (size == 2)
    tied = head * config.tie_word_embeddings
    peaks = (
        kept + head // parts + moving + HEAD_BLOCK,  # the backward begins
        gradients + tied // parts + moving,  # and ends: the embedding's gradient joins the head's
        gradients * (2 if ranks > parts else 1),  # it is summed over ranks
    )
    return Footprint(
        weights=weights,
        masters=masters,
        moments=moments,
        average=average,
        gradients=gradients,
        activations=kept,
        gathered=gathered,
        total=always + max(peaks),
    )


@lru_cache(maxsize=32)
def _counts(config: DecoderConfig, lora: LoraConfig | None) -> tuple[int, int, int, int]:
    """Weights: all, the layers' matrices, those of one layer, those of the adapters that ``add_lora`` would make."""
    with FakeTensorMode():  # sizes without memory, whatever torch.compile has left of torch.device's own mode
        decoder = Decoder(config)
    adapters = 0
    for name, module in decoder.named_modules():
        if lora and isinstance(module, nn.Linear) and name.rpartition(".")[2] in lora.targets:
            adapters += lora.rank * (module.in_features + module.out_features)
    return (
        sum(w.numel() for w in decoder.parameters()),
        sum(w.numel() for w in decoder.layers.parameters() if w.dim() == 2),
        sum(w.numel() for w in decoder.layers[0].parameters()),
        adapters,
    )


def _kept(c: DecoderConfig, batch: Batch, size: int, layers: int) -> int:
    """Bytes that ``layers`` layers, the last norm and the head keep."""
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    a_token = 4 * c.hidden_size + q + 4 * c.intermediate_size
    a_position = size * 2 * (q + kv) + 4 * c.num_attention_heads
    ends = size * c.hidden_size * (batch.tokens + batch.scored)
    return layers * (size * a_token * batch.tokens + a_position * batch.positions) + ends
