"""One round of learning from what the policy wrote itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

from plum_core.objectives import find_objective
from plum_core.objectives.token_weights import Weights
from plum_core.records import Label, Pair
from plum_core.seeds import coordinate_seed
from plum_core.training.batches import Example
from plum_core.training.group_step import GroupRound
from plum_core.training.groups import Graded, GroupItem, group_items
from plum_core.training.items import Item, plan_epochs
from plum_core.training.loop import (
    LoopConfig,
    OnMetrics,
    TrainResult,
    digest_of,
    essential,
    run_steps,
    weights_digest,
)
from plum_core.training.masters import Masters
from plum_core.training.preference_config import PreferenceConfig
from plum_core.training.preference_step import Round
from plum_core.training.reference import examples_digest
from plum_core.training.sharding import at_work
from plum_core.training.world import World
from plum_models.decoder import Decoder
from plum_models.lora import add_lora

Records = Sequence[Pair] | Sequence[Label] | Sequence[Graded]


def _example(record: Pair | Label, completion_ids: tuple[int, ...], weights: Weights | None = None) -> Example:
    return Example(prompt_ids=tuple(record.prompt_token_ids), completion_ids=tuple(completion_ids), weights=weights)


def _pair(record: Pair, config: PreferenceConfig) -> Item:
    """Both completions, their tokens weighed where the objective does so."""
    spec = find_objective(config.objective)
    both = (record.chosen_token_ids, record.rejected_token_ids)
    if spec.weigh is None:
        return Item(examples=tuple(_example(record, ids) for ids in both))
    weights = spec.weigh(*both, **{k: v for k, v in config.options.items() if k in spec.weigh_options})
    return Item(examples=tuple(_example(record, ids, w) for ids, w in zip(both, weights, strict=True)))


def _items(records: Records, config: PreferenceConfig) -> list[Item] | list[GroupItem]:
    """Records as the objective takes them; ValueError where it learns from another kind, or from none of them."""
    objective, spec = config.objective, find_objective(config.objective)
    wanted = {"pairs": (Pair,), "labels": (Label,), "groups": (Graded,), "completions": (Pair, Label)}[spec.data]
    for record in records:
        if not isinstance(record, wanted):
            kinds = " or ".join(kind.__name__ for kind in wanted)
            raise ValueError(f"{objective} learns from {kinds} records, got a {type(record).__name__}")
    graded = [r for r in records if isinstance(r, Graded)]
    items = group_items(graded, config) if spec.data == "groups" else _plain_items(records, config, spec.data)
    if not items:
        raise ValueError(f"nothing for {objective} to learn from in {len(records)} records")
    return items


def _plain_items(records: Records, config: PreferenceConfig, data: str) -> list[Item]:
    items = []
    for record in records:
        if isinstance(record, Label):
            if data == "labels" or record.label:
                one = _example(record, record.completion_token_ids)
                items.append(Item(examples=(one,), desirable=record.label))
        elif isinstance(record, Pair):
            alone = Item(examples=(_example(record, record.chosen_token_ids),))
            items.append(alone if data == "completions" else _pair(record, config))
    return items


def planned_steps(records: Records, config: PreferenceConfig) -> int:
    """Optimizer steps that a round on ``records`` takes."""
    costs = [item.cost for item in _items(records, config)]
    return len(plan_epochs(costs, config.tokens_per_batch, config.epochs, 0))


def make_round(
    decoder: Decoder, records: Records, replay: Sequence[Example], config: PreferenceConfig, seed: int, world: World
) -> Round | GroupRound:
    """The plan of a round on ``records`` and what computes its gradients, for ``decoder`` as it is."""
    items = _items(records, config)
    if find_objective(config.objective).data == "groups":
        graded = [item for item in items if isinstance(item, GroupItem)]
        return GroupRound(decoder, graded, replay, config, seed, world)
    return Round(decoder, [item for item in items if isinstance(item, Item)], replay, config, seed, world)


def _add_reference(
    this: Round | GroupRound, decoder: Decoder, reference: Decoder | Callable[[], Decoder] | None, folder: Path
) -> str | None:
    """The digest of the reference's weights, None where it is ``decoder`` or nothing asks for one.

    This frame is the last to hold them.
    """
    if reference is None or not this.needs_reference:
        this.add_reference(decoder, folder)
        return None
    loaded = reference if isinstance(reference, Decoder) else reference()
    loaded = loaded.to(next(decoder.parameters()).dtype)  # the policy's rounding on both sides of every ratio
    this.add_reference(loaded, folder)
    return weights_digest(loaded)


def train_round(
    decoder: Decoder,
    records: Records,
    replay: Sequence[Example],
    config: PreferenceConfig,
    *,
    seed: int,
    folder: Path,
    reference: Decoder | Callable[[], Decoder] | None = None,
    on_metrics: OnMetrics | None = None,
    world: World | None = None,
) -> TrainResult:
    """Train ``decoder`` (fp32) in place on one round's preferences.

    records: what the objective's entry in the table says: pairs, labels, graded samples for groups, and either of the
    first two for rft (a pair's chosen, a label's desirable completions).
    replay: supervised examples, of which each step takes ``replay_examples_per_step``; may be empty.
    seed: of the round; it decides every order. folder: takes reference.safetensors and checkpoints/.
    reference: the policy to stay near; ``decoder`` as it comes in where it is None. A function that loads it lets its
    weights leave memory as soon as their log-probs are on disk. With ``config.lora`` the
    decoder comes out with adapters: ``fold_lora`` makes it plain, ``save_lora`` writes them alone.

    The same call after a kill resumes, and ends in the same weights to the last bit; ``decoder`` must then
    come in with the weights that the round started from. Raises ValueError for records of the wrong kind,
    none at all, one that does not fit ``tokens_per_batch``, or a folder that belongs to another round.
    """
    world = world or World()
    this = make_round(decoder, records, replay, config, seed, world)
    start = weights_digest(decoder)
    bf16, sharded = config.optim.weights == "bf16-master", config.shard != "none"
    masters = Masters(decoder) if bf16 and not sharded else None
    rounded = copy.deepcopy(decoder).bfloat16() if bf16 and sharded else decoder  # as its gathered weights will be
    far = _add_reference(this, rounded, reference, folder) or start
    del rounded
    if config.lora.config is not None:  # fresh adapters change nothing, so the reference above is the decoder's own
        add_lora(decoder, config.lora.config, coordinate_seed(seed, "lora"))
    data = examples_digest([e for item in this.items for e in item.examples] + list(replay))
    about = [item.about for item in this.items]
    decoder.checkpointing = config.checkpointing
    with at_work(decoder, config, world, bf16=bf16) as (working, sharers):
        this.decoder = this.replay.decoder = working
        this.world = this.replay.world = sharers
        if isinstance(this, GroupRound):
            this.rescore()
        return run_steps(
            working,
            this,
            LoopConfig(
                total_steps=len(this.plan),
                optim=config.optim,
                average_last=config.average_last,
                save_every=config.save_every,
                keep_last=config.keep_last,
                **config.options_of_the_step(),
            ),
            folder=folder,
            fingerprint=digest_of(essential(config), start, far, data, digest_of(about), seed),
            on_metrics=on_metrics,
            world=world,
            carried=this,
            masters=masters,
        )
