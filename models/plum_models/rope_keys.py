"""Rotary settings of a config.json, in each of the spellings that are about.

``rope_theta`` and ``rope_scaling`` (transformers 4, there ``type`` or ``rope_type``), or both in ``rope_parameters``
(transformers 5).
"""

from __future__ import annotations

from typing import Any

from plum_models.config import DecoderConfig
from plum_models.keys import Keys
from plum_models.rope import KINDS, Rope, yarn_attention_factor

ALWAYS = {"type", "rope_type", "rope_theta", "partial_rotary_factor", "finetuned"}
READ: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor", "original_max_position_embeddings"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {
        "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
        "mscale_all_dim", "truncate",
    },
}  # fmt: skip


def _scaling(keys: Keys) -> dict[str, Any]:
    """The scaling's own keys, wherever they stand; null ones left out."""
    found = []
    for name in ("rope_parameters", "rope_scaling"):
        value = keys.take(name, {})
        if not isinstance(value, dict):
            raise keys.wrong(name, "must be an object or null")
        found.append({k: v for k, v in value.items() if v is not None})
    new, old = found
    if new and old and new != old and any(new.get(k, v) != v for k, v in old.items()):
        raise keys.wrong("rope_scaling", f"contradicts rope_parameters = {new}: keep one of the two")
    return old | new


def _kind(keys: Keys, scaling: dict[str, Any]) -> str:
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if scaling.get("type", kind) != kind:
        raise ValueError(
            f"{keys.place}: rotary scaling has type {scaling['type']!r} and rope_type {kind!r}: keep one of the two"
        )
    if kind not in KINDS:
        raise ValueError(
            f"{keys.place}: rotary scaling {kind!r} is not supported; this decoder computes {', '.join(KINDS)}"
        )
    unknown = sorted(set(scaling) - ALWAYS - READ[kind])
    if unknown:
        raise ValueError(
            f"{keys.place}: rotary scaling {kind!r} has no key {unknown[0]} (= {scaling[unknown[0]]!r}) that this "
            f"decoder knows; it reads {', '.join(sorted(READ[kind])) or 'none'}: remove the key if it changes nothing"
        )
    return kind


def _number(keys: Keys, scaling: dict[str, Any], name: str, default: float | None) -> float:
    value = scaling.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{keys.place}: rotary scaling needs the number {name}, got {value!r}: add it to config.json")
    return float(value)


def _theta(keys: Keys, scaling: dict[str, Any]) -> float:
    theta = keys.number("rope_theta", 10000.0) if keys.raw.get("rope_theta") is not None else None
    keys.taken.add("rope_theta")
    inside = _number(keys, scaling, "rope_theta", None) if "rope_theta" in scaling else None
    if theta is not None and inside is not None and theta != inside:
        raise keys.wrong("rope_theta", f"contradicts rope_parameters' rope_theta = {inside}: keep one of the two")
    known = theta or inside or 10000.0
    keys.only("rotary_emb_base", (known,), f"contradicts rope_theta = {known}: keep one of the two")
    return known


def read_rope(keys: Keys, max_positions: int, partial: float = 1.0) -> dict[str, Any]:
    """DecoderConfig's rope, rope_theta and partial_rotary_factor; ``partial``: the layout's own share."""
    scaling = _scaling(keys)
    kind = _kind(keys, scaling)
    share = keys.number("partial_rotary_factor", scaling.get("partial_rotary_factor", partial))
    out = {"rope_theta": _theta(keys, scaling), "partial_rotary_factor": share}
    outer = keys.take("original_max_position_embeddings")
    original = outer or scaling.get("original_max_position_embeddings") or max_positions
    if kind == "dynamic" and original != max_positions:
        raise ValueError(
            f"{keys.place}: rotary scaling 'dynamic' with original_max_position_embeddings = {original} is not "
            f"supported; it grows from max_position_embeddings = {max_positions} on: give both the same value"
        )
    if kind == "default":
        return out | {"rope": Rope()}
    default = max_positions / original if kind == "yarn" else None
    values: dict[str, Any] = {"kind": kind, "factor": _number(keys, scaling, "factor", default)}
    if kind in ("llama3", "yarn"):
        values["original_max_position_embeddings"] = original
    if kind == "llama3":
        values |= {name: _number(keys, scaling, name, None) for name in ("low_freq_factor", "high_freq_factor")}
    if kind == "yarn":
        by_length = yarn_attention_factor(values["factor"], scaling.get("mscale"), scaling.get("mscale_all_dim"))
        values |= {
            "beta_fast": _number(keys, scaling, "beta_fast", 32.0),
            "beta_slow": _number(keys, scaling, "beta_slow", 1.0),
            "attention_factor": _number(keys, scaling, "attention_factor", by_length),
            "truncate": bool(scaling.get("truncate", True)),
        }
    try:
        return out | {"rope": Rope(**values)}
    except ValueError as error:
        raise ValueError(f"{keys.place}: {error}") from error


def write_rope(config: DecoderConfig) -> dict[str, Any]:
    """``rope_scaling`` as transformers 4 and 5 read it; nothing where positions are plain."""
    rope = config.rope
    if rope.kind == "default":
        return {}
    out: dict[str, Any] = {"rope_type": rope.kind, "factor": rope.factor}
    if rope.kind == "llama3":
        out |= {"low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor}
    if rope.kind == "yarn":
        out |= {"beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow, "attention_factor": rope.attention_factor}
        out |= {} if rope.truncate else {"truncate": False}
        out |= {"mscale_all_dim": rope.mscale_all_dim} if rope.mscale_all_dim else {}
    if rope.original_max_position_embeddings is not None:
        out["original_max_position_embeddings"] = rope.original_max_position_embeddings
    return {"rope_scaling": out}
