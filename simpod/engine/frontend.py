"""The queue of a central frontend: when the tokens of each step are with their clients.

Messages come as steps end, are served one after the other, and keep nobody waiting but the clients:
so departures follow from the ledger's runs by Lindley's recursion. Where answers trigger requests
(closed loops, conversations), those that end wait here for their departure; else all is computed
after the run. Messages of one instant are served in the order in which steps end then.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from simpod.cost.frontend import Frontend
from simpod.engine.clock import DELIVER
from simpod.engine.ledger import ROW
from simpod.errors import InvariantError
from simpod.records.columns import Floats, FrontendRecords, Ints

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.sequence import Sequence
    from simpod.engine.simulation import Simulation

STEP_BITS = 40
"""Of a message's key: which step of its group it is of."""

COLUMNS = tuple(
    ROW.index(name)
    for name in (
        "group",
        "first_step",
        "num_steps",
        "start_s",
        "base_s",
        "slope_s",
        "first_decode_step",
        "decode_seqs",
    )
)


def departures(arrive_s: Floats, work_s: Floats, free_s: float) -> Floats:
    """[n] when each message is served: max(arrival, departure before it) + work (Lindley 1952).

    arrive_s ascends; free_s: departure before the first. Unrolled, with W = work summed up to and
    with message k, departure k = W(k) + max over j <= k of (arrival j - W(j - 1)).
    """
    done_s = work_s.cumsum()
    begin_s = np.maximum.accumulate(np.maximum(arrive_s - (done_s - work_s), free_s))
    left_s: Floats = np.maximum(begin_s + done_s, arrive_s + work_s)  # rounding: not before it came
    return left_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Messages:
    """Messages in a row, [n]."""

    key: Ints
    time_s: Floats  # their steps end
    tokens: Ints
    decodes: Ints  # 1: of a decode step
    left_s: Floats


class FrontendQueue:
    """Takes the tokens of all steps, in order of time; says when they have left."""

    def __init__(self, sim: "Simulation", law: Frontend) -> None:
        self._sim = sim
        self._law = law
        waits = bool(np.isnan(sim.inputs.requests.arrival_s).any())
        self._on_left: Callable[[int], None] | None = sim.source.on_end if waits else None
        self._free_s = -inf
        self._read = 0  # bytes of the log of runs
        self._here = np.zeros(len(sim.groups), dtype=np.int64)  # steps of each group that have come
        self._next_s = np.full(len(sim.groups), -inf)  # when one may have more; -inf: unknown
        self._clock = sim.groups[-1].tokens  # prefill pools, which come first, do not decode
        self._has_pauses = any(group.ledger.pauses for group in sim.groups)
        self._singles = array("d")  # group, step, its end, tokens beside those of decoding
        self._prompts = array("q")  # request, group, step: of tokens that a prompt's end gave
        self._ended: list[tuple[int, int]] = []  # request, key: not known yet when it leaves
        self._all: list[Messages] = []

    # --- while the run goes on ------------------------------------------------------------------

    def prompt_token(self, seq: "Sequence", group: "Group") -> None:
        """The step of a group that ends now gives a token by the end of a prompt."""
        step = group.ledger.num_steps - 1
        self._singles.extend((group.index, step, self._sim.clock.now, 1))
        self._prompts.extend((seq.seq_id, group.index, step))

    def ended(self, seq: "Sequence") -> None:
        """A request gets its last token with the step that ends now."""
        if seq.ledger >= 0:
            index = seq.ledger
            step = self._sim.groups[index].ledger.num_steps - 1
            if surplus := self._surplus(seq):
                self._singles.extend((index, step, self._sim.clock.now, -surplus))
        else:
            index, step = self._prompts[-2:]
        if self._on_left is None:
            return
        self._ended.append((seq.seq_id, self._key(index, step)))
        if len(self._ended) == 1:  # nothing that comes from now on leaves before what is here
            clock = self._sim.clock
            clock.call_at(max(clock.now, self._free_s), DELIVER, self._answer)

    def _surplus(self, seq: "Sequence") -> int:
        """Draft tokens of its last step beyond those that it was to have: they are not sent."""
        group = self._sim.groups[seq.ledger]
        gained = group.tokens.at(group.ledger.num_decode_steps)
        gained -= group.tokens.at(seq.first_decode_step)
        return seq.emitted_tokens + gained - self._sim.output_tokens[seq.seq_id]

    def _answer(self) -> None:
        """Find when the requests that have ended leave, and tell then."""
        ended, self._ended = self._ended, []
        new = self._take_in(self._over(), self._under_way())
        clock, on_left = self._sim.clock, self._on_left
        order = np.argsort(new.key)
        keys = np.array([key for _, key in ended])
        place = order[np.minimum(np.searchsorted(new.key[order], keys), len(order) - 1)]
        if on_left is None or (new.key[place] != keys).any():
            raise InvariantError("a request ended with a step that has not come to the frontend")
        for (seq_id, _), left_s in zip(ended, new.left_s[place].tolist(), strict=True):
            clock.call_at(max(left_s, clock.now), DELIVER, partial(on_left, seq_id))

    def _under_way(self) -> Floats:
        """[runs, len(COLUMNS)] steps that are over of runs under way; they hold no prompts.

        Not all groups are looked at: in a run they are again when its next step is over.
        """
        rows, now_s = [], self._sim.clock.now
        for index in np.flatnonzero(self._next_s <= now_s).tolist():
            group = self._sim.groups[index]
            run = group.under_way
            if run is None:
                continue
            steps = run.steps_by(now_s) if run.steps > 1 else 0  # the log tells of single ones
            self._next_s[index] = run.end_of(steps + 1) if run.steps > max(1, steps) else inf
            if not steps:
                continue
            law = run.start_s, run.prices.base_s, run.prices.slope_s
            number = group.ledger.num_steps
            rows.append((index, number, steps, *law, run.first, group.num_decoding))
        return np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS))

    def _over(self) -> Floats:
        """[runs, len(COLUMNS)] runs that have ended since the last time."""
        log = self._sim.log.rows
        rows = np.frombuffer(bytes(log[self._read :])).reshape(-1, len(ROW))[:, COLUMNS]
        self._read = len(log)
        self._next_s[rows[:, 0].astype(np.int64)] = -inf
        return rows

    # --- messages -------------------------------------------------------------------------------

    def _key(self, group: int, step: int) -> int:
        """Identity of a message; ascends in the order of one instant (`clock.STEP_END`)."""
        return (len(self._here) - 1 - group << STEP_BITS) + step

    def _take_in(self, *parts: Floats) -> Messages:
        """Serve what has come since the last time; runs that are over come before others."""
        rows = np.concatenate(parts)
        key, time_s, tokens = self._of_decodes(rows[rows[:, -1] > 0])
        self._here[rows[:, 0].astype(np.int64)] = (rows[:, 1] + rows[:, 2]).astype(np.int64)
        singles = np.array(self._singles).reshape(-1, 4)
        del self._singles[:]
        group, step, more = (singles[:, column].astype(np.int64) for column in (0, 1, 3))
        key = np.concatenate([key, (len(self._here) - 1 - group << STEP_BITS) + step])
        num_decodes = len(time_s)
        time_s, tokens = np.append(time_s, singles[:, 2]), np.append(tokens, more)
        key, first, same = np.unique(key, return_index=True, return_inverse=True)
        order = np.argsort(time_s[first], kind="stable")
        time_s = time_s[first][order]
        tokens = np.bincount(same, tokens, len(key)).astype(np.int64)[order]
        left_s = departures(time_s, self._law.work_s(tokens), self._free_s)
        if len(left_s):
            self._free_s = float(left_s[-1])
        decodes = (first < num_decodes).astype(np.int64)[order]
        new = Messages(key=key[order], time_s=time_s, tokens=tokens, decodes=decodes, left_s=left_s)
        self._all.append(new)
        return new

    def _of_decodes(self, rows: Floats) -> tuple[Ints, Floats, Ints]:
        """[n] key, end and tokens of the decode steps of `rows` that have not come before."""
        group, number, steps, first, seqs = (
            rows[:, column].astype(np.int64) for column in (0, 1, 2, 6, 7)
        )
        start_s, base_s, slope_s = rows[:, 3:6].T
        before = np.clip(self._here[group] - number, 0, steps)
        count = steps - before
        row = np.repeat(np.arange(len(rows)), count)
        done = np.arange(len(row)) - (count.cumsum() - count - before)[row] + 1
        gained = self._clock.gained_sums(first[row], done)
        end_s = start_s[row] + (done * base_s[row] + slope_s[row] * gained)
        step = number[row] + done
        for index in np.unique(group[row]).tolist() if self._has_pauses else ():
            if (pauses := self._sim.groups[index].ledger.pauses) is not None:
                here = group[row] == index
                sums_s = pauses.sums(int(step[here].max()))
                end_s[here] += sums_s[step[here]] - sums_s[number[row][here]]
        ups, downs = self._clock.tokens, self._clock.per_steps
        so_far = first[row] + done
        tokens = seqs[row] * (so_far * ups // downs - (so_far - 1) * ups // downs)
        return (len(self._here) - 1 - group[row] << STEP_BITS) + step - 1, end_s, tokens

    # --- after the run --------------------------------------------------------------------------

    def close(self) -> "Deliveries":
        """Everything that the groups have given, served to the end."""
        self._take_in(self._over())
        parts = self._all
        return Deliveries(
            Messages(
                **{
                    name: np.concatenate([getattr(part, name) for part in parts])
                    for name in Messages.__slots__
                }
            ),
            self._law,
            len(self._here),
            np.array(self._prompts, dtype=np.int64).reshape(-1, 3),
        )


class Deliveries:
    """When tokens have left, looked up by step and by request."""

    def __init__(self, messages: Messages, law: Frontend, num_groups: int, prompts: Ints) -> None:
        """`prompts` [p, 3]: request, group, step of each token that the end of a prompt gave."""
        self._messages = messages
        self._law = law
        self._num_groups = num_groups
        order = np.argsort(messages.key)
        self._keys, self._left_s = messages.key[order], messages.left_s[order]
        decodes = messages.decodes[order] > 0
        self._decode_keys, self._decode_left_s = self._keys[decodes], self._left_s[decodes]
        self._requests = prompts[:, 0]
        self._prompt_keys = (num_groups - 1 - prompts[:, 1] << STEP_BITS) + prompts[:, 2]

    @property
    def end_s(self) -> float:
        """When the last token has left; -inf: there was none."""
        return float(self._messages.left_s.max(initial=-inf))

    def decode_left_s(self, group: int) -> Floats:
        """[num_decode_steps] when the tokens of each decode step of a group have left."""
        first = self._num_groups - 1 - group << STEP_BITS
        low, high = np.searchsorted(self._decode_keys, [first, first + (1 << STEP_BITS)])
        return self._decode_left_s[low:high]

    def of_prompts(self, request_id: Ints, *, last: bool) -> Floats:
        """[n] when the first (last) token by the end of a prompt has left; NaN: there is none."""
        left_s = np.full(len(request_id), np.nan)
        place = np.searchsorted(self._keys, self._prompt_keys)
        row = np.searchsorted(request_id, self._requests)
        way = slice(None) if last else slice(None, None, -1)
        left_s[row[way]] = self._left_s[place][way]  # of several for one row, numpy keeps the last
        return left_s

    def records(self) -> FrontendRecords:
        """The messages, in order of time."""
        messages = self._messages
        return FrontendRecords(
            time_s=messages.time_s,
            tokens=messages.tokens,
            work_s=self._law.work_s(messages.tokens),
            left_s=messages.left_s,
            s_per_token=self._law.s_per_token,
            s_per_message=self._law.s_per_message,
            processes=self._law.processes,
        )
