"""What models are: specs, their parameter counts, and the reader of HuggingFace configurations."""

from simpod.model.huggingface import from_hf, read_hf
from simpod.model.spec import AttentionSpec, ModelSpec, MoeSpec
from simpod.model.weights import WeightBytes, weight_bytes, weight_parts

__all__ = [
    "AttentionSpec",
    "ModelSpec",
    "MoeSpec",
    "WeightBytes",
    "from_hf",
    "read_hf",
    "weight_bytes",
    "weight_parts",
]
