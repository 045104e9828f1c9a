"""llama2.c's files: seven int32 of sizes, then fp32 weights tensor by tensor, all layers of a kind together."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder

HEADER = 7  # dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (below 0: an untied head), seq_len


def load_llama2c(path: str | Path) -> Decoder:
    """The decoder of a llama2.c checkpoint, fp32. Raises ValueError where the file's length is not its header's."""
    path = Path(path)
    raw = np.fromfile(path, dtype="<i4", count=HEADER)
    if len(raw) < HEADER or min(*raw[:5], abs(raw[5]), raw[6]) < 1 or raw[0] % raw[3]:
        raise ValueError(f"{path}: its first 28 bytes are no sizes of a llama2.c model: is it another format?")
    dim, inner, layers, heads, kv_heads, vocab, positions = map(int, raw)
    width = dim // heads
    config = DecoderConfig(
        vocab_size=abs(vocab),
        hidden_size=dim,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=width,
        max_position_embeddings=positions,
        rms_norm_eps=1e-5,
        tie_word_embeddings=vocab > 0,
    )
    stacks = {  # in the file's order; None: a table that is computed anew
        "embed_tokens": (abs(vocab), dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, heads * width, dim),
        "self_attn.k_proj": (layers, kv_heads * width, dim),
        "self_attn.v_proj": (layers, kv_heads * width, dim),
        "self_attn.o_proj": (layers, dim, heads * width),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, inner, dim),
        "mlp.down_proj": (layers, dim, inner),
        "mlp.up_proj": (layers, inner, dim),
        "norm": (dim,),
        "rotary tables": (positions, width),
    } | ({} if vocab > 0 else {"lm_head": (abs(vocab), dim)})
    expected = 4 * (HEADER + sum(math.prod(shape) for shape in stacks.values()))
    if path.stat().st_size != expected:
        raise ValueError(f"{path}: its sizes ask for {expected} bytes, it has {path.stat().st_size}: copy it again")
    values = torch.from_numpy(np.fromfile(path, dtype="<f4", offset=4 * HEADER).astype(np.float32))
    found: dict[str, Tensor] = {}
    for name, part in zip(stacks, values.split([math.prod(s) for s in stacks.values()]), strict=True):
        stack = part.view(stacks[name])
        if name in ("embed_tokens", "norm", "lm_head"):
            found[f"{name}.weight"] = stack
        elif name != "rotary tables":
            for i, weight in enumerate(stack):
                rotated = name.endswith(("q_proj", "k_proj"))
                found[f"layers.{i}.{name}.weight"] = _half_split(weight, width) if rotated else weight
    decoder = Decoder(config)
    decoder.load_state_dict(found)
    return decoder


def _half_split(weight: Tensor, width: int) -> Tensor:
    """Rows of each head from rotated neighbours (2i, 2i + 1) to rotated halves (i, i + E/2)."""
    return weight.unflatten(0, (-1, width // 2, 2)).transpose(1, 2).flatten(0, 2)
