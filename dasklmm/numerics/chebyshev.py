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


def polynomials(x: Float, k: int) -> Float:
    """T_0 … T_(k-1) at x, (k, *x.shape), within 2e-13 for 68 of them.

    By T_(m+j) = 2 T_m T_j - T_(m-j), all j at once. One after the other they are many small calls, between which
    threads wait for the interpreter: 68 at 512 points took 112 us, and 47 so.
    """
    out = np.empty((k, *x.shape))
    out[0] = 1.0
    out[1:2] = x
    done = 2
    while done < k:
        m = done - 1
        new = out[done : done + min(m, k - done)]
        np.multiply(out[1 : 1 + len(new)], 2.0 * out[m], out=new)
        new -= out[m - len(new) : m][::-1]
        done += len(new)
    return out


def lobatto(n: int) -> Float:
    """Chebyshev-Lobatto points in [-1, 1], ascending."""
    return np.asarray(-np.cos(np.pi * np.arange(n) / (n - 1)))
