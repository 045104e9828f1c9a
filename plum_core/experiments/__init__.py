"""Which part of the method does what? (ready comparisons over one command: arms, seeds, a table and a figure each)"""

from __future__ import annotations

from plum_core.experiments.plan import Arm, Cell, Experiment, find_experiments, make_cells, read_experiment
from plum_core.experiments.results import ArmResult, results
from plum_core.experiments.table import figure, markdown

__all__ = [
    "Arm",
    "ArmResult",
    "Cell",
    "Experiment",
    "figure",
    "find_experiments",
    "make_cells",
    "markdown",
    "read_experiment",
    "results",
]
