"""DeepSeek-V2's keys (DeepSeek-Coder-V2-Lite): latent attention, and experts of which some are shared."""

from __future__ import annotations

import dataclasses

from plum_models.config import DecoderConfig
from plum_models.keys import Keys
from plum_models.layouts import Switches

NAMES = ("kv_lora_rank", "qk_rope_head_dim", "v_head_dim", "num_experts_per_tok", "n_shared_experts")
TRAINING = ("aux_loss_alpha", "seq_aux", "ep_size", "n_group", "topk_group")  # of a loss, of servers, of other methods


def read_deepseek_v2(keys: Keys, common: Switches) -> Switches:
    """Defaults are transformers' own, q_lora_rank's among them: null, not absence, says that q has no latent."""
    keys.only("topk_method", ("greedy", None), "is not supported; experts are chosen one by one here: 'greedy'")
    keys.only("scoring_func", ("softmax", None), "is not supported; the router's weights are a softmax here")
    keys.only("norm_topk_prob", (False, None), "is not supported; transformers' DeepSeek-V2 does not compute it")
    keys.only("moe_layer_freq", (1, None), "is not supported; every layer from first_k_dense_replace on is sparse")
    keys.only("mlp_bias", (False, None), "is not supported in the deepseek_v2 layout")
    keys.taken |= {"q_lora_rank", *TRAINING}
    nope, turned = keys.count("qk_nope_head_dim", 128), keys.count("qk_rope_head_dim", 64)
    keys.only("head_dim", (turned, None), f"contradicts qk_rope_head_dim = {turned}: remove the key")
    keys.only("qk_head_dim", (nope + turned, None), "must be qk_nope_head_dim + qk_rope_head_dim: remove the key")
    first, layers = keys.take("first_k_dense_replace", 0), common["num_hidden_layers"]
    if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first <= layers:
        raise keys.wrong("first_k_dense_replace", f"must be a whole number from 0 to {layers}")
    no_latent = "q_lora_rank" in keys.raw and keys.raw["q_lora_rank"] is None
    scaling = keys.raw.get("rope_parameters") or keys.raw.get("rope_scaling") or {}
    rope = dataclasses.replace(common["rope"], mscale_all_dim=float(scaling.get("mscale_all_dim") or 0.0))
    bias = keys.switch("attention_bias")
    return {
        "head_dim": nope + turned,
        "rope": rope,
        "attention_bias": bias,
        "attention_out_bias": bias,
        "kv_lora_rank": keys.count("kv_lora_rank", 512),
        "q_lora_rank": None if no_latent else keys.count("q_lora_rank", 1536),
        "qk_rope_head_dim": turned,
        "v_head_dim": keys.count("v_head_dim", 128),
        "num_experts": keys.count("n_routed_experts", 64),
        "num_experts_per_tok": keys.count("num_experts_per_tok"),
        "moe_intermediate_size": keys.count("moe_intermediate_size", 1407),
        "n_shared_experts": keys.count("n_shared_experts", 2),
        "routed_scaling_factor": keys.number("routed_scaling_factor", 1.0),
        "sparse_layers": tuple(range(first, layers)),
    }


def write_deepseek_v2(c: DecoderConfig) -> Switches:
    """The inverse of ``read_deepseek_v2``."""
    out: Switches = {name: getattr(c, name) for name in NAMES}
    return out | {
        "head_dim": c.qk_rope_head_dim,
        "qk_nope_head_dim": c.head_dim - c.qk_rope_head_dim,
        "q_lora_rank": c.q_lora_rank,
        "attention_bias": c.attention_bias,
        "n_routed_experts": c.num_experts,
        "moe_intermediate_size": c.moe_intermediate_size,
        "routed_scaling_factor": c.routed_scaling_factor,
        "first_k_dense_replace": c.num_hidden_layers - len(c.sparse_layers),
        "topk_method": "greedy",
        "norm_topk_prob": False,
    }
