"""The engine against a second, naive scheduler: every request, every step, one by one.

The naive one is the rule of vLLM v1 written down as it is told: requests that run go first, in
order of admission, each gets what it lacks within the token budget; where blocks run out the one
admitted last makes way and is recomputed; if none had to, waiting ones are admitted in turn, while
their first chunk, or with `reserve_full_prompt` all of their tokens, would fit. A step takes 1 s.
"""

from dataclasses import dataclass, field

import numpy as np
from engine_cases import at, each_step, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

BLOCK = 4


@dataclass
class Job:
    arrival_s: float
    prompt: int
    output: int
    tokens: int = 0  # known: the prompt and what was sampled
    computed: int = 0
    goal: int = 0  # tokens when it was admitted: what is computed beyond them is decoding
    num_preemptions: int = 0
    first_token_s: float = float("nan")
    finish_s: float = float("nan")

    def __post_init__(self) -> None:
        self.tokens = self.prompt


@dataclass
class Naive:
    budget: int
    max_seqs: int
    num_blocks: int
    reserve_full_prompt: bool
    waiting: list[Job] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)

    def fits(self, job: Job, chunk: int) -> bool:
        """All that runs, each at its present size, and this one with its chunk."""
        others = sum(-(-other.computed // BLOCK) for other in self.running if other is not job)
        return others - (-(job.computed + chunk) // BLOCK) <= self.num_blocks

    def step(self) -> tuple[int, int]:
        """Prompt tokens and decoding sequences of one step, which is then over."""
        chunks: list[tuple[Job, int, bool]] = []
        budget, preempted, place = self.budget, False, 0
        while place < len(self.running) and budget:
            job = self.running[place]
            chunk = min(job.tokens - job.computed, budget)
            while not self.fits(job, chunk) and job in self.running:
                preempted = True
                victim = self.running.pop()
                victim.computed = 0
                victim.num_preemptions += 1
                self.waiting.insert(0, victim)
            if job not in self.running:
                break
            decodes = job.computed >= job.goal
            job.computed += chunk
            chunks.append((job, chunk, decodes))
            budget, place = budget - chunk, place + 1
        while not preempted and self.waiting and budget and len(self.running) < self.max_seqs:
            job = self.waiting[0]
            chunk = min(job.tokens, budget)
            if not self.fits(job, job.tokens if self.reserve_full_prompt else chunk):
                break
            self.running.append(self.waiting.pop(0))
            job.computed, job.goal = chunk, job.tokens
            chunks.append((job, chunk, False))
            budget -= chunk
        for job, _, _ in chunks:
            job.tokens += job.computed == job.tokens
        return (
            sum(chunk for _, chunk, decodes in chunks if not decodes),
            sum(decodes for _, _, decodes in chunks),
        )


def naive_run(jobs: list[Job], engine: Naive) -> list[tuple[int, int]]:
    """Steps (prompt tokens, decoding sequences) until all is done; times go into the jobs."""
    coming, now_s, steps = list(jobs), 0.0, []
    while coming or engine.waiting or engine.running:
        if not engine.waiting and not engine.running:
            now_s = max(now_s, coming[0].arrival_s)
        while coming and coming[0].arrival_s <= now_s:
            engine.waiting.append(coming.pop(0))
        steps.append(engine.step())
        now_s += 1.0
        for job in list(engine.running):
            if job.tokens > job.prompt and np.isnan(job.first_token_s):
                job.first_token_s = now_s
            if job.tokens == job.prompt + job.output:
                job.finish_s = now_s
                engine.running.remove(job)
    return steps


jobs_of = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 30), st.integers(1, 20)), min_size=1, max_size=14
)


@settings(max_examples=150)
@given(jobs_of, st.integers(8, 40), st.integers(1, 8), st.integers(13, 40), st.data())
def test_steps_are_those_of_a_naive_scheduler(
    rows: list[tuple[int, int, int]], budget: int, max_seqs: int, blocks: int, data: st.DataObject
) -> None:
    """Budgets hold all decodes (vLLM asks for that), blocks hold the longest request."""
    reserve, skip_ahead = data.draw(st.booleans()), data.draw(st.booleans())
    arrival_s = np.cumsum([0.5 * gap for gap, _, _ in rows])
    jobs = [Job(t, p, o) for t, (_, p, o) in zip(arrival_s.tolist(), rows, strict=True)]
    steps = naive_run(jobs, Naive(budget, max_seqs, blocks, reserve))
    records = simulate(
        at(arrival_s, [p for _, p, _ in rows], [o for _, _, o in rows]),
        max_step_tokens=budget,
        max_num_seqs=max_seqs,
        block_tokens=BLOCK,
        kv_blocks=blocks,
        reserve_full_prompt=reserve,
        run={"skip_ahead": skip_ahead},
    )
    found = zip(
        each_step(records, "prefill_tokens"), each_step(records, "decode_seqs"), strict=True
    )
    assert list(found) == steps
    requests = records.requests
    assert requests.num_preemptions.tolist() == [job.num_preemptions for job in jobs]
    assert requests.first_token_s.tolist() == [job.first_token_s for job in jobs]
    assert requests.finish_s.tolist() == [job.finish_s for job in jobs]
