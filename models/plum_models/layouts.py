"""The keys that single layouts have of their own: from config.json to DecoderConfig's switches, and back.

Defaults of keys that a file leaves out are those of the layout's class in transformers, whose files leave them out.
``families`` holds the table that calls these, and what all layouts share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plum_models.config import DecoderConfig
from plum_models.keys import Keys

Switches = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A layout: what its config.json calls things, what it leaves out, and what it has of its own."""

    architecture: str
    read: Callable[[Keys, Switches], Switches]  # the layout's own keys; the common ones are given
    write: Callable[[DecoderConfig], Switches]  # their inverse
    eps: tuple[str, float] = ("rms_norm_eps", 1e-6)
    activation: tuple[str, str] = ("hidden_act", "silu")
    tied: bool = False
    positions: int = 2048
    kv_heads: int | None = None  # None: as many as query heads
    head_dim: int | None = None  # None: hidden_size / heads
    rotated: float = 1.0
    fixed: Mapping[str, Any] = field(default_factory=dict)  # switches that no key of the layout changes


def read_windows(keys: Keys, common: Switches, every: int | None = None) -> Switches:
    """``sliding_window`` and the layers that have it. ``every``: the layout's default window of all its layers."""
    window = keys.raw.get("sliding_window", keys.raw.get("sliding_window_size", every))
    keys.taken |= {"sliding_window", "sliding_window_size"}
    if window is None:
        return {}
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ValueError(f"{keys.place}: sliding_window must be a whole number from 1 on or null, got {window!r}")
    return {"sliding_window": window, "sliding_layers": tuple(range(common["num_hidden_layers"]))}


def read_qwen_windows(keys: Keys, common: Switches) -> Switches:
    """Qwen's: off unless ``use_sliding_window``, then in ``layer_types`` or from layer ``max_window_layers`` on."""
    layers, used = common["num_hidden_layers"], keys.switch("use_sliding_window")
    first, types = keys.take("max_window_layers", 28), keys.take("layer_types")
    found = read_windows(keys, common, every=4096) if used else {}
    keys.taken.add("sliding_window")
    if types is None or not found:
        if types is not None and "sliding_attention" in types:
            raise keys.wrong("layer_types", "names sliding_attention, but use_sliding_window or sliding_window is off")
        return _chosen(found, [i for i in range(layers) if i >= first])
    return _chosen(found, _sliding(keys, types, layers))


def _sliding(keys: Keys, types: Any, layers: int) -> list[int]:
    """The layers that ``layer_types`` calls sliding."""
    known = ("full_attention", "sliding_attention")
    if not isinstance(types, list) or len(types) != layers or any(t not in known for t in types):
        raise keys.wrong("layer_types", f"must be {layers} of {' and '.join(known)}, one a layer")
    return [i for i, t in enumerate(types) if t == "sliding_attention"]


def _chosen(found: Switches, layers: list[int]) -> Switches:
    return found | {"sliding_layers": tuple(layers)} if found and layers else {}


def _layer_types(c: DecoderConfig) -> list[str]:
    return ["sliding_attention" if i in c.sliding_layers else "full_attention" for i in range(c.num_hidden_layers)]


def write_qwen_windows(c: DecoderConfig) -> Switches:
    if c.sliding_window is None:
        return {}
    return {"use_sliding_window": True, "sliding_window": c.sliding_window, "layer_types": _layer_types(c)}


def read_llama(keys: Keys, common: Switches) -> Switches:
    for name in ("sliding_window", "sliding_window_size"):
        keys.only(name, (None,), "is not supported: Llama's sliding-window attention does not exist; is it Mistral's?")
    bias = keys.switch("attention_bias")
    return {"attention_bias": bias, "attention_out_bias": bias, "mlp_bias": keys.switch("mlp_bias")}


def read_qwen3(keys: Keys, common: Switches) -> Switches:
    bias = keys.switch("attention_bias")
    return {"attention_bias": bias, "attention_out_bias": bias} | read_qwen_windows(keys, common)


def write_qwen3(c: DecoderConfig) -> Switches:
    return {"attention_bias": c.attention_bias} | write_qwen_windows(c)


def read_qwen3_moe(keys: Keys, common: Switches) -> Switches:
    bias, layers, step = (
        keys.switch("attention_bias"),
        common["num_hidden_layers"],
        keys.count("decoder_sparse_step", 1),
    )
    experts = keys.take("num_experts", keys.take("num_local_experts", 128))
    keys.only("num_local_experts", (experts, None), f"contradicts num_experts = {experts}: keep one of the two")
    keys.only("shared_expert_intermediate_size", (None, 0), "is not supported; Qwen3's experts share none")
    dense = keys.take("mlp_only_layers", [])
    sparse = tuple(i for i in range(layers) if i not in dense and (i + 1) % step == 0)
    used = keys.switch("use_sliding_window")
    keys.only("max_window_layers", (0, None) if used else (keys.raw.get("max_window_layers"),),
              "is not supported with use_sliding_window; transformers slides every layer of this layout")  # fmt: skip
    windows = read_windows(keys, common, every=4096) if used else {}
    keys.taken.add("sliding_window")
    return windows | {
        "attention_bias": bias,
        "attention_out_bias": bias,
        "num_experts": experts,
        "num_experts_per_tok": keys.count("num_experts_per_tok", 8),
        "moe_intermediate_size": keys.count("moe_intermediate_size", 768),
        "norm_topk_prob": keys.switch("norm_topk_prob"),
        "sparse_layers": sparse,
    }


def write_qwen3_moe(c: DecoderConfig) -> Switches:
    names = ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "attention_bias")
    dense = [i for i in range(c.num_hidden_layers) if i not in c.sparse_layers]
    windows = {"use_sliding_window": True, "sliding_window": c.sliding_window} if c.sliding_window else {}
    return {name: getattr(c, name) for name in names} | {"decoder_sparse_step": 1, "mlp_only_layers": dense} | windows


def read_starcoder2(keys: Keys, common: Switches) -> Switches:
    keys.only("mlp_type", ("default", None), "is not supported; StarCoder2's MLP is 'default'")
    keys.only("norm_type", ("layer_norm", None), "is not supported; StarCoder2's norm is 'layer_norm'")
    keys.only("layer_norm_epsilon", (common["rms_norm_eps"], None), "contradicts norm_epsilon: keep one of the two")
    keys.taken.add("activation_function")  # of the format before hidden_act, which transformers reads
    bias = keys.switch("use_bias", True)
    return {"attention_bias": bias, "attention_out_bias": bias, "mlp_bias": bias} | read_windows(keys, common)


def read_stablelm(keys: Keys, common: Switches) -> Switches:
    keys.only("qk_layernorm", (False, None), "is not supported; this decoder norms no head by LayerNorm")
    keys.only("use_parallel_residual", (False, None), "is not supported; attention and MLP stand in a row here")
    return {"attention_bias": keys.switch("use_qkv_bias")}


def read_gemma2(keys: Keys, common: Switches) -> Switches:
    keys.only("hidden_act", (keys.raw.get("hidden_activation", "gelu_pytorch_tanh"), "gelu_pytorch_tanh", None),
              "contradicts hidden_activation, which Gemma 2 reads: keep one of the two")  # fmt: skip
    bias, layers, types = keys.switch("attention_bias"), common["num_hidden_layers"], keys.take("layer_types")
    sliding = list(range(0, layers, 2)) if types is None else _sliding(keys, types, layers)

    def cap(name: str, default: float) -> float | None:
        off = name in keys.raw and keys.raw[name] is None
        return keys.take(name) if off else keys.number(name, default)

    return _chosen(read_windows(keys, common, every=4096), sliding) | {
        "attention_bias": bias,
        "attention_out_bias": bias,
        "query_pre_attn_scalar": keys.number("query_pre_attn_scalar", 256),
        "attention_softcap": cap("attn_logit_softcapping", 50.0),
        "logit_softcap": cap("final_logit_softcapping", 30.0),
    }


def write_gemma2(c: DecoderConfig) -> Switches:
    scale = c.query_pre_attn_scalar or float(c.head_dim)
    return {
        "attention_bias": c.attention_bias,
        "query_pre_attn_scalar": int(scale) if scale == int(scale) else scale,  # transformers wants a whole number
        "attn_logit_softcapping": c.attention_softcap,
        "final_logit_softcapping": c.logit_softcap,
        "sliding_window": c.sliding_window,
        "layer_types": _layer_types(c),
    }
