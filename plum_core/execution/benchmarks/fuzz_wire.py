"""Programs that find the nonce in their own memory and write what they like to the socket and the answer file."""

from __future__ import annotations

from hypothesis import strategies as st

from plum_core.execution.benchmarks.fuzz_shots import Shot, secret

WIRE = """
import gc, json, os, sys
def nonce():
    return next(o['n'] for o in gc.get_objects() if type(o) is dict and {'n', 'mode', 'code'} <= o.keys())
def send(raw, fd=4):
    try: os.write(fd, raw)
    except OSError: pass
def line(body, end=b'\\n'): send(body + end)
def answer(*parts): line(json.dumps([nonce(), *parts]).encode())
"""
_tags = st.sampled_from([*"tdCOsfqbacriuDFmykeEoNhx", "missing"])
trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["0x1", "1e9999", "ff"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_tags, inner, max_size=2),
    max_leaves=8,
)
_bodies = st.binary(max_size=30) | st.sampled_from(
    (
        b"[]",
        b"{}",
        b"[NaN]",
        b"[1e999, -Infinity]",
        b'["a", "a", "v", 1]',
        b"[" * 5000,
        b'[{"a": 1, "a": 2}]',
        b"9" * 5000,
    )
)
_act = st.one_of(
    st.builds("send({!r}, {})".format, st.binary(max_size=40), st.sampled_from((3, 4, 4))),
    st.builds("line({!r}, {!r})".format, _bodies, st.sampled_from((b"\n", b"\n", b"", b"\n\n", b"\r\n"))),
    st.builds("answer({!r}, 'v', {!r})".format, st.integers(-2, 4), trees),
    st.builds("answer({!r}, 'e', {!r}, {!r})".format, st.integers(-2, 4), trees, trees),
    st.builds(
        "answer({!r}, {!r}, {!r})".format, st.sampled_from(("a", "t", "q", "b", 0, None, True, 0.0)), trees, trees
    ),
    st.builds("answer('a', 'v', {!r}, {!r})".format, trees, trees),
    st.sampled_from(
        (
            "os.close(3)",
            "os.close(4)",
            "os._exit(0)",
            "os.dup2(3, 4)",
            "os.dup2(4, 3)",
            "os.lseek(4, 0, 0)",
            "os.lseek(4, 1 << 40, 0)",
            "send(b'.', 3)",
            "line(b'[' * 10 ** 6)",
            "line(b'\\n' * 10 ** 5)",
            "nonce()",
        )
    ),
)


def _wire_shot(before: list[str], within: list[str], value: str, form: int) -> Shot:
    names = "nan, inf = float('nan'), float('inf')\n"
    body = "".join(f"    {act}\n" for act in within)
    code = WIRE + names + "\n".join(before) + f"\ndef f(*a):\n{body}    return {value}\n"
    known = secret(code)
    asserts = tuple(f"assert f({i}) == {known + i}" for i in range(3))
    forms = (asserts, (*asserts, f"x = f(1)\nassert x == {known}"), (f"x = f(1)\nassert x == {known}",))
    return Shot("wire", code, forms[form])


wires: st.SearchStrategy[Shot] = st.builds(
    _wire_shot,
    st.lists(_act, max_size=3),
    st.lists(_act, max_size=3),
    st.sampled_from(("None", "1", "object()", "[1]", "os._exit(3)")),
    st.integers(0, 2),
)
