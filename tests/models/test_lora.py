"""Adapters: they start as nothing, are trained alone, come off, merge, and travel in PEFT's layout."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
import transformers

import plum_models
from plum_models import LoraConfig, adapter_off, add_lora, fold_lora, load_lora, merge_lora, save_lora, unmerge_lora
from plum_models.decoder import for_inference
from plum_models.lora import adapted

IDS = torch.randint(0, 320, (2, 17), generator=torch.Generator().manual_seed(0))
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def disturb(decoder) -> None:
    """As if trained: B is no longer zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _, layer in adapted(decoder):
            layer.lora_B.normal_(0, 0.05)


@pytest.fixture
def trained(make):
    decoder = make.decoder()
    add_lora(decoder, LoraConfig(rank=3, alpha=6.0), seed=0)
    disturb(decoder)
    return decoder


def test_fresh_adapters_change_nothing_and_are_trained_alone(make):
    decoder = make.decoder()
    before, count = decoder(IDS).detach(), sum(1 for _ in decoder.parameters())
    names = {name for name, _ in decoder.named_parameters()}
    add_lora(decoder, LoraConfig(rank=3, alpha=6.0), seed=0)
    assert torch.equal(decoder(IDS), before)
    learned = [name for name, p in decoder.named_parameters() if p.requires_grad]
    assert len(learned) == 2 * 7 * 2 and all(".lora_" in name for name in learned)
    assert {n for n, _ in decoder.named_parameters()} - set(learned) == names and len(names) == count
    decoder(IDS).square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in decoder.parameters())


def test_the_formula(trained):
    layer = trained.layers[0].self_attn.q_proj
    x = torch.randn(5, 32)
    expected = x @ layer.weight.T + 6.0 / 3 * (x @ layer.lora_A.T) @ layer.lora_B.T
    torch.testing.assert_close(layer(x), expected)


def test_starts_are_seeded(make):
    def first(seed):
        decoder = make.decoder()
        add_lora(decoder, LoraConfig(rank=3), seed)
        return decoder.layers[1].mlp.up_proj.lora_A

    assert torch.equal(first(4), first(4)) and not torch.equal(first(4), first(5))


def test_switched_off_it_is_the_decoder_from_before(make, trained):
    before = make.decoder()(IDS)
    assert not torch.allclose(trained(IDS), before, atol=1e-3)
    with adapter_off(trained):
        assert torch.equal(trained(IDS), before)
        with adapter_off(trained):
            assert torch.equal(trained(IDS), before)
        assert torch.equal(trained(IDS), before)  # the inner block did not switch it on again
    assert not torch.allclose(trained(IDS), before, atol=1e-3)


def test_merged_is_unmerged(trained):
    before = trained(IDS).detach()
    weight = trained.layers[0].self_attn.q_proj.weight.detach().clone()
    merge_lora(trained)
    assert not torch.equal(trained.layers[0].self_attn.q_proj.weight, weight)
    torch.testing.assert_close(trained(IDS), before, rtol=1e-5, atol=1e-5)
    merge_lora(trained)  # a second time adds nothing
    torch.testing.assert_close(trained(IDS), before, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="merged into its weights: unmerge_lora them first"), adapter_off(trained):
        pass
    unmerge_lora(trained)
    torch.testing.assert_close(trained.layers[0].self_attn.q_proj.weight, weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(trained(IDS), before, rtol=1e-5, atol=1e-5)


def test_for_inference_takes_the_adapters_along(trained):
    torch.testing.assert_close(for_inference(trained)(IDS), trained(IDS), rtol=1e-5, atol=1e-5)


def test_folded_it_is_saved_as_any_other(make, trained, tmp_path):
    before = trained(IDS).detach()
    with pytest.raises(ValueError, match="this decoder has adapters: fold_lora makes it plain"):
        plum_models.save(trained, make.tokenizer(), tmp_path / "m")
    fold_lora(trained)
    assert {n for n, _ in trained.named_parameters()} == {n for n, _ in make.decoder().named_parameters()}
    assert all(p.requires_grad for p in trained.parameters())
    torch.testing.assert_close(trained(IDS), before, rtol=1e-5, atol=1e-5)
    plum_models.save(trained, make.tokenizer(), tmp_path / "m")
    torch.testing.assert_close(plum_models.load_decoder(tmp_path / "m")(IDS), before, rtol=1e-5, atol=1e-5)


def test_biases_stay(make, hf_folder):
    decoder = plum_models.load_decoder(hf_folder(make.reference("qwen2")))
    before = decoder(IDS).detach()
    add_lora(decoder, LoraConfig(rank=2), seed=0)
    assert torch.equal(decoder(IDS), before)
    fold_lora(decoder)
    assert torch.equal(decoder(IDS), before) and decoder.layers[0].self_attn.q_proj.bias is not None


def test_dropout_is_of_training_alone(make):
    decoder = make.decoder()
    add_lora(decoder, LoraConfig(rank=3, dropout=0.5), seed=0)
    disturb(decoder)
    assert not torch.equal(decoder(IDS), decoder(IDS))
    decoder.eval()
    assert torch.equal(decoder(IDS), decoder(IDS))


def test_saved_and_loaded(make, trained, tmp_path):
    save_lora(trained, tmp_path / "a", base="somewhere")
    again = make.decoder()
    assert load_lora(again, tmp_path / "a") == LoraConfig(rank=3, alpha=6.0, targets=tuple(sorted(ALL)))
    assert torch.equal(again(IDS), trained(IDS))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_transformers_and_peft_load_what_we_saved_and_we_what_they_did(make, hf_folder, tmp_path):
    if importlib.util.find_spec("peft") is None:
        pytest.skip("peft is not installed: pip install 'plum[test]'")
    import peft

    folder = hf_folder(make.reference("qwen2"))
    decoder = plum_models.load_decoder(folder)
    add_lora(decoder, LoraConfig(rank=4, alpha=6.0, targets=("q_proj", "v_proj", "down_proj")), seed=0)
    disturb(decoder)
    save_lora(decoder, tmp_path / "ours", base=str(folder))
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours")
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, decoder.logits(decoder(IDS)), rtol=1e-5, atol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")
    again = plum_models.load_decoder(folder)
    load_lora(again, tmp_path / "theirs")
    assert torch.equal(again(IDS), decoder(IDS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(rank=0), "rank must be at least 1, got 0"),
        (dict(alpha=0), "alpha must be > 0"),
        (dict(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (dict(targets=()), "targets must name at least one layer"),
        (dict(targets=("lm_head",)), "target 'lm_head' is no linear layer of a decoder"),
        (dict(targets=("q_proj", "c_fc")), "target 'c_fc' is in no layer of this decoder"),
    ],
)
def test_what_makes_no_adapter_is_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        add_lora(make.decoder(), LoraConfig(**changes), seed=0)


def test_experts_and_second_adapters_are_refused(make, hf_folder, trained):
    with pytest.raises(ValueError, match="'gate_proj' names experts, which take no adapters"):
        add_lora(plum_models.load_decoder(hf_folder(make.reference("qwen3-moe"))), LoraConfig(), seed=0)
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(trained, LoraConfig(), seed=0)
    with pytest.raises(ValueError, match="no adapters to switch off"), adapter_off(make.decoder()):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(use_dora=True), "use_dora = True is not supported"),
        (dict(peft_type="IA3"), "peft_type = 'IA3' is not supported"),
        (dict(rank_pattern={"q_proj": 4}), "rank_pattern = .* is not supported"),
        (dict(target_modules="all-linear"), "target_modules must be a list"),
        (dict(r=...), "r is missing"),
        (dict(r=5), r"lora_A.weight has shape \(3, 48\), the decoder asks for \(5, 48\)"),
        (dict(target_modules=["q_proj"]), "belongs to no layer of this decoder's targets"),
    ],
)
def test_adapters_that_would_compute_something_else_are_refused(make, trained, tmp_path, changes, message):
    save_lora(trained, tmp_path / "a")
    path = tmp_path / "a/adapter_config.json"
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in raw.items() if v is not ...}))
    decoder = make.decoder()
    with pytest.raises(ValueError, match=message):
        load_lora(decoder, tmp_path / "a")
    assert not adapted(decoder)
