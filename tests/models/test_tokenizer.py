"""Text to ids and back: trained here, read from real files, and the special ids that files name."""

from __future__ import annotations

import json

import pytest
import transformers

from plum_models import Tokenizer

CORPUS = [
    f"# Return the sum of the squares of the {kind} numbers in nums, capped at {i}.\ndef solve(nums):\n    "
    f"total = 0\n    for n in nums:\n        if n % 2 == {i % 2}:\n            total += n * n\n    return total\n"
    for i, kind in enumerate(["even", "odd", "positive", "negative"] * 12)
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CORPUS, 420)


@pytest.mark.parametrize("text", [*CORPUS[:2], "", " ", "\n\n\n", "\t x\r\n", "naïve 日本 🎉", "a\x00b", "<|endoftext"])
def test_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and max(ids, default=0) < tokenizer.vocab_size


def test_training_is_deterministic(tokenizer):
    again = Tokenizer.train(iter(CORPUS), 420)
    assert again.files() == tokenizer.files()
    assert 300 < tokenizer.vocab_size <= 420


def test_digits_stand_alone_and_merges_cross_words_but_no_lines(tokenizer):
    pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    assert [tokenizer.decode([i]) for i in tokenizer.encode("x = 1204")][-4:] == ["1", "2", "0", "4"]
    assert not [p for p in pieces if len(p) > 1 and any(c.isdigit() for c in p)]
    assert any(" " in p.strip() for p in pieces), "no merge crosses a word"
    lines = [p for p in pieces if "\n" in p]
    assert lines and not [p for p in lines if p.strip(" ") != "\n"], "a merge crosses a line"


def test_special_ids(tokenizer):
    assert tokenizer.eos_token_ids == {tokenizer.eos_token_id} and tokenizer.bos_token_id is None
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert tokenizer.decode([tokenizer.eos_token_id, *tokenizer.encode("ab"), tokenizer.pad_token_id]) == "ab"
    with pytest.raises(ValueError, match="needs at least one end-of-sequence id"):
        Tokenizer(tokenizer.inner, eos_token_ids=[])


def write(tokenizer, folder, **files):
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_folder_round_trip_keeps_all_files(tokenizer, tmp_path):
    settings = {"eos_token": {"content": "<|endoftext|>"}, "model_max_length": 99, "chat_template": "{{ messages }}"}
    folder = write(tokenizer, tmp_path, tokenizer_config=settings, generation_config={"temperature": 0.5})
    again = Tokenizer.from_folder(folder)
    assert again.encode(CORPUS[0]) == tokenizer.encode(CORPUS[0])
    files = again.files()
    kept = json.loads(files["tokenizer_config.json"])
    assert {k: kept[k] for k in settings} == settings
    assert json.loads(files["generation_config.json"]) == {"temperature": 0.5}


def test_every_file_may_name_ends(tokenizer, tmp_path):
    ends = dict(generation_config={"eos_token_id": [7, 9]}, config={"eos_token_id": 8})
    read = Tokenizer.from_folder(write(tokenizer, tmp_path, **ends))
    assert read.eos_token_ids == {7, 8, 9, tokenizer.eos_token_id} and read.eos_token_id == 7


def test_what_is_missing_or_broken_is_named(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer.json is missing"):
        Tokenizer.from_folder(tmp_path)
    write(tokenizer, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config.json:1: not JSON"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ValueError, match=r"tokenizer.json is not a tokenizer file .* copy it again"):
        Tokenizer.from_folder(tmp_path)


def test_a_folder_that_names_no_end_is_refused(tokenizer, tmp_path):
    write(tokenizer, tmp_path, tokenizer_config={})
    with pytest.raises(ValueError, match=r"tokenizer_config\.json name no end-of-sequence id"):
        Tokenizer.from_folder(tmp_path)


def vectors(folder, stem):
    """llama.cpp's test vectors: texts divided by a line, and a line of ids for each."""
    texts = (folder / f"{stem}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = (folder / f"{stem}.out").read_text().split("\n")
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=False)]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("deepseek-coder-6.7b-instruct", "ggml-vocab-deepseek-coder.gguf"),
        ("gpt2", "ggml-vocab-gpt-2.gguf"),
        ("starcoder2-3b", "ggml-vocab-starcoder.gguf"),
    ],
)
def test_real_tokenizers_reproduce_their_vectors(shared_data, name, stem):
    folder = shared_data(f"tokenizers/{name}")
    from tokenizers import Tokenizer as RustTokenizer

    read = Tokenizer(RustTokenizer.from_file(str(folder / "tokenizer.json")), eos_token_ids=[0])
    checked = vectors(folder, stem)
    assert len(checked) > 40
    assert [text for text, ids in checked if read.encode(text) != ids] == []


@pytest.mark.parametrize("name", ["deepseek-coder-6.7b-instruct", "qwen3"])
def test_real_folders_encode_as_transformers_does(shared_data, name):
    folder = shared_data(f"tokenizers/{name}")
    ours = Tokenizer.from_folder(folder)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for text in (*CORPUS[:3], "naïve 日本 🎉  \t x", "if x:\n\n\n    y = 10_000.5e-3"):
        ids = ours.encode(text)
        assert ids == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids) == text
    assert ours.bos_token_id != ours.eos_token_id


def test_ends_that_the_special_tokens_map_alone_names_are_read(make, tmp_path):
    for name, content in make.tokenizer().files().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "<|endoftext|>"}, "pad_token": "<|pad|>"})
    )
    found = Tokenizer.from_folder(tmp_path)
    assert (found.eos_token_ids, found.pad_token_id) == ({0}, 1)
