"""An experiment: one question, and arms that differ from a common base in the settings that it asks about.

    question = "DPO on pairs, or KTO on single verdicts?"
    [arms.dpo]
    [arms.kto.training]
    objective = "kto"

An arm's table overlays the base's configs. ``"None"`` unsets; ``"{policy}"`` and ``"{author}"`` are the base's own.
Arms with equal settings are one run, whichever experiment asks, so that a baseline is computed once.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plum_core import settings
from plum_core.rounds.config import INCIDENTAL, RunConfig
from plum_core.rounds.folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """``flags``: what runners/plum.py is given beside the base's configs."""

    name: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """The first arm is what the others are held against."""

    name: str
    question: str
    note: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One arm with one seed: a run of runners/plum.py."""

    arm: Arm
    seed: int
    config: RunConfig
    flags: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether its last evaluation is there; a run appears under its name only with the settings it stands for."""
        return (RunFolder(self.config.out).round(self.config.rounds) / "evaluation.jsonl").exists()


def find_experiments(names: Sequence[str], folder: Path) -> list[Path]:
    """Files by name in ``folder`` or by path, all of ``folder`` where none is named.

    Raises ValueError with the nearest name.
    """
    known = sorted(folder.glob("*.toml"))
    if not names:
        return known
    out = []
    for name in names:
        path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
        if not path.is_file():
            raise ValueError(f"experiment {name!r} does not exist{settings.nearest(name, [p.stem for p in known])}")
        out.append(path)
    return out


def read_experiment(path: Path, base: RunConfig) -> Experiment:
    """Raises ValueError naming the file where it is no experiment."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    unknown = tree.keys() - {"question", "note", "arms"}
    if unknown or not isinstance(tree.get("question"), str) or len(tree.get("arms", {})) < 2:
        extra = f"; it also holds {', '.join(sorted(unknown))}" if unknown else ""
        raise ValueError(f"{path} is no experiment: it wants a question and two arms or more, as [arms.NAME]{extra}")
    words = {"{policy}": str(base.policy), "{author}": str(base.grammar.author)}
    arms = tuple(Arm(name=name, flags=_flags(table, words)) for name, table in tree["arms"].items())
    return Experiment(name=path.stem, question=tree["question"], note=tree.get("note", ""), arms=arms)


def _flags(table: Mapping[str, Any], words: Mapping[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for key, value in settings.flatten(table):
        if isinstance(value, bool):
            head, _, last = key.rpartition(".")
            name = last if value else f"no_{last}"
            out.append(f"--{head}.{name}" if head else f"--{name}")
        else:
            values = value if isinstance(value, list) else [value]
            out += [f"--{key}", *(words.get(str(v), str(v)) for v in values)]
    return tuple(out)


def make_cells(
    experiment: Experiment, base: Sequence[Path], common: Sequence[str], seeds: Sequence[int], out: Path
) -> list[Cell]:
    """Every arm with every seed, seeds outermost, so that what is there early compares all arms.

    common: flags of all arms, which an arm's own override. Raises ValueError naming the arm whose settings are bad.
    """
    configs = [word for path in base for word in ("--config", str(path))]
    cells = []
    for seed in seeds:
        for arm in experiment.arms:
            flags = (*configs, *common, *arm.flags, "--seed", str(seed))
            try:
                config = settings.parse(RunConfig, [*flags, "--out", str(out)])
            except ValueError as error:
                raise ValueError(f"arm {arm.name} of {experiment.name}: {error}") from None
            _check_source(experiment, arm, config)
            place = out / "runs" / f"{fingerprint(config)}-seed{seed}"
            given = (*flags, "--out", str(place))
            cells.append(Cell(arm=arm, seed=seed, config=settings.parse(RunConfig, given), flags=given))
    return cells


def _check_source(experiment: Experiment, arm: Arm, config: RunConfig) -> None:
    """An arm that changes what its runs never read would be compared with itself."""
    unread = "--tasks." if config.source == "grammar" else "--grammar."
    for flag in arm.flags:
        if flag.startswith(unread):
            raise ValueError(
                f"arm {arm.name} of {experiment.name} sets {flag[2:]}, but the base takes its tasks from "
                f"{config.source}: leave this experiment out, or give it another --base"
            )


def fingerprint(config: RunConfig) -> str:
    """Of all settings that decide what comes out but the seed, in eight hexadecimal digits."""
    decisive = {k: v for k, v in settings.flatten(settings.plain(config)) if k not in INCIDENTAL - {"rounds"}}
    decisive.pop("seed")
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
