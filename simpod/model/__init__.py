"""What models are: specs, their parameter counts, and the reader of HuggingFace configurations."""

from simpod.model.huggingface import from_hf, read_hf
from simpod.model.spec import AttentionSpec, ModelSpec, MoeSpec
from simpod.model.weights import WeightBytes, bytes_per_weight, weight_bytes, weight_parts

__all__ = [
    "AttentionSpec",
    "ModelSpec",
    "MoeSpec",
    "WeightBytes",
    "bytes_per_weight",
    "from_hf",
    "read_hf",
    "weight_bytes",
    "weight_parts",
]
