"""How a HuggingFace checkpoint holds its weights: data type, and groups that share a scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from simpod.model.hf_fields import Fields
from simpod.model.spec import Dtype, QuantisablePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """How linear layers are stored: as the fields of the same names in `ModelSpec`."""

    weight_dtype: Dtype
    weight_group_size: int | None = None
    bf16_parts: tuple[QuantisablePart, ...] = ()


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
_GROUP_OF_FORMAT = {"mxfp4": 32, "NVFP4": 16}  # fixed by the formats themselves


def published_weights(fields: Fields) -> Published:
    """Data type and groups of the linear layers, and which of them stay bf16 all the same."""
    quantisation = fields.get("quantization_config")
    if quantisation is not None and not isinstance(quantisation, Mapping):
        fields.wrong("quantization_config", "a mapping with quant_method, or null")
    if not isinstance(quantisation, Mapping):
        return Published(weight_dtype=_plain(fields))
    dtype = _quantised(quantisation)
    if dtype is None:
        fields.problems.append(
            "quantization_config: must be quant_method fp8, fbgemm_fp8, mxfp4, compressed-tensors,"
            " awq, gptq or modelopt with 4 or 8 bits, one group of weights;"
            f" got quant_method {quantisation.get('quant_method')!r}"
        )
        return Published(weight_dtype="bf16")
    layers = fields.count("num_hidden_layers")
    return Published(
        weight_dtype=dtype,
        weight_group_size=_group_size(fields, quantisation),
        bf16_parts=_kept_in_bf16(quantisation, layers),
    )


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
        weights = _weights_of_groups(quantisation)
        found = {_BY_BITS.get((str(w.get("type")), int(w.get("num_bits") or 0))) for w in weights}
        return found.pop() if len(found) == 1 else None
    return None


def _weights_of_groups(quantisation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What compressed-tensors says of the weights of each of its groups of layers."""
    groups = quantisation.get("config_groups")
    if not isinstance(groups, Mapping):
        return []
    return [group.get("weights") or {} for group in groups.values() if isinstance(group, Mapping)]


def _group_size(fields: Fields, quantisation: Mapping[str, Any]) -> int | None:
    """Numbers that share a scale; None for a scale a row or a matrix. Mistakes are noted."""
    method = str(quantisation.get("quant_method", ""))
    for name in (method, str(quantisation.get("quant_algo"))):
        if name in _GROUP_OF_FORMAT:
            return _GROUP_OF_FORMAT[name]
    if method == "compressed-tensors":
        weights = _weights_of_groups(quantisation)
        given = [w.get("group_size") or w.get("block_structure") for w in weights]
    else:
        given = [quantisation.get("group_size"), quantisation.get("weight_block_size")]
        given = [value for value in given if value is not None]
    sizes = {_size(value) for value in given}
    if len(sizes) > 1 or 0 in sizes:
        fields.problems.append(
            "quantization_config: must have one group_size for all weights (-1: a scale a row), or"
            f" weight_block_size [rows, columns]; got {', '.join(map(repr, given))}"
        )
        return None
    return sizes.pop() if sizes else None


def _size(value: Any) -> int | None:
    """Numbers in a group of `32`, a block of `[128, 128]` or `"128x128"`; 0: it is none of them."""
    if value is None or value == -1:
        return None
    sides = value.split("x") if isinstance(value, str) else value
    sides = sides if isinstance(sides, list) else [sides]
    if sides and all(str(side).isdecimal() for side in sides):
        return prod(int(side) for side in sides)
    return 0


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
