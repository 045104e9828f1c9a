"""The device's own product as the ceiling, and the fastest tile of each kernel of logits."""

from __future__ import annotations

from functools import partial

import torch

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


def run(bench: Bench) -> None:
    bench.item("bf16 product 8192 x 4096 x 32768", partial(_ceiling, bench))
    if bench.dry:
        bench.cut.append("tuning: tiles (they need a GPU)")
        return
    from plum_kernels.logprob import triton_backend as tiles

    shape = (4096, 4096, 65536)
    for tile in CANDIDATES:
        bench.item(f"forward tile {tile}", partial(_tile, bench, shape, tile, False), ours=False)
    timed = [r for r in bench.rows if r["name"].startswith("forward tile") and r.get("ms")]
    if not timed:
        return
    best = min(timed, key=lambda r: r["ms"])
    chosen = next(t for t in CANDIDATES if str(t) in best["name"])
    for tile in CANDIDATES:
        bench.item(f"gradient tile {tile}", partial(_tile, bench, shape, tile, True), ours=False)
    tiles.TILES[tiles.target_of("cuda")] = tiles.Tile(
        **dict(zip(("BM", "BV", "BK", "warps", "stages"), chosen, strict=True))
    )
    bench.rows.append({"section": bench.section, "name": "tile of the tables", "tile": str(chosen)})
