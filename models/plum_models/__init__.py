"""Decoder, checkpoints, adapters and tokenizer: what a policy is made of."""

from plum_models.checkpoint import fingerprint, load, load_decoder, save
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder
from plum_models.lora import LoraConfig, adapter_off, add_lora, fold_lora, merge_lora, unmerge_lora
from plum_models.lora_files import load_lora, save_lora
from plum_models.packed import packed_forward
from plum_models.tokenizer import Tokenizer

__all__ = [
    "Decoder",
    "DecoderConfig",
    "LoraConfig",
    "Tokenizer",
    "adapter_off",
    "add_lora",
    "fingerprint",
    "fold_lora",
    "load",
    "load_decoder",
    "load_lora",
    "merge_lora",
    "packed_forward",
    "save",
    "save_lora",
    "unmerge_lora",
]
