"""Layers through torch.compile, in two pieces each: what is attended to, and what is made of the answer.

``attend`` itself stays outside: it is another function for each batch, and would be compiled anew for each. All layers
of a decoder are the same code, so two pieces are compiled, for any number of tokens, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from plum_models.decoder import Decoder, Layer

PIECES = ("before", "after")


@contextmanager
def compiled(decoder: Decoder, *, backend: str = "inductor") -> Iterator[None]:
    """Inside, ``decoder``'s layers run compiled; a decoder that is a twin of another leaves that one as it is.

    Raises ValueError for sparse layers, whose experts get as many tokens as they get: no graph holds that.
    """
    if decoder.config.sparse_layers:
        raise ValueError("compile takes dense layers, and this decoder has sparse ones: set it to false")
    layers = [layer for layer in decoder.layers if isinstance(layer, Layer)]
    for layer in layers:
        for name in PIECES:
            piece = torch.compile(getattr(layer, name), dynamic=True, fullgraph=True, backend=backend)
            layer.__dict__[name] = piece  # in place of the class's own
    try:
        yield
    finally:
        for layer in layers:
            for name in PIECES:
                del layer.__dict__[name]
