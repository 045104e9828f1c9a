"""Examples of docstrings and consoles (``>>> f(2)``) as assertions. Read by doctest's parser, never run."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator

from plum_core.testing.answers.blocks import parse
from plum_core.testing.answers.parameters import Body
from plum_core.testing.answers.rewrites import failure

PARSER = doctest.DocTestParser()


def has_examples(text: str) -> bool:
    return any(line.lstrip().startswith(">>>") for line in text.splitlines())


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Those with examples in them, of functions, methods and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text and has_examples(text):
                yield text


def script_of(text: str) -> Body:
    """One script of all examples in order; an example whose answer no expression can tell is left out."""
    try:
        examples = PARSER.get_examples(text)
    except ValueError:  # a prompt without its space, or uneven margins
        return []
    script: Body = []
    for example in examples:
        tree = parse(example.source)
        if tree is None:
            return script  # what follows may depend on it
        if not example.want and example.exc_msg is None:
            script += tree.body
        elif len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
            script += _expected(tree.body[0].value, example)
        else:
            script += tree.body
    return script


def _expected(value: ast.expr, example: doctest.Example) -> Body:
    if example.exc_msg is not None:
        name = example.exc_msg.partition(":")[0].strip().rpartition(".")[2]
        if not name.isidentifier():
            return []
        handler = ast.ExceptHandler(ast.Name(name, ast.Load()), None, [ast.Pass()])
        return [ast.Try([ast.Expr(value)], [handler], [failure("nothing was raised")], [])]
    want = parse(example.want.strip())
    if want is None or len(want.body) != 1 or not isinstance(want.body[0], ast.Expr) or "..." in example.want:
        return []
    wanted = want.body[0].value
    try:
        ast.literal_eval(wanted)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return []
    singleton = isinstance(wanted, ast.Constant) and (wanted.value is None or isinstance(wanted.value, bool))
    return [ast.Assert(ast.Compare(value, [ast.Is() if singleton else ast.Eq()], [wanted]))]
