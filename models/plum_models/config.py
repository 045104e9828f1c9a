"""What a decoder is: its sizes and switches, as one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field

from plum_models.rope import Rope

NORMS = ("rms", "rms_shifted", "layer")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
COUNTS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta",
)  # fmt: skip
OPTIONAL_COUNTS = ("sliding_window", "query_pre_attn_scalar", "attention_softcap", "logit_softcap")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Sizes and switches of one decoder; ``families`` reads them from the config.json of each layout.

    Field names are those of Hugging Face's ``config.json`` wherever Llama's has the same thing. The defaults are
    Llama's: RMSNorm, SwiGLU, every position attended to.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6  # of every norm, whichever its kind
    rope_theta: float = 10000.0
    attention_bias: bool = False  # on q, k and v, as Qwen2 has it
    attention_out_bias: bool = False  # on o, as Llama's attention_bias adds it
    mlp_bias: bool = False
    tie_word_embeddings: bool = True

    rope: Rope = Rope()  # noqa: RUF009 - frozen, so one default may serve all
    partial_rotary_factor: float = 1.0  # share of a head's channels that is rotated
    sliding_window: int | None = None  # positions attended to in ``sliding_layers``, the own one included
    sliding_layers: tuple[int, ...] = ()
    norm: str = "rms"  # rms_shifted: Gemma's, times 1 + weight. layer: with bias
    qk_norm: bool = False  # RMSNorm of each query and key head before its rotation (Qwen3)
    activation: str = "silu"
    gated_mlp: bool = True  # False: up, activation, down (StarCoder2)

    num_experts: int = 0  # 0: every layer dense
    num_experts_per_tok: int = 1
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False  # the chosen experts' weights sum to one
    sparse_layers: tuple[int, ...] = ()
    n_shared_experts: int = 0  # in every sparse layer, beside those that the router chooses (DeepSeek-V2)
    routed_scaling_factor: float = 1.0  # of the chosen experts' weights
    fp32_router: bool = False  # the router's product in fp32, whatever the weights' dtype

    kv_lora_rank: int = 0  # width of the latent that keys and values are made of (DeepSeek-V2); 0: plain attention
    q_lora_rank: int | None = None  # of the queries' latent; None: q_proj
    qk_rope_head_dim: int = 0  # rotated channels of a head; the others of head_dim carry no position
    v_head_dim: int = 0

    sandwich_norms: bool = False  # also after attention and after the MLP (Gemma 2)
    scale_embeddings: bool = False  # by sqrt(hidden_size)
    query_pre_attn_scalar: float | None = None  # scores are divided by its root; head_dim where not given
    attention_softcap: float | None = None  # scores s become cap * tanh(s / cap)
    logit_softcap: float | None = None

    model_type: str | None = field(default=None, compare=False)  # the layout it came in and is saved in

    def __post_init__(self) -> None:
        for name in COUNTS:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in OPTIONAL_COUNTS:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 or not given, got {getattr(self, name)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary embeddings, got {self.head_dim}")
        if self.rotary_dim < 2 or self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise ValueError(
                f"partial_rotary_factor={self.partial_rotary_factor} of head_dim={self.head_dim} rotates "
                f"{self.rotary_dim} channels: an even number from 2 to head_dim is needed"
            )
        if self.rope.kind == "dynamic" and self.rotary_dim < 4:
            raise ValueError(f"dynamic rotary scaling needs at least 4 rotated channels, got {self.rotary_dim}")
        if self.query_pre_attn_scalar is not None and self.rotary_dim != self.head_dim:
            raise ValueError(
                f"query_pre_attn_scalar={self.query_pre_attn_scalar} needs every channel of a head rotated, got "
                f"partial_rotary_factor={self.partial_rotary_factor}: no layout has both"
            )
        self._check_latent()
        for name, known in (("norm", NORMS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        self._check_layers()

    def _check_layers(self) -> None:
        for name in ("sliding_layers", "sparse_layers"):
            outside = [i for i in getattr(self, name) if not 0 <= i < self.num_hidden_layers]
            if outside:
                raise ValueError(f"{name} names layer {outside[0]} of {self.num_hidden_layers}: count from 0")
        if bool(self.sliding_layers) != (self.sliding_window is not None):
            raise ValueError(
                f"sliding_window={self.sliding_window} with {len(self.sliding_layers)} sliding_layers: "
                "give both or none"
            )
        if self.sparse_layers and not (
            self.num_experts > 0 and self.moe_intermediate_size > 0 and 0 < self.num_experts_per_tok <= self.num_experts
        ):
            raise ValueError(
                f"sparse_layers need 0 < num_experts_per_tok <= num_experts and moe_intermediate_size > 0, got "
                f"{self.num_experts_per_tok}, {self.num_experts} and {self.moe_intermediate_size}"
            )

    def _check_latent(self) -> None:
        if not self.kv_lora_rank:
            if self.q_lora_rank or self.qk_rope_head_dim or self.v_head_dim:
                raise ValueError("q_lora_rank, qk_rope_head_dim and v_head_dim need kv_lora_rank > 0, got 0")
            return
        if not 0 < self.v_head_dim <= self.head_dim:
            raise ValueError(f"v_head_dim must be from 1 to {self.head_dim}, a key's width, got {self.v_head_dim}")
        if self.num_key_value_heads != self.num_attention_heads:
            raise ValueError(
                f"latent attention makes a key of every head: num_key_value_heads must be {self.num_attention_heads}, "
                f"got {self.num_key_value_heads}"
            )

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated."""
        if self.kv_lora_rank:
            return self.qk_rope_head_dim
        return int(self.head_dim * self.partial_rotary_factor)

    def window(self, layer: int) -> int | None:
        """Positions that ``layer`` attends to, the own one included; None: all before it."""
        return self.sliding_window if layer in self.sliding_layers else None
