"""Checkpoint folders in Hugging Face's layout: config.json, safetensors, tokenizer files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder
from plum_models.families import read_config, to_json
from plum_models.keys import read_json
from plum_models.lora import adapted
from plum_models.tokenizer import Tokenizer

INDEX = "model.safetensors.index.json"
CONVERTED_BYTES = 2**26  # read between two openings of a file: closing gives the pages of its map back
STALE = ("rotary_emb.inv_freq", "attn.masked_bias", "attn.bias")  # tables that older exports saved


def load(folder: str | Path, *, dtype: torch.dtype | None = torch.float32) -> tuple[Decoder, Tokenizer]:
    """A decoder in ``dtype`` (None: as stored) and its tokenizer from a checkpoint folder.

    Raises FileNotFoundError or ValueError, with the file and the remedy, where the folder is not a whole checkpoint.
    """
    folder = Path(folder)
    return load_decoder(folder, dtype=dtype), Tokenizer.from_folder(folder)


def load_decoder(
    folder: str | Path, *, dtype: torch.dtype | None = torch.float32, device: torch.device | str = "cpu"
) -> Decoder:
    """``load`` without the tokenizer, each tensor read straight to ``device``.

    Files are memory-mapped: a tensor in the type that it is stored in stays a private view of its file on the CPU,
    copied page by page where it is written to. So a file must not be overwritten in place while a decoder of it is in
    use; ``save`` replaces by renaming.
    """
    folder = Path(folder)
    decoder = plan(folder)
    found = read_weights(folder, decoder, dtype=dtype, device=torch.device(device))
    decoder.load_state_dict(found, assign=True)
    return decoder.requires_grad_(True)


def plan(folder: str | Path) -> Decoder:
    """The decoder of a checkpoint's config.json on the meta device: sizes without weights."""
    config = read_config(Path(folder) / "config.json")
    with torch.device("meta"), _NoInit():
        return Decoder(config)


def read_weights(
    folder: Path,
    decoder: Decoder,
    *,
    dtype: torch.dtype | None,
    device: torch.device,
    rows: Mapping[str, slice] | None = None,
) -> dict[str, Tensor]:
    """The tensors of ``decoder`` from a checkpoint, by its names; of each only ``rows``, where they are given.

    Raises ValueError for a tensor that is missing, misshaped or nobody's, and for a file that is none.
    """
    wanted = {name: tuple(p.shape) for name, p in decoder.named_parameters()}
    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        _read_tensors(path, wanted, found, dtype, device, tied=decoder.config.tie_word_embeddings, rows=rows)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"{folder}: tensor {_outer(missing[0])} {wanted[missing[0]]} is missing ({len(missing)} in all): "
            "the checkpoint is incomplete or config.json is of another model; copy the folder again"
        )
    return found


class _NoInit(TorchFunctionMode):
    """Leaves weights as they come: drawing them for a decoder that is only a plan takes a second of imports."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _outer(name: str) -> str:
    """Our parameter name in Hugging Face's naming."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def _read_tensors(
    path: Path,
    wanted: dict[str, tuple[int, ...]],
    found: dict[str, Tensor],
    dtype: torch.dtype | None,
    device: torch.device,
    *,
    tied: bool,
    rows: Mapping[str, slice] | None = None,
) -> None:
    """Tensors of one file into ``found``. Raises ValueError on what does not belong, or does not fit."""
    names: list[str] | None = None
    while names is None or names:
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                names = list(file.keys()) if names is None else names
                names = _read_some(path, file, names, wanted, found, dtype, tied=tied, rows=rows)
        except SafetensorError as error:
            raise ValueError(
                f"{path} is truncated or not a safetensors file ({error}): copy it again or save the checkpoint again"
            ) from error


def _read_some(
    path: Path,
    file: Any,
    names: list[str],
    wanted: dict[str, tuple[int, ...]],
    found: dict[str, Tensor],
    dtype: torch.dtype | None,
    *,
    tied: bool,
    rows: Mapping[str, slice] | None,
) -> list[str]:
    """Read until enough was converted; the names that are left."""
    converted = 0
    for place, outer in enumerate(names):
        name = outer.removeprefix("model.")
        if (tied and name == "lm_head.weight") or name.endswith(STALE):
            continue  # a copy of the embedding, or a table
        if name not in wanted:
            raise ValueError(f"{path}: tensor {outer} is not part of the model that config.json describes")
        if name in found:
            raise ValueError(f"{path}: tensor {outer} stands in another file of this checkpoint too: copy it again")
        stored = file.get_slice(outer)
        shape = tuple(stored.get_shape())
        if shape != wanted[name]:
            raise ValueError(f"{path}: tensor {outer} has shape {shape}, config.json asks for {wanted[name]}")
        tensor = file.get_tensor(outer) if rows is None else stored[rows[name]]
        if dtype is None or tensor.dtype == dtype:
            found[name] = tensor
            continue
        found[name] = tensor.to(dtype)
        converted += tensor.nbytes
        if converted >= CONVERTED_BYTES:
            return names[place + 1 :]
    return []


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or those that its index names."""
    index = folder / INDEX
    if index.is_file():
        places = read_json(index).get("weight_map")
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


def config_json(config: DecoderConfig, tokenizer: Tokenizer, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json that transformers reads back to the same function."""
    ids = sorted(tokenizer.eos_token_ids)
    return to_json(config) | {
        "eos_token_id": ids[0] if len(ids) == 1 else ids,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def save(
    decoder: Decoder,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a checkpoint folder, whole or not at all: a temporary folder beside it takes its place when complete.

    dtype: of the saved weights; the decoder's own where not given. shard_bytes: how large a file may become before
    the next one is begun. A checkpoint that stands there is replaced; ValueError where the folder holds anything else,
    or the decoder has adapters.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "config.json").is_file() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files that are no checkpoint: name a new or empty folder")
    if adapted(decoder):
        raise ValueError("this decoder has adapters: fold_lora makes it plain, save_lora writes the adapters alone")
    config = config_json(decoder.config, tokenizer, dtype or decoder.head_weight.dtype)
    staged, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.{end}") for end in ("partial", "old"))
    staged.mkdir(parents=True)
    try:
        _write_weights(decoder, staged, dtype, shard_bytes)
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


def _write_weights(decoder: Decoder, folder: Path, dtype: torch.dtype | None, shard_bytes: int) -> None:
    """One file, or shards and the index that names them; a shard at a time is converted in memory."""
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be at least 1, got {shard_bytes}")
    shards: list[list[tuple[str, Tensor]]] = [[]]
    room = shard_bytes
    for name, parameter in decoder.named_parameters():
        size = parameter.numel() * (dtype or parameter.dtype).itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = shard_bytes
        room -= size
        shards[-1].append((_outer(name), parameter.detach()))
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {outer: tensor.to(dtype or tensor.dtype).contiguous() for outer, tensor in shard}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)  # safetensors leaves it to its owner alone
        places |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        total = sum(p.numel() * (dtype or p.dtype).itemsize for p in decoder.parameters())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


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
