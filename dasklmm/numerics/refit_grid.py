"""Where the inner products of a refit are summed: nodes of a range, and the null model there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from scipy import linalg

from dasklmm.errors import OptionError
from dasklmm.numerics.chebyshev import lobatto, series
from dasklmm.numerics.records import Float, RefitGrid, RotatedData
from dasklmm.numerics.reml import Criterion, evaluate, grid_values, neg_log_likelihood

CRITERIA: tuple[Criterion, Criterion] = ("reml", "ml")
# Distance of sentinels in log gamma, at most. With p = d' / d in [0, 1], each of -L'', (log det <[X a], [X a]>)''
# a column, and (log RSS1)'' is a variance of p or less, at most 1/4, so that both curves bend by n / 4 at most
# and dip between sentinels by n step^2 / 32. In cohorts of more than 80 samples that would send every variant to
# the whole range, so that the margin is less, and variants that explain much go there in any case (refit.py).
SENTINEL_STEP, LARGEST_MARGIN = 2.0, 10.0
MOST_NODES = 256


def refit_grid(
    data: RotatedData,
    ends: tuple[float, float],
    bounds: tuple[float, float],
    tolerance: float,
    reference: tuple[float, float],
    tile: int,
) -> RefitGrid:
    """Nodes of a range and the null there; `reference` is the null's optimum by REML and by ML."""
    low, high = ends
    left, right = (max(0, int(np.ceil(gap / SENTINEL_STEP))) for gap in (low - bounds[0], bounds[1] - high))
    sentinels = [np.linspace(bounds[0], low, left + 1)[:-1], np.linspace(bounds[1], high, right + 1)[:-1]]
    between = _nodes(data, ends, tolerance, left + right)
    nodes = np.concatenate([between, *sentinels])
    null = [_null_at(data, float(u)) for u in nodes]
    optimum = [_null_at(data, u).base[i] for i, u in enumerate(reference)]
    return RefitGrid(
        log_gamma=nodes,
        n_series=between.size,
        transform=np.stack([at.transform for at in null], axis=-1),
        identity=np.array([at.identity for at in null]),
        rss=np.array([at.rss for at in null]),
        base=np.stack([at.base for at in null], axis=1) - np.array(optimum)[:, None],
        at_bounds=(left == 0, right == 0),
        tile=tile,
        margin=min(data.n * SENTINEL_STEP**2 / 32.0, LARGEST_MARGIN),
    )


class _Null(NamedTuple):
    """One column of each field of RefitGrid."""

    transform: Float
    identity: float
    rss: float
    base: Float


def _null_at(data: RotatedData, log_gamma: float) -> _Null:
    at, scale = evaluate(data, log_gamma), float(np.exp(-0.5 * log_gamma))
    transform = np.eye(1 + data.f)
    transform[1:, 0] = -at.beta
    transform[1:, 1:] = linalg.solve_triangular(at.cholesky, np.eye(data.f), lower=True).T / np.sqrt(scale)
    # an alternative takes a degree of freedom, and log u is that of the scaled u less log scale
    reml = neg_log_likelihood(data, at, "reml") - 0.5 * np.log(at.rss / (data.n - data.f)) + 0.25 * log_gamma
    base = np.array([reml, neg_log_likelihood(data, at, "ml")])
    return _Null(transform, at.metric.identity * scale, at.rss * scale, base)


def _nodes(data: RotatedData, ends: tuple[float, float], tolerance: float, others: int) -> Float:
    """Fewest nodes between which inner products and the null's curves are right to the tolerance.

    <a, a> is a combination of d(s_k, .) with weights that are not negative, so that the largest relative
    error of any d bounds its own. It is measured for eigenvalues all over their range. With the `others` the
    number is a multiple of four, in which columns of matrix products are fastest.
    """
    positive = data.s[data.s > 0.0]
    s = np.geomspace(positive.min(), positive.max(), 200) if positive.size else np.empty(0)
    s = np.append(s, 0.0) if data.low_rank or positive.size < data.r else s
    low, half = ends[0], 0.5 * (ends[1] - ends[0])

    def scaled_d(u: Float) -> Float:
        return np.asarray(1.0 / (np.multiply.outer(np.exp(0.5 * u), s) + np.exp(-0.5 * u)[:, None]))

    rate = np.log((np.pi + np.hypot(np.pi, half)) / half)
    fewest = max(6, int(-0.7 * np.log(tolerance) / rate))
    for k in range(fewest + -(fewest + others) % 4, MOST_NODES, 4):
        nodes = low + half * (lobatto(k) + 1.0)
        halfway = lobatto(2 * k - 1)[1::2]  # where interpolants are worst
        there, between = (
            low + half * (halfway + 1.0),
            chebyshev.chebvander(halfway, k - 1) @ series(k).values,
        )
        if np.abs(between @ scaled_d(nodes) / scaled_d(there) - 1.0).max() > tolerance:
            continue
        curves = (
            between @ grid_values(data, nodes, criterion) - grid_values(data, there, criterion)
            for criterion in CRITERIA
        )
        if max(np.abs(error).max() for error in curves) <= tolerance * data.n:
            return np.asarray(nodes)
    raise OptionError(
        f"bounds from {ends[0]:g} to {ends[1]:g} are too wide for a tolerance of {tolerance:g}: {MOST_NODES} "
        "values of log gamma are not enough. Scale the kinship so that its mean diagonal is near 1, narrow "
        "bounds=, or raise tolerance=."
    )
