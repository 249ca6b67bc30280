"""Constants of the kernel model, one file an operator class: named, bounded, without formulas.

The formulas that use them are in `simpod.cost.kernels`; what a device's constants are is in its
profile, with the data that they were fitted on.
"""
