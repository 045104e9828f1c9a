"""What this sampler is measured beside: transformers' generate in this process, vLLM in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from plum_core.sampling import Request
from plum_models import Decoder
from plum_models.families import to_json

THEIRS = "transformers generate"
SAMPLES = 8  # of each prompt
Pass = tuple[int, float, float]  # tokens, CPU-seconds, seconds


def hugging_face(decoder: Decoder) -> Any:
    """transformers' model on the same weights, not on copies."""
    raw = to_json(decoder.config)
    config = transformers.AutoConfig.for_model(**raw)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=decoder.head_weight.dtype)
    model.to_empty(device="cpu")
    names = decoder.state_dict()
    model.load_state_dict(
        {k if k.startswith("lm_head") else f"model.{k}": v for k, v in names.items()}, assign=True, strict=False
    )
    model.tie_weights()
    base = model.model
    base.rotary_emb = type(base.rotary_emb)(config)  # its table was empty
    model.generation_config = transformers.GenerationConfig()
    return model.eval()


def generate(model: Any, requests: Sequence[Request]) -> Callable[[int], int]:
    """A pass of ``generate`` for so many new tokens a sample: the tokens it drew."""
    ids = torch.tensor([r.token_ids for r in requests])

    def work(new: int) -> int:
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            num_return_sequences=SAMPLES, max_new_tokens=new, pad_token_id=0,
        )  # fmt: skip
        return int(out[:, ids.shape[1] :].numel())

    return work


class Vllm:
    """vLLM's engine in the interpreter ``python`` with so many threads, each pinned to a core. Idle between passes.

    The engine's core runs in the worker's own process, where nothing waits for another by spinning. Its OpenMP and
    allocator are loaded first, as vLLM's CPU platform has it.
    """

    def __init__(self, python: Path, threads: int, settings: dict[str, object]) -> None:
        site = next((python.parent.parent / "lib").glob("python*/site-packages"))
        preload = [*site.glob("torch*/lib*/libgomp*"), *site.glob("vllm/libs/libtcmalloc*")]
        cores = " ".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
        environment = {
            **os.environ,
            "LD_PRELOAD": ":".join(map(str, preload)), "OMP_NUM_THREADS": str(threads), "GOMP_CPU_AFFINITY": cores,
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with it); a pipe that nobody reads would fill
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("vllm_worker.py")], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
        )  # fmt: skip
        self._ask(settings)

    def _ask(self, message: dict[str, object]) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(message), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.said.seek(0)
            raise SystemExit(f"vLLM ended: {self.said.read()[-3000:]}")
        self.last: dict[str, Any] = json.loads(line)

    def __call__(self, new: int, logprobs: bool) -> Pass:
        self._ask({"new_tokens": new, "logprobs": 0 if logprobs else None})
        return self.last["tokens"], self.last["cpu_s"], self.last["wall_s"]

    def close(self) -> None:
        self.process.communicate()  # closes stdin, which ends it
        self.said.close()
