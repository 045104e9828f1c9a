"""The settings of a run, one dataclass a stage."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from plum_core.execution import Limits
from plum_core.preferences import SelectionConfig
from plum_core.prompts import PromptStyle
from plum_core.rounds.grammar_source import GrammarConfig
from plum_core.rounds.sources import TasksConfig
from plum_core.sampling import SamplingParams
from plum_core.training import PreferenceConfig
from plum_core.training.trackers import TrackerName, check_trackers

# What may change between two sittings of one run: it decides where and how fast, not what comes out. ``rounds`` is
# here because a finished run may be asked for more of them.
INCIDENTAL = frozenset(
    {
        "out",
        "rounds",
        "quiet",
        "json",
        "execution.workers",
        "training.save_every",
        "training.keep_last",
        "training.keep_best",
        "training.checkpointing",
        "training.peak_tflops",
        "trackers",
        "overlap",
        "device",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawConfig:
    """Samples of the policy that become preferences."""

    n: int = 20
    """Samples an instruction."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    """Leave out tokens less likely than this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """On ids of the prompt and of the sample; 1 is off."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    """Strings that end a sample."""
    stop_token_ids: tuple[int, ...] = ()
    """Ids that end a sample beside the policy's own end-of-sequence ids."""
    max_new_tokens: int = 128
    max_rows: int = 512
    """Samples that decode together."""
    kv_tokens: int | None = None
    """Keys and values of so many tokens are held at most, in blocks; without it, what max_rows rows need."""
    speculate: int = 0
    """Tokens at most that are foretold by copying; needs kv_tokens. What is drawn stays the same."""
    packed: bool = False
    """Matrices in oneDNN's layout, on a CPU: faster at some sizes, for a second copy of them."""
    native: bool = False
    """On a CPU and without kv_tokens: decode by functions compiled where they run; needs a C++ compiler."""
    int8: bool = False
    """Decode with weights of 8 bits, quantised from the policy: other samples, whose log-probs are not the policy's."""
    invariant: bool = False
    """With native: every bit of a sample is a function of its prompt and seed, whatever the batch."""
    chunk: int = 32
    """Instructions a unit of work: what a kill can cost, and what ranks share out."""

    def __post_init__(self) -> None:
        _at_least_one(self, "n", "max_rows", "chunk")
        self.params()
        if self.speculate and self.kv_tokens is None:
            raise ValueError(f"speculate={self.speculate} needs a budget: give kv_tokens")
        if self.native and self.kv_tokens is not None:
            raise ValueError(f"native decoding has no budget, got kv_tokens={self.kv_tokens}: leave one of them out")

    def options(self) -> dict[str, Any]:
        """Of the Sampler that draws them."""
        names = ("max_rows", "kv_tokens", "speculate", "packed", "native", "int8", "invariant")
        return {name: getattr(self, name) for name in names}

    def params(self) -> SamplingParams:
        """As the sampler takes them."""
        return SamplingParams(**{f.name: getattr(self, f.name) for f in fields(SamplingParams)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """The sandbox."""

    workers: int = 0
    """Programs at a time on each rank; 0: the processors, shared among this machine's ranks."""
    packages: tuple[str, ...] = ("numpy",)
    """Third-party packages that programs may import."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be 0 (share the processors) or more, got {self.workers}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """The held-out figures before the first round and after each."""

    samples: int = 6
    """Samples a task at ``temperature``; the greedy answer comes on top."""
    temperature: float = 1.0
    ks: tuple[int, ...] = (1, 6)
    """The k of pass@k."""
    chunk: int = 64
    """Tasks a unit of work."""

    def __post_init__(self) -> None:
        _at_least_one(self, "samples", "chunk")
        if any(not 1 <= k <= self.samples for k in self.ks):
            raise ValueError(f"ks must lie between 1 and samples={self.samples}, got {list(self.ks)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0 (greedy is drawn anyway), got {self.temperature}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A run of rounds."""

    out: Path
    """The run folder; the same command on it goes on where it stopped."""
    policy: Path
    """Checkpoint folder of the policy to improve."""
    rounds: int = 2
    """Rounds of tests, samples, verdicts, preferences, training and evaluation."""
    seed: int = 0
    """Decides every draw, together with round, instruction and sample."""
    learn: Literal["preferences", "sft"] = "preferences"
    """sft: the control. Continue supervised training on as many completions as the pairs or labels have."""
    reference: Literal["initial", "previous"] = "initial"
    """The policy to stay near: the one before the first round, or the one before this round."""
    staleness: int = 0
    """Rounds that the policy which is sampled lags behind the one in training, at most: 0 is on-policy. From 1 on the
    samples of a round are drawn and judged while the round before it trains."""
    overlap: bool = True
    """Judge samples while the next ones are drawn, and with staleness draw them while the policy trains, in a thread
    beside. Changes no byte of what comes out."""
    off_policy: Path | None = None
    """The control. Draw the samples from this checkpoint, not from the policy in training."""
    prompts: PromptStyle = "comment"
    """How the policy is asked. comment: the task above its code, as the embedded policy learned it. completion: the
    task's own text. chat: a user's turn in the checkpoint's chat template; the program is the answer's code block."""
    device: str = "auto"
    """auto: the GPU of this rank where there is one, else the CPU."""
    quiet: bool = False
    """Only the summary at the end."""
    json: bool = False
    """Progress and summary as one JSON object a line, for programs."""
    trackers: tuple[TrackerName, ...] = ()
    """tensorboard, wandb: who draws curves beside metrics.jsonl; each needs its package (the extra of its name)."""
    source: Literal["grammar", "files"] = "files"
    """Where tasks come from: the embedded policy's grammar (settings under grammar), or JSONL files (under tasks)."""
    tasks: TasksConfig = field(default_factory=TasksConfig)
    grammar: GrammarConfig = field(default_factory=GrammarConfig)
    sampling: DrawConfig = field(default_factory=DrawConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    training: PreferenceConfig = field(default_factory=PreferenceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if self.staleness < 0:
            raise ValueError(f"staleness must be 0 (on-policy) or more rounds, got {self.staleness}")
        if self.staleness and self.off_policy:
            raise ValueError(
                f"staleness={self.staleness} would change nothing: off_policy draws every sample from "
                f"{self.off_policy}; set one of the two"
            )
        check_trackers(self.trackers)
        if self.rounds < 0:
            raise ValueError(f"rounds must be 0 (evaluate alone) or more, got {self.rounds}")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out {self.out} is a file: name a folder")


def _at_least_one(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be >= 1, got {getattr(config, name)}")
