"""Writes docs/api.md from the docstrings of what the packages export.

python docs/make_api.py          # write it
python docs/make_api.py --check  # exit status 1 where it is not what the docstrings say
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent / "api.md"
PACKAGES = (
    "plum_kernels",
    "plum_models",
    "plum_core.records",
    "plum_core.prompts",
    "plum_core.testing",
    "plum_core.sampling",
    "plum_core.execution",
    "plum_core.preferences",
    "plum_core.objectives",
    "plum_core.training",
    "plum_core.evaluation",
    "plum_core.reporting",
    "plum_core.experiments",
    "plum_core.doctor",
    "plum_core.seeds",
    "plum_core.settings",
)
HEAD = """# API reference

What the packages export, from their docstrings: `python docs/make_api.py` writes this page, and a test holds it to
them. Shapes are written as (B, T, V): batch, tokens, vocabulary.
"""


def public(module: Any) -> list[str]:
    """``__all__``, or what a module without it defines itself under a name without underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=str.lower)
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__ and n[0] != "_"]
    return sorted(own, key=str.lower)


def signature(function: Any) -> str:
    """Arguments and result as the source has them: a default that is evaluated would say something of this machine."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), function
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = ast.unparse(node.args)
    return f"({arguments.removeprefix('self').removeprefix(', ')}){result}"


def described(thing: Any) -> str:
    """Its docstring, unless it is one that Python made up."""
    text = inspect.getdoc(thing) or ""
    made_up = dataclasses.is_dataclass(thing) and text.startswith(f"{getattr(thing, '__name__', '')}(")
    return "" if made_up else text


def entry(name: str, thing: Any) -> Iterator[str]:
    if inspect.isclass(thing):
        yield f"### class `{name}`\n"
        if dataclasses.is_dataclass(thing):
            fields = ", ".join(f"{f.name}: {f.type}" for f in dataclasses.fields(thing))
            yield f"```python\n{name}({fields})\n```\n"
        elif "__init__" in vars(thing):
            yield f"```python\n{name}{signature(vars(thing)['__init__']).removesuffix(' -> None')}\n```\n"
        if described(thing):
            yield described(thing) + "\n"
        for method, found in vars(thing).items():
            function = inspect.isfunction(found)
            if method[0] != "_" and (function or isinstance(found, property)) and inspect.getdoc(found):
                call = signature(found) if function else ""
                yield f"- `.{method}{call}`: " + " ".join((inspect.getdoc(found) or "").split()) + "\n"
    elif callable(thing):
        yield f"### `{name}`\n"
        yield f"```python\n{name}{signature(thing)}\n```\n"
        yield described(thing) + "\n"
    else:
        names = (
            ", ".join(f"`{n}`" for n in thing)
            if isinstance(thing, tuple | list | dict)
            else f"A {type(thing).__name__}."
        )
        yield f"### `{name}`\n\n{names}\n"


def page() -> str:
    """The whole reference."""
    parts = [HEAD]
    for package in PACKAGES:
        module = importlib.import_module(package)
        parts.append(f"## {package}\n\n{inspect.getdoc(module)}\n")
        for name in public(module):
            parts += entry(name, getattr(module, name))
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """0, or 1 where ``--check`` finds the page out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(argv)
    text = page()
    if not options.check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print("docs/api.md is not what the docstrings say: python docs/make_api.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
