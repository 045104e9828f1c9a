"""Derivatives of every pairwise and single objective by its sums, written out: what autograd makes of formulas.py.

Letters as in formulas.py. aot and aot_unpaired sort a whole batch and have no slope of one pair.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plum_kernels.preference.formulas import CERTAIN, SPECS, Options, Sums


def _of_margin(objective: str, m: Tensor, o: Options) -> Tensor:
    """d loss / d margin of the objectives that are a function of one."""
    e = o.get("label_smoothing", 0.0)
    won, lost = torch.sigmoid(m), torch.sigmoid(-m)
    if objective == "hinge":
        return -(m < 1).to(m.dtype)
    if objective == "exo":
        return won * lost * (m - math.log1p(-e) + math.log(e))
    if objective == "robust_dpo":
        return (-(1 - e) * lost - e * won) / (1 - 2 * e)
    return -(1 - e) * lost + e * won


def _of_terms(objective: str, p: Sums, o: Options) -> tuple[Tensor, Tensor]:
    """Objectives whose two sums enter apart."""
    b = o["beta"]
    s, c, r = torch.sigmoid, b * p.c, b * p.r
    if objective == "nca":
        return b * (0.5 * s(c) - s(-c)), 0.5 * b * s(r)
    if objective == "bco":
        return -b * s(-c), b * s(r)
    if objective == "sppo":
        return 2 * (p.c - 0.5 / b), 2 * (p.r + 0.5 / b)
    if objective == "apo_zero":
        return -b * s(-c) * s(c), b * s(r) * s(-r)
    slope = b * s(c - r) * s(r - c)  # apo_down
    return b * s(c) * s(-c) - slope, slope


def _orpo(p: Sums, o: Options) -> tuple[Tensor, Tensor]:
    """d log odds(x) / dx = 1 / (1 - exp x), and nothing past the cut-off."""
    means = p.c / p.n, p.r / p.k
    x, y = (mean.clamp(max=CERTAIN) for mean in means)
    left, right = -torch.expm1(x), -torch.expm1(y)
    slope = o["beta"] * _of_margin("orpo", x - left.log() - (y - right.log()), o)
    by_c, by_r = slope / (left * p.n), -slope / (right * p.k)
    return torch.where(means[0] <= CERTAIN, by_c, 0.0), torch.where(means[1] <= CERTAIN, by_r, 0.0)


def pair_slopes(objective: str, p: Sums, o: Options) -> tuple[Tensor, Tensor]:
    """(d loss / d c, d loss / d r), (B,) each."""
    beta = o["beta"]
    if objective in ("nca", "bco", "sppo", "apo_zero", "apo_down"):
        return _of_terms(objective, p, o)
    if objective == "orpo":
        return _orpo(p, o)
    n, k = p.n, p.k
    if objective == "ipo":
        n, k = (torch.ones_like(n), torch.ones_like(k)) if o["sums"] else (n, k)
        d = 2 * (p.c / n - p.r / k - 0.5 / beta)
        return d / n, -d / k
    if objective == "dpop":
        slope = beta * _of_margin(objective, beta * (p.c - p.r - o["penalty"] * torch.relu(-p.c)), o)
        return slope * torch.where(p.c < 0, 1 + o["penalty"], 1.0), -slope
    if objective in ("dpo_norm", "simpo"):
        slope = beta * _of_margin(objective, beta * (p.c / n - p.r / k) - o.get("gamma", 0.0), o)
        return slope / n, -slope / k
    slope = beta * _of_margin(objective, beta * (p.c - p.r), o)
    return slope, -slope


def single_slopes(objective: str, ratio: Tensor, desirable: Tensor, point: Tensor, o: Options) -> Tensor:
    """d loss / d ratio, (S,)."""
    x = o["beta"] * (point - ratio)
    x = torch.where(desirable, x, -x)
    slope = o["beta"] * torch.sigmoid(x)
    if SPECS[objective].options.keys() & {"desirable_weight"}:
        good, bad = o["desirable_weight"], o["undesirable_weight"]
        slope = slope * torch.sigmoid(-x)
        slope = torch.where(desirable, good * slope, bad * slope)
    return torch.where(desirable, -slope, slope)
