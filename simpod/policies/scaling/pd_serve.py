"""The ratio of prefill to decode instances by what each can do."""

from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from simpod.policies.roles import ScaleAction, ScalingView, SwitchInstance


@dataclass(frozen=True, slots=True)
class PdServeRatio:
    """One switch towards the ratio at which prefill and decode keep up with each other.

    A prefill instance that is busy handles r_p requests/s: its prompt tokens/s over the mean
    prompt. A decode instance handles r_d: `batch_seqs` over the mean output times the mean TPOT.
    Of n instances n_p x r_p = n_d x r_d is best; one is switched if the smaller of the two
    capacities grows by that by more than `gain_frac`. None while another one is under way, nor
    before requests have finished.

    Source: Jin et al., P/D-Serve (arXiv:2408.08147): n_p / n_d such that n_p b_p / T_p =
    n_d b_d / T_d, the throughput of prefill and of decode.
    Sees: prompt tokens/s of the prefill pool at its busiest, TPOT and lengths of finished requests.
    """

    batch_seqs: int
    """Sequences that an instance decodes at a time when full; at least 1."""

    gain_frac: float = 0.1
    """Share by which the capacity must grow; at least 0."""

    def __post_init__(self) -> None:
        if self.batch_seqs < 1:
            raise ValueError(f"batch_seqs: must be >= 1, got {self.batch_seqs}")
        if not 0 <= self.gain_frac < inf:
            raise ValueError(f"gain_frac: must be >= 0, got {self.gain_frac}")

    def __call__(self, view: ScalingView) -> list[ScaleAction]:
        if len(view.pools) < 2 or any(pool.coming or pool.draining for pool in view.pools):
            return []
        prefill, decode = view.pools
        rate_p = self._prefill_rate(view)
        rate_d = self._decode_rate(view)
        if not (isfinite(rate_p) and isfinite(rate_d)):
            return []
        now = min(prefill.serving * rate_p, decode.serving * rate_d)
        best = now * (1.0 + self.gain_frac)
        chosen: list[ScaleAction] = []
        for giver, taker, moved in ((prefill, decode, -1), (decode, prefill, 1)):
            room = view.spare_dies + giver.dies_per_instance
            if giver.serving < 2 or room < taker.dies_per_instance:
                continue
            after = min((prefill.serving + moved) * rate_p, (decode.serving - moved) * rate_d)
            if after > best:
                best, chosen = after, [SwitchInstance(giver.name, taker.name)]
        return chosen

    def _prefill_rate(self, view: ScalingView) -> float:
        """Requests/s of one prefill instance, at the most that was seen."""
        if not len(view.finished_prompt_tokens):
            return float("nan")
        prefill = view.pools[0]
        most = float(prefill.prompt_tokens_per_s.max()) / prefill.serving
        return most / float(view.finished_prompt_tokens.mean())

    def _decode_rate(self, view: ScalingView) -> float:
        """Requests/s of one decode instance that is full."""
        known = ~np.isnan(view.tpot_s)
        if not known.any():
            return float("nan")
        output = float(view.finished_output_tokens[known].mean())
        return self.batch_seqs / (output * float(view.tpot_s[known].mean()))
