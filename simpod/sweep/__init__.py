"""Many runs: comparisons with paired seeds, sweeps, searches, and the simulator's own benchmark."""
