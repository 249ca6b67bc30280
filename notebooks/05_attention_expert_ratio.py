# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 05 Attention and experts on dies of their own: which ratio?
#
# **Claim.** With 96 sequences on every attention die, a whole pod gives most tokens with three dies for attention to one for
# experts: with fewer attention binds, with more the experts. (At 528 : 240 experts bind, too: their slots do not go into
# 256 experts evenly.)

# %%
import matplotlib.pyplot as plt
from pictures import FAST, show

from simpod.config import load_experiment
from simpod.run import run
from simpod.sweep.plan import Plan
from simpod.sweep.spec import load_sweep

PUBLISHED = 480

points = [planned.values for planned in Plan(load_sweep("attention-expert-ratio"))]
shorter = []
if FAST:
    points, shorter = points[2:7:4], ["workload.output_tokens.value=256"]

attention_dies, tokens_per_s, tpot_ms = [], [], []
for values in points:
    changes = [f"{key}={value}" for key, value in values.items()]
    summary = run(load_experiment("xdeepserve-disaggregated-768", [*changes, *shorter])).summary
    attention_dies.append(values["deployment.decode.dies"])
    tokens_per_s.append(summary["output_throughput_per_npu"])
    tpot_ms.append(summary["mean_tpot_ms"])

# %%
figure, (rates, paces) = plt.subplots(
    2, 1, figsize=(5, 4), layout="constrained", sharex=True, height_ratios=(2, 1)
)
rates.plot(attention_dies, tokens_per_s, marker="o")
rates.set(ylabel="tokens/s per NPU", ylim=(0, None))
paces.plot(attention_dies, tpot_ms, marker="o", color="C1")
paces.set(xlabel="dies for attention, of 768", ylabel="TPOT, ms", ylim=(0, None))
for axes in (rates, paces):
    axes.axvline(PUBLISHED, color="grey", linestyle=":")
rates.annotate("published", (PUBLISHED, 100), xytext=(4, 0), textcoords="offset points")
show(rates, "05-ratio")

# %%
for attention, rate, pace in zip(attention_dies, tokens_per_s, tpot_ms, strict=True):
    print(f"{attention} : {768 - attention}: {rate:.0f} tokens/s per NPU, TPOT {pace:.1f} ms")
best = max(zip(tokens_per_s, attention_dies, strict=True))[1]
assert best == 576

# %% [markdown]
# **What would overturn it.** Longer contexts need more attention dies for the same batch; a tighter TPOT target leaves
# fewer sequences on a die, and experts that are read from memory for fewer tokens. Published is 480 : 288.
