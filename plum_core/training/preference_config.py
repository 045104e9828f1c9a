"""Settings of a round of preference learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from plum_core.objectives import ObjectiveSpec, find_objective
from plum_core.training.optim import OptimConfig
from plum_core.training.options import StepOptions
from plum_models.lora import DEFAULT_TARGETS, LoraConfig
from plum_models.recompute import check_policy

OPTIONS = (
    *("beta", "label_smoothing", "gamma", "penalty", "sums", "alpha", "common_weight"),
    *("desirable_weight", "undesirable_weight", "epsilon", "epsilon_high"),
)
NLL_WEIGHT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Adapters in place of all weights (``plum_models.lora``); rank 0: all weights are trained."""

    rank: int = 0
    alpha: float = 32.0  # the adapter's share is alpha / rank
    dropout: float = 0.0
    targets: tuple[str, ...] = DEFAULT_TARGETS  # names of linear layers

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"rank must be 0 (train all weights) or more, got {self.rank}")
        LoraConfig(rank=self.rank or 1, alpha=self.alpha, dropout=self.dropout, targets=self.targets)

    @property
    def config(self) -> LoraConfig | None:
        """What ``add_lora`` takes; None where all weights are trained."""
        if not self.rank:
            return None
        return LoraConfig(rank=self.rank, alpha=self.alpha, dropout=self.dropout, targets=self.targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingSettings:
    """TR-DPO: after each ``every`` steps the reference becomes alpha * policy + (1 - alpha) * reference."""

    every: int = 0  # steps; 0: the reference stands still, and its log-probs are computed once
    alpha: float = 1.0  # 1: a copy of the policy

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"every must be 0 (the reference stands still) or more steps, got {self.every}")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {self.alpha}: at 0 the reference stands still")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """What grpo, dapo and rloo make of an instruction's samples and their verdicts."""

    reward: Literal["passed", "share"] = "passed"  # 1 or 0, or the share of its tests that passed
    scale: Literal["group", "batch", "none"] | None = None  # advantages over which deviation; None: group, rloo none
    informative_only: bool | None = None  # leave out groups of equal rewards; None: dapo does
    rescore: bool = False  # ratios to the trainer's own log-probs, not the sampler's: 1 to the bit in the first step
    overlong_limit: int = 0  # tokens at which the reward is 1 less (DAPO's soft punishment); 0: no such thing
    overlong_margin: int = 0  # tokens before the limit over which the punishment grows

    def __post_init__(self) -> None:
        if (self.overlong_limit, self.overlong_margin) != (0, 0) and not (
            0 < self.overlong_margin <= self.overlong_limit
        ):
            raise ValueError(
                f"overlong_margin must be in [1, overlong_limit], got {self.overlong_margin} of {self.overlong_limit}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceConfig(StepOptions):
    """Settings of a round. An option that is None is the objective's own default; one it lacks is refused."""

    objective: str = "dpo"  # a name of plum_core.objectives; rft: the likelihood of the chosen alone
    beta: float | None = None
    label_smoothing: float | None = None  # of dpo, rpo, ld_dpo, span_dpo, wpo, robust_dpo, exo, cpo, simpo, aot
    gamma: float | None = None  # of simpo: the margin that is asked for
    penalty: float | None = None  # of dpop
    sums: float | None = None  # of ipo: 1 for log-probs summed over tokens, 0 for a mean
    alpha: float | None = None  # of ld_dpo: what the longer completion's tail counts
    common_weight: float | None = None  # of span_dpo: what tokens count that chosen and rejected share
    desirable_weight: float | None = None  # of kto and apo_zero_unpaired; both None: from the class balance
    undesirable_weight: float | None = None
    epsilon: float | None = None  # of grpo, dapo, rloo: the clip below, and above where epsilon_high is not given
    epsilon_high: float | None = None
    nll_weight: float | None = None  # None: 2, or 0 for groups, which have no chosen completion
    replay_weight: float = 1.0
    replay_examples_per_step: int = 57
    epochs: int = 2
    tokens_per_batch: int = 8000  # padded tokens of a step, over all ranks
    micro_batch_tokens: int | None = None  # padded tokens of one forward; None: a rank's share at once
    checkpointing: str = "none"  # activations that backward computes again: none, matmuls, every N, full
    average_last: float = 2 / 3
    save_every: int = 20
    keep_last: int = 2
    groups: GroupSettings = field(default_factory=GroupSettings)
    moving: MovingSettings = field(default_factory=MovingSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        StepOptions.__post_init__(self)
        if self.tensor_parallel > 1 and self.lora.rank:
            raise ValueError("tensor_parallel splits plain matrices: set lora.rank to 0, or tensor_parallel to 1")
        if self.shard != "none" and self.moving.every:
            raise ValueError("shard keeps no second set of weights: set moving.every to 0, or shard to none")
        spec = find_objective(self.objective, self.options)
        check_policy(self.checkpointing)
        for name in ("nll_weight", "replay_weight", "replay_examples_per_step"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if spec.needs_nll and self.nll_weight == 0:
            what = "is the NLL term alone" if self.objective == "rft" else "is dpo with the NLL term"
            raise ValueError(f"{self.objective} {what}: nll_weight must be > 0, got 0")
        if self.epochs < 1:
            raise ValueError(f"epochs must be >= 1, got {self.epochs}")
        self._check_groups(spec)
        self._check_reference(spec)
        for name, on in (("lora.rank", self.lora.rank), ("moving.every", self.moving.every)):
            if on and self.optim.weights == "bf16-master":
                raise ValueError(
                    f"optim.weights = bf16-master cannot honour {name}={on}: adapters and a moving reference are kept "
                    f"in fp32; use optim.weights = fp32, or set {name} to 0"
                )
        if spec.coupled and self.lora.dropout:
            raise ValueError(
                f"{self.objective} passes over a batch twice, and dropout would differ: lora.dropout must be 0, "
                f"got {self.lora.dropout}"
            )

    def _check_groups(self, spec: ObjectiveSpec) -> None:
        if spec.data != "groups":
            if self.groups != GroupSettings():
                raise ValueError(f"objective {self.objective} cannot honour groups: it does not learn from groups")
            return
        if self.nll_weight:
            raise ValueError(
                f"objective {self.objective} cannot honour nll_weight={self.nll_weight}: no sample of a group is the "
                "chosen one; leave it out, or set it to 0"
            )
        if self.objective == "rloo" and self.groups.scale == "group":
            raise ValueError("objective rloo cannot honour groups.scale=group: it takes batch or none")

    def _check_reference(self, spec: ObjectiveSpec) -> None:
        if not self.moving.every:
            return
        if not spec.needs_reference or spec.data == "groups":
            raise ValueError(f"objective {self.objective} cannot honour moving.every={self.moving.every}: set it to 0")
        if self.lora.rank:
            raise ValueError(
                f"a moving reference follows all weights, lora.rank={self.lora.rank} trains adapters: set one of the "
                "two to 0"
            )

    @property
    def options(self) -> dict[str, Any]:
        """The objective's options that were set."""
        return {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}

    @property
    def nll_share(self) -> float:
        """``nll_weight`` with its default filled in."""
        if self.nll_weight is None:
            return 0.0 if find_objective(self.objective).data == "groups" else NLL_WEIGHT
        return self.nll_weight
