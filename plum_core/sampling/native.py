"""Decoding on a CPU by compiled functions, ``plum_kernels.cpu_decode``.

A row's own keys and values stand from place 0 on, whatever the batch's age, so no column is masked and nothing is
padded to the oldest row. Letters in shapes: R rows, L layers, P prompts, G key/value heads, E head width, S places of
a prompt, C of a row's own tokens, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_core.sampling import lean
from plum_core.sampling.prefill import Prompts
from plum_core.sampling.products import Compiled
from plum_kernels.cpu_decode.interface import DTYPES, LANES, NORM, PLACES, SCORE, SILU, compiled, work_size, workers
from plum_models.attention import Attention, Joined, JoinedLinear
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder, Layer
from plum_models.mlp import GatedMLP
from plum_models.rope import rotary_tables


def why_not(config: DecoderConfig, like: Tensor) -> str | None:
    """Why the compiled functions cannot decode this; None where they can."""
    if like.device.type != "cpu" or like.dtype not in DTYPES:
        return f"weights in fp32 or bf16 on a CPU are needed, these are {like.dtype} on {like.device}"
    if config.head_dim % LANES or config.rotary_dim != config.head_dim:
        return f"heads must be a multiple of {LANES} wide and rotated whole"
    if config.hidden_size % 2 or config.intermediate_size % 2:
        return f"widths must be even, got {config.hidden_size} and {config.intermediate_size}"
    plain = config.norm == "rms" and config.gated_mlp and config.activation == "silu" and not config.sparse_layers
    if not (plain and lean.can_run(config)) or config.qk_norm or config.attention_softcap or config.sliding_layers:
        return "the layout must be Llama's or Qwen2's, without windows"
    return None


class NativeCache:
    """Keys and values, fp32, of ``rows`` live rows at most, as ``cache.Cache`` owns them for torch's operators."""

    def __init__(self, config: DecoderConfig, rows: int, like: Tensor) -> None:
        self.config, self.room = config, rows
        self.prompts = Prompts.none(config, like)
        self.owners: list[int] = []  # of each row: its prompt
        self._owners = self._lengths = torch.zeros(0, dtype=torch.int64)
        self._own = self._empty(PLACES)
        self._shared = self._laid_out()
        self._turns = (torch.zeros(0), torch.zeros(0))
        self._bound = 0  # no live row has more own tokens than this
        self._work = torch.zeros(0)
        self._size, self._threads = 0, 1

    def _empty(self, places: int) -> tuple[Tensor, Tensor]:
        c = self.config
        shape = (c.num_hidden_layers, self.room, c.num_key_value_heads)
        return torch.zeros((*shape, c.head_dim, places)), torch.zeros((*shape, places, c.head_dim))

    def _laid_out(self) -> tuple[Tensor, Tensor]:
        """The prompts' keys (L, P, G, E, S) and values (L, P, G, S, E), S a multiple of PLACES."""
        keys, values = F.pad(self.prompts.kv.float(), (0, 0, 0, -self.prompts.kv.shape[4] % PLACES))
        return keys.transpose(3, 4).contiguous(), values.contiguous()

    @property
    def allocated_bytes(self) -> int:
        """Of keys and values, both layouts of the prompts'."""
        return sum(x.nbytes for x in (*self._own, *self._shared, self.prompts.kv))

    def admit(self, prompts: Prompts, owners: list[int]) -> None:
        """More rows behind the live ones; ``owners``: the prompt of each."""
        known = sorted(set(self.owners))
        place = {prompt: i for i, prompt in enumerate(known)}
        self.prompts = self.prompts.select(known).join(prompts)
        self.owners = [place[o] for o in self.owners] + [len(known) + o for o in owners]
        self._shared = self._laid_out()
        self._index()

    def _index(self) -> None:
        self._owners = torch.tensor(self.owners, dtype=torch.int64)
        self._lengths = self.prompts.lengths[self._owners]

    def release(self, holes: list[int], movers: list[int], live: int) -> None:
        """Forget all rows but ``live``: rows ``movers``, which stand behind, take the places of ``holes``."""
        for hole, mover in zip(holes, movers, strict=True):
            self.owners[hole] = self.owners[mover]
            for own in self._own:
                own[:, hole] = own[:, mover]
        del self.owners[live:]
        self._index()

    def begin_step(self, positions: Tensor) -> None:
        """Room and rotations for one token more of each row; positions: (R,) int64."""
        self._bound += 1
        places = self._own[0].shape[4]
        if self._bound > places:
            self._bound = int((positions - self._lengths).max()) + 1
            if self._bound > places:
                self._own = tuple(
                    old_into(new, old) for new, old in zip(self._empty(2 * places), self._own, strict=True)
                )  # type: ignore[assignment]
        c, last = self.config, int(positions.max())
        if last >= len(self._turns[0]):
            some = torch.arange(min(2 * last + PLACES, c.max_position_embeddings))
            tables = rotary_tables(some, c.rotary_dim, c.rope_theta, c.rope, c.max_position_embeddings)
            self._turns = (tables[0].contiguous(), tables[1].contiguous())
        size = work_size(c.num_attention_heads, c.num_key_value_heads, c.head_dim, self._places, self._own[0].shape[4])
        attended = len(positions) * c.num_attention_heads * c.head_dim * (self._places + self._own[0].shape[4])
        self._size, self._threads = size, workers(SCORE * attended)
        if self._work.numel() < size * self._threads:
            self._work = torch.zeros(size * self._threads)

    @property
    def _places(self) -> int:
        return self._shared[0].shape[4]

    def attend(self, layer: int, qkv: Tensor, positions: Tensor, out: Tensor) -> None:
        """``cpu_decode.attend`` of one layer: qkv (R, (H + 2G) * E) before rotation, into out (R, H * E)."""
        c = self.config
        tensors = (
            qkv, *self._turns, positions, self._owners, self._lengths, self._shared[0][layer], self._shared[1][layer],
            self._own[0][layer], self._own[1][layer], out, self._work,
        )  # fmt: skip
        compiled("attend", qkv.dtype)(
            *(x.data_ptr() for x in tensors), len(qkv), c.num_attention_heads, c.num_key_value_heads, c.head_dim,
            self._places, self._own[0].shape[4], self._size, self._threads, c.head_dim**-0.5,
        )  # fmt: skip


def old_into(new: Tensor, old: Tensor) -> Tensor:
    """``new`` with ``old`` at its beginning in every dimension."""
    new[tuple(slice(n) for n in old.shape)] = old
    return new


def into(linear: Joined, rows: int) -> Joined:
    """The same product into memory of its own, where the layer is a plain matrix or compiled."""
    if isinstance(linear, Compiled):
        matrix = linear.matrix
        filled = torch.zeros((rows, matrix.outputs), dtype=matrix.dtype)
        return lambda x: matrix.linear(x, out=filled[: len(x)])
    if not isinstance(linear, JoinedLinear):
        return linear
    transposed, bias = linear.weight.t(), linear.bias
    room = linear.weight.new_zeros((rows, len(linear.weight)))
    if bias is None:
        return lambda x: torch.mm(x, transposed, out=room[: len(x)])
    return lambda x: torch.addmm(bias, x, transposed, out=room[: len(x)])


def scale_of(norm: nn.Module) -> Tensor:
    """The norm's weight in fp32."""
    weight = norm.weight
    assert isinstance(weight, Tensor)
    return weight.detach().float().contiguous()


class NativeStep:
    """One token a row through the decoder. ``decoder``: of ``for_inference``; ``why_not`` of it must be None."""

    def __init__(self, decoder: Decoder, rows: int) -> None:
        self.decoder, c = decoder, decoder.config
        self.eps, self.width, self.inner = c.rms_norm_eps, c.hidden_size, c.intermediate_size
        like = decoder.head_weight
        self.norm, self.silu_mul = compiled("rms_norm", like.dtype), compiled("silu_mul", like.dtype)
        self.normed = like.new_zeros((rows, c.hidden_size))
        self.attended = like.new_zeros((rows, c.num_attention_heads * c.head_dim))
        self.gated = like.new_zeros((rows, c.intermediate_size))
        self.layers = []
        for layer in decoder.layers:
            assert isinstance(layer, Layer) and isinstance(layer.self_attn, Attention)
            assert isinstance(layer.mlp, GatedMLP) and layer.self_attn.joined and layer.mlp.joined
            self.layers.append(
                (
                    scale_of(layer.input_layernorm),
                    into(layer.self_attn.joined, rows),
                    lean.added(layer.self_attn.o_proj),
                    scale_of(layer.post_attention_layernorm),
                    into(layer.mlp.joined, rows),
                    lean.added(layer.mlp.down_proj),
                )
            )
        self.last = scale_of(decoder.norm)

    def __call__(self, token_ids: Tensor, positions: Tensor, cache: NativeCache) -> Tensor:
        """(R,) int64 ids and their positions to (R, D), the state after the final norm."""
        rows = len(token_ids)
        threads = workers(SILU * rows * self.inner)
        normed, attended, gated = self.normed[:rows], self.attended[:rows], self.gated[:rows]
        positions = positions.contiguous()
        cache.begin_step(positions)
        x = F.embedding(token_ids, self.decoder.embed_tokens.weight)
        for number, (before, qkv, out, after, gate_up, down) in enumerate(self.layers):
            self._norm(x, before, normed)
            cache.attend(number, qkv(normed), positions, attended)
            x = out(x, attended)
            self._norm(x, after, normed)
            inner = gate_up(normed)
            self.silu_mul(inner.data_ptr(), gated.data_ptr(), rows, self.inner, threads)
            x = down(x, gated)
        hidden = torch.empty_like(x)
        self._norm(x, self.last, hidden)
        return hidden

    def _norm(self, x: Tensor, weight: Tensor, out: Tensor) -> None:
        threads = workers(NORM * x.numel())
        self.norm(x.data_ptr(), weight.data_ptr(), out.data_ptr(), len(x), self.width, threads, self.eps)
