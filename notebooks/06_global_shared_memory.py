# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 06 Global shared memory: UB against VPC
#
# **Claim.** A context cache in the DRAM of a SuperPod's hosts saves prefill what is reused, whichever network it is
# read over; the fast one (UB) keeps the reading itself out of the TTFT, the slow one (VPC) lets it grow with reuse.

# %%
import matplotlib.pyplot as plt
from pictures import first, show, simulate

from simpod.metrics import ttft_parts_s

PROMPT_TOKENS = 4096
PLANES = {"scale_up": "UB", "vpc": "VPC"}
REUSE = first((0.125, 0.5, 0.875), 2)

ttft_ms = {plane: [] for plane in PLANES}
reading_ms = {plane: [] for plane in PLANES}
for plane in PLANES:
    for share in REUSE:
        prefix = int(PROMPT_TOKENS * share)
        result = simulate(
            "cloudmatrix-infer-context-caching",
            f"shared_memory.plane={plane}",
            f"workload.shared_prefix.tokens={prefix}",
            f"workload.prompt_tokens.value={PROMPT_TOKENS - prefix}",
            num_requests=6912,
        )
        requests = result.records.requests
        cached = requests.cached_tokens > 0
        parts = ttft_parts_s(requests)
        ttft_ms[plane].append(result.summary["mean_ttft_ms"])
        reading_ms[plane].append(1000 * parts["cache_read"][cached].mean())

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
for plane, name in PLANES.items():
    left.plot(REUSE, ttft_ms[plane], marker="o", label=name)
    right.plot(REUSE, reading_ms[plane], marker="o", label=name)
left.set(xlabel="share of the prompt that is reused", ylabel="mean TTFT, ms", ylim=(0, None))
right.set(xlabel="share of the prompt that is reused", ylabel="reading, ms", ylim=(0, None))
left.legend(frameon=False)
show(left, "06-reuse")

# %%
for plane, name in PLANES.items():
    pairs = zip(ttft_ms[plane], reading_ms[plane], strict=True)
    print(name, [f"{ms:.0f} ms, {read:.1f} of it reading" for ms, read in pairs])
assert ttft_ms["scale_up"][-1] < ttft_ms["scale_up"][0]
assert reading_ms["scale_up"][-1] < 0.2 * reading_ms["vpc"][-1]

# %% [markdown]
# **What would overturn it.** The saving is larger here than the one that was measured (docs/shared-memory.md says by how
# much): a part of a real prefill step does not shrink with reuse. Slow reads would not show where steps go on without
# the prompts that wait for them (`shared_memory.reads: async`) and enough others are there.
