"""Functions between Chebyshev-Lobatto points: coefficients, derivatives and values from the values there.

Source: Trefethen, Approximation Theory and Approximation Practice, chapters 3 and 8.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from dasklmm.numerics.records import Float


class Series(NamedTuple):
    """Matrices from values at Chebyshev-Lobatto points in [-1, 1], ascending."""

    values: Float  # to the coefficients of the function
    first: Float  # to those of its first derivative
    second: Float
    points: Float  # where curves are looked at for their lowest place
    at_points: Float  # to the values there


@cache
def series(k: int) -> Series:
    """Matrices for functions given at k points.

    Their last bits must not depend on the threads of BLAS, or a scan's would depend on what a process did before:
    the coefficients have a closed form (the discrete cosine transform), and the product is NumPy's own.
    """
    ends = np.ones(k)
    ends[[0, -1]] = 0.5
    values = 2.0 / (k - 1) * np.outer(ends, ends) * chebyshev.chebvander(lobatto(k), k - 1).T
    first, second = (np.vstack([chebyshev.chebder(values, m, axis=0), np.zeros((m, k))]) for m in (1, 2))
    points = np.linspace(-1.0, 1.0, 2 * k + 1)
    at_points = np.einsum("pj,jk->pk", chebyshev.chebvander(points, k - 1), values)
    return Series(values, first, second, points, at_points)


def lobatto(n: int) -> Float:
    """Chebyshev-Lobatto points in [-1, 1], ascending."""
    return np.asarray(-np.cos(np.pi * np.arange(n) / (n - 1)))
