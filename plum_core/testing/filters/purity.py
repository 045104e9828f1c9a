"""Whether code reads anything beside its arguments: files, input, the clock, the network, unseeded random numbers.

By name, so that a reason can be told; what hides from it is caught by the second run, or has nothing to read in the
sandbox.
"""

from __future__ import annotations

import ast

BUILTINS = frozenset({"open", "input", "__import__", "breakpoint", "id"})
MODULES = frozenset(
    (
        *("subprocess", "socket", "shutil", "tempfile", "glob", "fileinput", "sqlite3", "requests", "http", "secrets"),
        *("ftplib", "smtplib", "telnetlib", "ssl", "threading", "multiprocessing", "concurrent", "ctypes", "signal"),
        *("getpass", "platform", "importlib", "mmap", "select", "pty", "webbrowser", "tkinter", "turtle", "shelve"),
        *("dbm", "resource", "sched"),
    )
)
NAMES = {  # what of a module is not a function of its arguments; the rest of these modules is
    "time": "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns thread_time "
    "sleep localtime gmtime ctime asctime strftime",
    "datetime": "now today utcnow",
    "random": "random randint randrange choice choices shuffle sample uniform gauss getrandbits betavariate "
    "expovariate normalvariate triangular randbytes SystemRandom",
    "sys": "stdin argv getsizeof _getframe modules path settrace exit",
    "io": "open FileIO",
    "uuid": "uuid1 uuid4 getnode",
    "urllib": "request",
}
PURE_PATHS = frozenset({"join", "basename", "dirname", "splitext", "normpath", "split", "sep", "commonprefix", "isabs"})
READS_FILES = frozenset(("read_text", "read_bytes", "write_text", "write_bytes", "iterdir", "rglob", "unlink", "mkdir"))


def impurity(tree: ast.AST) -> str:
    """What it reads, in one word or two such as ``time.time``; '' for nothing."""
    known, seeded = _imports(tree), _seeds(tree)
    for node in ast.walk(tree):
        path = _path(node, known)
        if path is None:
            continue
        root, *rest = path
        if isinstance(node, ast.Name) and len(path) == 1 and node.id in BUILTINS and node.id not in known:
            return node.id
        if root in MODULES:
            return ".".join(path)
        if root == "os" and rest and not (rest[0] == "path" and (len(rest) == 1 or rest[1] in PURE_PATHS)):
            return ".".join(path)
        if root == "random" and seeded:
            continue
        if root in NAMES and any(part in NAMES[root].split() for part in rest):
            return ".".join(path)
        if isinstance(node, ast.Attribute) and node.attr in READS_FILES:
            return f"a .{node.attr}"
        if root == "numpy" and rest[:1] == ["random"] and not seeded:
            return ".".join(path)
    return ""


def _imports(tree: ast.AST) -> dict[str, tuple[str, ...]]:
    """Names that imports bind, with what they stand for."""
    found: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = tuple(alias.name.split("."))
                found[alias.asname or whole[0]] = whole if alias.asname else whole[:1]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = (*node.module.split("."), alias.name)
    return found


def _path(node: ast.AST, known: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """``a.b.c`` with what an import stands for in the place of ``a``; imports themselves by their module."""
    if isinstance(node, ast.Import):
        return tuple(node.names[0].name.split("."))
    if isinstance(node, ast.ImportFrom) and node.module:
        return (*node.module.split("."),)
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return tuple(reversed(parts)) or None
    return (*known.get(node.id, (node.id,)), *reversed(parts))


def _seeds(tree: ast.AST) -> bool:
    """Whether something is seeded: ``random.seed(7)``, ``Random(7)``, ``default_rng(7)``."""
    return any(
        isinstance(node, ast.Call)
        and bool(node.args)
        and (name := node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) != ""
        and name in ("seed", "Random", "default_rng", "RandomState")
        for node in ast.walk(tree)
    )
