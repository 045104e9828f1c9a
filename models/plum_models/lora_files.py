"""Adapters in PEFT's layout: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from plum_models.keys import read_json
from plum_models.lora import LoraConfig, adapted, add_lora

PREFIX = "base_model.model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# keys that change the function, with the values at which they do not
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layers_to_transform": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "exclude_modules": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, []),
    "layer_replication": (None, []),
    "megatron_config": (None,),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "corda_config": (None,),
    "eva_config": (None,),
}


def save_lora(decoder: nn.Module, folder: str | Path, *, base: str | None = None) -> None:
    """Write the adapters alone, whole or not at all. ``base``: the name of the checkpoint that they belong to.

    Raises ValueError where there are none, or where ``folder`` holds anything but adapters.
    """
    folder, layers = Path(folder), adapted(decoder)
    if not layers:
        raise ValueError("this decoder has no adapters to save: add_lora gives it some")
    if folder.exists() and not (folder / CONFIG).is_file() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files that are no adapters: name a new or empty folder")
    config = layers[0][1].config
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted({name.rpartition(".")[2] for name, _ in layers}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    tensors = {
        f"{PREFIX}{name}.{which}.weight": getattr(layer, which).detach().cpu().contiguous()
        for name, layer in layers
        for which in ("lora_A", "lora_B")
    }
    staged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    staged.mkdir(parents=True)
    try:
        save_file(tensors, staged / WEIGHTS, metadata={"format": "pt"})
        (staged / WEIGHTS).chmod(0o644)
        (staged / CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        for path in staged.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def load_lora(decoder: nn.Module, folder: str | Path) -> LoraConfig:
    """Give ``decoder`` the adapters of a folder that PEFT or ``save_lora`` wrote.

    Raises FileNotFoundError or ValueError, before the decoder is touched, for what is missing, does not fit, or would
    change the function in a way that is not known here.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: a folder of adapters holds {CONFIG} and {WEIGHTS}")
    config = _read_config(folder / CONFIG)
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is truncated or no safetensors file ({error}): copy it again") from error
    wanted = {
        f"{PREFIX}{name}.{which}.weight": shape
        for name, layer in decoder.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in config.targets
        for which, shape in (
            ("lora_A", (config.rank, layer.in_features)),
            ("lora_B", (layer.out_features, config.rank)),
        )
    }
    for name, tensor in tensors.items():
        if name not in wanted:
            raise ValueError(f"{folder / WEIGHTS}: tensor {name} belongs to no layer of this decoder's targets")
        if tuple(tensor.shape) != wanted[name]:
            raise ValueError(
                f"{folder / WEIGHTS}: tensor {name} has shape {tuple(tensor.shape)}, "
                f"the decoder asks for {wanted[name]}"
            )
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise ValueError(f"{folder / WEIGHTS}: tensor {missing[0]} is missing ({len(missing)} in all): copy it again")
    add_lora(decoder, config, seed=0)
    with torch.no_grad():
        for name, layer in adapted(decoder):
            layer.lora_A.copy_(tensors[f"{PREFIX}{name}.lora_A.weight"])
            layer.lora_B.copy_(tensors[f"{PREFIX}{name}.lora_B.weight"])
    return config


def _read_config(path: Path) -> LoraConfig:
    raw = read_json(path)
    for name, values in NEUTRAL.items():
        if name in raw and raw[name] not in values:
            raise ValueError(f"{path}: {name} = {raw[name]!r} is not supported: this decoder has plain adapters alone")
    targets = raw.get("target_modules")
    if not isinstance(targets, list):
        raise ValueError(f"{path}: target_modules must be a list of layer names, got {targets!r}")
    try:
        return LoraConfig(
            rank=raw["r"],
            alpha=float(raw["lora_alpha"]),
            targets=tuple(sorted(targets)),
            dropout=float(raw.get("lora_dropout") or 0.0),
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing: a LoRA adapter has r and lora_alpha") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
