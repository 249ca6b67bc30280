"""The normal law from tables."""

from math import erfc, sqrt

import numpy as np
import pytest

from simpod.cost.normal_law import log_normal_law, normal_law, normal_quantiles

Z = np.linspace(-7.9, 7.9, 9173)
LAW = np.array([0.5 * erfc(-z / sqrt(2.0)) for z in Z.tolist()])


def test_the_law_and_its_quantiles() -> None:
    assert normal_law(Z) == pytest.approx(LAW, abs=5e-7)
    assert normal_quantiles(LAW[Z < 6.0]) == pytest.approx(Z[Z < 6.0], abs=3e-6)
    nearest = np.array([0.5 * erfc(-z / sqrt(2.0)) for z in (Z + 2.1e-3).tolist()])
    assert (log_normal_law(Z) <= np.log(nearest)).all()
    assert (log_normal_law(Z + 2.1e-3) >= np.log(LAW)).all()


def test_beyond_the_tables() -> None:
    assert normal_quantiles(np.array([0.0, 0.5, 1.0])) == pytest.approx([-8.0, 0.0, 8.0])
    assert normal_law(np.array([-1e300, 1e300])) == pytest.approx([0.0, 1.0], abs=1e-14)
    assert log_normal_law(np.array([-1e300, 1e300])) == pytest.approx([-35.0, 0.0], abs=0.1)
