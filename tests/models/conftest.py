"""Random-weight checkpoints, made by transformers and by us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

from plum_models import Decoder, DecoderConfig, Tokenizer

TEXTS = ["def f(x):\n    return x + 12\n", "Return the sum of the squares of the even numbers in nums.", "café ☕ 日本"]
SIZES = dict(
    vocab_size=320,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=None,
    pad_token_id=None,
    eos_token_id=0,
)


def rope(kind: str, **values: float) -> dict[str, dict[str, float | str]]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **values}}


EXPERTS = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=16)
LATENT = dict(
    kv_lora_rank=20, q_lora_rank=28, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10, num_key_value_heads=4,
    n_routed_experts=6, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=24, first_k_dense_replace=1,
    routed_scaling_factor=1.5,
)  # fmt: skip
LAYOUTS = {
    "llama": (transformers.LlamaConfig, {}),
    "llama-tied-mha": (transformers.LlamaConfig, dict(tie_word_embeddings=True, num_key_value_heads=4)),
    "llama-biases-head_dim": (transformers.LlamaConfig, dict(attention_bias=True, mlp_bias=True, head_dim=16)),
    "llama-theta-mqa": (transformers.LlamaConfig, rope("default") | dict(num_key_value_heads=1, rms_norm_eps=1e-3)),
    "llama-linear": (transformers.LlamaConfig, rope("linear", factor=4.0)),
    "llama-dynamic": (transformers.LlamaConfig, rope("dynamic", factor=3.0) | dict(max_position_embeddings=64)),
    "llama-llama3": (
        transformers.LlamaConfig,
        rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    "llama-yarn": (transformers.LlamaConfig, rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "mistral": (transformers.MistralConfig, dict(sliding_window=None)),
    "mistral-window": (transformers.MistralConfig, dict(sliding_window=9)),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen2-tied": (transformers.Qwen2Config, dict(tie_word_embeddings=True)),
    "qwen2-windows": (transformers.Qwen2Config, dict(use_sliding_window=True, sliding_window=9, max_window_layers=1)),
    "qwen2-yarn": (transformers.Qwen2Config, rope("yarn", factor=2.0, original_max_position_embeddings=128)),
    "qwen3": (transformers.Qwen3Config, dict(head_dim=16)),
    "qwen3-biases-tied": (transformers.Qwen3Config, dict(head_dim=8, attention_bias=True, tie_word_embeddings=True)),
    "qwen3-moe": (transformers.Qwen3MoeConfig, EXPERTS | dict(norm_topk_prob=True)),
    "qwen3-moe-mixed": (transformers.Qwen3MoeConfig, EXPERTS | dict(decoder_sparse_step=2, mlp_only_layers=[2])),
    "starcoder2": (transformers.Starcoder2Config, dict(sliding_window=9)),
    "starcoder2-plain": (transformers.Starcoder2Config, dict(use_bias=False, tie_word_embeddings=False)),
    "stablelm": (transformers.StableLmConfig, dict(partial_rotary_factor=0.5, use_qkv_bias=True)),
    "deepseek-v2": (transformers.DeepseekV2Config, LATENT),
    "deepseek-v2-lite-yarn": (
        transformers.DeepseekV2Config,
        LATENT
        | dict(q_lora_rank=None, n_shared_experts=2, v_head_dim=16, n_routed_experts=4, num_experts_per_tok=3)
        | rope("yarn", factor=4.0, original_max_position_embeddings=64, mscale=0.9, mscale_all_dim=0.6),
    ),
    "gemma2": (
        transformers.Gemma2Config,
        dict(head_dim=16, sliding_window=9, query_pre_attn_scalar=24, attn_logit_softcapping=2.0),
    ),
}


def randomise(model: torch.nn.Module) -> None:
    """Weights at which every part matters: no zero biases, no norm scales of one."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                scale = "norm" in name and name.endswith("weight")
                weight.normal_(1.0 if scale else 0.0, 0.3)
            else:
                weight.normal_(0.0, 0.7 / weight.shape[-1] ** 0.5)


def reference_model(layout: str) -> torch.nn.Module:
    torch.manual_seed(0)
    cls, changes = LAYOUTS[layout]
    config = cls(**SIZES | changes)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    randomise(model)
    return model


def small_tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 4, 320)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def hf_folder(tmp_path: Path) -> Callable[..., Path]:
    """``hf_folder(model)``: a checkpoint folder as transformers writes it, our tokenizer's files added."""

    def write(model: torch.nn.Module, **options: object) -> Path:
        folder = tmp_path / "hf"
        model.save_pretrained(folder, **options)
        for name, content in small_tokenizer().files().items():
            (folder / name).write_bytes(content)
        return folder

    return write


@pytest.fixture
def make() -> SimpleNamespace:
    def decoder(**changes: object) -> Decoder:
        torch.manual_seed(0)
        sizes = dict(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
        out = Decoder(DecoderConfig(**sizes | changes))
        randomise(out)
        return out

    return SimpleNamespace(decoder=decoder, tokenizer=small_tokenizer, reference=reference_model, texts=TEXTS)
