"""Log-probs under the reference policy: computed once, kept in a file, and used in place of its weights."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from plum_core.training.batches import Example, split
from plum_core.training.logps import completion_logps, padded_logps
from plum_core.training.loop import digest_of, weights_digest
from plum_core.training.world import World
from plum_models.decoder import Decoder


def examples_digest(examples: Sequence[Example]) -> str:
    """16 hex digits over every token id, where each prompt and completion ends, and what its tokens count."""
    digest = hashlib.sha256()
    for e in examples:
        ids = (len(e.prompt_ids), *e.prompt_ids, len(e.completion_ids), *e.completion_ids)
        digest.update(array("q", ids).tobytes())
        if e.weights is not None:
            digest.update(b"weights" + array("d", e.weights).tobytes())
    return digest.hexdigest()[:16]


def _stored(path: Path, fingerprint: str) -> Tensor | None:
    """The file's log-probs, or None where it is absent, broken or of other weights or data."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            return file.get_tensor("logps").clone()
    except (SafetensorError, OSError):  # truncated: what it held can be computed again
        return None


def _store(path: Path, logps: Tensor, fingerprint: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    save_file({"logps": logps}, temporary, metadata={"fingerprint": fingerprint})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _by_family(examples: Sequence[Example]) -> list[int]:
    """Indices by length, the completions of one prompt side by side, so that they share its computation."""
    longest: dict[tuple[int, ...], int] = {}
    for e in examples:
        longest[e.prompt_ids] = max(len(e), longest.get(e.prompt_ids, 0))
    return sorted(range(len(examples)), key=lambda i: (longest[examples[i].prompt_ids], examples[i].prompt_ids, i))


@torch.no_grad()
def _compute(
    decoder: Decoder, examples: Sequence[Example], tokens_per_batch: int, world: World, per_token: bool
) -> Tensor:
    sizes = [len(e.completion_ids) if per_token else 1 for e in examples]
    rows = list(torch.zeros(sum(sizes), dtype=torch.float32).split(sizes))
    groups = split(_by_family(examples), [(1, len(e)) for e in examples], tokens_per_batch)
    for group in groups[world.rank :: world.size]:
        part = [examples[i] for i in group]
        logps = padded_logps(decoder, part) if per_token else completion_logps(decoder, part).unsqueeze(1)
        for i, row in zip(group, logps.cpu(), strict=True):
            rows[i].copy_(row[: sizes[i]])
    return world.all_reduce(torch.cat(rows))


def reference_logps(
    reference: Decoder,
    examples: Sequence[Example],
    path: Path,
    *,
    tokens_per_batch: int,
    world: World | None = None,
    per_token: bool = False,
) -> Tensor:
    """(N,) fp32 log-prob of each completion under ``reference``, by the policy's own code path.

    ``per_token``: (C,) of every completion token, one completion after the other. ``path``: the safetensors file that
    keeps them under a fingerprint of the weights and of all token ids. A file of the same fingerprint is read; any
    other is replaced.
    """
    world = world or World()
    kind = ("per token",) if per_token else ()
    fingerprint = digest_of(weights_digest(reference), examples_digest(examples), *kind)
    found = _stored(path, fingerprint)
    everywhere = world.all_reduce(torch.tensor(int(found is not None))) == world.size
    if found is None or not everywhere:  # a host that lacks the file needs all ranks to compute with it
        found = _compute(reference, examples, tokens_per_batch, world, per_token)
        if world.is_main:
            _store(path, found, fingerprint)
    return found
