"""Real trained weights: stories260K from llama2.c's file, against a forward in numpy by that file's own layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plum_models.llama2c import load_llama2c


def numpy_logits(path, tokens):
    """Position by position, in float64: rotated neighbours, keys and values appended to lists."""
    dim, inner, layers, heads, kv_heads, vocab, _ = np.fromfile(path, "<i4", 7)
    data, at = np.fromfile(path, "<f4", offset=28).astype(np.float64), 0
    width = dim // heads

    def take(*shape):
        nonlocal at
        at += int(np.prod(shape))
        return data[at - int(np.prod(shape)) : at].reshape(shape)

    emb, att = take(vocab, dim), take(layers, dim)
    wq, wk, wv = take(layers, dim, dim), take(layers, kv_heads * width, dim), take(layers, kv_heads * width, dim)
    wo, ffn = take(layers, dim, dim), take(layers, dim)
    w1, w2, w3, final = take(layers, inner, dim), take(layers, dim, inner), take(layers, inner, dim), take(dim)

    def norm(x, w):
        return w * x / np.sqrt((x * x).mean() + 1e-5)

    def turn(vector, position):
        out = vector.copy()
        for i in range(0, len(vector), 2):
            angle = position / 10000 ** ((i % width) / width)
            a, b = vector[i], vector[i + 1]
            out[i], out[i + 1] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
        return out

    keys, values, out = [[] for _ in range(layers)], [[] for _ in range(layers)], []
    for position, token in enumerate(tokens):
        x = emb[token].copy()
        for n in range(layers):
            h = norm(x, att[n])
            q = turn(wq[n] @ h, position)
            keys[n].append(turn(wk[n] @ h, position))
            values[n].append(wv[n] @ h)
            attended = np.zeros(dim)
            for head in range(heads):
                mine, group = slice(head * width, (head + 1) * width), head // (heads // kv_heads)
                theirs = slice(group * width, (group + 1) * width)
                scores = np.array([q[mine] @ k[theirs] for k in keys[n]]) / np.sqrt(width)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                attended[mine] = sum(w * v[theirs] for w, v in zip(weights, values[n], strict=True))
            x = x + wo[n] @ attended
            h = norm(x, ffn[n])
            gate = w1[n] @ h
            x = x + w2[n] @ (gate / (1 + np.exp(-gate)) * (w3[n] @ h))
        out.append(emb @ norm(x, final))
    return np.stack(out)


def test_stories260k_gives_the_logits_of_numpy(shared_data):
    path = shared_data("models/stories260K/stories260K.bin")
    decoder = load_llama2c(path)
    tokens = [1, *np.random.default_rng(0).integers(3, 512, 40).tolist()]
    exact = numpy_logits(path, tokens)
    with torch.no_grad():
        ours = decoder.logits(decoder(torch.tensor([tokens])))[0].numpy()
    assert exact.std() > 1  # trained weights: far from uniform
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())  # fp32 against fp64


def test_a_file_that_is_cut_or_another_format_is_refused(shared_data, tmp_path):
    whole = shared_data("models/stories260K/stories260K.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(whole[:-4])
    with pytest.raises(ValueError, match=f"ask for {len(whole)} bytes, it has {len(whole) - 4}: copy it again"):
        load_llama2c(tmp_path / "cut.bin")
    (tmp_path / "text.bin").write_bytes(b"\0" * 40)
    with pytest.raises(ValueError, match="no sizes of a llama2"):
        load_llama2c(tmp_path / "text.bin")
    (tmp_path / "short.bin").write_bytes(b"abc")
    with pytest.raises(ValueError, match="no sizes of a llama2"):
        load_llama2c(tmp_path / "short.bin")
