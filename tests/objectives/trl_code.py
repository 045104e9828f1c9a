"""TRL's own loss code, called on log-probs that a test chooses: no model, no data, no trainer set-up."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import torch
from torch import Tensor


class FakeAccelerator:
    """One process."""

    device = torch.device("cpu")
    num_processes = 1

    @staticmethod
    def gather(x: Tensor) -> Tensor:
        return x

    gather_for_metrics = gather

    @staticmethod
    def reduce(x: Tensor, reduction: str = "sum") -> Tensor:
        return x


def fake_trainer(cls, **fields):
    """An instance of a trainer class that was never set up, with the attributes that its loss reads."""
    me = object.__new__(cls)
    common = dict(
        model=SimpleNamespace(training=False),
        accelerator=FakeAccelerator(),
        _metrics={"eval": defaultdict(list)},
        aux_loss_enabled=False,
        _total_train_tokens=0,
        precompute_ref_logps=True,
    )
    me.__dict__.update(common | fields)
    return me


def logged(me) -> dict[str, float]:
    return {name: values[-1] for name, values in me._metrics["eval"].items()}


def completion_masks(lengths: Tensor, width: int) -> Tensor:
    """(B, 1 + width): one token of prompt, then completions from the left."""
    inside = torch.arange(width) < lengths.unsqueeze(1)
    return torch.cat((torch.zeros(len(lengths), 1, dtype=torch.bool), inside), 1).long()


def dpo_loss(loss_types, token_logps: Tensor, lengths: Tensor, ref_logps: Tensor, *, collisions=None, **fields):
    """(loss, metrics) of DPOTrainer: rows are the chosen, then the rejected; token_logps (2B, T)."""
    from trl.trainer.dpo_trainer import DPOTrainer

    settings = dict(
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        beta=0.1,
        ld_alpha=None,
        label_smoothing=0.0,
        f_divergence_type="reverse_kl",
        loss_types=[loss_types] if isinstance(loss_types, str) else loss_types,
        loss_weights=[1.0],
        use_weighting=collisions is not None,
    )
    me = fake_trainer(DPOTrainer, **settings | fields)
    flat = torch.zeros_like(token_logps.detach())

    def model(**_):
        return SimpleNamespace(
            log_probs=token_logps * mask[:, 1:],  # the fused head scores labels alone
            entropy=flat,
            mean_logits=flat,
            is_top1=flat.bool(),
            log_sum_sq_probs=collisions,
        )

    mask = completion_masks(lengths, token_logps.shape[1])
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": ref_logps.chunk(2)[0],
        "ref_rejected_logps": ref_logps.chunk(2)[1],
    }
    loss = me._compute_loss(model, inputs, return_outputs=False)
    return loss, logged(me)


def kto_loss(loss_type: str, token_logps: Tensor, ref: Tensor, labels: Tensor, *, kl=None, **weights):
    """(loss, metrics) of KTOTrainer; token_logps (B, T), ref (B,) sums, kl (policy, reference) of mismatched ones."""
    from trl.trainer.kto_trainer import KTOTrainer

    me = fake_trainer(KTOTrainer, loss_type=loss_type, calculate_KL=kl is not None, **weights)
    me._compute_kl_logps = lambda model, batch: None if kl is None else kl[0]
    flat = torch.zeros_like(token_logps.detach())

    def model(**_):
        return SimpleNamespace(log_probs=token_logps, entropy=flat, mean_logits=flat)

    mask = completion_masks(torch.full((len(token_logps),), token_logps.shape[1]), token_logps.shape[1])
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "label": labels,
        "ref_logps": ref,
        "ref_KL_logps": None if kl is None else kl[1],
    }
    return me._compute_loss(model, inputs, return_outputs=False), logged(me)


def policy_gradient_loss(cls, token_logps: Tensor, inputs: dict[str, Tensor], **fields):
    """(loss, metrics) of GRPOTrainer or RLOOTrainer in evaluation mode."""
    args = SimpleNamespace(delta=None, use_bias_correction_kl=False)
    settings = dict(
        args=args,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.0,
        use_vllm=False,
        _entropy_bonus_enabled=False,
    )
    me = fake_trainer(cls, **settings | fields)
    zeros = torch.zeros_like(token_logps.detach())
    me._get_per_token_logps_and_entropies = lambda *_, **__: (token_logps, zeros, None)
    width = token_logps.shape[1]
    ids = torch.zeros(len(token_logps), width, dtype=torch.int64)
    prompt = torch.ones(len(token_logps), 1, dtype=torch.int64)
    loss = me._compute_loss(None, {"prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": ids, **inputs})
    return loss, logged(me)
