"""Expert-parallel exchange and point-to-point transfer, priced from what the kernels do.

Start here: `breakdown` (what every price returns), `shapes` (what is exchanged over what), then one
file a mechanism. Everything here moves bytes; waiting for the slowest rank is the engine's.
"""
