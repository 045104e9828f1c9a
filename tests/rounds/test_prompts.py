"""Styles of prompts: what a policy is asked, where its answers end, and a whole run on a chat checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken

from plum_core.prompts import Prompts, encode_prompt
from plum_core.records import Instruction, Outcome, Pair, Program, Sample, TestSuite, Verdict, read_jsonl, write_jsonl
from plum_core.rounds.engine import LocalEngine
from plum_core.rounds.loop import Rounds
from plum_core.rounds.sources import JsonlSource, TasksConfig
from plum_models import Decoder, DecoderConfig, Tokenizer, save
from tests.rounds import toy

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou write code.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}"
    "{% if m['role'] == 'assistant' %} {{ eos_token }}{% endif %}{% endfor %}"
)
ADD = Instruction(id="t", prompt="Add 2 to a.", entry_point="solve", starter="def solve(a):\n")


def tokenizer_of(template: str | None, *, ends: tuple[str, ...] = ("<|im_end|>", "<|endoftext|>")) -> Tokenizer:
    """Qwen's special tokens over a small byte-level vocabulary; Llama's beginning where its template is given."""
    inner = Tokenizer.train(["def solve(a):\n    return a + 2\n", "Add 2 to a."] * 4, 300).inner
    inner.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>", "<s>")])
    settings = {"bos_token": "<s>" if template == LLAMA else None, "eos_token": ends[0], "chat_template": template}
    bos = inner.token_to_id("<s>") if template == LLAMA else None
    return Tokenizer(
        inner,
        eos_token_ids=[inner.token_to_id(end) for end in ends],
        pad_token_id=1,
        bos_token_id=bos,
        settings=settings,
    )


def test_a_chat_prompt_is_the_template_and_begins_once() -> None:
    for template in (CHATML, LLAMA):
        tokenizer = tokenizer_of(template)
        prompts = Prompts(tokenizer, "chat")
        text = prompts.render(ADD)
        assert "Add 2 to a." in text and "```python\ndef solve(a):\n```" in text
        ids = prompts.encode(text)
        assert tokenizer.inner.decode(list(ids), skip_special_tokens=False) == text
        begin = tokenizer.inner.token_to_id("<s>")
        assert ids.count(begin) == (template == LLAMA)
    assert Prompts(tokenizer_of(CHATML), "chat").render(ADD).endswith("<|im_start|>assistant\n")


def test_other_styles_begin_at_most_once() -> None:
    tokenizer = tokenizer_of(LLAMA)
    begin = tokenizer.bos_token_id
    for text in ("# Add 2 to a.\n", "<s># Add 2 to a.\n"):
        assert encode_prompt(tokenizer, text) == (begin, *tokenizer.encode("# Add 2 to a.\n"))
    assert encode_prompt(tokenizer_of(CHATML), "a") == tuple(tokenizer.encode("a"))
    assert Prompts(tokenizer).render(ADD) == "# Add 2 to a.\ndef solve(a):\n"
    assert Prompts(tokenizer, "completion").render(ADD) == "Add 2 to a.\ndef solve(a):\n"
    assert Prompts(tokenizer, "completion").program(ADD, "    return 2\n") == "def solve(a):\n    return 2\n"


def test_an_answer_ends_as_its_template_ends_it() -> None:
    tokenizer = tokenizer_of(CHATML, ends=("<|endoftext|>", "<|im_end|>"))  # the first one is not the chat's
    end = tokenizer.inner.token_to_id("<|im_end|>")
    assert Prompts(tokenizer, "chat").encode_completion("a") == (*tokenizer.encode("a"), end)
    assert Prompts(tokenizer, "comment").encode_completion("a") == (*tokenizer.encode("a"), tokenizer.eos_token_id)
    llama = tokenizer_of(LLAMA)
    assert Prompts(llama, "chat").encode_completion("a") == (*llama.encode("a"), *llama.encode(" "), llama.eos_token_id)


def test_a_template_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prompts = chat: the chat template ends an answer with '<.im_end.>"):
        Prompts(tokenizer_of(CHATML, ends=("<|endoftext|>",)), "chat")
    with pytest.raises(ValueError, match="no chat template 'default'"):
        Prompts(tokenizer_of(None), "chat")


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("Sure:\n```python\ndef solve(a):\n    return a + 2\n```\nDone.", "def solve(a):\n    return a + 2\n"),
        ("```python\nprint(1)\n```\n```py\ndef solve(a): return 3\n```", "def solve(a): return 3\n"),
        ("```python\n    return a + 2\n```", "def solve(a):\n    return a + 2\n"),
        ("def solve(a):\n    return 1\n", "def solve(a):\n    return 1\n"),
    ],
)
def test_the_program_of_a_chat_answer(answer: str, program: str) -> None:
    assert Prompts(tokenizer_of(CHATML), "chat").program(ADD, answer) == program


class ByName(LocalEngine):
    """A judge without a sandbox: every other sample of an instruction passes."""

    def judge(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        for p in programs:
            good = p.id[-1] in "024"
            yield Verdict(
                id=p.id,
                outcome=Outcome.PASSED if good else Outcome.FAILED,
                passed=(good,),
                detail="" if good else "odd",
                wall_s=0.0,
                cpu_s=0.0,
                peak_mib=0.0,
            )


@pytest.fixture
def chat_run(tmp_path: Path) -> tuple[Rounds, Tokenizer]:
    """A round on random weights with Qwen's chat template."""
    torch.manual_seed(0)
    tokenizer = tokenizer_of(CHATML, ends=("<|endoftext|>", "<|im_end|>"))
    decoder = Decoder(
        DecoderConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=512,
        )
    )  # fmt: skip
    for weight in decoder.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.02)  # all tokens about as likely, so that some samples stop
    save(decoder, tokenizer, tmp_path / "policy")
    tasks = [dataclasses.replace(ADD, id=f"t{i}", prompt=f"Add {i} to a.") for i in range(6)]
    suites = [TestSuite(instruction_id=t.id, tests=("assert solve(0) == 0",)) for t in tasks]
    for name, cut in (("", slice(0, 4)), ("eval", slice(4, 6))):
        write_jsonl(tmp_path / f"{name or 'instructions'}.jsonl", tasks[cut])
        write_jsonl(tmp_path / f"{name}{'-' if name else ''}tests.jsonl", suites[cut])
    rows = [{"prompt": "Add 1 to a.", "completion": "```python\ndef solve(a):\n    return a + 1\n```"}]
    write_jsonl(tmp_path / "sft.jsonl", rows)
    config = toy.make_config(tmp_path, tmp_path / "run")
    files = TasksConfig(
        instructions=tmp_path / "instructions.jsonl", tests=tmp_path / "tests.jsonl", sft=tmp_path / "sft.jsonl",
        heldout_instructions=tmp_path / "eval.jsonl", heldout_tests=tmp_path / "eval-tests.jsonl",
    )  # fmt: skip
    draw = dataclasses.replace(config.sampling, n=40)  # a random policy seldom stops, and a cut sample is never chosen
    select = dataclasses.replace(config.selection, unrunnable=True)  # hardly anything that it says is Python
    config = dataclasses.replace(config, prompts="chat", tasks=files, device="cpu", sampling=draw, selection=select)
    engine = ByName(sampler={"max_rows": 64}, execution=config.execution, device="cpu", prompts=config.prompts)
    return Rounds(config, JsonlSource(files), engine, argv=["plum"]), tokenizer


def test_a_whole_round_on_a_chat_checkpoint(chat_run: tuple[Rounds, Tokenizer], tmp_path: Path) -> None:
    rounds, tokenizer = chat_run
    folder = rounds.go()
    samples = {(s.instruction_id, s.index): s for s in read_jsonl(folder.round(1) / "samples.jsonl", Sample)}
    prompts = Prompts(tokenizer, "chat")
    by_id = {i.id: i for i in read_jsonl(tmp_path / "instructions.jsonl", Instruction)}
    for (task, _), sample in samples.items():
        assert sample.prompt_token_ids == prompts.encode(prompts.render(by_id[task]))
        assert sample.code == prompts.program(by_id[task], sample.text)
    pairs = list(read_jsonl(folder.round(1) / "preferences.jsonl", Pair))
    assert pairs
    for pair in pairs:  # what was sampled is what is trained on
        assert pair.prompt == prompts.render(by_id[pair.instruction_id])
        chosen = samples[pair.instruction_id, pair.chosen_index]
        rejected = samples[pair.instruction_id, pair.rejected_index]
        assert (pair.prompt_token_ids, pair.chosen_token_ids) == (chosen.prompt_token_ids, chosen.token_ids)
        assert pair.rejected_token_ids == rejected.token_ids
    assert json.loads((folder.path / "run.json").read_text())["config"]["prompts"] == "chat"
    last = json.loads((folder.round(1) / "policy.json").read_text())["folder"]
    assert Tokenizer.from_folder(folder.path / last).chat_templates == {"default": CHATML}
