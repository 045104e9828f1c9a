"""The device's own product as the ceiling, the fastest tiles, and the fastest back ends (``contests``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from on_gpu import contests
from on_gpu.bench import Bench, Row
from plum_kernels.logprob.blocks import Transform, Upstream

# (BM, BV, BK, warps, stages), what the device cannot hold it refuses
CANDIDATES = (
    (128, 256, 64, 8, 3),
    (128, 256, 64, 8, 4),
    (128, 128, 64, 4, 4),
    (128, 128, 64, 8, 4),
    (128, 128, 32, 8, 3),
    (64, 256, 64, 4, 4),
    (256, 128, 64, 8, 3),
)


def _ceiling(bench: Bench) -> Row:
    n, d, v = (16, 8, 32) if bench.dry else (8192, 4096, 32768)
    a, b = (torch.randn(*s, device=bench.device).bfloat16() for s in ((n, d), (d, v)))
    row = bench.measure(lambda: a @ b)
    if row["ms"]:
        bench.ceiling = 2 * n * d * v / (row["ms"] * 1e-3)
        row["tflops"] = bench.ceiling / 1e12
    return row


def _tile(bench: Bench, shape: tuple[int, int, int], tile: tuple[int, ...], backward: bool) -> Row:
    from plum_kernels.logprob import triton_backend as tiles

    n, d, v = shape
    x, w = torch.randn(n, d, device="cuda").bfloat16(), torch.randn(v, d, device="cuda").bfloat16() * d**-0.5
    y = torch.randint(0, v, (n,), device="cuda")
    launch = tiles.Launch(x, w, None, Transform(temperature=1.0, softcap=None), False)
    launch.set_tile(tiles.Tile(**dict(zip(("BM", "BV", "BK", "warps", "stages"), tile, strict=True))))
    _, m, s, t = tiles.statistics(launch, x, y)
    if not backward:
        return bench.measure(lambda: tiles.statistics(launch, x, y), 2.0 * n * d * v, seconds=1.5)
    g = Upstream(target=torch.rand(n, device="cuda"), lse=torch.zeros(n, device="cuda"), entropy=None)
    work = partial(tiles.gradients, launch, x, y, (m, s, t), g, (True, False, False))
    return bench.measure(work, 4.0 * n * d * v, seconds=1.5)


# (BM, BN, warps, stages) of the three kernels of packed attention
ATTENTION = ((128, 128, 8, 2), (128, 64, 8, 2), (64, 128, 8, 2), (64, 64, 4, 3), (64, 64, 8, 1), (32, 128, 8, 2))


def _attention_tile(bench: Bench, kernel: int, tile: tuple[int, ...]) -> Row:
    """Forward, or forward and backward, with one kernel's tile in place of the usual one."""
    from plum_kernels.attention import operator as packed

    lengths = [512, 1024, 200, 2048, 312, 4096]
    cu = torch.tensor([0, *lengths], device="cuda").cumsum(0)
    q, k, v = (torch.randn(sum(lengths), h, 128, device="cuda").bfloat16().requires_grad_() for h in (28, 4, 4))
    target = packed.target_of("cuda")
    usual = packed.TILES[target]
    shape = packed.AttentionTile(**dict(zip(("BM", "BN", "warps", "stages"), tile, strict=True)))
    packed.TILES[target] = (*usual[:kernel], shape, *usual[kernel + 1 :])

    def step() -> None:
        out = packed.packed_attention_op(q, k, v, cu, 0, 128**-0.5)[0]
        if kernel:
            out.sum().backward()

    try:
        return bench.measure(step, seconds=0.5)
    finally:
        packed.TILES[target] = usual


def _best(bench: Bench, title: str, tiles: Sequence[tuple[int, ...]], names: tuple[str, ...]) -> dict[str, int] | None:
    """The fastest of the tiles that were timed under ``title``."""
    timed = {row["name"]: row["ms"] for row in bench.rows if row.get("ms")}
    known = {tile: timed[f"{title} {tile}"] for tile in tiles if f"{title} {tile}" in timed}
    if not known:
        return None
    return dict(zip(names, min(known, key=lambda tile: known[tile]), strict=True))


def run(bench: Bench) -> None:
    bench.item("bf16 product 8192 x 4096 x 32768", partial(_ceiling, bench))
    if bench.dry:
        bench.cut.append("tuning: tiles (they need a GPU)")
        contests.run(bench)
        return
    from plum_kernels.attention import operator as packed
    from plum_kernels.logprob import triton_backend as tiles

    best: dict[str, dict[str, int] | None] = {}
    shape = (4096, 4096, 65536)
    for title, backward in (("forward tile", False), ("gradient tile", True)):
        for tile in CANDIDATES:
            bench.item(f"{title} {tile}", partial(_tile, bench, shape, tile, backward), ours=False)
    # both kernels take one tile: forward's, which three of four visits use
    best["linear_logprob"] = _best(bench, "forward tile", CANDIDATES, ("BM", "BV", "BK", "warps", "stages"))
    for kernel, part in enumerate(packed.PARTS):
        for tile in ATTENTION:
            bench.item(f"attention {part} tile {tile}", partial(_attention_tile, bench, kernel, tile), ours=False)
        best[f"attention_{part}"] = _best(bench, f"attention {part} tile", ATTENTION, ("BM", "BN", "warps", "stages"))
    if best["linear_logprob"] is not None:
        tiles.TILES[tiles.target_of("cuda")] = tiles.Tile(**best["linear_logprob"])
    found = {kernel: tile for kernel, tile in best.items() if tile is not None}
    bench.choices = {"backends": contests.run(bench), "tiles": found}
    bench.rows.append({"section": bench.section, "name": "tiles of the tables", "tiles": str(found)})
