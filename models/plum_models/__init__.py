"""Decoder, checkpoints and tokenizer: what a policy is made of."""

from plum_models.checkpoint import fingerprint, load, load_decoder, save
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder
from plum_models.tokenizer import Tokenizer

__all__ = ["Decoder", "DecoderConfig", "Tokenizer", "fingerprint", "load", "load_decoder", "save"]
