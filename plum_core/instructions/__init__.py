"""Instruction sets as others publish them, read directly; what is in them twice, and what a benchmark has in it too."""

from plum_core.instructions.decontamination import BenchmarkIndex, Match, decontaminate
from plum_core.instructions.layouts import LAYOUTS, Layout
from plum_core.instructions.near_duplicates import Duplicate, near_duplicates
from plum_core.instructions.reader import InstructionReader, read_instructions

__all__ = [
    "LAYOUTS",
    "BenchmarkIndex",
    "Duplicate",
    "InstructionReader",
    "Layout",
    "Match",
    "decontaminate",
    "near_duplicates",
    "read_instructions",
]
