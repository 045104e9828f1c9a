"""Attention of sequences end to end, without padding, behind one function: ``packed_attention``."""
