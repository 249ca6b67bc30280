"""One pool of a deployment: instances of one role, all alike."""

from dataclasses import dataclass
from typing import Literal

from simpod.cost.layout import Layout
from simpod.cost.pipeline.jitter import HostPause

Role = Literal["mixed", "prefill", "decode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """What the engine needs to know of a pool; limits are per data-parallel rank."""

    name: str
    role: Role
    instances: int
    layout: Layout
    max_num_seqs: int  # sequences in one step of one rank
    max_step_tokens: int  # tokens in one step of one rank (vLLM: max_num_batched_tokens)
    max_model_len: int  # prompt + output of one request; longer ones are refused
    block_tokens: int
    kv_blocks: int  # capacity of one rank
    prefix_caching: bool
    reserve_full_prompt: bool  # a waiting prompt starts only where all of it would fit
    host_bytes_per_s: float | None = None  # of one die to host memory; None: no swapping
    pauses: tuple[HostPause, ...] = ()  # of every die's host before a launch

    @property
    def room_tokens(self) -> int:
        """What one sequence can have resident, with the surplus of its last step."""
        return self.kv_blocks * self.block_tokens - self.layout.mtp_layers
