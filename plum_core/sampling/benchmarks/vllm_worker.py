"""vLLM in an interpreter of its own, one pass for each line it is sent: ``peers.Vllm`` starts it and speaks with it.

The first line of stdin is a JSON object of ``Settings``, every later one {"new_tokens": n, "logprobs": null or 0}: null
is without log-probs, 0 with the drawn token's. The first is answered by {"ready": version} on stdout, the later ones by
{"tokens", "cpu_s", "wall_s"}. What vLLM itself prints goes to stderr. CPU-seconds are those of this process and of its
children.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    model: str  # a checkpoint folder
    dtype: str
    eager: bool
    prompts: list[list[int]]
    samples: int  # of each prompt
    new_tokens: int  # of a sample at most


def cpu_s() -> float:
    import psutil

    times = (p.cpu_times() for p in psutil.Process().children(recursive=True))
    return time.process_time() + sum(t.user + t.system for t in times)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints, prints elsewhere
    settings = Settings(**json.loads(sys.stdin.readline()))
    import vllm

    rows = len(settings.prompts) * settings.samples
    longest = max(map(len, settings.prompts))
    engine = vllm.LLM(
        settings.model,
        skip_tokenizer_init=True,
        dtype=settings.dtype,
        enforce_eager=settings.eager,
        max_model_len=longest + settings.new_tokens,
        max_num_seqs=rows,
        max_num_batched_tokens=max(2048, len(settings.prompts) * longest + rows),  # all prompts in one step
        disable_log_stats=True,
        seed=0,
    )
    prompts = [{"prompt_token_ids": ids} for ids in settings.prompts]
    print(json.dumps({"ready": vllm.__version__}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        params = vllm.SamplingParams(
            n=settings.samples, temperature=1.0, max_tokens=asked["new_tokens"], logprobs=asked["logprobs"],
            ignore_eos=True, detokenize=False,
        )  # fmt: skip
        engine.reset_prefix_cache()  # every pass computes its prompts
        cpu, wall = cpu_s(), time.perf_counter()
        done = engine.generate(prompts, params, use_tqdm=False)
        spent = {"cpu_s": cpu_s() - cpu, "wall_s": time.perf_counter() - wall}
        print(json.dumps({"tokens": sum(len(o.token_ids) for r in done for o in r.outputs), **spent}), file=answers)


if __name__ == "__main__":
    main()
