"""Before a router sees a request: the length predictor's word on it, then admission."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simpod.engine.clock import DELIVER, Clock
from simpod.engine.facades import SequenceFacade
from simpod.engine.sequence import Sequence
from simpod.errors import PolicyError, blaming
from simpod.policies import RouterView

if TYPE_CHECKING:
    from simpod.engine.inputs import RunInputs
    from simpod.engine.pool import Pool
    from simpod.engine.simulation import Simulation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionFacade:
    """Read-only view of the whole deployment: `policies.AdmissionView`."""

    _clock: Clock
    _decoders: "Pool"
    entry: RouterView
    decode: RouterView
    ttft_target_s: float
    tpot_target_s: float

    @property
    def now_s(self) -> float:
        """The moment of the decision."""
        return self._clock.now

    @property
    def decode_step_s(self) -> Floats:
        """[instances that decode] how long the step takes that each is in; 0: it is idle."""
        pool = self._decoders
        return np.array([pool.groups[i].step_s for i in pool.dispatch.serving_instances])


class Gate:
    """Attaches predictions and asks the admission policy."""

    def __init__(self, sim: "Simulation", inputs: "RunInputs") -> None:
        self._sim = sim
        self._name = inputs.admission_name
        self._policy = inputs.make_admission() if inputs.make_admission else None
        prediction = inputs.prediction
        self._predicted: list[float] = prediction.predicted_tokens.tolist() if prediction else []
        self._cost_s = prediction.cost_s if prediction else 0.0
        decoders = sim.decode or sim.entry
        self._view = AdmissionFacade(
            _clock=sim.clock,
            _decoders=decoders,
            entry=sim.entry.dispatch.view,
            decode=decoders.dispatch.view,
            ttft_target_s=inputs.ttft_target_s,
            tpot_target_s=inputs.tpot_target_s,
        )

    def take(self, seq: Sequence) -> None:
        """Let a request in, now or when its prediction is there, or refuse it."""
        if self._predicted:
            seq.predicted_tokens = self._predicted[seq.seq_id]
        if self._cost_s:
            clock = self._sim.clock
            clock.call_at(clock.now + self._cost_s, DELIVER, lambda: self._decide(seq))
        else:
            self._decide(seq)

    def _decide(self, seq: Sequence) -> None:
        if self._policy is None or self._admits(seq):
            self._sim.route(seq)
        else:
            self._sim.refuse(seq)

    def _admits(self, seq: Sequence) -> bool:
        if self._policy is None:
            return True
        with blaming(self._name, f" on request {seq.seq_id}"):
            answer = self._policy(self._view, SequenceFacade(seq))
        if not isinstance(answer, bool | np.bool_):
            raise PolicyError(
                self._name, f"returned {answer!r} for request {seq.seq_id}; allowed: True, False"
            )
        return bool(answer)
