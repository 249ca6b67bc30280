"""Where time went, as numbers: parts of TTFT (and decode) of requests, parts of a pool's step."""

from typing import TYPE_CHECKING, Final

import numpy as np

from simpod.metrics.attribution import TTFT_PARTS
from simpod.records.columns import STEP_PARTS

if TYPE_CHECKING:
    import pandas as pd

DECODE: Final = "decode"
PARTS: Final = (*TTFT_PARTS, DECODE)
"""Parts of a request's time; `decode` is from the first token to the last."""

TAIL: Final = 0.99


def request_parts(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Seconds of each of `PARTS`, a row a request."""
    import pandas as pd

    parts = {part: rows[f"{part}_s"] for part in TTFT_PARTS}
    return pd.DataFrame({**parts, DECODE: rows["finish_s"] - rows["first_token_s"]})


def mean_and_tail(rows: "pd.DataFrame", total: str = "ttft_s") -> "pd.DataFrame":
    """Mean seconds of each part over all requests, and over those in the slowest hundredth.

    The parts of the slowest add up to *their* mean: that is what a request at the 99th percentile
    went through. (The 99th percentiles of the parts would not add up to anything.)
    """
    import pandas as pd

    names = TTFT_PARTS if total == "ttft_s" else PARTS
    parts = request_parts(rows)[list(names)]
    slowest = rows[total] >= np.quantile(rows[total], TAIL)
    return pd.DataFrame({"mean": parts.mean(), "slowest 1 %": parts[slowest].mean()})


def step_shares(steps: "pd.DataFrame") -> "pd.DataFrame":
    """Mean seconds a step of each of `STEP_PARTS`, a column a pool."""
    import pandas as pd

    columns = [f"{part}_s" for part in STEP_PARTS]
    sums = steps.groupby("pool", observed=True)[columns].sum()
    counts = steps.groupby("pool", observed=True)["num_steps"].sum()
    means = sums.div(counts, axis=0).T
    return pd.DataFrame(means.to_numpy(), index=pd.Index(STEP_PARTS), columns=list(means.columns))
