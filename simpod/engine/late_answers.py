"""First tokens that leave when the step after theirs has been launched.

An overlap scheduler launches step n + 1 before it looks at what step n gave. Where both have
prompts and the host launches their kernels one by one, the first tokens of n are ready long before
they leave. Launches of n + 1 begin when those of n are over, and not before the results of n - 1
are there, which is when n begins on the die; graphs of decodes alone take no time to launch.

Sources: SGLang, pull request 11856 (both in extend mode: "last_batch may have to wait for a longer
period, resulting in a longer TTFT") and event_loop_overlap; TensorRT-LLM, `_executor_loop_overlap`
and pull request 14061 (enable_early_first_token_response, off by default). Last tokens of answers
that end with a step before one with prompts leave late too; that is left out.
"""

from typing import TYPE_CHECKING

from simpod.cost import PromptLaunches
from simpod.engine.sequence import Sequence
from simpod.engine.steps import StepRun

if TYPE_CHECKING:
    from simpod.engine.group import Group


class LateAnswers:
    """Moves the first tokens of one pool's groups, all alike."""

    def __init__(self, launches: PromptLaunches) -> None:
        self._launches = launches
        self._ready: dict[int, tuple[int, list[Sequence]]] = {}  # by group, of its last step
        self._launched: dict[int, tuple[int, float]] = {}  # by group: next step, its host is free

    def add(self, seq: Sequence, group: "Group") -> None:
        """A prompt is complete: its first token is there, and leaves with others of its step."""
        step = group.ledger.num_steps
        last, seqs = self._ready.get(group.index, (-1, []))
        if last != step:
            self._ready[group.index] = (step, seqs := [])
        seqs.append(seq)

    def begin(self, group: "Group", run: StepRun) -> None:
        """A step with prompts begins: launches go on where those of the step before ended."""
        index, step, now_s = group.index, group.ledger.num_steps, run.start_s
        follows, free_s = self._launched.get(index, (-1, now_s))
        begin_s = free_s if follows == step else now_s
        done_s = begin_s + self._launches.seconds(group.batch)
        ready_step, seqs = self._ready.pop(index, (-1, []))
        if ready_step == step:
            for seq in seqs:
                seq.first_token_s = max(seq.first_token_s, done_s)
        self._launched[index] = (step + 1, max(done_s, now_s))
