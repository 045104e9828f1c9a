"""Chat templates: what transformers makes of them, and nothing that a template should not do."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from plum_models import Tokenizer
from plum_models.chat import render

TALKS = {
    "question": [{"role": "user", "content": "Sum <even> & odd?"}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?\n"}],
    "turns": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b é 日本"},
        {"role": "user", "content": " c "},
    ],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "run",
            "description": "Runs <code> & tells.",
            "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
        },
    }
]
NAMES = [
    "llama.cpp/HuggingFaceTB-SmolLM3-3B", "llama.cpp/Qwen-Qwen2.5-7B-Instruct", "llama.cpp/Qwen-Qwen3-0.6B",
    "llama.cpp/Qwen3-Coder", "llama.cpp/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "llama.cpp/deepseek-ai-DeepSeek-V3.1", "llama.cpp/meta-llama-Llama-3.1-8B-Instruct",
    "llama.cpp/meta-llama-Llama-3.2-3B-Instruct", "trl/deepseekv3", "trl/llama3", "trl/llama3_1", "trl/llama3_2",
    "trl/llama3_training", "trl/qwen2_5", "trl/qwen2_5_training", "trl/qwen3", "trl/qwen3_instruct_2507",
    "trl/qwen3_training",
]  # fmt: skip
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def test_every_template_at_hand_is_in_the_list(shared_data):
    folder = shared_data("chat_templates")
    assert {f"{p.parent.name}/{p.stem}" for p in folder.glob("*/*.jinja")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_real_templates_render_as_transformers_does(shared_data, name):
    template = shared_data(f"chat_templates/{name}.jinja").read_text(encoding="utf-8")
    for talk in TALKS.values():
        for prompt in (True, False):
            for tools in (None, TOOLS):
                options = dict(add_generation_prompt=prompt, tools=tools, **SPECIAL)
                theirs, _ = render_jinja_template([talk], chat_template=template, **options)
                ours = render(template, talk, **options)
                assert ours == theirs[0] and len(ours) > 20


def test_the_date_is_the_callers(shared_data):
    template = shared_data("chat_templates/llama.cpp/meta-llama-Llama-3.2-3B-Instruct.jinja").read_text()
    assert "01 Feb 2020" in render(template, TALKS["question"], now=datetime(2020, 2, 1), **SPECIAL)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses this conversation: roles must alternate"),
        ("{% for m in messages %}", "chat template, line 1: .*endfor"),
        ("{{ messages[0]['content'] + 1 }}", "fails on this conversation"),
        ("{{ messages.__class__.__mro__ }}", "refuses this conversation: .*unsafe"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "refuses this conversation: .*unsafe"),
        ("{{ messages.append(1) }}", "refuses this conversation: .*not safely callable|unsafe"),
        ("{{ lipsum.__globals__['os'].system('true') }}", "refuses this conversation: .*unsafe"),
        ("{% for i in range(99999999) %}{% endfor %}", "refuses|fails|big"),
        ("{% include '/etc/passwd' %}", "fails|refuses"),
    ],
)
def test_what_a_template_must_not_do(template, message):
    with pytest.raises((ValueError, OverflowError), match=message):
        render(template, TALKS["question"])


def test_the_callers_messages_are_not_changed():
    talk = [{"role": "user", "content": "a"}]
    with pytest.raises(ValueError, match="refuses this conversation"):
        render("{% set _ = messages[0].update({'content': 'b'}) %}", talk)
    assert talk == [{"role": "user", "content": "a"}]


def with_template(tokenizer, template=None, file=None):
    settings = dict(tokenizer.settings) | ({"chat_template": template} if template else {})
    files = {"chat_template.jinja": file.encode()} if file else {}
    return Tokenizer(
        tokenizer.inner, eos_token_ids=tokenizer.eos_token_ids, settings=settings | SPECIAL, other_files=files
    )


def test_where_templates_come_from(make):
    plain = make.tokenizer()
    one = "{{ bos_token }}{{ messages[0]['content'] }}"
    assert with_template(plain, one).render_chat(TALKS["question"]) == "<s>Sum <even> & odd?"
    named = [{"name": "default", "template": one}, {"name": "tools", "template": "T{{ tools }}"}]
    assert with_template(plain, named).render_chat(TALKS["question"], name="tools", tools=[1]) == "T[1]"
    assert with_template(plain, one, file="F").render_chat(TALKS["question"]) == "F"  # the file goes before the key
    with pytest.raises(ValueError, match="no chat template 'default'; it has none: is it a base model"):
        plain.render_chat(TALKS["question"])
    with pytest.raises(ValueError, match="no chat template 'rag'; it has default, tools"):
        with_template(plain, named).render_chat(TALKS["question"], name="rag")


def test_real_folders_render_and_encode_with_one_beginning(shared_data):
    for name in ("deepseek-coder-6.7b-instruct", "qwen3"):
        tokenizer = Tokenizer.from_folder(shared_data(f"tokenizers/{name}"))
        text = tokenizer.render_chat(TALKS["system"])
        settings = json.loads(shared_data(f"tokenizers/{name}/tokenizer_config.json").read_text())
        theirs, _ = render_jinja_template(
            [TALKS["system"]],
            chat_template=settings["chat_template"],
            add_generation_prompt=True,
            bos_token=tokenizer._text_of("bos"),
            eos_token=tokenizer._text_of("eos"),
        )
        assert text == theirs[0]
        ids = tokenizer.encode(text)
        assert ids.count(tokenizer.bos_token_id) == (1 if name.startswith("deepseek") else 0)
