"""Cache policies, one a file: which block of a full cache goes first."""
