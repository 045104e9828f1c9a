"""One round of preference learning on what the policy wrote itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plum_core.objectives import find_objective
from plum_core.records import Label, Pair
from plum_core.seeds import coordinate_seed
from plum_core.training.batches import Example
from plum_core.training.loop import (
    LoopConfig,
    OnMetrics,
    TrainResult,
    digest_of,
    essential,
    run_steps,
    weights_digest,
)
from plum_core.training.preference_step import Item, PreferenceConfig, Round
from plum_core.training.reference import examples_digest
from plum_core.training.world import World
from plum_models.decoder import Decoder
from plum_models.lora import add_lora


def _example(record: Pair | Label, completion_ids: tuple[int, ...]) -> Example:
    return Example(prompt_ids=tuple(record.prompt_token_ids), completion_ids=tuple(completion_ids))


def _items(records: Sequence[Pair] | Sequence[Label], objective: str) -> list[Item]:
    """Records as the objective takes them; ValueError where it learns from the other kind."""
    wanted = {"pairs": Pair, "labels": Label}.get(find_objective(objective).data)
    items = []
    for record in records:
        if wanted is not None and not isinstance(record, wanted):
            raise ValueError(f"{objective} learns from {wanted.__name__} records, got a {type(record).__name__}")
        if isinstance(record, Label):
            if wanted is Label or record.label:
                one = _example(record, record.completion_token_ids)
                items.append(Item(examples=(one,), desirable=record.label))
        elif wanted is None:
            items.append(Item(examples=(_example(record, record.chosen_token_ids),)))
        else:
            both = (record.chosen_token_ids, record.rejected_token_ids)
            items.append(Item(examples=tuple(_example(record, ids) for ids in both)))
    if not items:
        raise ValueError(f"nothing for {objective} to learn from in {len(records)} records")
    return items


def train_round(
    decoder: Decoder,
    records: Sequence[Pair] | Sequence[Label],
    replay: Sequence[Example],
    config: PreferenceConfig,
    *,
    seed: int,
    folder: Path,
    reference: Decoder | None = None,
    on_metrics: OnMetrics | None = None,
    world: World | None = None,
) -> TrainResult:
    """Train ``decoder`` (fp32) in place on one round's preferences.

    records: pairs, or labels for kto, either for rft (a pair's chosen, a label's desirable completions).
    replay: supervised examples, of which each step takes ``replay_examples_per_step``; may be empty.
    seed: of the round; it decides every order. folder: takes reference.safetensors and checkpoints/.
    reference: the policy to stay near; ``decoder`` as it comes in where it is None. With ``config.lora`` the
    decoder comes out with adapters: ``fold_lora`` makes it plain, ``save_lora`` writes them alone.

    The same call after a kill resumes, and ends in the same weights to the last bit; ``decoder`` must then
    come in with the weights that the round started from. Raises ValueError for records of the wrong kind,
    none at all, one that does not fit ``tokens_per_batch``, or a folder that belongs to another round.
    """
    world = world or World()
    items = _items(records, config.objective)
    this = Round(decoder, items, replay, config, seed, world)
    start = weights_digest(decoder)
    this.add_reference(reference or decoder, folder)
    if config.lora.config is not None:  # fresh adapters change nothing, so the reference above is the decoder's own
        add_lora(decoder, config.lora.config, coordinate_seed(seed, "lora"))
    data = examples_digest([e for item in items for e in item.examples] + list(replay))
    decoder.checkpointing = config.checkpointing
    labels = [item.desirable for item in items]
    return run_steps(
        decoder,
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
        fingerprint=digest_of(essential(config), start, data, digest_of(labels), seed),
        on_metrics=on_metrics,
        world=world,
    )
