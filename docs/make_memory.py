"""Write the table of docs/memory.md: what fits where, by ``plum_core.training.memory``.

python docs/make_memory.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from plum_core.training.memory import GIB, Batch, footprint
from plum_core.training.optim import OptimConfig
from plum_models import DecoderConfig
from plum_models.lora import LoraConfig

PAGE = Path(__file__).resolve().parent / "memory.md"
ROOM_GIB = 70.0  # of the 74.5 that a GPU of 80 GB has: the rest is the allocator's gaps and the driver's own
BATCH = Batch(tokens=8192, scored=4096, positions=10240)


def qwen(**sizes: int) -> DecoderConfig:
    shared = dict(vocab_size=151_936, num_key_value_heads=2, head_dim=128, tie_word_embeddings=True)
    return DecoderConfig(**shared | sizes, attention_bias=True)  # type: ignore[arg-type]


MODELS = {  # Qwen2.5-Coder's
    "0.5B": qwen(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, head_dim=64
    ),
    "1.5B": qwen(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12),
    "7B": qwen(
        hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, vocab_size=152_064, tie_word_embeddings=False,
    ),
    "32B": qwen(
        hidden_size=5120, intermediate_size=27_648, num_hidden_layers=64, num_attention_heads=40,
        num_key_value_heads=8, vocab_size=152_064, tie_word_embeddings=False,
    ),
}  # fmt: skip
FULL = OptimConfig(weights="bf16-master")


def cell(config: DecoderConfig, lora: LoraConfig | None, ranks: int, sharded: bool) -> str:
    """GiB a GPU without and with checkpointing; in bold what fits."""
    shown = []
    for checkpointing in ("none", "full"):
        found = footprint(
            config,
            OptimConfig() if lora else FULL,
            BATCH,
            lora=lora,
            checkpointing=checkpointing,  # type: ignore[arg-type]
            averaged=False,
            ranks=ranks,
            sharded=sharded,
        )
        gib = found.total / GIB
        shown.append(f"**{gib:.0f}**" if gib <= ROOM_GIB else f"{gib:.0f}")
    return " / ".join(shown)


def table() -> str:
    """Markdown: a row a model and a way to train it."""
    head = "| model | trained | 1 GPU | 8 GPUs, whole on each | 8 GPUs, sharded | 64 GPUs, sharded |"
    lines = [head, "|---" * 6 + "|"]
    for name, config in MODELS.items():
        for way, lora in (("all weights", None), ("LoRA, rank 16", LoraConfig(rank=16))):
            cells = [cell(config, lora, *where) for where in ((1, False), (8, False), (8, True), (64, True))]
            lines.append(f"| {name} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page_with(text: str, rows: str) -> str:
    """``text`` with ``rows`` in the place of its table."""
    return re.sub(r"(<!-- table -->\n\n).*?(\n<!-- end -->)", lambda m: m[1] + rows + m[2], text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
