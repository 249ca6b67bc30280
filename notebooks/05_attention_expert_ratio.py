# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 05 Attention and experts on dies of their own: which ratio?
#
# **Claim.** With 96 sequences on every attention die, a whole pod gives more tokens the more of its dies do attention,
# up to three for each expert die: half of the dies for experts is too many. (Answers of 256 tokens: contexts are shorter,
# and rates a twentieth higher, than those of whole answers in docs/experts.md.)

# %%
import matplotlib.pyplot as plt
from pictures import FAST, show, simulate

DIES, SEQS, NPUS, TOKENS_PER_STEP = 768, 96, 384, 1.9
ATTENTION_DIES = (384, 576) if FAST else (384, 480, 576)

tokens_per_s = []
for attention in ATTENTION_DIES:
    experts = DIES - attention
    decode = simulate(
        "xdeepserve-disaggregated-768",
        f"deployment.decode.dies={attention}",
        f"deployment.decode.expert_dies={experts}",
        f"policies.experts.redundant_slots={2 * experts - 256 - 32}",
        "workload.output_tokens.value=256",
        num_requests=4 * SEQS * attention,
    ).summary["step_breakdown"]["decode"]
    tokens_per_s.append(SEQS * attention * TOKENS_PER_STEP / decode["mean_decode_step_s"] / NPUS)

# %%
figure, axes = plt.subplots(figsize=(4.5, 3), layout="constrained")
axes.bar([f"{a} : {DIES - a}" for a in ATTENTION_DIES], tokens_per_s)
axes.set(xlabel="attention : expert dies", ylabel="tokens/s per NPU")
show(axes, "05-ratio")

# %%
for attention, rate in zip(ATTENTION_DIES, tokens_per_s, strict=True):
    print(f"{attention} attention, {DIES - attention} expert dies: {rate:.0f} tokens/s per NPU")
assert tokens_per_s == sorted(tokens_per_s)

# %% [markdown]
# **What would overturn it.** Longer contexts need more attention dies for the same batch; a tighter TPOT target leaves
# fewer sequences on a die, and experts that are read from memory for fewer tokens; beyond 3 : 1 experts bind
# (docs/experts.md). Published is 480 : 288.
