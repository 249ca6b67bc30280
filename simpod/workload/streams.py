"""Random numbers: one named stream per use, so that a new use shifts no other."""

import hashlib
from collections.abc import Callable

import numpy as np

Stream = Callable[[str], np.random.Generator]


def streams(seed: int) -> Stream:
    """Return the streams of a seed: the same name gives the same numbers, in any order of asking.

    Each call starts its stream anew, so a user asks once and keeps the generator. The name enters
    by its SHA-256, which is the same in every process.
    """

    def stream(name: str) -> np.random.Generator:
        words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4")
        key = tuple(int(word) for word in words)
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))

    return stream
