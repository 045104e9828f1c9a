"""Every Triton kernel compiled ahead of time for every target, without a GPU: registers, spills, shared memory.

    python kernels/benchmarks/compile_kernels.py                 # all targets, prints the table and writes it down
    python kernels/benchmarks/compile_kernels.py --targets sm_90

Exits 1 where a kernel spills or wants more shared memory than its target has.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import triton
import tyro
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed
from plum_kernels.attention import operator as packed
from plum_kernels.attention import triton_kernels as attention
from plum_kernels.decode_attention.triton_kernels import attend_part, merge_parts
from plum_kernels.decoder import qkv_kernels as qkv
from plum_kernels.decoder import triton_kernels as decoder
from plum_kernels.head.triton_backend import FINISH_ROWS
from plum_kernels.head.triton_kernels import kept_dw, kept_dx, tile_exponentials, tile_finish
from plum_kernels.logprob.hybrid_kernels import row_gradient, row_statistics
from plum_kernels.logprob.triton_backend import TILES, Tile
from plum_kernels.logprob.triton_kernels import tile_gradient, tile_statistics
from plum_kernels.preference.triton_backend import constants
from plum_kernels.preference.triton_kernels import pair_loss, sequence_loss
from plum_kernels.sample.triton_kernels import draw_row, penalise_row

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}  # bytes a block may have
PTXAS_TARGET = {"sm_80": "sm_80", "sm_90": "sm_90a", "sm_100": "sm_100a"}

POINTERS = {
    "x_ptr": "*bf16",
    "w_ptr": "*bf16",
    "b_ptr": "*bf16",
    "y_ptr": "*i64",
    "g_ptr": "*bf16",
    "cu_ptr": "*i64",
    **dict.fromkeys(("seed_ptr", "place_ptr", "token_ptr", "prompt_ptr", "drawn_ptr"), "*i64"),
    **dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), "*bf16"),
    **dict.fromkeys(("dout_ptr", "dq_ptr", "dk_ptr", "dv_ptr"), "*bf16"),
    **dict.fromkeys(("start_ptr", "sequence_ptr", "block_ptr"), "*i32"),
    **dict.fromkeys(("table_ptr", "length_ptr", "base_ptr", "member_ptr", "position_ptr"), "*i32"),
    "e_ptr": "*bf16",
    "da_ptr": "*bf16",
    "dx_ptr": "*bf16",
    "tiles_ptr": "*i32",
    "blocks_ptr": "*i32",
    "counts_ptr": "*i32",
}  # others fp32
BYTES = ("scored_ptr", "desirable_ptr", "active_ptr")
SAMPLED = ("top_k", "temperature", "top_p", "floor", "repetition", "presence", "frequency")
FLOATS = ("inner", "outer", "scale", "eps", "factor", *SAMPLED)
PLAIN = {"HAS_BIAS": False, "SOFTCAP": False, "ENTROPY": False, "DESCRIPTORS": True, "WIDEN": False, "GROUP": 8}
LOSS = {"HAS_REF": True, "HAS_MASK": True, "HAS_WEIGHTS": True, "HAS_ALIGNMENT": True, "BLOCK": 1024}
PAIRS = LOSS | constants("dpo", {"beta": 0.1, "label_smoothing": 0.1})
SINGLE = LOSS | constants("kto", {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0})
HEADS = {"J": 7, "E": 128, "E_PAD": 128, "P": 16, "ROWS": 16, "COLS": 32, "SPLIT": 512}
ATTEND = HEADS | {"CAP": 30.0, "WINDOW": 4096, "WIDEN": False}
ROW = {"HAS_BIAS": True, "SOFTCAP": True, "ENTROPY": True, "BLOCK": 2048}
PACKED = {"J": 7, "E": 128, "E_PAD": 128, "WINDOW": 4096, "WIDEN": False}
PRODUCTS = {"WIDEN": False, "BD": 128, "BN": 128, "BK": 32}
KERNELS = {
    tile_statistics: PLAIN,
    tile_gradient: PLAIN,
    tile_exponentials: PLAIN,
    tile_finish: {"SUB": FINISH_ROWS},
    row_statistics: ROW,
    row_gradient: ROW,
    attend_part: ATTEND,
    merge_parts: HEADS,
    attention.attention_forward: PACKED,
    attention.attention_query_gradient: PACKED,
    attention.attention_key_gradient: PACKED,
    kept_dx: PRODUCTS,
    kept_dw: PRODUCTS,
    pair_loss: PAIRS,
    sequence_loss: SINGLE,
    decoder.swiglu_forward: {},
    decoder.swiglu_backward: {},
    decoder.add_norm_forward: {"BLOCK": 4096},
    decoder.add_norm_backward: {"BLOCK": 4096},
    decoder.norm_rotate_forward: {"BLOCK": 128, "NORM": True},
    decoder.norm_rotate_backward: {"BLOCK": 128, "NORM": True},
    draw_row: {"GREEDY": False, "TOP_K": True, "TOP_P": True, "MIN_P": True, "BLOCK": 1024},
    penalise_row: {"BLOCK": 64},
    qkv.split_qkv_forward: {"BLOCK": 128, "NORM": True},
    qkv.split_qkv_backward: {"BLOCK": 128, "NORM": True},
}
OF_BF16 = tuple(
    k for k in KERNELS if k.__module__ in (decoder.__name__, qkv.__name__)
)  # tensors in the model's dtype, tables in fp32
WIDE = ("inverse_ptr", "dw_ptr", "cos_ptr", "sin_ptr")
SMALL = Tile(BM=1, BV=1024, BK=1, warps=4, stages=1)  # of kernels that are not tiled by target
ATTENTION = tuple(k for k in KERNELS if k.__module__ == attention.__name__)  # forward, query and key gradient
ROWS = Tile(BM=1, BV=ROW["BLOCK"], BK=1, warps=8, stages=1)
ALIGNED = (  # multiples of 16
    *("x_ptr", "w_ptr", "g_ptr", "m_ptr", "s_ptr", "t_ptr", "y_ptr", "N", "D", "stride"),
    *("e_ptr", "da_ptr", "dx_ptr", "dw_ptr"),
    *("out_ptr", "dout_ptr", "dq_ptr", "dk_ptr", "dv_ptr", "q_row", "q_head", "k_row", "k_head", "v_row", "v_head"),
    *("q_ptr", "k_ptr", "v_ptr", "row_stride", "head_stride", "group_stride", "block_stride", "token_stride"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is compiled."""

    targets: tuple[str, ...] = tuple(TARGETS)
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")


def tile_of(kernel: Any, target: str) -> Tile:
    if kernel in ATTENTION:
        tile = packed.TILES[target][ATTENTION.index(kernel)]
        return Tile(BM=tile.BM, BV=tile.BN, BK=KERNELS[kernel]["E"], warps=tile.warps, stages=tile.stages)
    if "BM" in kernel.arg_names:
        return TILES[target]
    return ROWS if kernel in (row_statistics, row_gradient, draw_row) else SMALL


def source(kernel: Any, target: str) -> ASTSource:
    """The kernel with bf16 operands and its target's tile."""
    tile = tile_of(kernel, target)
    fixed = {"BM": tile.BM, "BV": tile.BV, "BN": tile.BV, "BK": tile.BK, "BLOCK": 1024, **KERNELS[kernel]}
    signature = {}
    for name in kernel.arg_names:
        if name in fixed:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = POINTERS.get(name, "*u8" if name in BYTES else "*fp32")
            if kernel in OF_BF16 and name not in WIDE:
                signature[name] = "*bf16"
        else:
            signature[name] = "fp32" if name in FLOATS else "i32"
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name in ALIGNED}
    return ASTSource(kernel, signature, {k: v for k, v in fixed.items() if k in kernel.arg_names}, aligned)


def nvidia_usage(ptx: str, target: str) -> tuple[int, int]:
    """(registers a thread, bytes spilled) as ptxas reports them."""
    ptxas = get_ptxas(TARGETS[target].arch).path  # which of Triton's own reads its PTX depends on its version
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [ptxas, "-v", f"--gpu-name={PTXAS_TARGET[target]}", file, "-o", os.devnull]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", report)))
    return int(re.findall(r"Used (\d+) registers", report)[0]), spilled


def amd_usage(assembly: str) -> tuple[int, int]:
    registers = re.findall(r"\.vgpr_count: +(\d+)", assembly)[0]
    spilled = re.findall(r"\.vgpr_spill_count: +(\d+)", assembly)[0]
    return int(registers), 4 * int(spilled)


def compile_kernel(kernel: Any, target: str) -> dict[str, object]:
    """One row of the table."""
    tile = tile_of(kernel, target)
    options = {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}
    compiled = triton.compile(source(kernel, target), target=TARGETS[target], options=options)
    amd = TARGETS[target].backend == "hip"
    shape = f"{tile.BM}x{tile.BV}x{tile.BK}" if tile.BM > 1 else str(KERNELS[kernel].get("BLOCK", tile.BV))
    registers, spilled = amd_usage(compiled.asm["amdgcn"]) if amd else nvidia_usage(compiled.asm["ptx"], target)
    return {
        "kernel": kernel.__name__,
        "target": target,
        "tile": f"{shape}, {tile.warps} warps, {tile.stages} stages",
        "registers": registers,
        "spilled": spilled,
        "shared": compiled.metadata.shared,
    }


def fits(row: dict[str, Any]) -> bool:
    return row["spilled"] == 0 and row["shared"] <= SHARED_LIMIT[row["target"]]


def table(rows: list[dict[str, object]]) -> str:
    head = f"triton {triton.__version__}, bf16, {date.today().isoformat()}; spilled and shared in bytes"
    columns = list(rows[0])
    lines = [head, "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def main(config: Config) -> None:
    rows = [compile_kernel(k, t) for k in KERNELS for t in config.targets]
    text = table(rows)
    print(text)
    config.results.mkdir(parents=True, exist_ok=True)
    if config.targets == tuple(TARGETS):
        (config.results / f"{date.today().isoformat()}-compiled-kernels.md").write_text(text + "\n")
    if not all(map(fits, rows)):
        raise SystemExit("a kernel spills registers or asks for more shared memory than its target has")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
