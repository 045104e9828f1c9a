"""config.json to what is computed: every real file resolves or is refused by name, and nothing is ignored."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from plum_models import DecoderConfig, load_decoder
from plum_models.families import FAMILIES, read_config, resolve, to_json
from tests.models.conftest import randomise

LLAMA = dict(
    model_type="llama", vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4
)  # fmt: skip
LATENT = dict(model_type="deepseek_v2", num_experts_per_tok=2)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=512)

REAL = {  # file: (heads, kv heads, head width, theta, biases of q k v and of o, tied, rotary kind, its factor)
    "codellama_7b": (32, 32, 128, 1e6, (False, False), False, "default", 1.0),
    "codellama_13b": (40, 40, 128, 1e6, (False, False), False, "default", 1.0),
    "codellama_34b": (64, 8, 128, 1e6, (False, False), False, "default", 1.0),
    "deepseek-coder-1.3b-instruct": (16, 16, 128, 1e5, (False, False), False, "linear", 4.0),
    "deepseek_v2_lite": (16, 16, 192, 1e4, (False, False), False, "yarn", 40.0),
    "llama2_7b": (32, 32, 128, 1e4, (False, False), False, "default", 1.0),
    "llama3_1_8b": (32, 8, 128, 5e5, (False, False), False, "llama3", 8.0),
    "llama3_1_70b": (64, 8, 128, 5e5, (False, False), False, "llama3", 8.0),
    "llama3_2_1b": (32, 8, 64, 5e5, (False, False), True, "llama3", 32.0),
    "llama3_2_3b": (24, 8, 128, 5e5, (False, False), True, "llama3", 32.0),
    "mistral_7b": (32, 8, 128, 1e4, (False, False), False, "default", 1.0),
    "qwen2.5-1.5b-instruct": (12, 2, 128, 1e6, (True, False), True, "default", 1.0),
    "qwen2.5_3b": (16, 2, 128, 1e6, (True, False), True, "default", 1.0),
    "qwen2_0_5b": (14, 2, 64, 1e6, (True, False), True, "default", 1.0),
    "qwen2_1_5b": (12, 2, 128, 1e6, (True, False), True, "default", 1.0),
    "qwen2_7b": (28, 4, 128, 1e6, (True, False), False, "default", 1.0),
    "qwen3_0.6b": (16, 8, 128, 1e6, (False, False), True, "default", 1.0),
    "qwen3_1.7b": (16, 8, 128, 1e6, (False, False), True, "default", 1.0),
    "smollm2_135m": (9, 3, 64, 1e5, (False, False), True, "default", 1.0),
    "smollm2_360m": (15, 5, 64, 1e5, (False, False), True, "default", 1.0),
    "smollm_135m": (9, 3, 64, 1e4, (False, False), True, "default", 1.0),
    "starcoder2": (36, 4, 128, 1e6, (True, True), True, "default", 1.0),
    "tinyllama_1b_chat_v1.0": (32, 4, 64, 1e4, (False, False), False, "default", 1.0),
}
REFUSED = {
    "gpt2": "model_type 'gpt2' is not supported",
    "gpt_bigcode": "model_type 'gpt_bigcode' is not supported",
    "phi-2": "model_type 'phi-msft' is not supported",
}


def test_every_real_config_is_in_one_of_the_tables(shared_data):
    files = {p.name.removesuffix(".config.json") for p in shared_data("configs").glob("*.config.json")}
    assert files == set(REAL) | set(REFUSED)


@pytest.mark.parametrize("name", REAL)
def test_real_configs_resolve(shared_data, name):
    c = read_config(shared_data(f"configs/{name}.config.json"))
    biases = (c.attention_bias, c.attention_out_bias)
    assert (c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.rope_theta) == REAL[name][:4]
    assert (biases, c.tie_word_embeddings, c.rope.kind, c.rope.factor) == REAL[name][4:]


def test_what_single_layouts_have_of_their_own(shared_data):
    starcoder = read_config(shared_data("configs/starcoder2.config.json"))
    assert (starcoder.norm, starcoder.gated_mlp, starcoder.activation) == ("layer", False, "gelu_tanh")
    assert starcoder.sliding_window == 4096 and starcoder.sliding_layers == tuple(range(32))
    assert read_config(shared_data("configs/mistral_7b.config.json")).sliding_window == 4096
    assert read_config(shared_data("configs/qwen3_0.6b.config.json")).qk_norm
    qwen2 = read_config(shared_data("configs/qwen2_0_5b.config.json"))
    assert qwen2.sliding_window is None and not qwen2.qk_norm  # its window is named, and switched off


@pytest.mark.parametrize("name", REFUSED)
def test_real_configs_that_this_decoder_does_not_compute_are_refused(shared_data, name):
    with pytest.raises(ValueError, match=REFUSED[name]):
        read_config(shared_data(f"configs/{name}.config.json"))


@pytest.mark.parametrize("name", REAL)
def test_transformers_reads_what_is_written_to_the_same_values(shared_data, tmp_path, name):
    c = read_config(shared_data(f"configs/{name}.config.json"))
    written = to_json(c)
    assert resolve(written) == c
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert resolve(theirs.to_dict()) == c  # their defaults for every key that we left out are ours
    assert theirs.architectures == [FAMILIES[written["model_type"]].architecture]


@pytest.mark.parametrize("kind", FAMILIES)
def test_defaults_of_a_layout_are_those_of_transformers(kind):
    theirs = transformers.AutoConfig.for_model(kind)
    sizes = {k: getattr(theirs, k) for k in LLAMA if k != "model_type"}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    if kind == "stablelm":
        rope["rope_parameters"]["partial_rotary_factor"] = 0.25
    asked = {"num_experts_per_tok": 6} if kind == "deepseek_v2" else {}  # which has no default
    assert resolve(theirs.to_dict() | rope | asked) == resolve(dict(model_type=kind, **sizes, **asked))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(residual_multiplier=0.5), "residual_multiplier = 0.5 is not a known key of the llama layout"),
        (dict(num_key_value_head=2), r"num_key_value_head = 2 is not a known key .* \(nearest: num_key_value_heads\)"),
        (dict(quantization_config={"bits": 4}), "quantization_config = .* is not supported: save the checkpoint with"),
        (dict(auto_map={"AutoModel": "x.Y"}), "auto_map = .* code in a checkpoint is never run"),
        (dict(architectures=["LlamaForSequenceClassification"]), "architectures = .* is not supported"),
        (dict(hidden_act="relu"), "hidden_act 'relu' is not supported; this decoder computes silu"),
        (dict(partial_rotary_factor=0.5), "partial_rotary_factor = 0.5 is not supported in the llama layout"),
        (dict(sliding_window=8), "sliding_window = 8 is not supported: Llama's sliding-window attention does not"),
        (dict(attention_bias=1), "attention_bias must be true or false, got 1"),
        (dict(rms_norm_eps=0), "rms_norm_eps must be a number above 0, got 0"),
        (dict(vocab_size=True), "vocab_size must be a whole number from 1 on, got True"),
        (dict(num_key_value_heads=3), r"num_attention_heads \(4\) must be a multiple of num_key_value_heads \(3\)"),
        (dict(rope_scaling={"rope_type": "longrope", "factor": 2.0}), "rotary scaling 'longrope' is not supported"),
        (dict(rope_scaling={"type": "linear"}), "rotary scaling needs the number factor, got None"),
        (dict(rope_scaling={"type": "linear", "factor": 0.5}), "factor must be at least 1, got 0.5"),
        (dict(rope_scaling={"type": "linear", "factor": 2.0, "alpha": 3}), "has no key alpha .* that this decoder"),
        (dict(rope_scaling={"type": "linear", "rope_type": "yarn", "factor": 2.0}), "keep one of the two"),
        (dict(rope_scaling=[2.0]), r"rope_scaling = \[2.0\] must be an object or null"),
        (dict(rope_scaling=YARN, rope_parameters=YARN | {"factor": 2.0}), "contradicts rope_parameters"),
        (dict(rope_theta=5e5, rope_parameters={"rope_theta": 1e4}), "contradicts rope_parameters' rope_theta"),
        (dict(rope_scaling=YARN | {"beta_fast": 1, "beta_slow": 32}), "0 < beta_slow < beta_fast must hold"),
        (
            dict(model_type="qwen2", layer_types=["sliding_attention"] * 4),
            "use_sliding_window or sliding_window is off",
        ),
        (dict(model_type="qwen2", use_sliding_window=True, layer_types=["full"]), "layer_types = .* must be 4 of"),
        (dict(model_type="mistral", sliding_window="all"), "sliding_window must be a whole number .* got 'all'"),
        (dict(model_type="qwen3_moe", num_experts_per_tok=200), "0 < num_experts_per_tok <= num_experts"),
        (dict(model_type="stablelm", use_parallel_residual=True), "attention and MLP stand in a row here"),
        (LATENT | {"num_experts_per_tok": None}, "num_experts_per_tok must be a whole number from 1 on, got None"),
        (LATENT | {"topk_method": "group_limited_greedy"}, "topk_method = 'group_limited_greedy' is not supported"),
        (LATENT | {"scoring_func": "sigmoid"}, "scoring_func = 'sigmoid' is not supported"),
        (LATENT | {"norm_topk_prob": True}, "norm_topk_prob = True is not supported"),
        (LATENT | {"first_k_dense_replace": 5}, "first_k_dense_replace = 5 must be a whole number from 0 to 4"),
        (LATENT | {"head_dim": 8}, "head_dim = 8 contradicts qk_rope_head_dim = 64"),
        (LATENT | {"v_head_dim": 256}, "v_head_dim must be from 1 to 192, a key's width, got 256"),
        (LATENT | {"num_key_value_heads": 2}, "num_key_value_heads must be 4, got 2"),
        (dict(model_type="starcoder2", norm_type="rms"), "norm_type = 'rms' is not supported"),
    ],
)
def test_what_would_change_the_function_is_refused_by_name(changes, message):
    resolve(LLAMA | {"hidden_size": 32})  # the file that is broken here is read otherwise
    with pytest.raises(ValueError, match=message) as caught:
        resolve(LLAMA | changes, "here/config.json")
    assert str(caught.value).startswith("here/config.json: ")


def test_a_switch_that_is_off_changes_nothing():
    assert resolve(LLAMA | {"use_mrope": False}) == resolve(LLAMA)  # as Qwen2.5's base models have it
    with pytest.raises(ValueError, match="use_mrope = True is not supported"):
        resolve(LLAMA | {"use_mrope": True})


def test_both_spellings_of_rotary_scaling_are_read():
    old = resolve(LLAMA | {"rope_theta": 5e5, "rope_scaling": YARN})
    new = resolve(LLAMA | {"rope_parameters": YARN | {"rope_theta": 5e5}})
    assert old == new and old.rope.kind == "yarn" and old.rope_theta == 5e5


def test_a_config_that_no_layout_has_is_not_written():
    both = DecoderConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=4, qk_norm=True, norm="layer",
    )  # fmt: skip
    with pytest.raises(ValueError, match="no layout among llama, qwen2"):
        to_json(both)


def small(config):
    """A real config with few and narrow layers; the keys that say how it computes stay as they are."""
    heads = config["num_attention_heads"]
    group = heads // config.get("num_key_value_heads", heads)
    out = config | dict(num_hidden_layers=2, vocab_size=300, intermediate_size=40)
    out["num_attention_heads"] = 2 * group if group < 8 else group
    out["hidden_size"] = 8 * out["num_attention_heads"]
    if "num_key_value_heads" in config:
        out["num_key_value_heads"] = out["num_attention_heads"] // group
    if config.get("head_dim"):
        out["head_dim"] = 16
    if config["model_type"] == "deepseek_v2":
        out |= dict(kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)
        out |= dict(n_routed_experts=6, moe_intermediate_size=16)
    out |= {key: 1 for key in ("bos_token_id", "eos_token_id", "pad_token_id") if isinstance(out.get(key), int)}
    return {key: value for key, value in out.items() if key != "auto_map"}


@pytest.mark.parametrize("name", REAL)
def test_real_configs_made_small_give_transformers_logits(shared_data, tmp_path, name):
    config = json.dumps(small(json.loads(shared_data(f"configs/{name}.config.json").read_text())))
    (tmp_path / "config.json").write_text(config)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(tmp_path), attn_implementation="eager"
    )
    randomise(model.float().eval())
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)  # the publisher's spelling again
    decoder = load_decoder(tmp_path, dtype=torch.float32)
    ids = torch.randint(2, 300, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(decoder.logits(decoder(ids)), model(ids).logits, rtol=1e-5, atol=1e-5)
