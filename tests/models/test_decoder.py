"""The decoder against transformers' on the same random weights."""

from __future__ import annotations

import pytest
import torch
import transformers

from plum_models import DecoderConfig, load_decoder
from plum_models.decoder import for_inference
from tests.models.conftest import LAYOUTS

LENGTHS = [1, 2, 17, 130]


@pytest.mark.parametrize("length", LENGTHS)
def test_logits_equal_transformers(make, hf_folder, layout, length):
    model = make.reference(layout)
    decoder = load_decoder(hf_folder(model))
    ids = torch.randint(0, 320, (2, length))
    with torch.no_grad():
        torch.testing.assert_close(decoder.logits(decoder(ids)), model(ids).logits, rtol=1e-5, atol=1e-5)


def unfused(name, grad):
    """Names and gradients as checkpoints have them: transformers holds all experts of a layer in two tensors."""
    name = name.removeprefix("model.")
    prefix, _, kind = name.rpartition(".")
    if not prefix.endswith("mlp.experts"):
        return [(name, grad)]
    if kind == "down_proj":
        return [(f"{prefix}.{i}.down_proj.weight", g) for i, g in enumerate(grad)]
    halves = [zip(("gate_proj", "up_proj"), g.chunk(2), strict=True) for g in grad]
    return [(f"{prefix}.{i}.{part}.weight", g) for i, both in enumerate(halves) for part, g in both]


def test_gradients_equal_transformers(make, hf_folder, layout):
    model = make.reference(layout)
    decoder = load_decoder(hf_folder(model))
    for length in LENGTHS:
        ids = torch.randint(0, 320, (2, length))
        for m in (model, decoder):
            m.zero_grad()
        model(ids).logits.logsumexp(-1).mean().backward()
        decoder.logits(decoder(ids)).logsumexp(-1).mean().backward()
        gradients_are_equal(decoder, model, all_used=length > 17)


def gradients_are_equal(decoder, model, *, all_used=True):
    """To 1e-5 of each weight's largest gradient; all_used: none of theirs is zero."""
    theirs = {name: grad for name, p in model.named_parameters() for name, grad in unfused(name, p.grad)}
    ours = dict(decoder.named_parameters())
    assert set(ours) == set(theirs)
    rounding = 1e-6 * max(grad.abs().max().item() for grad in theirs.values())  # one position: q and k have no more
    for name, parameter in ours.items():
        largest = theirs[name].abs().max().item()
        assert largest > 0 or not all_used, name
        torch.testing.assert_close(
            parameter.grad if parameter.grad is not None else torch.zeros_like(parameter),
            theirs[name],
            rtol=1e-5,
            atol=1e-5 * largest + rounding,
        )


def test_bf16_is_within_the_error_of_transformers_bf16(make, hf_folder, layout):
    model = make.reference(layout)
    decoder = load_decoder(hf_folder(model), dtype=torch.bfloat16)
    ids = torch.randint(0, 320, (2, 17))
    with torch.no_grad():
        exact = model(ids).logits
        plain = (model.bfloat16()(ids).logits.float() - exact).abs()
        ours = (decoder.logits(decoder(ids)).float() - exact).abs()
    assert plain.max() > 1e-3  # bf16 was really used
    if decoder.config.num_experts:  # a near tie may send a token to another expert in either: a jump, not an error
        assert ours.median() <= 1.1 * plain.median() + 1e-3
        return
    assert ours.mean() <= 1.1 * plain.mean() + 1e-3
    assert ours.max() <= 1.5 * plain.max() + 1e-2


def test_padded_logits_equal_transformers(make, hf_folder, layout):
    model = make.reference(layout)
    decoder = load_decoder(hf_folder(model))
    lengths = [1, 2, 17, 40 if "dynamic" in layout else 130]  # dynamic: the padded length would change the angles
    ids = torch.randint(0, 320, (len(lengths), lengths[-1]))
    with torch.no_grad():
        ours = decoder.logits(decoder(ids))
        for row, length in enumerate(lengths):
            theirs = model(ids[row : row + 1, :length]).logits
            torch.testing.assert_close(ours[row : row + 1, :length], theirs, rtol=1e-5, atol=1e-5)


def test_positions_are_taken_from_the_caller(make):
    decoder = make.decoder()
    ids = torch.randint(0, 320, (2, 6))
    explicit = torch.arange(6).expand(2, 6)
    assert torch.equal(decoder(ids, explicit), decoder(ids))
    stretched = decoder(ids, explicit * 2)
    assert not torch.allclose(stretched, decoder(ids), atol=1e-3)
    shifted = decoder(ids, explicit + 40)  # rotary positions are relative
    torch.testing.assert_close(shifted, decoder(ids), rtol=1e-3, atol=1e-4)


def test_for_inference_is_the_same_function_on_copies(make, layout, hf_folder):
    decoder = load_decoder(hf_folder(make.reference(layout)))
    ids = torch.randint(0, 320, (2, 17))
    before = decoder(ids).detach()
    twin = for_inference(decoder)
    torch.testing.assert_close(twin(ids), before, rtol=1e-5, atol=1e-5)
    assert twin.head_weight is decoder.head_weight
    if decoder.config.kv_lora_rank:  # latents have nothing to join; the dense layer's gate and up are copies
        part, attention = decoder.layers[0].mlp, twin.layers[0].self_attn
        assert part.joined is None and attention.kv_b_proj.weight is decoder.layers[0].self_attn.kv_b_proj.weight
        with torch.no_grad():
            part.gate_proj.weight.zero_()
        assert not torch.allclose(decoder(ids), before, atol=1e-3)
        torch.testing.assert_close(twin(ids), before, rtol=1e-5, atol=1e-5)
        return
    assert decoder.layers[0].self_attn.joined is None
    with torch.no_grad():
        decoder.layers[0].self_attn.q_proj.weight.zero_()
    assert not torch.allclose(decoder(ids), before, atol=1e-3)
    torch.testing.assert_close(twin(ids), before, rtol=1e-5, atol=1e-5)


def test_tied_and_untied_heads(make):
    tied, untied = make.decoder(), make.decoder(tie_word_embeddings=False)
    assert tied.head_weight is tied.embed_tokens.weight
    assert untied.head_weight is untied.lm_head.weight
    assert {n for n, _ in untied.named_parameters()} - {n for n, _ in tied.named_parameters()} == {"lm_head.weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(num_attention_heads=4, num_key_value_heads=3), r"num_attention_heads \(4\) must be a multiple of"),
        (dict(head_dim=7), "head_dim must be even"),
        (dict(num_key_value_heads=0), "num_key_value_heads must be above 0, got 0"),
        (dict(vocab_size=-2), "vocab_size must be above 0, got -2"),
    ],
)
def test_sizes_that_make_no_decoder_are_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make.decoder(**changes)


def test_config_holds_what_transformers_calls_by_the_same_name():
    ours = set(DecoderConfig.__dataclass_fields__)
    for theirs in (transformers.LlamaConfig(), transformers.Qwen3MoeConfig(), transformers.Gemma2Config()):
        shared = ours & set(theirs.to_dict())
        assert {"vocab_size", "hidden_size", "num_key_value_heads", "tie_word_embeddings"} <= shared


@pytest.mark.parametrize("name", [name for name in LAYOUTS if "moe" not in name and "deepseek" not in name])
def test_dense_layouts_compile_without_a_graph_break(make, hf_folder, name):
    decoder = load_decoder(hf_folder(make.reference(name)))
    ids = torch.randint(0, 320, (2, 17))
    torch._dynamo.reset()
    compiled = torch.compile(decoder, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids), decoder(ids))
