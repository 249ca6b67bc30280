"""What a model is, in numbers: every count that the cost model and the memory plan need.

All parameter counts are made here, once. One layer's matrices are written out beside their shapes,
so that a reader can compare them with the model's code.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from simpod.fields import STRICT, Count, Index

Dtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"]
"""How weights are stored; bytes an element are in `simpod.units.BYTES_PER_ELEMENT`."""

QuantisablePart = Literal["attention", "dense_ffn", "shared_experts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Attention of one layer: grouped-query (`gqa`, also MHA, MQA) or multi-head latent (`mla`)."""

    __pydantic_config__: ClassVar[Any] = STRICT

    kind: Literal["gqa", "mla"]
    """gqa: keys and values of num_kv_heads heads are cached; mla: one latent vector a token."""
    num_heads: Count
    """Query heads."""
    num_kv_heads: Count
    """Key and value heads; in mla equal to num_heads (after the up-projection)."""
    head_dim: Count
    """Width of a query or key head; in mla qk_nope_head_dim + qk_rope_head_dim."""
    has_qkv_bias: bool = False
    """Biases on the query, key and value projections."""
    has_output_bias: bool = False
    """Bias on the output projection."""
    has_qk_norm: bool = False
    """RMS norms on queries and keys."""
    qk_norm_per_head: bool = True
    """One norm vector of head_dim for all heads (Qwen3), or one over all heads (MiniMax-M2)."""
    q_lora_rank: Count | None = None
    """mla: width of the compressed query; null: queries are not compressed."""
    kv_lora_rank: Index = 0
    """mla: width of the cached latent of keys and values."""
    qk_nope_head_dim: Index = 0
    """mla: part of a head without rotary embedding."""
    qk_rope_head_dim: Index = 0
    """mla: part of a head with rotary embedding; its key is cached once for all heads."""
    v_head_dim: Index = 0
    """mla: width of a value head."""
    window_tokens: Count | None = None
    """gqa: tokens that a query of a windowed layer sees; null: there are no such layers."""

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.kind == "mla":
            self._check_mla()
        elif self.q_lora_rank or any(self._mla_dims().values()):
            given = [key for key, value in self._mla_dims().items() if value]
            raise ValueError(f"kind is gqa, but {', '.join(given) or 'q_lora_rank'} is given (mla)")

    def _mla_dims(self) -> dict[str, int]:
        return {
            "kv_lora_rank": self.kv_lora_rank,
            "qk_nope_head_dim": self.qk_nope_head_dim,
            "qk_rope_head_dim": self.qk_rope_head_dim,
            "v_head_dim": self.v_head_dim,
        }

    def _check_mla(self) -> None:
        missing = [key for key, value in self._mla_dims().items() if not value]
        if missing:
            raise ValueError(f"kind is mla, but {', '.join(missing)} is 0: must be at least 1")
        width = self.qk_nope_head_dim + self.qk_rope_head_dim
        if self.head_dim != width:
            raise ValueError(
                f"head_dim {self.head_dim} must be qk_nope_head_dim {self.qk_nope_head_dim}"
                f" + qk_rope_head_dim {self.qk_rope_head_dim} = {width}"
            )
        if self.num_kv_heads != self.num_heads:
            raise ValueError(
                f"num_kv_heads {self.num_kv_heads} must equal num_heads {self.num_heads} in mla"
            )
        if self.window_tokens:
            raise ValueError("a sliding window is modelled for gqa only, kind is mla")
        if self.has_qkv_bias or self.has_output_bias or self.has_qk_norm:
            raise ValueError("biases and qk norm are counted for gqa only, kind is mla")

    @property
    def kv_elements_per_token(self) -> int:
        """Cached numbers of one token in one layer."""
        if self.kind == "mla":
            return self.kv_lora_rank + self.qk_rope_head_dim
        return 2 * self.num_kv_heads * self.head_dim

    @property
    def value_dim(self) -> int:
        """Width of a value head (and of its output)."""
        return self.v_head_dim if self.kind == "mla" else self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeSpec:
    """The mixture-of-experts feed-forward of a sparse layer."""

    __pydantic_config__: ClassVar[Any] = STRICT

    num_experts: Count
    """Routed experts of a layer."""
    experts_per_token: Count
    """Routed experts that a token visits (top-k)."""
    expert_intermediate_size: Count
    """Inner width of one routed expert (gated: three matrices)."""
    shared_intermediate_size: Index = 0
    """Inner width of all shared experts together; 0: none."""
    has_router_bias: bool = False
    """One correction term an expert, added to the scores for choosing."""
    has_expert_bias: bool = False
    """Biases on the experts' projections (gpt-oss)."""

    def __post_init__(self) -> None:
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token {self.experts_per_token} exceeds num_experts {self.num_experts}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A decoder-only transformer; layers are dense or sparse, with or without a sliding window.

    Feed-forwards are gated (three matrices), norms are RMS norms. `_parameters` of a part mean one
    layer's unless the name says otherwise. MTP layers share embedding and head with the main model.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    """How experiments and reports call it."""
    hidden_size: Count
    """Width of the residual stream."""
    num_layers: Count
    """Transformer layers, without MTP layers."""
    num_moe_layers: Index
    """Sparse layers; the other layers are dense."""
    intermediate_size: Count
    """Inner width of the dense feed-forward."""
    vocab_size: Count
    """Rows of the embedding and of the head."""
    attention: AttentionSpec
    """Attention of every layer."""
    moe: MoeSpec | None
    """The sparse feed-forward; null in a dense model."""
    num_window_layers: Index = 0
    """Layers whose queries see the last `attention.window_tokens` tokens only."""
    num_mtp_layers: Index
    """Multi-token-prediction layers that the checkpoint holds."""
    tie_word_embeddings: bool
    """The head is the embedding: stored once."""
    max_position_tokens: Count
    """Longest context that the model was made for."""
    weight_dtype: Dtype
    """Data type of the linear layers as published; embedding, head, router and norms stay bf16."""
    weight_group_size: Count | None = None
    """Numbers that share a scale in weight_dtype as published, e.g. 32 of a row, or 16384: a block
    of 128 x 128; null: a scale a row or a matrix, whose bytes don't count."""
    bf16_parts: tuple[QuantisablePart, ...] = ()
    """Linear layers that are not quantised although weight_dtype is narrower (as published)."""
    source: str = ""
    """Where the numbers come from."""

    def __post_init__(self) -> None:
        if self.num_moe_layers > self.num_layers:
            raise ValueError(
                f"num_moe_layers {self.num_moe_layers} exceeds num_layers {self.num_layers}"
            )
        if self.num_window_layers > self.num_layers:
            raise ValueError(
                f"num_window_layers {self.num_window_layers} exceeds num_layers {self.num_layers}"
            )
        if (self.attention.window_tokens is None) != (self.num_window_layers == 0):
            raise ValueError(
                f"num_window_layers is {self.num_window_layers}, so attention.window_tokens must be"
                f" {'null' if self.attention.window_tokens else 'given'}"
            )
        if (self.moe is None) != (self.num_moe_layers == 0):
            raise ValueError(
                f"num_moe_layers is {self.num_moe_layers}, so moe must be"
                f" {'given' if self.moe is None else 'null'}"
            )

    @property
    def num_dense_layers(self) -> int:
        """Layers with a dense feed-forward."""
        return self.num_layers - self.num_moe_layers

    @property
    def num_full_layers(self) -> int:
        """Layers whose queries see the whole context."""
        return self.num_layers - self.num_window_layers

    @property
    def kv_elements_per_layer(self) -> int:
        """Cached numbers of one token in one layer (an MTP layer caches as many)."""
        return self.attention.kv_elements_per_token

    @property
    def kv_elements_per_token(self) -> int:
        """Cached numbers of one token for good: all layers of the main model without a window."""
        return self.num_full_layers * self.kv_elements_per_layer

    @property
    def attention_matrix_parameters(self) -> int:
        """The projections, which are quantised.

        gqa: q and o [hidden, heads * head_dim], k and v [hidden, kv_heads * head_dim].
        mla: q (down [hidden, q_lora], up [q_lora, heads * head_dim], or one matrix), kv down
        [hidden, kv_lora + rope], kv up [kv_lora, heads * (nope + v)], o [heads * v, hidden].
        """
        a, hidden = self.attention, self.hidden_size
        query = a.num_heads * a.head_dim
        if a.kind == "gqa":
            return hidden * (2 * query + 2 * a.num_kv_heads * a.head_dim)
        rank = a.q_lora_rank
        queries = hidden * query if rank is None else rank * (hidden + query)
        down = hidden * (a.kv_lora_rank + a.qk_rope_head_dim)
        up = a.kv_lora_rank * a.num_heads * (a.qk_nope_head_dim + a.v_head_dim)
        return queries + down + up + a.num_heads * a.v_head_dim * hidden

    @property
    def attention_vector_parameters(self) -> int:
        """Biases, and the norms inside attention (of compressed queries and keys, or qk norm)."""
        a = self.attention
        if a.kind == "mla":
            return a.kv_lora_rank + (a.q_lora_rank or 0)
        heads = a.num_heads + a.num_kv_heads
        norms = (2 if a.qk_norm_per_head else heads) * a.head_dim if a.has_qk_norm else 0
        biases = (heads + a.num_kv_heads) * a.head_dim if a.has_qkv_bias else 0
        return norms + biases + (self.hidden_size if a.has_output_bias else 0)

    @property
    def attention_parameters(self) -> int:
        """Attention of one layer: projections, biases and the norms inside."""
        return self.attention_matrix_parameters + self.attention_vector_parameters

    @property
    def norm_parameters(self) -> int:
        """The two norms of one layer, before attention and before the feed-forward."""
        return 2 * self.hidden_size

    @property
    def dense_ffn_parameters(self) -> int:
        """Gate, up and down of a dense layer."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def expert_parameters(self) -> int:
        """Gate, up and down of one routed expert, with their biases; 0 in a dense model."""
        if self.moe is None:
            return 0
        width = self.moe.expert_intermediate_size
        biases = 2 * width + self.hidden_size if self.moe.has_expert_bias else 0
        return 3 * self.hidden_size * width + biases

    @property
    def shared_expert_parameters(self) -> int:
        """All shared experts of one sparse layer."""
        return 3 * self.hidden_size * self.moe.shared_intermediate_size if self.moe else 0

    @property
    def router_parameters(self) -> int:
        """Scores of one sparse layer [hidden, num_experts], with the correction bias."""
        if self.moe is None:
            return 0
        return self.moe.num_experts * (self.hidden_size + self.moe.has_router_bias)

    @property
    def embedding_parameters(self) -> int:
        """The token embedding [vocab, hidden]."""
        return self.vocab_size * self.hidden_size

    @property
    def head_parameters(self) -> int:
        """The LM head as stored: 0 when it is the embedding (it is computed all the same)."""
        return 0 if self.tie_word_embeddings else self.embedding_parameters

    @property
    def moe_parameters(self) -> int:
        """Router, routed and shared experts of one sparse layer."""
        if self.moe is None:
            return 0
        routed = self.moe.num_experts * self.expert_parameters
        return self.router_parameters + routed + self.shared_expert_parameters

    @property
    def parameters(self) -> int:
        """The main model, without MTP layers."""
        layers = self.num_layers * (self.attention_parameters + self.norm_parameters)
        dense = self.num_dense_layers * self.dense_ffn_parameters
        sparse = self.num_moe_layers * self.moe_parameters
        ends = self.embedding_parameters + self.head_parameters + self.hidden_size  # final norm
        return layers + dense + sparse + ends

    @property
    def active_parameters(self) -> int:
        """What one token passes through; embedding and head count in full.

        (DeepSeek-V3: 37.6 B; its paper's 37 B leaves one of the two out.)
        """
        if self.moe is None:
            return self.parameters
        idle = self.moe.num_experts - self.moe.experts_per_token
        return self.parameters - self.num_moe_layers * idle * self.expert_parameters

    @property
    def mtp_extra_parameters(self) -> int:
        """One MTP layer beyond its transformer layer: joins [2 hidden, hidden], and three norms.

        Norms of the embedding, of the hidden state and before the head (DeepSeek-V3 report, 2.2).
        """
        return 2 * self.hidden_size**2 + 3 * self.hidden_size

    @property
    def mtp_layer_parameters(self) -> int:
        """One MTP layer: sparse in an MoE model; without the embedding and head that it shares."""
        ffn = self.moe_parameters if self.moe else self.dense_ffn_parameters
        block = self.attention_parameters + self.norm_parameters + ffn
        return block + self.mtp_extra_parameters

    @property
    def mtp_parameters(self) -> int:
        """All MTP layers, which `parameters` leaves out."""
        return self.num_mtp_layers * self.mtp_layer_parameters
