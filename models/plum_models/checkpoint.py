"""Checkpoint folders in Hugging Face's layout: config.json, safetensors, tokenizer files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder
from plum_models.tokenizer import Tokenizer

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def load(folder: str | Path, *, dtype: torch.dtype | None = torch.float32) -> tuple[Decoder, Tokenizer]:
    """A decoder in ``dtype`` (None: as stored) and its tokenizer from a checkpoint folder.

    Raises FileNotFoundError or ValueError, with the file and the remedy, where the folder is not a whole checkpoint.
    """
    folder = Path(folder)
    return load_decoder(folder, dtype=dtype), Tokenizer.from_folder(folder)


def load_decoder(folder: str | Path, *, dtype: torch.dtype | None = torch.float32) -> Decoder:
    """``load`` without the tokenizer."""
    folder = Path(folder)
    config = read_config(folder / "config.json")
    with torch.device("meta"):
        decoder = Decoder(config)
    wanted = {name: tuple(p.shape) for name, p in decoder.named_parameters()}
    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        _read_tensors(path, wanted, found, dtype, tied=config.tie_word_embeddings)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"{folder}: tensor {_outer(missing[0])} {wanted[missing[0]]} is missing ({len(missing)} in all): "
            "the checkpoint is incomplete or config.json is of another model; copy the folder again"
        )
    decoder.load_state_dict(found, assign=True)
    return decoder.requires_grad_(True)


def _outer(name: str) -> str:
    """Our parameter name in Hugging Face's naming."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def _read_tensors(
    path: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, Tensor], dtype: torch.dtype | None, *, tied: bool
) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            for outer in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                name = outer.removeprefix("model.")
                if (tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq"):
                    continue  # a copy of the embedding, and a table that older exports saved
                if name not in wanted:
                    raise ValueError(f"{path}: tensor {outer} is not part of the model that config.json describes")
                tensor = file.get_tensor(outer)
                if tuple(tensor.shape) != wanted[name]:
                    raise ValueError(
                        f"{path}: tensor {outer} has shape {tuple(tensor.shape)}, config.json asks for {wanted[name]}"
                    )
                found[name] = tensor if dtype is None else tensor.to(dtype)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or not a safetensors file ({error}): copy it again or save the checkpoint again"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or those that its index names."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        places = _read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ValueError(f"{index}: no weight_map, so the shards are unknown: copy the file again")
        names = sorted(set(places.values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing: a checkpoint folder holds config.json, tokenizer.json and its safetensors"
            )
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}): copy the file again") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: a JSON object was expected, not {type(raw).__name__}: copy the file again")
    return raw


def read_config(path: Path) -> DecoderConfig:
    """Hugging Face's config.json of a Llama or Qwen2 model; what this decoder does not do is refused by name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name the folder of a checkpoint in Hugging Face's layout")
    raw = _read_json(path)
    kind = raw.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(f"{path}: model_type {kind!r} is not supported; this decoder reads {', '.join(ARCHITECTURES)}")
    _refuse_unsupported(path, raw)
    for key in REQUIRED:
        if not isinstance(raw.get(key), int) or raw[key] < 1:
            raise ValueError(f"{path}: {key} must be a whole number from 1 on, got {raw.get(key)!r}")
    try:
        return _decoder_config(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _decoder_config(raw: dict[str, Any]) -> DecoderConfig:
    llama, heads = raw["model_type"] == "llama", raw["num_attention_heads"]
    bias = not llama or bool(raw.get("attention_bias"))
    rope = raw.get("rope_parameters") or {}
    return DecoderConfig(
        **{key: raw[key] for key in REQUIRED},
        num_key_value_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        max_position_embeddings=raw.get("max_position_embeddings", 2048),
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        attention_bias=bias,
        attention_out_bias=bias and llama,
        mlp_bias=llama and bool(raw.get("mlp_bias")),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings")),
    )


def _refuse_unsupported(path: Path, raw: dict[str, Any]) -> None:
    """Settings that change the function and that this decoder does not know."""
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise ValueError(f"{path}: rotary scaling {kind!r} is not supported; only plain rotary positions are")
    if (raw.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1) != 1:
        raise ValueError(f"{path}: partial_rotary_factor is not supported; every channel of a head is rotated here")
    if raw.get("use_sliding_window") or (raw["model_type"] == "llama" and raw.get("sliding_window")):
        raise ValueError(f"{path}: sliding-window attention is not supported; this decoder attends to every position")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{path}: hidden_act {raw['hidden_act']!r} is not supported; this decoder uses silu")


def _model_type(config: DecoderConfig) -> str:
    """The layout that says where this decoder has biases: Llama has them on q, k, v and o or on none of the four."""
    if config.attention_bias == config.attention_out_bias:
        return "llama"
    if config.attention_bias and not config.mlp_bias:
        return "qwen2"
    raise ValueError(
        f"neither Llama's nor Qwen2's layout has attention_bias={config.attention_bias} with "
        f"attention_out_bias={config.attention_out_bias} and mlp_bias={config.mlp_bias}: give q, k, v and o the same"
    )


def config_json(config: DecoderConfig, tokenizer: Tokenizer, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json that transformers reads back to the same function."""
    kind = _model_type(config)
    out: dict[str, Any] = {"architectures": [ARCHITECTURES[kind]], "model_type": kind, "hidden_act": "silu"}
    for name in DecoderConfig.__dataclass_fields__:
        if name not in ("attention_bias", "attention_out_bias", "mlp_bias"):
            out[name] = getattr(config, name)
    if kind == "llama":
        out |= {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
    ids = sorted(tokenizer.eos_token_ids)
    out["eos_token_id"] = ids[0] if len(ids) == 1 else ids
    out |= {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    return out | {"torch_dtype": str(dtype).removeprefix("torch.")}


def save(decoder: Decoder, tokenizer: Tokenizer, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint folder, whole or not at all: a temporary folder beside it takes its place when complete.

    dtype: of the saved weights; the decoder's own where not given. A checkpoint that stands there is replaced;
    ValueError where the folder holds anything else.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "config.json").is_file() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files that are no checkpoint: name a new or empty folder")
    config = config_json(decoder.config, tokenizer, dtype or decoder.head_weight.dtype)
    staged, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.{end}") for end in ("partial", "old"))
    staged.mkdir(parents=True)
    try:
        weights = {_outer(n): p.detach().to(dtype or p.dtype).contiguous() for n, p in decoder.named_parameters()}
        save_file(weights, staged / "model.safetensors", metadata={"format": "pt"})
        (staged / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
        (staged / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name, content in tokenizer.files().items():
            (staged / name).write_bytes(content)
        for path in (*staged.iterdir(), staged):
            _to_disk(path)
        if folder.exists():
            folder.rename(old)
        staged.rename(folder)
        _to_disk(folder.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(decoder: Decoder) -> str:
    """16 hex digits of SHA-256 over every parameter's name, dtype and bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(decoder.named_parameters()):
        tensor = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
