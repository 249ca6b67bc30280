"""Which links are joined by transfers, directly or through others."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


MOST_STARTED = 1000
"""After so many starts, labels are made anew when they are needed next."""


class Components:
    """A label for every link; links that transfers join have the same one.

    Ends of transfers are not followed one by one: labels may join too much until they are made
    anew, after as many ends as there are transfers. That costs time, never correctness.
    """

    def __init__(self, num_links: int) -> None:
        self._labels = np.arange(num_links + 1, dtype=np.int64)  # the last link stands for none
        self._started: list[tuple[int, ...]] = []
        self._num_ended = 0
        self._is_valid = True

    def start(self, path: tuple[int, ...]) -> None:
        """A transfer joins the links of its path."""
        if self._is_valid:
            self._started.append(path)
            self._is_valid = len(self._started) < MOST_STARTED

    def end(self) -> None:
        """A transfer has ended."""
        self._num_ended += 1

    def forget(self) -> None:
        """Other links count from now on."""
        self._is_valid = False

    def joined(self, links: Ints, changed: list[int]) -> NDArray[np.bool_]:
        """Which transfers, [k, n] links of each, are in a component with one of `changed`."""
        if not self._is_valid or self._num_ended + len(self._started) > links.shape[1]:
            self._make(links)
        for path in self._started:
            self._join(path)
        self._started.clear()
        is_joined = np.zeros(len(self._labels), dtype=bool)
        is_joined[self._labels[changed]] = True
        found: NDArray[np.bool_] = is_joined.take(self._labels.take(links[0]))
        return found

    def _join(self, path: tuple[int, ...]) -> None:
        first, *others = {int(self._labels[link]) for link in path}
        for other in others:
            self._labels[self._labels == other] = first

    def _make(self, links: Ints) -> None:
        labels = np.arange(len(self._labels), dtype=np.int64)
        none = len(labels) - 1
        real = [np.where(row == none, links[0], row) for row in links]
        while True:
            before = labels.copy()
            lowest = np.minimum.reduce([labels.take(row) for row in real])
            for row in real:
                np.minimum.at(labels, row, lowest)
            labels = labels.take(labels)
            if np.array_equal(labels, before):
                break
        self._labels = labels
        self._started.clear()
        self._num_ended = 0
        self._is_valid = True
