"""Whether a decode rank has room for a prompt that waits elsewhere: for the batch scheduler to say.

A rank pulls a prompt that finds a slot and blocks for its KV. A scheduler that sets aside what
answers will still take (`may_pull`) is asked before: what it would not admit where prompts are
computed is not pulled either, and all behind it wait.
"""

from typing import TYPE_CHECKING

import numpy as np

from simpod.engine.asking import blame
from simpod.engine.facades import SequenceFacade
from simpod.engine.pull_order import PromptFacade
from simpod.engine.sequence import Sequence
from simpod.errors import blaming
from simpod.policies import Reserving

if TYPE_CHECKING:
    from simpod.engine.rank import Rank


class DecodeRoom:
    """Asks the scheduler of one rank, and knows what is on its way there."""

    def __init__(self, rank: "Rank", policy: Reserving) -> None:
        self._rank = rank
        self._policy = policy
        self._coming: dict[int, Sequence] = {}

    def admits(self, seq: Sequence) -> bool:
        """Whether `seq` may be pulled now; if so, it counts as on its way."""
        coming = [ComingFacade(each) for each in self._coming.values()]
        with blaming(self._rank.group.sim.batching_name):
            is_let_in = self._policy.may_pull(self._rank.view, coming, PromptFacade(seq))
        if not isinstance(is_let_in, (bool, np.bool_)):
            blame(self._rank, f"may_pull returned {is_let_in!r}; allowed: True or False")
        if is_let_in:
            self._coming[seq.seq_id] = seq
        return bool(is_let_in)

    def begin(self, seq: Sequence) -> None:
        """It has come; one that migrates was never asked for."""
        self._coming.pop(seq.seq_id, None)


class ComingFacade(SequenceFacade):
    """A prompt on its way: its blocks here are taken."""

    __slots__ = ()

    @property
    def context_tokens(self) -> int:
        """All of it."""
        return self._seq.goal_tokens
