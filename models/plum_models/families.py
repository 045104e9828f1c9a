"""config.json to ``DecoderConfig`` and back, a table row a layout: no layout has a forward of its own.

Every key of a config.json is honoured, irrelevant by name, or refused by name (see ``keys``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plum_models import deepseek, layouts
from plum_models.config import DecoderConfig
from plum_models.keys import Keys, read_json
from plum_models.layouts import Family, Switches
from plum_models.rope_keys import read_rope, write_rope

FAMILIES: dict[str, Family] = {
    "llama": Family(
        architecture="LlamaForCausalLM",
        read=layouts.read_llama,
        write=lambda c: {"attention_bias": c.attention_bias, "mlp_bias": c.mlp_bias},
    ),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM",
        read=layouts.read_qwen_windows,
        write=layouts.write_qwen_windows,
        positions=32768,
        kv_heads=32,
        fixed={"attention_bias": True},
    ),
    "mistral": Family(
        architecture="MistralForCausalLM",
        read=lambda keys, common: layouts.read_windows(keys, common, every=4096),
        write=lambda c: {"sliding_window": c.sliding_window},
        positions=131072,
        kv_heads=8,
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        read=layouts.read_qwen3,
        write=layouts.write_qwen3,
        positions=32768,
        kv_heads=32,
        head_dim=128,
        fixed={"qk_norm": True},
    ),
    "qwen3_moe": Family(
        architecture="Qwen3MoeForCausalLM",
        read=layouts.read_qwen3_moe,
        write=layouts.write_qwen3_moe,
        positions=32768,
        kv_heads=4,
        fixed={"qk_norm": True},
    ),
    "starcoder2": Family(
        architecture="Starcoder2ForCausalLM",
        read=layouts.read_starcoder2,
        write=lambda c: {"use_bias": c.mlp_bias, "sliding_window": c.sliding_window},
        eps=("norm_epsilon", 1e-5),
        activation=("hidden_act", "gelu_pytorch_tanh"),
        tied=True,
        positions=4096,
        kv_heads=2,
        fixed={"norm": "layer", "gated_mlp": False},
    ),
    "stablelm": Family(
        architecture="StableLmForCausalLM",
        read=layouts.read_stablelm,
        write=lambda c: {"use_qkv_bias": c.attention_bias, "partial_rotary_factor": c.partial_rotary_factor},
        eps=("layer_norm_eps", 1e-5),
        positions=4096,
        kv_heads=32,
        rotated=0.25,
        fixed={"norm": "layer"},
    ),
    "gemma2": Family(
        architecture="Gemma2ForCausalLM",
        read=layouts.read_gemma2,
        write=layouts.write_gemma2,
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        tied=True,
        positions=8192,
        kv_heads=4,
        head_dim=256,
        fixed={"norm": "rms_shifted", "sandwich_norms": True, "scale_embeddings": True},
    ),
    "deepseek_v2": Family(
        architecture="DeepseekV2ForCausalLM",
        read=deepseek.read_deepseek_v2,
        write=deepseek.write_deepseek_v2,
        fixed={"fp32_router": True},
    ),
}
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
NAMES_OF_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def read_config(path: Path) -> DecoderConfig:
    """The DecoderConfig of a config.json; FileNotFoundError or ValueError, in one sentence, where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name the folder of a checkpoint in Hugging Face's layout")
    return resolve(read_json(path), str(path))


def resolve(raw: Mapping[str, Any], place: str = "config.json") -> DecoderConfig:
    """The DecoderConfig of a config.json's object; ``place`` names the file in messages.

    Raises ValueError with the key, its value and the rule where the function that it describes is not this decoder's.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(
            f"{place}: model_type {kind!r} is not supported; this decoder reads {', '.join(FAMILIES)}: "
            "convert the checkpoint to one of these layouts or choose another model"
        )
    family, keys = FAMILIES[kind], Keys(raw, place)
    named = raw.get("architectures")
    if named and family.architecture not in named:
        raise keys.wrong("architectures", f"is not supported; a {kind} checkpoint is read as {family.architecture}")
    common = _common(keys, family)
    switches = common | dict(family.fixed) | family.read(keys, common)
    keys.finish()
    try:
        return DecoderConfig(**switches, model_type=kind)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _common(keys: Keys, family: Family) -> Switches:
    """What every layout has, under the layout's names."""
    out: Switches = {name: keys.count(name) for name in SIZES}
    heads = out["num_attention_heads"]
    absent = "num_key_value_heads" not in keys.raw and family.kv_heads
    out["num_key_value_heads"] = keys.count("num_key_value_heads", absent or heads)
    out["head_dim"] = keys.count("head_dim", family.head_dim or max(1, out["hidden_size"] // heads))
    out["max_position_embeddings"] = keys.count("max_position_embeddings", family.positions)
    out["rms_norm_eps"] = keys.number(*family.eps)
    name, default = family.activation
    spelling = keys.take(name, default)
    if spelling not in ACTIVATIONS:
        raise ValueError(
            f"{keys.place}: {name} {spelling!r} is not supported; this decoder computes {', '.join(ACTIVATIONS)}"
        )
    out["activation"] = ACTIVATIONS[spelling]
    out["tie_word_embeddings"] = keys.switch("tie_word_embeddings", family.tied)
    out |= read_rope(keys, out["max_position_embeddings"], family.rotated)
    if family.rotated == 1 and out["partial_rotary_factor"] != 1:
        raise ValueError(
            f"{keys.place}: partial_rotary_factor = {out['partial_rotary_factor']} is not supported in the "
            f"{keys.layout} layout, whose heads are rotated whole (stablelm's are not); remove the key if it changes "
            "nothing"
        )
    return out


def to_json(config: DecoderConfig) -> dict[str, Any]:
    """The config.json that reads back to ``config``: in the layout it came in, or the first one that has it all.

    Raises ValueError where no layout can say it.
    """
    kinds = [config.model_type] if config.model_type in FAMILIES else []
    for kind in (*kinds, *FAMILIES):
        out = _write(config, kind)
        try:
            if resolve(out) == config:
                return out
        except ValueError:
            continue  # this layout's keys cannot hold these values
    raise ValueError(
        f"{_difference(config, kinds[0] if kinds else 'llama')}: no layout among {', '.join(FAMILIES)} has it"
    )


def _write(config: DecoderConfig, kind: str) -> dict[str, Any]:
    family = FAMILIES[kind]
    out: dict[str, Any] = {"architectures": [family.architecture], "model_type": kind}
    out[family.activation[0]] = NAMES_OF_ACTIVATIONS[config.activation]
    for name in (*SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings"):
        out[name] = getattr(config, name)
    out |= {family.eps[0]: config.rms_norm_eps, "rope_theta": config.rope_theta} | write_rope(config)
    return out | {"tie_word_embeddings": config.tie_word_embeddings} | family.write(config)


def _difference(config: DecoderConfig, kind: str) -> str:
    """Where ``config`` is not what the layout ``kind`` makes of it."""
    try:
        read = resolve(_write(config, kind))
    except ValueError as error:
        return str(error)
    names = [n for n in DecoderConfig.__dataclass_fields__ if getattr(read, n) != getattr(config, n)]
    values = ", ".join(f"{n}={getattr(config, n)!r}" for n in names if n != "model_type")
    return f"a decoder with {values} is not {FAMILIES[kind].architecture}'s"
