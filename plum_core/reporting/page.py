"""HTML pages that need nothing else: one file, no network, and a policy that lets only our own script and style run."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from plum_core.evaluation import Interval
from plum_core.rounds.display import round_name
from plum_core.rounds.summary import interval, percent, visible

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *, script: str = "", **values: Any) -> str:
    """A page from ``templates/``. ``script``: the file there whose code it holds, by default none."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": interval,
        "points": Interval.points,
        "share": Interval.percent,
        "percent": percent,
        "visible": visible,
        "round_name": round_name,
    }
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    code = (TEMPLATES / script).read_text(encoding="utf-8") if script else ""
    policy = content_policy(style, code)
    return environment.get_template(template).render(
        policy=policy, style=Markup(style), script=Markup(code), **values
    )  # ours, and so not escaped


def content_policy(style: str, script: str) -> str:
    """A Content-Security-Policy: nothing is fetched, and of code and styles only these two texts are obeyed."""
    allowed = [f"script-src {_hash(script)}"] if script else []
    rules = ["default-src 'none'", f"style-src {_hash(style)}", *allowed, "base-uri 'none'", "form-action 'none'"]
    return "; ".join(rules)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embedded(value: Any) -> Markup:
    """JSON to stand inside ``<script type="application/json">``, whatever its strings hold.

    Every ``<``, ``>`` and ``&`` is an escape, so neither ``</script`` nor ``<!--`` can occur; ASCII alone, so
    U+2028 and lone surrogates cannot either.
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
