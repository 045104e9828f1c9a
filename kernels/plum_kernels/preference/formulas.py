"""The objectives by name, as plain torch of sums over tokens. This is the definition; the kernel is held to it.

c and r: log-ratios policy over reference of the chosen and the rejected (log-probs where there is no reference),
summed over tokens; n and k their lengths; s the logistic function. Sources of the formulas: the papers named below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CERTAIN = -1e-6  # nats a token; nearer to certainty ORPO's odds would leave fp32, and their gradient is cut off here


class Given(NamedTuple):
    """What comes beside the log-probs (T,) and where sequences start; nothing is propagated through any of it."""

    reference: Tensor | None = None  # (T,)
    scored: Tensor | None = None  # (T,) bool
    weights: Tensor | None = None  # (T,)
    desirable: Tensor | None = None  # (S,) bool
    point: Tensor | None = None  # () nats, kl or shift
    alignment: Tensor | None = None  # (S,) nats


class Sums(NamedTuple):
    """What a formula sees, (B,) each: log-ratios (or log-probs), and scored tokens, at least 1."""

    c: Tensor
    r: Tensor
    n: Tensor
    k: Tensor


Options = dict[str, float]
Formula = Callable[[Sums, Options], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """``code``: the kernel's number. ``options``: what the formula contains, with defaults; others are refused.

    ``needs``: which tensors it takes beside the log-probs and the reference's.
    """

    code: int
    loss: Formula
    options: Options = field(default_factory=dict)
    reference: bool = True
    means: bool = False  # rewards are of log-probs a token
    single: bool = False  # of sequences with verdicts, not of pairs
    needs: frozenset[str] = frozenset()


def smoothed(margin: Tensor, share: float) -> Tensor:
    return -(1 - share) * F.logsigmoid(margin) - share * F.logsigmoid(-margin)


def _dpo(p: Sums, o: Options) -> Tensor:
    """Rafailov et al. 2023, arXiv 2305.18290, eq. 7; CPO (2401.08417, eq. 5) is the same without a reference."""
    return smoothed(o["beta"] * (p.c - p.r), o["label_smoothing"])


def _dpo_norm(p: Sums, o: Options) -> Tensor:
    """Lambert et al. 2024, arXiv 2411.15124, section 5.1.2."""
    return -F.logsigmoid(o["beta"] * (p.c / p.n - p.r / p.k))


def _robust_dpo(p: Sums, o: Options) -> Tensor:
    """Chowdhury et al. 2024, arXiv 2403.00409, eq. 12."""
    m, e = o["beta"] * (p.c - p.r), o["label_smoothing"]
    return (-(1 - e) * F.logsigmoid(m) + e * F.logsigmoid(-m)) / (1 - 2 * e)


def _dpop(p: Sums, o: Options) -> Tensor:
    """Pal et al. 2024, arXiv 2402.13228, eq. 3."""
    return -F.logsigmoid(o["beta"] * (p.c - p.r - o["penalty"] * torch.relu(-p.c)))


def _ipo(p: Sums, o: Options) -> Tensor:
    """Azar et al. 2023, arXiv 2310.12036, eq. 17; a token, or summed with sums = 1."""
    d = p.c - p.r if o["sums"] else p.c / p.n - p.r / p.k
    return (d - 0.5 / o["beta"]) ** 2


def _hinge(p: Sums, o: Options) -> Tensor:
    """Zhao et al. 2023, arXiv 2305.10425, eq. 2."""
    return torch.relu(1 - o["beta"] * (p.c - p.r))


def _exo(p: Sums, o: Options) -> Tensor:
    """Ji et al. 2024, arXiv 2402.00856, eq. 16."""
    m, e = o["beta"] * (p.c - p.r), o["label_smoothing"]
    won = torch.sigmoid(m) * (F.logsigmoid(m) - math.log1p(-e))
    return won + torch.sigmoid(-m) * (F.logsigmoid(-m) - math.log(e))


def _nca(p: Sums, o: Options) -> Tensor:
    """Chen et al. 2024, arXiv 2402.05369, section 5.1."""
    c, r = o["beta"] * p.c, o["beta"] * p.r
    return -F.logsigmoid(c) - 0.5 * F.logsigmoid(-c) - 0.5 * F.logsigmoid(-r)


def _bco(p: Sums, o: Options) -> Tensor:
    """Jung et al. 2024, arXiv 2404.04656, eq. 8 without its shift."""
    return -F.logsigmoid(o["beta"] * p.c) - F.logsigmoid(-o["beta"] * p.r)


def _sppo(p: Sums, o: Options) -> Tensor:
    """Wu et al. 2024, arXiv 2405.00675, eq. 4.7, hard labels."""
    return (p.c - 0.5 / o["beta"]) ** 2 + (p.r + 0.5 / o["beta"]) ** 2


def _apo_zero(p: Sums, o: Options) -> Tensor:
    """D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7."""
    return torch.sigmoid(-o["beta"] * p.c) + torch.sigmoid(o["beta"] * p.r)


def _apo_down(p: Sums, o: Options) -> Tensor:
    """The same, eq. 8."""
    return torch.sigmoid(o["beta"] * p.c) + torch.sigmoid(-o["beta"] * (p.c - p.r))


def _simpo(p: Sums, o: Options) -> Tensor:
    """Meng et al. 2024, arXiv 2405.14734, eq. 6."""
    return smoothed(o["beta"] * (p.c / p.n - p.r / p.k) - o["gamma"], o["label_smoothing"])


def _orpo(p: Sums, o: Options) -> Tensor:
    """Hong et al. 2024, arXiv 2403.07691, eq. 7, times beta."""
    x, y = (mean.clamp(max=CERTAIN) for mean in (p.c / p.n, p.r / p.k))
    odds = x - torch.log(-torch.expm1(x)) - (y - torch.log(-torch.expm1(y)))
    return -o["beta"] * F.logsigmoid(odds)


def single_loss(objective: str, ratio: Tensor, desirable: Tensor, point: Tensor, o: Options) -> Tensor:
    """(S,) log-ratios and verdicts; point (), from which a ratio is measured.

    kto: Ethayarajh et al. 2024, arXiv 2402.01306, section 4.1. apo_zero_unpaired: the same at 0 (D'Oosterlinck et al.
    2024, arXiv 2408.06266, eq. 7). bco_unpaired: Jung et al. 2024, arXiv 2404.04656, eq. 8 and 9.
    """
    x = o["beta"] * (point - ratio)
    x = torch.where(desirable, x, -x)
    if objective == "bco_unpaired":
        return -F.logsigmoid(-x)
    loss = torch.sigmoid(x)
    return torch.where(desirable, o["desirable_weight"] * loss, o["undesirable_weight"] * loss)


def pair_weights(alignment: Tensor) -> Tensor:
    """(S,) alignments to (B,) weights: Zhou et al. 2024, arXiv 2406.11827, eq. 2; nothing is propagated through."""
    aligned = alignment.detach().exp()
    return aligned[0::2] * aligned[1::2]


def _of_sequences(p: Sums, o: Options) -> Tensor:
    raise AssertionError("single verdicts and aot have no formula of one pair")


_SMOOTH = {"label_smoothing": 0.0}
_CLASSES = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}
_LABELS = frozenset({"desirable"})
_DPO = {"beta": 0.1, **_SMOOTH}
SPECS: dict[str, Spec] = {
    "dpo": Spec(code=0, loss=_dpo, options=_DPO),
    "rpo": Spec(code=0, loss=_dpo, options=_DPO),  # its likelihood term is a mean of the same log-probs beside it
    "ld_dpo": Spec(code=0, loss=_dpo, options=_DPO, needs=frozenset({"weights"})),
    "span_dpo": Spec(code=0, loss=_dpo, options=_DPO, needs=frozenset({"weights"})),
    "wpo": Spec(code=0, loss=_dpo, options=_DPO, needs=frozenset({"alignment"})),
    "cpo": Spec(code=0, loss=_dpo, options=_DPO, reference=False),
    "dpo_norm": Spec(code=1, loss=_dpo_norm, options={"beta": 2.0}),
    "robust_dpo": Spec(code=2, loss=_robust_dpo, options={"beta": 0.1, "label_smoothing": 0.1}),
    "dpop": Spec(code=3, loss=_dpop, options={"beta": 0.1, "penalty": 5.0}),
    "ipo": Spec(code=4, loss=_ipo, options={"beta": 0.1, "sums": 0.0}),
    "hinge": Spec(code=5, loss=_hinge, options={"beta": 0.1}),
    "exo": Spec(code=6, loss=_exo, options={"beta": 0.1, "label_smoothing": 1e-3}),
    "nca": Spec(code=7, loss=_nca, options={"beta": 0.1}),
    "bco": Spec(code=8, loss=_bco, options={"beta": 0.1}),
    "sppo": Spec(code=9, loss=_sppo, options={"beta": 0.1}),
    "apo_zero": Spec(code=10, loss=_apo_zero, options={"beta": 0.1}),
    "apo_down": Spec(code=11, loss=_apo_down, options={"beta": 0.1}),
    "simpo": Spec(code=12, loss=_simpo, options={"beta": 2.0, "gamma": 1.0, **_SMOOTH}, reference=False, means=True),
    "orpo": Spec(code=13, loss=_orpo, options={"beta": 0.1}, reference=False, means=True),
    "kto": Spec(code=14, loss=_of_sequences, options=_CLASSES, single=True, needs=_LABELS | {"kl"}),
    "aot": Spec(code=15, loss=_of_sequences, options={"beta": 0.1, **_SMOOTH}),
    "aot_unpaired": Spec(code=16, loss=_of_sequences, options={"beta": 0.1, **_SMOOTH}),
    "apo_zero_unpaired": Spec(code=14, loss=_of_sequences, options=_CLASSES, single=True, needs=_LABELS),
    "bco_unpaired": Spec(code=17, loss=_of_sequences, options={"beta": 0.1}, single=True, needs=_LABELS | {"shift"}),
}
