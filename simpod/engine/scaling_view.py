"""What a scaling policy sees: `policies.ScalingView`, made at each decision."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simpod.cluster import PoolSpec
from simpod.engine.load_samples import ROW

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PoolFacade:
    """One pool: `policies.PoolLoad`; `_rows` [samples, len(ROW)]."""

    _spec: PoolSpec
    dies_per_instance: int
    serving: int
    draining: int
    coming: int
    _rows: Floats

    @property
    def name(self) -> str:
        """As in the experiment."""
        return self._spec.name

    @property
    def role(self) -> str:
        """mixed, prefill or decode."""
        return self._spec.role

    @property
    def waiting_seqs(self) -> Floats:
        """Requests without a slot."""
        return self.column("waiting_seqs")

    @property
    def running_seqs(self) -> Floats:
        """Requests with a slot."""
        return self.column("running_seqs")

    @property
    def kv_frac(self) -> Floats:
        """KV in use, share of the instances that have dies."""
        return self.column("kv_frac")

    @property
    def prompt_tokens_per_s(self) -> Floats:
        """Prompt tokens computed."""
        return self.column("prompt_tokens_per_s")

    @property
    def output_tokens_per_s(self) -> Floats:
        """Output tokens of running decodes."""
        return self.column("output_tokens_per_s")

    def column(self, name: str) -> Floats:
        """[samples] of the window."""
        values: Floats = self._rows[:, ROW.index(name)]
        return values


@dataclass(frozen=True, slots=True)
class ScalingFacade:
    """The deployment; `_finished` [5, requests]: finish, TTFT, TPOT, prompt and output tokens."""

    now_s: float
    every_s: float
    sample_s: float
    pools: tuple[PoolFacade, ...]
    spare_dies: int
    _finished: Floats
    ttft_target_s: float
    tpot_target_s: float

    @property
    def arrivals_per_s(self) -> Floats:
        """Requests that came."""
        return self.pools[0].column("arrivals_per_s")

    @property
    def arrived_tokens_per_s(self) -> Floats:
        """Their prompt tokens."""
        return self.pools[0].column("arrived_tokens_per_s")

    @property
    def ttft_s(self) -> Floats:
        """[finished] time to first token."""
        values: Floats = self._finished[1]
        return values

    @property
    def tpot_s(self) -> Floats:
        """[finished] time per output token."""
        values: Floats = self._finished[2]
        return values

    @property
    def finished_prompt_tokens(self) -> Floats:
        """[finished] length of the prompt."""
        values: Floats = self._finished[3]
        return values

    @property
    def finished_output_tokens(self) -> Floats:
        """[finished] length of the output."""
        values: Floats = self._finished[4]
        return values
