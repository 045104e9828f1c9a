"""Six steps beside TRL's own trainers: the same losses, and policies that score the data alike at the end."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.data import SequentialSampler

from plum_core.training import OptimConfig, PreferenceConfig, train_round
from plum_core.training import items as items_module
from plum_core.training.logps import completion_logps
from plum_core.training.preference import _items
from plum_core.training.preference_config import MovingSettings
from plum_core.training.preference_step import Round
from plum_core.training.world import World
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder

STEPS, PER_STEP, RATE = 6, 4, 5e-3


def twins():
    """The same random Llama twice: transformers' and ours."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(
        vocab_size=48,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        tie_word_embeddings=True,
    )
    theirs = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.3)).float()
    ours = Decoder(DecoderConfig(**sizes))
    state = {k.removeprefix("model."): v for k, v in theirs.state_dict().items() if k != "lm_head.weight"}
    ours.load_state_dict(state)
    return theirs, ours


def tokenizer():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = WordLevel({f"w{i}": i for i in range(48)}, unk_token="w0")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token="w0", eos_token="w1")


def trl_losses(trainer_class, config_class, model, rows, folder, **more):
    """Losses of ``STEPS`` steps over ``rows`` in their order, tokenised already."""
    from datasets import Dataset

    losses = []

    class Trainer(trainer_class):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.item())
            return loss

    settings = config_class(
        output_dir=str(folder),
        per_device_train_batch_size=PER_STEP,
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.99,
        max_grad_norm=1.0,
        beta=0.1,
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **more,
    )
    data = Dataset.from_list(rows)
    reference = copy.deepcopy(model)
    Trainer(model=model, ref_model=reference, args=settings, train_dataset=data, processing_class=tokenizer()).train()
    return losses


@pytest.mark.parametrize(
    ("objective", "moving"),
    [("dpo", None), ("kto", None), ("dpo", MovingSettings(every=2, alpha=0.6)), ("dpo", MovingSettings(every=3))],
    ids=["dpo", "kto", "tr-dpo soft", "tr-dpo hard"],
)
def test_six_steps_equal_trl(objective, moving, make, tmp_path, monkeypatch):
    theirs, ours = twins()
    count = STEPS * PER_STEP
    records = make.labels(count) if objective == "kto" else make.pairs(count)
    plan = [list(range(i, i + PER_STEP)) for i in range(0, count, PER_STEP)]
    monkeypatch.setattr(items_module, "plan_batches", lambda *_: plan)
    settings = PreferenceConfig(
        objective=objective,
        nll_weight=0.0,
        replay_weight=0.0,
        epochs=1,
        average_last=0.0,
        moving=moving or MovingSettings(),
        optim=OptimConfig(learning_rate=RATE, warmup_steps=0),
        **({"desirable_weight": 1.0, "undesirable_weight": 1.0} if objective == "kto" else {}),
    )
    if objective == "dpo":
        from trl import DPOConfig as Config
        from trl import DPOTrainer as Trainer

        rows = [
            {"prompt_ids": p.prompt_token_ids, "chosen_ids": p.chosen_token_ids, "rejected_ids": p.rejected_token_ids}
            for p in records
        ]
    else:
        from trl import KTOConfig as Config
        from trl import KTOTrainer as Trainer

        this = Round(ours, _items(records, settings), [], settings, 3, World())
        mismatched = [e.completion_ids for step in this.mismatched for e in step]
        rows = [
            {
                "prompt_ids": r.prompt_token_ids,
                "completion_ids": r.completion_token_ids,
                "KL_completion_ids": kl,
                "label": r.label,
            }
            for r, kl in zip(records, mismatched, strict=True)
        ]
    more = {}
    if moving:
        more = dict(sync_ref_model=True, ref_model_mixup_alpha=moving.alpha, ref_model_sync_steps=moving.every)
    wanted = trl_losses(Trainer, Config, theirs, rows, tmp_path / "trl", **more)
    result = train_round(ours, records, [], settings, seed=3, folder=tmp_path / "ours")
    assert [row["loss"] for row in result.rows] == pytest.approx(wanted, abs=1e-5)
    assert abs(wanted[0] - wanted[-1]) > 1e-3, "the run must move for the comparison to say anything"
    examples = [e for item in _items(records, settings) for e in item.examples]
    final = Decoder(ours.config)
    final.load_state_dict({k.removeprefix("model."): v for k, v in theirs.state_dict().items() if "lm_head" not in k})
    with torch.no_grad():
        torch.testing.assert_close(
            completion_logps(ours, examples), completion_logps(final, examples), rtol=1e-5, atol=1e-5
        )
