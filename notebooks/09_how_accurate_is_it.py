# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 09 How accurate is it?
#
# **Claim.** Steps and throughput of published deployments with full batches are met within 5 %; a small batch, and what one die
# sees of an exchange, are missed by up to 30 %. Where the rate was not published it was chosen by the TTFT.

# %%
from pictures import FAST, show

from simpod.report import plot_parity
from simpod.validate.points import shipped_points, validate_points

points = [p for p in shipped_points() if not FAST or p.experiment.startswith("cloudmatrix384")]
found = validate_points(points, processes=1).as_json()

# %%
show(plot_parity(found), "09-parity")

# %%
for point in found["points"]:
    print(f"{point['id']:45} {point['metric']:24} {point['error_frac']:+.0%}")
errors = {point["id"]: abs(point["error_frac"]) for point in found["points"]}
assert errors["xdeepserve.colocated-288.tpot"] < 0.05

# %% [markdown]
# **What would overturn it.** More points: these are the few that ship with simpod. `simpod validate` with a folder
# of measurements compares kernels, collectives, whole forward passes and deployments, thousands of rows, and prints the
# median and the worst of each group. A published figure whose setting is only partly stated can be missed by a
# factor without either side being wrong: the notes of each point say what was assumed.
