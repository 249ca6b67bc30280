"""How one instance of a model is spread over dies, and in which data types it runs."""

from dataclasses import dataclass
from typing import Literal

from simpod.cost.drafts import mean_tokens

AttentionParallelism = Literal["tensor", "sp_tp_sp"]
"""How the `tp` dies of a rank share its layers; `Layout.is_staged` has the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One lock-step group: `dp` ranks of `tp` dies each; experts over `ep` of the dies.

    Each data-parallel rank has its own scheduler and KV cache. The routed experts are spread over
    `ep` dies of the group, and each expert is cut over `dies / ep` dies (MoE tensor parallel).
    """

    dies: int
    dp: int = 1
    tp: int = 1
    ep: int = 1
    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    mtp_layers: int = 0  # draft tokens per decode step
    mtp_acceptance: float | tuple[float, ...] = 0.0  # of drafts whose forerunners are kept
    mtp_acceptance_std: float = 0.0  # between requests
    pipelines_mtp: bool = True  # a step is launched in one go, not each MTP layer apart
    balances_mtp: bool = True  # experts of MTP layers are placed like those of the others
    redundant_slots: int = 0  # second copies of routed experts, over all dies
    shared_expert_dies: int = 0  # that hold a copy of the shared expert; 0: every die does
    expert_dies: int = 0  # of their own for the routed experts, beside `dies`; 0: the same dies
    domains: int = 1  # of attention dies, which take turns at the expert dies
    micro_batches: int = 1
    attention_cores: int = 0  # of a die with two streams; 0: two thirds
    micro_batch_tokens: int = 0  # of the fullest rank: no more than that go as one batch
    attention_parallelism: AttentionParallelism = "tensor"
    max_num_seqs: int = 0  # of a rank, where decoding is apart; 0: not said

    @property
    def moe_tp(self) -> int:
        """Dies that share one routed expert."""
        return 1 if self.expert_dies else max(1, self.dies // self.ep)

    @property
    def is_staged(self) -> bool:
        """Tokens of a rank lie apart on its dies but for attention itself, which is cut by head.

        CloudMatrix-Infer 4.3.1: sequence parallel, tensor parallel, sequence parallel.
        """
        return self.attention_parallelism == "sp_tp_sp" and self.tp > 1

    @property
    def ffn_tp(self) -> int:
        """Dies of a rank over which a feed-forward's weights are cut: staged, each has them all."""
        return 1 if self.is_staged else self.tp

    @property
    def has_tokens_apart(self) -> bool:
        """Dies have tokens of their own, which reach the experts of others by dispatch."""
        return self.dp > 1 or self.is_staged

    @property
    def all_dies(self) -> int:
        """Of the instance: those of its ranks, and those that its experts have to themselves."""
        return self.dies + self.expert_dies

    @property
    def tokens_per_decode(self) -> int:
        """Tokens that one decoding sequence sends through every layer: its own and the drafts."""
        return 1 + self.mtp_layers

    @property
    def mean_decode_tokens(self) -> float:
        """Tokens that a decode step gives a sequence, on average."""
        return mean_tokens(self.mtp_layers, self.mtp_acceptance, self.mtp_acceptance_std)
