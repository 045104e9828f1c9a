"""Decoder, checkpoints and tokenizer: what a policy is made of."""
