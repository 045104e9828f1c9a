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


def load(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> tuple[Decoder, Tokenizer]:
    """A decoder in ``dtype`` and its tokenizer from a checkpoint folder.

    Raises FileNotFoundError or ValueError, with the file and the remedy, where the folder is not a whole checkpoint.
    """
    folder = Path(folder)
    return load_decoder(folder, dtype=dtype), Tokenizer.from_folder(folder)


def load_decoder(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
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
    path: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, Tensor], dtype: torch.dtype, *, tied: bool
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
                found[name] = tensor.to(dtype)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or not a safetensors file ({error}): copy it again or save the checkpoint again"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or those that its index names."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing: a checkpoint folder holds config.json, tokenizer.json and its safetensors"
            )
    return [folder / name for name in names]


def read_config(path: Path) -> DecoderConfig:
    """Hugging Face's config.json of a Llama or Qwen2 model; what this decoder does not do is refused by name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name the folder of a checkpoint in Hugging Face's layout")
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}): copy the file again") from error
    kind = raw.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(f"{path}: model_type {kind!r} is not supported; this decoder reads {', '.join(ARCHITECTURES)}")
    _refuse_unsupported(path, raw)
    bias = bool(raw.get("attention_bias", False)) if kind == "llama" else True
    heads = raw["num_attention_heads"]
    rope = raw.get("rope_parameters") or {}
    return DecoderConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_hidden_layers=raw["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        max_position_embeddings=raw.get("max_position_embeddings", 2048),
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        attention_bias=bias,
        attention_out_bias=bias and kind == "llama",
        mlp_bias=bool(raw.get("mlp_bias", False)),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
    )


def _refuse_unsupported(path: Path, raw: dict[str, Any]) -> None:
    """Settings that change the function and that this decoder does not know."""
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise ValueError(f"{path}: rotary scaling {kind!r} is not supported; only plain rotary positions are")
    if raw.get("use_sliding_window") or (raw["model_type"] == "llama" and raw.get("sliding_window")):
        raise ValueError(f"{path}: sliding-window attention is not supported; this decoder attends to every position")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{path}: hidden_act {raw['hidden_act']!r} is not supported; this decoder uses silu")


def config_json(config: DecoderConfig, tokenizer: Tokenizer, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json that transformers reads back to the same function."""
    kind = "qwen2" if config.attention_bias and not config.attention_out_bias else "llama"
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

    dtype: of the saved weights; the decoder's own where not given.
    """
    folder = Path(folder)
    staged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    staged.mkdir(parents=True)
    try:
        weights = {_outer(n): p.detach().to(dtype or p.dtype).contiguous() for n, p in decoder.named_parameters()}
        save_file(weights, staged / "model.safetensors", metadata={"format": "pt"})
        config = config_json(decoder.config, tokenizer, dtype or decoder.embed_tokens.weight.dtype)
        (staged / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name, content in tokenizer.files().items():
            (staged / name).write_bytes(content)
        for path in staged.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def fingerprint(decoder: Decoder) -> str:
    """16 hex digits of SHA-256 over every parameter's name, dtype and bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(decoder.named_parameters()):
        tensor = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
