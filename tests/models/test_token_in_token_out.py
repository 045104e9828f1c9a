"""The ids that were sampled are the ids that are stored and the ids that are trained on, for any prompt and answer.

Text would not do: ids that a model draws are rarely the ones that its tokenizer would choose for the same text.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer as RustTokenizer

from plum_core.preferences import SelectionConfig, make_pairs, verdict_id
from plum_core.records import Instruction, Outcome, Pair, Sample, Verdict, read_jsonl, write_jsonl
from plum_core.training.packing import Packed
from plum_core.training.preference import _items
from plum_models import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
BOUNDARIES = 1000
PIECES = [
    "def f(x):",
    "\n",
    "    ",
    " ",
    "\t",
    "return",
    " x",
    "é",
    "日本",
    "🎉",
    "1234",
    "```python\n",
    "<|im_end|>",
    "'''",
    "",
]


def tokenizer_of(name, shared_data):
    if name == "embedded":
        return Tokenizer.from_folder(ROOT / "models/tiny/policy")
    folder = shared_data(f"tokenizers/{name}")
    if (folder / "tokenizer_config.json").is_file():
        return Tokenizer.from_folder(folder)
    inner = RustTokenizer.from_file(str(folder / "tokenizer.json"))
    return Tokenizer(inner, eos_token_ids=[inner.token_to_id("<|endoftext|>")])


def answer(draw, tokenizer, stops):
    """Ids as a sampler hands them out: text's own and any others, cut anywhere; ``stops``: with an end."""
    text = "".join(draw.choices(PIECES, k=draw.randint(0, 6)))
    ids = [i for i in tokenizer.encode(text) if i not in tokenizer.eos_token_ids]
    ids += [i for i in (draw.randrange(tokenizer.vocab_size) for _ in range(8)) if i not in tokenizer.eos_token_ids]
    if draw.random() < 0.7:
        draw.shuffle(ids)
    ids = ids[: draw.randint(1, len(ids))] if ids else []
    stops = stops or not ids
    return tuple(ids) + ((draw.choice(sorted(tokenizer.eos_token_ids)),) if stops else ()), stops


@pytest.mark.parametrize("name", ["embedded", "gpt2", "starcoder2-3b", "deepseek-coder-6.7b-instruct", "qwen3"])
def test_sampled_stored_and_trained_ids_are_the_same(name, shared_data, tmp_path):
    tokenizer, draw = tokenizer_of(name, shared_data), random.Random(name)
    instructions, samples, verdicts, retokenised = [], [], [], 0
    for n in range(BOUNDARIES // 2):
        instructions.append(Instruction(id=str(n), prompt=f"do {n}"))
        prompt = tuple(tokenizer.encode("".join(draw.choices(PIECES, k=5)) + f"{n}"))
        for index in range(2):
            ids, stops = answer(draw, tokenizer, index == 0 or draw.random() < 0.7)  # a cut answer is never chosen
            text = tokenizer.decode(ids[:-1] if stops else ids)
            retokenised += tuple(tokenizer.encode(text)) != (ids[:-1] if stops else ids)
            samples.append(
                Sample(
                    instruction_id=str(n),
                    index=index,
                    text=text,
                    code=f"x = {index}",
                    token_ids=ids,
                    logprobs=(0.0,) * len(ids),
                    prompt_token_ids=prompt,
                    finish_reason="stop" if stops else "length",
                    policy="p",
                    seed=n,
                )
            )
            outcome = Outcome.PASSED if index == 0 else Outcome.FAILED
            verdicts.append(
                Verdict(
                    id=verdict_id(samples[-1]),
                    outcome=outcome,
                    passed=(index == 0,),
                    detail="",
                    wall_s=0.0,
                    cpu_s=0.0,
                    peak_mib=0.0,
                )
            )
    assert retokenised > BOUNDARIES / 5  # had text been stored, these would have been trained on as other ids
    write_jsonl(tmp_path / "samples.jsonl", samples)
    stored = list(read_jsonl(tmp_path / "samples.jsonl", Sample))
    pairs, counts = make_pairs(stored, verdicts, instructions, SelectionConfig(max_pairs=1), seed=0)
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    trained = [e for item in _items(list(read_jsonl(tmp_path / "pairs.jsonl", Pair)), "dpo") for e in item.examples]
    sampled = {(s.prompt_token_ids, s.token_ids) for s in samples}
    assert len(trained) == BOUNDARIES, counts
    mismatches = [e for e in trained if (e.prompt_ids, e.completion_ids) not in sampled]
    assert not mismatches
    for begin in range(0, BOUNDARIES, 50):
        part = trained[begin : begin + 50]
        packed = Packed(part)
        unique = list(dict.fromkeys(part))
        targets = packed.targets.split(packed.lengths.tolist())
        for example, ids in zip(part, (targets[u] for u in packed.which.tolist()), strict=True):
            assert tuple(ids.tolist()) == example.completion_ids  # the sampled end included, and nothing after it
        assert len(unique) == len(packed.lengths)
    for example in trained:
        ends = [i for i, token in enumerate(example.completion_ids) if token in tokenizer.eos_token_ids]
        assert ends in ([], [len(example.completion_ids) - 1])
