"""Samples of measured kernel tables that ship: files DEVICE_kernels.csv with rows of many kinds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from simpod.validate.kernels import TableFile
from simpod.validate.points import PUBLISHED

if TYPE_CHECKING:
    import pandas as pd

SUFFIX: Final = "_kernels"
SAMPLED: Final = (
    "gemm",
    "moe",
    "context_attention",
    "generation_attention",
    "context_mla",
    "generation_mla",
    "mla_bmm",
)
"""Kinds of rows."""
DTYPES: Final = ("gemm_dtype", "bmm_dtype", "moe_dtype", "attn_dtype", "kv_cache_dtype")
"""What the kinds call the sample's column `dtype`."""
SHARED: Final[dict[str, Any]] = {
    "kernel_source": "vllm_ascend",
    "head_dim": 128,
    "moe_tp_size": 1,
    "distribution": "balanced",
}
"""What all rows have in common. Experts were drawn evenly and at random; rows with so few tokens
that this is not the same are not in a sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable(TableFile):
    """The rows of one kind in a sample."""

    def read(self) -> "pd.DataFrame":
        """As a table of that kind: with its columns alone, and its names of data types."""
        import pandas as pd

        sample = pd.read_csv(self.path, comment="#")
        rows = sample[sample["kind"] == self.kind].dropna(axis="columns")
        return rows.assign(**SHARED, **dict.fromkeys(DTYPES, rows["dtype"]))


def shipped_tables() -> list[TableFile]:
    """Every kind of every sample."""
    return [
        SampleTable(path=path, device=path.stem.removesuffix(SUFFIX), kind=kind)
        for path in sorted(PUBLISHED.glob(f"*{SUFFIX}.csv"))
        for kind in SAMPLED
    ]
