# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 04 Expert balancing on a SuperPod
#
# **Claim.** The more unevenly experts are liked, the longer every die of an EP288 decode instance waits for the fullest
# one; a balancer that fills the redundant slots by load (EPLB) takes most of that back.

# %%
import matplotlib.pyplot as plt
from pictures import first, show, simulate

# standard deviation of the log popularity; 0.64 and 1.02: recorded loads (docs/experts.md)
SKEW = first((0.0, 0.64, 1.02), 2)
BALANCERS = ("none", "eplb")
CONCURRENCY = 17280

step_ms = {
    use: [
        1000
        * simulate(
            "xdeepserve-colocated-288",
            f"expert_routing.log_scale={skew}",
            f"policies.experts.use={use}",
            "workload.output_tokens.mean=256",
            num_requests=4 * CONCURRENCY,
        ).summary["step_breakdown"]["decode"]["mean_decode_step_s"]
        for skew in SKEW
    ]
    for use in BALANCERS
}

# %%
figure, axes = plt.subplots(figsize=(4.5, 3), layout="constrained")
for use in BALANCERS:
    axes.plot(SKEW, step_ms[use], marker="o", label=use)
axes.set(xlabel="skew of the experts' popularity", ylabel="mean decode step, ms", ylim=(0, None))
axes.legend(frameon=False)
show(axes, "04-balancing")

# %%
for use in BALANCERS:
    print(use, [f"{ms:.1f} ms" for ms in step_ms[use]])
lost, kept = (step_ms[use][-1] - step_ms[use][0] for use in BALANCERS)
assert step_ms["none"] == sorted(step_ms["none"])
assert kept < 0.5 * lost

# %% [markdown]
# **What would overturn it.** The balancer saw the popularity that it served: with a drift faster than it decides
# (`expert_routing.kind: correlated` with `drift`, `policies.experts.every_s`) its copies are those of yesterday's favourites.
