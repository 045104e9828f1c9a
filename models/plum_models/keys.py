"""The keys of a config.json, each taken by name: what nobody takes is refused.

Three kinds of keys exist. Taken keys decide what the decoder computes. Irrelevant ones, listed here by reason, do not
change it. Every other key is unknown, and may be a change of the function that nobody would notice: it is refused.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

IRRELEVANT: dict[str, tuple[str, ...]] = {
    "where the file comes from": (
        "_name_or_path", "transformers_version", "transformers.js_config", "is_llama_config", "_commit_hash",
        "unsloth_version", "unsloth_fixed", "license",
    ),
    "how the weights are stored or computed with, which the caller of load decides": (
        "torch_dtype", "dtype", "use_bfloat16", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32",
        "pretraining_tp", "_attn_implementation", "_attn_implementation_internal", "attn_implementation",
        "_flash_attn_2_enabled", "chunk_size_feed_forward", "torchscript", "gradient_checkpointing", "use_cache",
        "cache_implementation", "hybrid_kvcache",
    ),
    "how transformers trains or what it returns": (
        "initializer_range", "attention_dropout", "attn_pdrop", "residual_dropout", "resid_pdrop", "embedding_dropout",
        "embd_pdrop", "hidden_dropout", "output_router_logits", "router_aux_loss_coef", "return_dict",
        "output_attentions", "output_hidden_states", "problem_type", "finetuning_task", "id2label", "label2id",
        "num_labels", "task_specific_params", "keys_to_ignore_at_inference",
    ),
    "ids and texts of the tokenizer, which reads them itself": (
        "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "unk_token_id",
        "decoder_start_token_id", "tokenizer_class", "prefix", "bos_token", "eos_token", "pad_token",
    ),
    "defaults of generation": (
        "max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
        "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
        "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences",
        "output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id",
        "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
    ),
    "settings of servers": (
        "context_window_size", "prefill_chunk_size", "attention_sink_size", "tensor_parallel_shards",
        "max_batch_size", "seq_length", "model_max_length",
    ),
}  # fmt: skip
HARMLESS = {name: why for why, names in IRRELEVANT.items() for name in names}

# what would change the function, with the only value at which it does not
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False, None),
    "is_decoder": (False, True, None),
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False, None),
    "tf_legacy_loss": (False, None),
    "pruned_heads": ({}, [], None),
    "quantization_config": (None, {}),
    "auto_map": (None, {}),
    "use_bidirectional_attention": (False, None),
    "rope_interleaved": (False, None),
    "use_mrope": (False, None),  # Qwen2.5's base models name it
    "scale_attn_weights": (True, None),
}
REMEDY = {
    "quantization_config": "save the checkpoint with unquantised weights",
    "auto_map": "code in a checkpoint is never run; remove the key if the weights are of this plain layout",
}


class Keys:
    """A config.json in reading. ``place`` names it in messages; ``layout`` is its model_type."""

    def __init__(self, raw: Mapping[str, Any], place: str) -> None:
        self.raw, self.place = dict(raw), place
        self.layout = str(raw.get("model_type"))
        self.taken = {"model_type", "architectures"}

    def wrong(self, name: str, rule: str) -> ValueError:
        """An error about the key ``name``: place, value, rule."""
        return ValueError(f"{self.place}: {name} = {_short(self.raw.get(name))} {rule}")

    def take(self, name: str, default: Any = None) -> Any:
        """The value of ``name``; ``default`` where it is absent or null."""
        self.taken.add(name)
        value = self.raw.get(name)
        return default if value is None else value

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number from 1 on."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.place}: {name} must be a whole number from 1 on, got {_short(value)}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number above 0, as a float."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ValueError(f"{self.place}: {name} must be a number above 0, got {_short(value)}")
        return float(value)

    def switch(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.place}: {name} must be true or false, got {_short(value)}")
        return value

    def only(self, name: str, values: Sequence[Any], rule: str) -> None:
        """Refuse any other value than these; an absent key is fine."""
        self.taken.add(name)
        if name in self.raw and not any(_same(self.raw[name], value) for value in values):
            raise self.wrong(name, rule)

    def finish(self) -> None:
        """Refuse what changes the function in a way that is not known here, and every key that is not known at all."""
        for name, values in NEUTRAL.items():
            if name not in self.taken:
                rule = REMEDY.get(name, f"is not supported; this decoder computes {name} = {_short(values[0])} alone")
                self.only(name, values, rule if "supported" in rule else f"is not supported: {rule}")
        unknown = [name for name in self.raw if name not in self.taken and name not in HARMLESS]
        if unknown:
            near = difflib.get_close_matches(unknown[0], sorted(self.taken), n=1)
            raise self.wrong(
                unknown[0],
                f"is not a known key of the {self.layout} layout{f' (nearest: {near[0]})' if near else ''}: it may "
                "change what the model computes; remove it from config.json if it does not",
            )


def _same(value: Any, other: Any) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ValueError with file, line and remedy where it holds anything else."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}): copy the file again") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: a JSON object was expected, not {type(raw).__name__}: copy the file again")
    return raw
