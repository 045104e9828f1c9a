"""Published layouts are told by their keys, streamed, and a bad row has its place told."""

from __future__ import annotations

import gzip
import itertools
import json

import pytest

from plum_core.instructions import LAYOUTS, read_instructions
from tests.conftest import shared_data

TALK = [{"from": "system", "value": "S"}, {"from": "human", "value": "Sort it."}, {"from": "gpt", "value": "sorted"}]
ROWS = {
    "oss-instruct": {"lang": "python", "raw_index": 4, "problem": "Sort it.", "solution": "sorted", "seed": "x"},
    "evol-instruct": {"instruction": "Sort it.", "output": "sorted"},
    "magicoder-evol-instruct": {"instruction": "Sort it.", "response": "sorted"},
    "sharegpt": {"id": "talk", "conversations": [*TALK, {"from": "human", "value": "Why?"}]},
    "chat": {"messages": [{"role": "user", "content": "Sort it."}, {"role": "assistant", "content": "sorted"}]},
    "alpaca": {"instruction": "Sort it.", "input": "", "output": "sorted"},
    "codegen-instruct": {"instruction": "Sort it.\n", "input": None, "response": "sorted"},
    "self-oss-instruct": {
        "id": 7, "instruction": "Sort it.", "response": "sorted", "seed": "s", "concepts": [], "prompt": "### long",
    },
    "completion": {"prompt": "Sort it.", "completion": "sorted"},
    "plum": {"id": "mine", "prompt": "Sort it.", "entry_point": "f", "solution": "sorted"},
}  # fmt: skip
IDS = {"sharegpt": "talk", "self-oss-instruct": "7", "plum": "mine"}


def jsonl(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["jsonl", "json", "jsonl.gz", "json.gz", "parquet"])
def test_every_layout_in_every_form(tmp_path, layout, form):
    path, rows = tmp_path / f"set.{form}", [ROWS[layout]]
    if form == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows, indent=1) if "jsonl" not in form else "\n".join(map(json.dumps, rows))
        path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    reader = read_instructions(path)
    [found] = reader
    assert reader.layout is LAYOUTS[layout]
    assert (found.id, found.prompt, found.extra["solution"]) == (IDS.get(layout, "set-1"), "Sort it.", "sorted")


def test_every_layout_has_a_row_here():
    assert set(ROWS) == set(LAYOUTS)


def test_an_input_follows_its_instruction(tmp_path):
    [found] = read_instructions(jsonl(tmp_path / "a.jsonl", [ROWS["alpaca"] | {"input": " [3, 1] "}]))
    assert found.prompt == "Sort it.\n\n[3, 1]"


def test_a_layout_may_be_named(tmp_path):
    row = ROWS["self-oss-instruct"]
    path = jsonl(tmp_path / "a.jsonl", [row])
    assert [i.prompt for i in read_instructions(path, layout="magicoder-evol-instruct")] == ["Sort it."]
    with pytest.raises(ValueError, match=r"a\.jsonl:1: a row of the layout alpaca needs instruction, input, output"):
        list(read_instructions(path, layout="alpaca"))
    with pytest.raises(ValueError, match="no layout 'alpacca': there are self-oss-instruct"):
        read_instructions(path, layout="alpacca")


GOOD = ROWS["alpaca"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "not JSON at column"),
        ("[1]", "wants an object, got list"),
        (json.dumps({"instruction": "x", "output": "y"}), "a row of the layout alpaca needs"),
        (json.dumps(GOOD | {"instruction": " "}), "key 'instruction' is empty"),
        (json.dumps(GOOD | {"instruction": 3}), "key 'instruction' wants a string, got int"),
        (json.dumps(GOOD | {"output": [1]}), "key 'output' wants a string, got list"),
        ('{"instruction": ' + "9" * 5000 + "}", "digits"),
        (json.dumps(GOOD | {"id": "same"}) + "\n" + json.dumps(GOOD | {"id": "same"}), "same"),
    ],
)
def test_a_bad_row_has_its_place_told_or_is_counted(tmp_path, row, words):
    path = jsonl(tmp_path / "a.jsonl", [GOOD, "", row, GOOD])
    bad = 3 + row.count("\n")
    with pytest.raises(ValueError, match=rf"a\.jsonl:{bad}: .*{words}"):
        list(read_instructions(path))
    reader = read_instructions(path, skip_bad=True)
    assert len(list(reader)) == 2 + row.count("\n") and reader.skipped == 1


@pytest.mark.parametrize("turns", [[], [{"from": "gpt", "value": "hi"}], "text", [3], [{"from": "human", "value": ""}]])
def test_a_talk_without_a_question_is_bad(tmp_path, turns):
    path = jsonl(tmp_path / "a.jsonl", [{"conversations": turns}])
    with pytest.raises(ValueError, match=r"a\.jsonl:1"):
        list(read_instructions(path))


def test_an_unknown_layout_is_refused_with_its_keys(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"question": "x", "reply": "y"}])
    for skip_bad in (False, True):
        with pytest.raises(ValueError, match="no known layout has the keys question, reply; there are self-oss"):
            list(read_instructions(path, skip_bad=skip_bad))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"instruction": "a", "input": "", "output": ""},\n{"instruction": "b", ', r":2: not JSON"),
        ('[{"instruction": "a", "input": "", "output": ""},\n', r":2: the list does not end"),
        ('[{"instruction": "a", "input": "", "output": ""},\n\n3]', r":3: wants a list of objects, found '3\]'"),
        ("[" * 100_000, ": wants a list of objects"),
        ('[{"a":' * 50_000, "nested too deeply|not JSON"),
    ],
)
def test_a_broken_list_has_its_line_told(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        list(read_instructions(path))


def test_a_broken_archive_is_one_sentence(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 1000)[:-20])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        list(read_instructions(path))
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match="after row 0"):
        list(read_instructions(path))


def test_rows_come_one_at_a_time(tmp_path):
    """The end of the file is broken, and nobody who stops before it hears of that."""
    path = tmp_path / "a.json"
    path.write_text("[" + ",\n".join([json.dumps(GOOD | {"input": "x" * 100})] * 5000) + ", broken")
    assert len(list(itertools.islice(read_instructions(path), 4000))) == 4000
    with pytest.raises(ValueError, match=r"a\.json:5000: "):
        list(read_instructions(path))


@pytest.mark.parametrize(
    ("name", "layout", "count"),
    [
        ("codegen-instruct.json.gz", "codegen-instruct", 4535),
        ("dummy_conversation.json", "sharegpt", 500),
        ("seed_evol.json", "evol-instruct", 21),
        ("oasstcommitpackft.jsonl", "completion", 151),
    ],
)
def test_published_files(name, layout, count):
    reader = read_instructions(shared_data(f"instruct_permissive/{name}"), skip_bad=True)
    found = list(reader)
    assert reader.layout is LAYOUTS[layout] and len(found) + reader.skipped == count
    assert reader.skipped <= count // 100 and sum("solution" in i.extra for i in found) >= 0.9 * len(found)
