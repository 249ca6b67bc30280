# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 01 A first run: where does the time to the first token go?
#
# **Claim.** In the quickstart, prompts hardly queue: a request spends more of its time to first token
# being computed, and waiting for slower ranks of its lock-step group, than waiting for its turn.

# %%
from pictures import show, simulate

from simpod.report import plot_attribution, plot_timeline, requests_of

result = simulate("quickstart", num_requests=6000)
print({name: result.summary[name] for name in ("mean_ttft_ms", "p99_ttft_ms", "slo_attainment")})

# %%
show(plot_attribution(result), "01-where-the-ttft-went")

# %%
show(plot_timeline(result), "01-timeline")

# %%
mean_s = requests_of(result)[["queue_s", "prefill_s", "barrier_s", "transfer_s"]].mean()
print(mean_s.round(4).to_dict())
assert mean_s["prefill_s"] + mean_s["barrier_s"] > mean_s["queue_s"]

# %% [markdown]
# **What would overturn it.** A higher rate: at 50 requests/s the queue is most of the TTFT
# (`simulate("quickstart", "workload.arrivals.rate_per_s=50", ...)`). A batch scheduler that splits
# prompts so that ranks finish together would remove the barrier's share.
