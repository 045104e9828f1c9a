"""JSONL: what goes out comes back, a bad line has its place, and a killed writer costs one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_core.records import (
    Instruction,
    JsonlWriter,
    Outcome,
    Program,
    Sample,
    StdinTest,
    TestSuite,
    Verdict,
    append_jsonl,
    from_json,
    read_jsonl,
    to_json,
    write_atomic,
    write_jsonl,
)
from plum_core.records.codec import encode_line
from tests.conftest import ROOT

VERDICT = Verdict(
    id="a/0", outcome=Outcome.FAILED, passed=(True, False), detail="", wall_s=0.5, cpu_s=0.25, peak_mib=9.0
)


def lines(path: Path, *texts: str) -> Path:
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def sample(**changes: object) -> Sample:
    known: dict[str, object] = {
        "instruction_id": "i",
        "index": 0,
        "text": "x",
        "code": "x",
        "token_ids": (1, 2),
        "logprobs": (-0.5, -1.0),
        "prompt_token_ids": (3,),
        "finish_reason": "stop",
        "policy": "p",
        "seed": 7,
    }
    return Sample(**(known | changes))  # type: ignore[arg-type]


@given(st.text(), st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.integers())
def test_a_record_comes_back_equal(text: str, logprobs: list[float], seed: int) -> None:
    before = sample(text=text, logprobs=tuple(logprobs), seed=seed, extra={"mine": [text, None]})
    line = encode_line(before)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert from_json(Sample, json.loads(line)) == before


def test_every_record_type_comes_back(tmp_path: Path) -> None:
    records = [
        Instruction(id="i", prompt="p", meta={"k": [1]}),
        TestSuite(instruction_id="i", tests=("assert 1",), stdin_tests=(StdinTest(input="1", output="2"),)),
        Program(id="i/0", code="x", calls=({"call": "f(1)", "expected": 2},), limits={"cpu_s": 1}),
        VERDICT,
    ]
    for record in records:
        path = tmp_path / f"{type(record).__name__}.jsonl"
        assert write_jsonl(path, [record, record]) == 2
        assert list(read_jsonl(path, type(record))) == [record, record]


def test_a_lone_surrogate_is_written_as_an_escape() -> None:
    line = encode_line(Instruction(id="i", prompt="\ud800"))
    assert from_json(Instruction, json.loads(line.decode())).prompt == "\ud800"


def test_unknown_keys_survive_in_their_order(tmp_path: Path) -> None:
    path = lines(tmp_path / "i.jsonl", '{"zeta":1,"id":"i","alpha":{"b":2},"prompt":"p"}')
    (record,) = read_jsonl(path, Instruction)
    assert list(to_json(record))[-2:] == ["zeta", "alpha"]
    assert record.extra == {"zeta": 1, "alpha": {"b": 2}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"id":"i"}', "key 'prompt' is missing"),
        ('{"id":3,"prompt":"p"}', "key 'id' wants a string, got 3"),
        ('{"id":"i","prompt":"p","meta":[]}', "key 'meta' wants an object"),
        ('["i"]', "wants an object"),
        ('{"id":"i"', "not JSON at column 10"),
        ('{"id":"i","prompt":NaN}', "NaN is not JSON"),
    ],
)
def test_a_bad_line_has_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    path = lines(tmp_path / "in.jsonl", '{"id":"a","prompt":"b"}', "", text, '{"id":"c","prompt":"d"}')
    with pytest.raises(ValueError, match=r"in\.jsonl:3: ") as caught:
        list(read_jsonl(path, Instruction))
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
    reader = read_jsonl(path, Instruction, skip_bad=True)
    assert [r.id for r in reader] == ["a", "c"] and reader.skipped == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"token_ids": [1, "2"]}, r"key 'token_ids\[1\]' wants an integer"),
        ({"index": True}, "key 'index' wants an integer, got true"),
        ({"index": 1.0}, "key 'index' wants an integer, got 1.0"),
        ({"logprobs": 1}, "key 'logprobs' wants a list"),
    ],
)
def test_a_wrong_type_names_its_key(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        from_json(Sample, to_json(sample()) | change)


def test_an_integer_will_do_for_a_number_and_outcomes_are_closed() -> None:
    assert from_json(Sample, to_json(sample()) | {"logprobs": [0, -1]}).logprobs == (0.0, -1.0)
    with pytest.raises(ValueError, match="key 'outcome' wants one of passed, failed"):
        from_json(Verdict, to_json(VERDICT) | {"outcome": "fine"})


def test_what_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with pytest.raises(ValueError, match="Sample cannot be written"):
        write_jsonl(path, [sample(), sample(logprobs=(float("nan"),))])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="extra holds 'text'"):
        encode_line(sample(extra={"text": "y"}))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "f.jsonl"
    write_atomic(path, "old")

    def broken() -> object:
        yield VERDICT
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_jsonl(path, broken())  # type: ignore[arg-type]
    assert path.read_text() == "old" and os.listdir(path.parent) == ["f.jsonl"]


@pytest.mark.parametrize("tail", [b"", b'{"id', b"x" * 200_000])
def test_appending_cuts_off_what_a_killed_writer_left(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "m.jsonl"
    append_jsonl(path, [{"step": 1}])
    with path.open("ab") as file:
        file.write(tail)
    append_jsonl(path, [{"step": 2}])
    assert path.read_bytes() == b'{"step":1}\n{"step":2}\n'


def test_kill_loses_at_most_the_line_in_hand(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, itertools\nfrom plum_core.records import JsonlWriter\nw = JsonlWriter(sys.argv[1])\n"
            "for i in itertools.count():\n    w.write({'i': i})\n    if i == 300: print(flush=True)\n",
            str(path),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with JsonlWriter(path) as writer:
        writer.write({"i": "after"})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["i"] for r in rows[:-1]] == list(range(len(rows) - 1)) and len(rows) > 300


def test_missing_files_and_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_jsonl(tmp_path / "no.jsonl", Sample)
    with pytest.raises(ValueError, match="is a folder"):
        read_jsonl(tmp_path, Sample)


def test_a_byte_order_mark_and_a_missing_last_newline_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "i.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id":"a","prompt":"b"}\r\n{"id":"c","prompt":"d"}')
    assert [r.id for r in read_jsonl(path, Instruction)] == ["a", "c"]
