# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 09 How accurate is it?
#
# **Claim.** The step of a published deployment is met within a few per cent; a latency that hangs on a queue, and on
# settings that were not published, can be off by a factor. Both are shown.

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
assert min(errors.values()) < 0.2

# %% [markdown]
# **What would overturn it.** More points: these are the few that ship with simpod. `simpod validate` with a folder
# of measurements compares kernels, collectives, whole forward passes and deployments, thousands of rows, and prints the
# median and the worst of each group. A published figure whose setting is only partly stated can be missed by a
# factor without either side being wrong: the notes of each point say what was assumed.
