# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 07 Capacity planning: the fewest NPUs for a load
#
# **Claim.** For 20 chats a second of DeepSeek-R1 on CloudMatrix384, it matters where NPUs go: of two splits of 48
# NPUs, only the one with two prefill engines keeps 90 % within the SLO, and a larger decode pool adds nothing.

# %%
import pandas as pd
from pictures import show, simulate

from simpod.report import plot_pareto, runs_of

SPLITS = {f"{p}P{d}D": (p, d) for p in (1, 2) for d in (32, 64)}
rows = []
for name, (prefill, decode) in SPLITS.items():
    result = simulate(
        "quickstart",
        "workload.arrivals.rate_per_s=20",
        f"deployment.prefill.instances={prefill}",
        f"deployment.decode.dies={decode}",
        num_requests=2400,
    )
    rows.append(runs_of([result]).assign(variant=name))
runs = pd.concat(rows, ignore_index=True)

# %%
show(plot_pareto(runs), "07-pareto")

# %%
print(runs[["variant", "num_npus", "slo_attainment", "saturation.pool"]].to_string(index=False))
enough = runs[runs["slo_attainment"] >= 0.9].sort_values("num_npus")
cheapest = enough.iloc[0]
print(f"cheapest that holds: {cheapest['variant']} with {cheapest['num_npus']:g} NPUs")
assert cheapest["num_npus"] < runs["num_npus"].max()

# %% [markdown]
# **What would overturn it.** Longer answers fill decode instead; another SLO moves the border; a failure
# leaves one instance fewer, so plan for what is left after it. `simpod sweep` and `simpod search` do this for spaces
# that are larger than four points.
