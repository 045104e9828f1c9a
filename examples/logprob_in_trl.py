"""Our log-probs and our loss in TRL's DPO trainer: the (tokens, vocabulary) logits are never made.

    python examples/logprob_in_trl.py --steps 4

Everything else stays TRL's: data, batches, optimizer, logging, saving. Wants ``pip install trl``.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from plum_core.objectives import dpo
from plum_kernels import linear_logprob

POLICY = "models/tiny/policy"
TASKS = {"even": "x % 2 == 0", "odd": "x % 2 == 1", "positive": "x > 0", "negative": "x < 0"}


def completion_logps(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """(B,) fp32: log-prob of each completion, summed over its tokens. The head sees the scored positions alone."""
    ids, scored = inputs["input_ids"], inputs["completion_mask"][:, 1:].bool()  # position t scores token t + 1
    hidden = model.get_decoder()(ids, attention_mask=inputs["attention_mask"]).last_hidden_state[:, :-1]
    logp = linear_logprob(hidden[scored], model.get_output_embeddings().weight, ids[:, 1:][scored]).logp
    return torch.zeros(scored.shape, dtype=logp.dtype, device=logp.device).masked_scatter(scored, logp).sum(1)


class PlumDPOTrainer(DPOTrainer):
    """DPO with ``linear_logprob`` and ``plum_core.objectives.dpo``; TRL's batch is the chosen, then the rejected."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        chosen, rejected = completion_logps(self.accelerator.unwrap_model(model), inputs).chunk(2)
        with torch.no_grad():
            ref_chosen, ref_rejected = completion_logps(self.ref_model, inputs).chunk(2)
        found = dpo(chosen, rejected, ref_chosen, ref_rejected, beta=self.args.beta)
        for name, values in found.metrics.items():
            self._metrics["train" if model.training else "eval"][name].append(values.mean().item())
        loss = found.losses.mean()
        return (loss, {}) if return_outputs else loss


def pairs() -> Dataset:
    """A right and a wrong filter for each task, in TRL's layout; yours come from runners/pair.py."""
    names = list(TASKS)
    return Dataset.from_list(
        [
            {
                "prompt": f"# Return the {name} numbers in nums.\ndef solve(nums: list[int]) -> list[int]:\n",
                "chosen": f"    return [x for x in nums if {TASKS[name]}]\n",
                "rejected": f"    return [x for x in nums if {TASKS[names[i - 1]]}]\n",
            }
            for i, name in enumerate(names)
        ]
    )


def make_trainer(trainer: type[DPOTrainer], steps: int, folder: str, **settings: Any) -> DPOTrainer:
    """A trainer over ``pairs``, as TRL's documentation builds one."""
    given = dict(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-4,
        beta=0.1,
        logging_steps=1,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    return trainer(
        model=AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32),
        args=DPOConfig(**(given | settings)),
        train_dataset=pairs(),
        processing_class=AutoTokenizer.from_pretrained(POLICY),
    )


def main(argv: list[str] | None = None) -> list[float]:
    """Train, and give the loss of each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(PlumDPOTrainer, options.steps, folder)
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    print("loss of each step:", ", ".join(f"{loss:.4f}" for loss in losses))
    return losses


if __name__ == "__main__":
    main()
