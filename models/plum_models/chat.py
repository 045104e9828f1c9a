"""Chat templates: a conversation to the text that a chat model was taught to continue.

A template comes with a checkpoint and is foreign code: it runs in Jinja's immutable sandbox, which has no file, no
import and no attribute that leads out of it. What templates may use is what transformers offers them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(Extension):
    """``{% generation %}``, which marks what an assistant says in templates for training: its body, unchanged."""

    tags = {"generation"}  # noqa: RUF012 - the name and type that jinja2 asks for

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> str:
        return str(caller())


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: jinja2's own filter escapes what HTML gives a meaning to."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    return environment.from_string(template)


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    now: datetime | None = None,
    **variables: Any,
) -> str:
    """``messages`` (each with role and content) as ``template`` writes them.

    add_generation_prompt: end where the assistant begins to speak. now: what templates that tell the date tell;
    this moment where not given. variables: whatever else the template reads, such as tools or bos_token.
    Raises ValueError where the template is broken, or refuses the conversation.
    """
    try:
        return _compiled(template).render(
            messages=[dict(m) for m in messages],
            add_generation_prompt=add_generation_prompt,
            strftime_now=lambda form: (now or datetime.now()).strftime(form),
            **{"tools": None, "documents": None} | variables,
        )
    except TemplateSyntaxError as error:
        raise ValueError(f"chat template, line {error.lineno}: {error.message}: give the tokenizer another") from error
    except TemplateError as error:
        raise ValueError(f"the chat template refuses this conversation: {error.message}") from error
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(f"the chat template fails on this conversation: {error}") from error
