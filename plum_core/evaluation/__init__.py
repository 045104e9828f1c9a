"""What a policy is worth: pass@k, mean pass rates with intervals over tasks, paired gains."""

from __future__ import annotations

from plum_core.evaluation.intervals import Interval, bootstrap_interval, mean_interval, paired_gain
from plum_core.evaluation.passk import pass_at_k
from plum_core.evaluation.results import Score, TaskResult, greedy_gain, sampled_gain, score, task_results

__all__ = [
    "Interval",
    "Score",
    "TaskResult",
    "bootstrap_interval",
    "greedy_gain",
    "mean_interval",
    "paired_gain",
    "pass_at_k",
    "sampled_gain",
    "score",
    "task_results",
]
