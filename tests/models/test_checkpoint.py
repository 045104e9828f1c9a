"""Checkpoint folders: read as transformers wrote them, written so that transformers reads them, refused when broken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import plum_models


@pytest.fixture
def saved(make, tmp_path):
    folder = tmp_path / "model"
    plum_models.save(make.decoder(), make.tokenizer(), folder)
    return folder


def edit(path: Path, **changes) -> None:
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (raw | changes).items() if v is not ...}))


def test_transformers_loads_what_we_save(make, hf_folder, layout, tmp_path):
    decoder, tokenizer = plum_models.load(hf_folder(make.reference(layout)))
    folder = tmp_path / "ours"
    plum_models.save(decoder, tokenizer, folder)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.randint(0, 320, (2, 17))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, decoder.logits(decoder(ids)), rtol=1e-5, atol=1e-5)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)  # Auto has a Qwen2 class that re-splits text
    text = make.texts[0]
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_sharded_checkpoints(make, hf_folder):
    model = make.reference("llama")
    folder = hf_folder(model, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    decoder = plum_models.load_decoder(folder)
    for name, weight in decoder.named_parameters():
        theirs = model.get_parameter(name if name.startswith("lm_head") else f"model.{name}")
        assert torch.equal(weight, theirs), name


@pytest.mark.parametrize(("dtype", "loaded"), [(None, torch.bfloat16), (torch.float32, torch.float32)])
def test_dtypes(make, tmp_path, dtype, loaded):
    decoder = make.decoder()
    plum_models.save(decoder, make.tokenizer(), tmp_path / "m", dtype=torch.bfloat16)
    assert {t.dtype for t in load_file(tmp_path / "m/model.safetensors").values()} == {torch.bfloat16}
    again, _ = plum_models.load(tmp_path / "m", dtype=dtype)
    assert {p.dtype for p in again.parameters()} == {loaded}
    for ours, read in zip(decoder.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours.bfloat16().float(), read.float()) and read.requires_grad
    assert json.loads((tmp_path / "m/config.json").read_text())["torch_dtype"] == "bfloat16"


def test_save_replaces_a_checkpoint_and_nothing_else(make, saved, tmp_path):
    other = make.decoder(hidden_size=16)
    plum_models.save(other, make.tokenizer(), saved)
    assert plum_models.fingerprint(plum_models.load_decoder(saved)) == plum_models.fingerprint(other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="holds files that are no checkpoint"):
        plum_models.save(other, make.tokenizer(), tmp_path / "work")
    assert (tmp_path / "work/thesis.tex").read_text() == "years"


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_failed_save_leaves_the_old_checkpoint(make, saved, tmp_path, monkeypatch, failing):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(*args):
        raise OSError("disk full")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda s, t: full() if s.name.endswith("partial") else rename(s, t))
    with pytest.raises(OSError, match="disk full"):
        plum_models.save(make.decoder(hidden_size=16), make.tokenizer(), saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_fingerprint_is_of_names_types_and_bytes(make):
    decoder = make.decoder()
    mark = plum_models.fingerprint(decoder)
    assert mark == plum_models.fingerprint(make.decoder()) and len(mark) == 16
    assert mark != plum_models.fingerprint(make.decoder().bfloat16())
    with torch.no_grad():
        decoder.norm.weight[3] += 1e-6
    assert mark != plum_models.fingerprint(decoder)


def test_what_is_missing_is_named(saved):
    with pytest.raises(FileNotFoundError, match=r"nowhere/config.json is missing: name the folder"):
        plum_models.load(saved / "nowhere")
    (saved / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer.json is missing"):
        plum_models.load(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing"):
        plum_models.load_decoder(saved)


def test_a_missing_shard_is_named(make, hf_folder):
    folder = hf_folder(make.reference("llama"), max_shard_size="40KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=shard.name):
        plum_models.load_decoder(folder)
    edit(folder / "model.safetensors.index.json", weight_map=...)
    with pytest.raises(ValueError, match="no weight_map"):
        plum_models.load_decoder(folder)


@pytest.mark.parametrize("kept", [0, 5, 400, -1])
def test_truncated_weights(saved, kept):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model.safetensors is truncated or not a safetensors file .* copy it again"):
        plum_models.load(saved)


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


NAME = "model.layers.1.mlp.up_proj.weight"


def test_tensors_that_do_not_fit_are_named_with_both_shapes(saved):
    change_tensors(saved, lambda t: t.update({NAME: torch.zeros(3, 5)}))
    with pytest.raises(ValueError, match=rf"tensor {NAME} has shape \(3, 5\), config.json asks for \(48, 32\)"):
        plum_models.load(saved)
    change_tensors(saved, lambda t: t.pop(NAME))
    with pytest.raises(ValueError, match=rf"tensor {NAME} \(48, 32\) is missing"):
        plum_models.load(saved)
    change_tensors(saved, lambda t: t.update({NAME: torch.zeros(48, 32), "model.extra": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"tensor model\.extra is not part of the model"):
        plum_models.load(saved)


def test_a_copy_of_the_tied_head_is_no_surprise(saved):
    change_tensors(saved, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert plum_models.load_decoder(saved).lm_head is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model_type="mamba"), "model_type 'mamba' is not supported; this decoder reads llama, qwen2"),
        (dict(model_type=...), "model_type None is not supported"),
        (dict(hidden_size=...), "hidden_size must be a whole number from 1 on, got None"),
        (dict(num_key_value_heads=3), r"config.json: num_attention_heads \(4\) must be a multiple"),
        (dict(hidden_size="32"), "hidden_size must be a whole number from 1 on, got '32'"),
    ],
)
def test_configs_that_are_refused_by_name(saved, changes, message):
    edit(saved / "config.json", **changes)
    with pytest.raises(ValueError, match=message):
        plum_models.load(saved)


def test_config_that_is_not_json(saved):
    (saved / "config.json").write_text('{\n "model_type": "llama",\n')
    with pytest.raises(ValueError, match=r"config.json:3: not JSON .* copy the file again"):
        plum_models.load(saved)
    (saved / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="a JSON object was expected, not list"):
        plum_models.load(saved)


def test_a_decoder_that_no_layout_describes_is_not_saved(make, tmp_path):
    with pytest.raises(ValueError, match="a decoder with attention_out_bias=True is not LlamaForCausalLM's: no layout"):
        plum_models.save(make.decoder(attention_out_bias=True), make.tokenizer(), tmp_path / "m")
    assert not any(tmp_path.iterdir())


def test_shards_are_written_with_their_index(make, saved, tmp_path):
    decoder = make.decoder(tie_word_embeddings=False)
    plum_models.save(decoder, make.tokenizer(), tmp_path / "m", shard_bytes=40_000)
    shards = sorted((tmp_path / "m").glob("model-*.safetensors"))
    assert len(shards) > 2 and not (tmp_path / "m/model.safetensors").exists()
    index = json.loads((tmp_path / "m/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {p.name for p in shards}
    assert index["metadata"]["total_size"] == sum(p.nbytes for p in decoder.parameters())
    biggest = max(p.nbytes for p in decoder.parameters())
    assert all(sum(t.nbytes for t in load_file(p).values()) <= max(40_000, biggest) for p in shards)
    assert plum_models.fingerprint(plum_models.load_decoder(tmp_path / "m")) == plum_models.fingerprint(decoder)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    ids = torch.randint(0, 320, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, decoder.logits(decoder(ids)), rtol=1e-5, atol=1e-5)
    plum_models.save(decoder, make.tokenizer(), tmp_path / "m")  # one file replaces the shards
    assert not list((tmp_path / "m").glob("model-*"))


def test_a_tensor_in_two_files_is_named(make, tmp_path):
    plum_models.save(make.decoder(), make.tokenizer(), tmp_path / "m", shard_bytes=20_000)
    first, second = sorted((tmp_path / "m").glob("model-*.safetensors"))[:2]
    both = load_file(second) | {"model.embed_tokens.weight": load_file(first)["model.embed_tokens.weight"]}
    save_file(both, second, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"embed_tokens.weight stands in another file of this checkpoint too"):
        plum_models.load_decoder(tmp_path / "m")


def test_what_is_written_to_a_loaded_weight_stays_out_of_its_file(saved):
    before = (saved / "model.safetensors").read_bytes()
    decoder = plum_models.load_decoder(saved)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(1)
    assert (saved / "model.safetensors").read_bytes() == before
    again = plum_models.load_decoder(saved)
    assert torch.equal(again.norm.weight + 1, decoder.norm.weight)
