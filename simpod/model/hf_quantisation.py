"""The data type in which a HuggingFace checkpoint holds its weights."""

from collections.abc import Mapping
from typing import Any

from simpod.model.hf_fields import Fields
from simpod.model.spec import Dtype, QuantisablePart

Published = tuple[Dtype, tuple[QuantisablePart, ...]]

_PLAIN: dict[str, Dtype] = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
}
_METHODS: dict[str, Dtype] = {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "fp4"}
_BY_BITS: dict[tuple[str, int], Dtype] = {
    ("int", 8): "int8",
    ("int", 4): "int4",
    ("float", 8): "fp8",
    ("float", 4): "fp4",
}
_MODELOPT: dict[str, Dtype] = {"FP8": "fp8", "NVFP4": "fp4"}


def published_dtype(fields: Fields) -> Published:
    """Data type of the linear layers, and which of them the file keeps in bf16 all the same."""
    quantisation = fields.get("quantization_config")
    if not isinstance(quantisation, Mapping):
        return _plain(fields), ()
    dtype = _quantised(quantisation)
    if dtype is None:
        fields.problems.append(
            "quantization_config: must be quant_method fp8, fbgemm_fp8, mxfp4, compressed-tensors,"
            " awq, gptq or modelopt with 4 or 8 bits, one group of weights;"
            f" got quant_method {quantisation.get('quant_method')!r}"
        )
        return "bf16", ()
    layers = fields.count("num_hidden_layers")
    return dtype, _kept_in_bf16(quantisation, layers)


def _plain(fields: Fields) -> Dtype:
    key = fields.first("torch_dtype", "dtype")
    if key is None:
        fields.problems.append("torch_dtype is missing, and so is quantization_config")
        return "bf16"
    dtype = _PLAIN.get(str(fields.get(key)).removeprefix("torch."))
    if dtype is None:
        fields.wrong(key, " or ".join(_PLAIN))
    return dtype or "bf16"


def _quantised(quantisation: Mapping[str, Any]) -> Dtype | None:
    method = str(quantisation.get("quant_method", ""))
    if method in _METHODS:
        return _METHODS[method]
    if method in ("awq", "gptq"):
        return _BY_BITS.get(("int", quantisation.get("bits", 0)))
    if method == "modelopt":
        return _MODELOPT.get(str(quantisation.get("quant_algo")))
    if method == "compressed-tensors":
        return _group_dtype(quantisation.get("config_groups"))
    return None


def _group_dtype(groups: Any) -> Dtype | None:
    """The type that all groups share; None when they differ or say nothing."""
    if not isinstance(groups, Mapping):
        return None
    weights = [
        group.get("weights") or {} for group in groups.values() if isinstance(group, Mapping)
    ]
    found = {_BY_BITS.get((str(w.get("type")), int(w.get("num_bits") or 0))) for w in weights}
    return found.pop() if len(found) == 1 else None


def _kept_in_bf16(quantisation: Mapping[str, Any], num_layers: int) -> tuple[QuantisablePart, ...]:
    """Parts that the list of exceptions names by a pattern, or in at least half of the layers.

    The list may name thousands of single modules, or patterns; embedding, head and router are bf16
    anyway.
    """
    entries = quantisation.get("modules_to_not_convert") or quantisation.get("ignore") or []
    layers: dict[QuantisablePart, int] = {}
    for entry in map(str, entries):
        part = _part_of(entry)
        if part is not None:
            is_pattern = "*" in entry or not any(char.isdigit() for char in entry)
            layers[part] = layers.get(part, 0) + (num_layers if is_pattern else 1)
    return tuple(sorted(part for part, count in layers.items() if 2 * count >= num_layers))


def _part_of(entry: str) -> QuantisablePart | None:
    if "attn" in entry:
        return "attention"
    if "shared_expert" in entry:
        return "shared_experts"
    is_ffn = "mlp" in entry and "expert" not in entry
    return "dense_ffn" if is_ffn and ("down" in entry or "up_proj" in entry) else None
