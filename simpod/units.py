"""Conversion to SI base units: `10 * US` seconds; sizes say GB or GiB on purpose."""

NS = 1e-9
US = 1e-6
MS = 1e-3
MINUTE = 60.0
HOUR = 3600.0

KB = 1e3
MB = 1e6
GB = 1e9
TB = 1e12
KIB = 2**10
MIB = 2**20
GIB = 2**30

GIGA = 1e9
TERA = 1e12

SECONDS_PER_UNIT = {"ns": NS, "us": US, "ms": MS, "s": 1.0}
"""What `time_unit` of a trace may be."""

BYTES_PER_ELEMENT = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
    "int4": 0.5,
    "w4a8": 0.5,
}
"""Storage of one number by data type, without quantisation scales; w4a8: int4 weights."""

PRODUCT_DTYPE = {"fp32": "bf16", "fp16": "bf16", "int4": "bf16", "w4a8": "int8"}
"""Data type of the products of weights held in a type that is not multiplied as it is."""
