"""Tests of alternatives with the variance ratio refitted for each, at the speed of matrix products.

With one alternative a beside X, at one gamma (:mod:`dasklmm.numerics.alternatives`): u is what of <a, a> is
left after X, v the product of a with y - X beta, share = v^2 / (u RSS0), and with dof = n - f - 1 the negative
log likelihoods (Zhou & Stephens 2012, GEMMA, with beta and sigma_sq at their maximum) are, up to constants,

REML: (log det <X, X> + log u - L + dof log RSS0 + dof log1p(-share)) / 2
ML:   (n log RSS0 - L + n log1p(-share)) / 2.

Inner products are linear in d(s, gamma) = 1 / (s + 1/gamma). As a function of log gamma its poles are pi away
from the real line. Nearer than that, all d lie in one half plane, so u and RSS, Schur complements of their
combinations, are neither zero nor infinite; hence they, their logarithms, and both curves are analytic there.
Interpolants in N Chebyshev-Lobatto points of a range of half-width w converge as rho^-N, with
rho = (pi + sqrt(pi^2 + w^2)) / w (Trefethen, Approximation Theory and Approximation Practice, theorem 8.2).
So a tile's inner products are summed at all nodes at once, by two matrix products, and each variant's optimum
is found on its own series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dasklmm.errors import OptionError
from dasklmm.numerics.alternatives import (
    NOTHING_LEFT,
    alternative_test,
    check_block,
    collinearity_tolerance,
    in_eights,
)
from dasklmm.numerics.chebyshev import polynomials
from dasklmm.numerics.chebyshev import series as series_of
from dasklmm.numerics.moments import metric
from dasklmm.numerics.records import (
    Float,
    NodeWeights,
    NullFit,
    RefitGrid,
    RefitStats,
    RefitTest,
    RotatedData,
    Status,
)
from dasklmm.numerics.refit_grid import refit_grid
from dasklmm.numerics.reml import BOUNDARY_DISTANCE, fit_null
from dasklmm.numerics.scan import TILE_VARIANTS
from dasklmm.numerics.tails import log_sf_chi2_1, log_sf_f1

# Half-width of the window in standard errors of the null's log gamma, and its limits.
WINDOW_ERRORS, NARROWEST, WIDEST = 5.0, 0.5, 3.0
# Rows of a product, fixed and padded as those of a rotation. Fewer are more small calls, between which threads
# wait for the interpreter: 400 samples took 10.8 us a variant on two threads with tiles of 256, and 9.4 with 512.
TILE_WINDOW = 512
# Over the whole range, which few variants of a block need.
TILE_WHOLE = 32
# Eigenvectors converted to float64 at a time: a tile of them takes 4 MB, or 8 where all are in one.
TILE_EIGEN = 2048
# Share of RSS0, at any node, from which a variant is done over the whole range whatever its window shows: its
# curve may have a valley between sentinels. Without it three of 78,648 variants that were made for such valleys
# (kinships with a few distinct eigenvalues, large effects) were missed; with it none of 15,728 others.
LARGE_SHARE = 0.1
# Newton steps in log gamma below which the next would be lost in rounding, and their number (halving included).
NEWTON_STEP, NEWTON_STEPS = 1e-6, 60


def refit_test(
    data: RotatedData,
    fit: NullFit,
    test: Literal["lrt", "wald"] = "lrt",
    bounds: tuple[float, float] = (-8.0, 8.0),
    tolerance: float = 1e-10,
) -> RefitTest:
    """Prepare the test of alternatives, each at its own variance ratio.

    Parameters
    ----------
    data : RotatedData
    fit : NullFit
        REML fit of the null: the place and the width of the window that is searched first.
    test : {"lrt", "wald"}
        The score test needs no refit: :func:`dasklmm.numerics.alternatives.alternative_test`.
    bounds : (float, float)
        Range of log gamma.
    tolerance : float
        Relative error of an inner product <a, a> between nodes, at most; the number of nodes follows.

    Returns
    -------
    RefitTest
        Cost: some 100 evaluations of the null, O(eigen covariate^2) each.

    Raises
    ------
    OptionError
        Another test, or bounds too wide for the tolerance.
    CovariateError
        No degree of freedom is left for an alternative.
    """
    if test not in ("lrt", "wald"):
        raise OptionError(
            f"test is {test!r}; a refit serves 'lrt' and 'wald'. The score test needs none: alternative_test "
            "at the ML fit of the null."
        )
    if not 0.0 < tolerance <= 1e-4:
        raise OptionError(f"tolerance is {tolerance}; a relative error in (0, 1e-4] is needed.")
    fixed = alternative_test(data, fit.log_gamma, test)
    plain = fit_null(data, bounds=bounds, criterion="ml", on_boundary="clamp")
    lower, upper = float(bounds[0]), float(bounds[1])
    center = min(max(fit.log_gamma, lower), upper)
    error = fit.h_sq_standard_error / (fit.h_sq * (1.0 - fit.h_sq))  # of log gamma, by the chain rule
    half = min(max(WINDOW_ERRORS * error, NARROWEST), WIDEST) if np.isfinite(error) else WIDEST
    ends = max(lower, center - half), min(upper, center + half)
    reference = (center, plain.log_gamma)
    whole = refit_grid(data, (lower, upper), (lower, upper), tolerance, reference, TILE_WHOLE)
    tile = tile_rows(data.n)
    window = refit_grid(data, ends, (lower, upper), tolerance, reference, tile)
    if _flat(window) or window.log_gamma.shape[0] >= whole.log_gamma.shape[0]:
        window = replace(whole, tile=tile)
    return RefitTest(fixed, data, window, whole, plain.log_likelihood, tolerance)


def tile_rows(n: int) -> int:
    """Rows of a product within the window: of many samples fewer, as a tile holds them all in a low-rank model."""
    return TILE_WINDOW if n <= TILE_EIGEN else TILE_VARIANTS


def _flat(window: RefitGrid) -> bool:
    """Whether the null itself is nearer than the margin at a sentinel: nearly every variant would be done twice.

    Those of 400 samples in families took 41 microseconds each so, and take 15 over the whole range at once.
    """
    return bool(window.base[:, window.n_series :].min(initial=np.inf) < window.margin)


def refit_block(null: RefitTest, pa: NDArray[Any], a: NDArray[Any] | None = None) -> RefitStats:
    """Test every row of a block at its own variance ratio.

    Parameters
    ----------
    null : RefitTest
    pa : ndarray (variant, eigen), float32 or float64
        Rotated alternatives.
    a : ndarray (variant, sample), optional
        The same alternatives unrotated; needed exactly by a low-rank model.

    Returns
    -------
    RefitStats
        Cost 2 eigen (2 + covariate) flop a variant and node, some 20 nodes, and 70 more for the few whose
        optimum lies outside the window. The optimum is the best within the bounds. A row that is not
        finite, lies in the span of the covariates, or leaves nothing of y has a status and NaN; its
        neighbours are untouched.

    Raises
    ------
    RankError, ShapeError
        As :func:`dasklmm.numerics.alternatives.test_block`.
    """
    check_block(null.fixed, pa.shape, None if a is None else a.shape)
    tolerance = collinearity_tolerance(np.result_type(pa, np.float32), pa.shape[1])

    def run(grid: RefitGrid, rows: NDArray[np.intp] | None) -> tuple[RefitStats, NDArray[np.bool_]]:
        weights = node_weights(null, grid, slice(None))

        def summed(part: slice) -> Float:
            chosen = part if rows is None else rows[part]
            sums = node_sums(null, grid, part.stop - part.start)
            add_rotated_nodes(weights, pa[chosen], sums)
            if a is not None:
                add_plain_nodes(null, grid, a[chosen], sums)
            return sums

        return _stats(null, grid, pa.shape[0] if rows is None else rows.size, summed, tolerance)

    stats, redo = run(null.window, None)
    rows = np.flatnonzero(redo)
    return with_rows(stats, rows, run(null.whole, rows)[0]) if rows.size else stats


def node_weights(null: RefitTest, grid: RefitGrid, eigen: slice) -> NodeWeights:
    """Weights of some eigenvectors at the nodes of a grid; make them once for many tiles.

    Cost and memory O(eigen node (2 + covariate)).
    """
    data = null.data
    at = [metric(data.s[eigen], float(u), data.n, data.low_rank).rotated for u in grid.log_gamma]
    squares = np.stack(at, axis=1) * np.exp(-0.5 * grid.log_gamma)
    stacked = np.column_stack([data.py, data.px])[eigen]
    products = np.einsum("ka,abj->kbj", stacked, grid.transform) * squares[:, None]
    return NodeWeights(in_eights(squares), in_eights(products.reshape(squares.shape[0], -1)), grid.tile)


def node_sums(null: RefitTest, grid: RefitGrid, m: int) -> Float:
    """Zeros (variant, 2 + covariate, node) for <a, a>, <a, y - X beta> and L^-1 <X, a>, scaled."""
    return np.zeros((m, 2 + null.data.f, grid.log_gamma.shape[0]))


def add_rotated_nodes(weights: NodeWeights, pa: NDArray[Any], sums: Float) -> None:
    """Add what some eigenvectors give to the sums of a block at all nodes, in place.

    Parameters
    ----------
    weights : NodeWeights
        Of those eigenvectors.
    pa : ndarray (variant, eigen), float32 or float64
        Alternatives rotated by them.
    sums : ndarray (variant, 2 + covariate, node)
        See :func:`node_sums`. Rows pass through products of one shape, whatever their number.
    """
    nodes = sums.shape[2]
    width = (sums.shape[1] - 1) * nodes
    for eigen in _tiles(pa.shape[1], TILE_EIGEN):
        for part, tile in _padded(pa, eigen, weights.tile):
            rows = sums[part].shape[0]
            with np.errstate(invalid="ignore", over="ignore"):
                products = (tile @ weights.products[eigen])[:rows, :width]
                sums[part, 1:] += products.reshape(rows, -1, nodes)
                np.multiply(tile, tile, out=tile)
                sums[part, 0] += (tile @ weights.squares[eigen])[:rows, :nodes]


def add_plain_nodes(null: RefitTest, grid: RefitGrid, a: NDArray[Any], sums: Float) -> None:
    """Add what unrotated alternatives (variant, sample) give in a low-rank model, in place."""
    y, x = null.data.y, null.data.x
    if y is None or x is None:
        return
    stacked = np.column_stack([y, x])
    for part, tile in _padded(a, slice(None), grid.tile):
        rows = sums[part].shape[0]
        with np.errstate(invalid="ignore", over="ignore"):
            products = np.einsum("va,abj->vbj", (tile @ stacked)[:rows], grid.transform)
            sums[part, 1:] += products * grid.identity
            sums[part, 0] += np.einsum("vi,vi->v", tile, tile)[:rows, None] * grid.identity


def refit_stats(
    null: RefitTest, grid: RefitGrid, sums: Float, tolerance: float
) -> tuple[RefitStats, NDArray[np.bool_]]:
    """Optima and tests of a block from its sums at the nodes.

    Parameters
    ----------
    null : RefitTest
    grid : RefitGrid
        ``null.window`` or ``null.whole``.
    sums : ndarray (variant, 2 + covariate, node)
    tolerance : float
        See :func:`dasklmm.numerics.alternatives.collinearity_tolerance`.

    Returns
    -------
    RefitStats
    ndarray (variant), bool
        Variants whose optimum must be sought on ``null.whole``; none if `grid` is that.
    """
    return _stats(null, grid, sums.shape[0], sums.__getitem__, tolerance)


def _stats(
    null: RefitTest, grid: RefitGrid, m: int, summed: Callable[[slice], Float], tolerance: float
) -> tuple[RefitStats, NDArray[np.bool_]]:
    """:func:`refit_stats` of m variants, their sums asked for one tile after the other."""
    values, at_boundary = np.empty((7, m)), np.zeros(m, dtype=bool)
    status, redo = np.zeros(m, dtype=np.int8), np.zeros(m, dtype=bool)
    for part in _tiles(m, grid.tile):
        sums, rows = summed(part), part.stop - part.start
        if rows < grid.tile:
            sums = np.concatenate([sums, np.zeros((grid.tile - rows, *sums.shape[1:]))])
        found = _tile_stats(null, grid, sums, tolerance)
        values[:, part] = found[0][:, :rows]
        at_boundary[part], status[part], redo[part] = (each[:rows] for each in found[1:])
    beta, standard_error, sigma_sq, chi_sq, log_gamma, log_gamma_ml, log_likelihood = values
    lrt = null.fixed.test == "lrt"
    return RefitStats(
        beta=beta,
        standard_error=standard_error,
        sigma_sq=sigma_sq,
        chi_sq=chi_sq,
        log_p=log_sf_chi2_1(chi_sq) if lrt else log_sf_f1(chi_sq, null.data.n - null.data.f - 1),
        log_gamma=log_gamma,
        log_gamma_ml=log_gamma_ml,
        log_likelihood=log_likelihood,
        at_boundary=at_boundary,
        status=status,
    ), redo


def with_rows(stats: RefitStats, rows: NDArray[np.intp], again: RefitStats) -> RefitStats:
    """The same statistics with some variants replaced."""
    out = []
    for field in fields(RefitStats):
        values = getattr(stats, field.name).copy()
        values[rows] = getattr(again, field.name)
        out.append(values)
    return RefitStats(*out)


def _tiles(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _padded(block: NDArray[Any], columns: slice, size: int) -> Iterator[tuple[slice, Float]]:
    """Float64 tiles of `size` rows, the last filled with any; each is gone when the next comes."""
    chosen = block[:, columns]
    tile = np.zeros((size, chosen.shape[1]))
    for part in _tiles(block.shape[0], size):
        tile[: part.stop - part.start] = chosen[part]
        yield part, tile


def _tile_stats(null: RefitTest, grid: RefitGrid, sums: Float, tolerance: float) -> tuple[NDArray[Any], ...]:
    """Estimates of one tile (7, variant), and whether at a boundary, the status, and whether to do it again."""
    n, dof, k = null.data.n, null.data.n - null.data.f - 1, grid.n_series
    low, high = float(grid.log_gamma[0]), float(grid.log_gamma[k - 1])
    half, series = 0.5 * (high - low), series_of(k)
    u, v, share, lost_digits, status = _after_covariates(grid, sums, tolerance)
    tested = status == Status.OK

    # both curves at all nodes (2, node, variant), and the series of their derivatives (k, 2, 2, variant)
    explained = np.log1p(-share)
    curves = np.stack([0.5 * (np.log(u) + dof * explained), 0.5 * n * explained]) + grid.base[:, :, None]
    slopes = np.empty((k, 2, 2, u.shape[1]))
    for i in (0, 1):
        slopes[:, 0, i] = series.first @ curves[i, :k] / half
        slopes[:, 1, i] = series.second @ curves[i, :k] / half**2
    at_points = series.at_points @ curves[:, :k]
    x = _lowest(series.points, at_points, slopes, half)

    edge = BOUNDARY_DISTANCE / half
    at_low, at_high = (x < edge - 1.0) & grid.at_bounds[0], (x > 1.0 - edge) & grid.at_bounds[1]
    x = np.where(at_low, -1.0, np.where(at_high, 1.0, x))
    # weights of the nodes in the interpolant at x, (k, 2, variant)
    weights = np.tensordot(series.values, polynomials(x, k), (0, 0))
    lowest = np.einsum("kcv,ckv->cv", weights, curves[:, :k])

    # a series counts where its last terms are as small as the tolerance or rounding (of u, of RSS) lets them be
    last = np.abs(slopes[-3:-1, 0]).max(axis=(0, 1))
    lost = last > n * k / half * (null.tolerance + 4.0 * np.finfo(np.float64).eps * lost_digits)
    lost |= (lowest > at_points.min(axis=1) + 1e-6).any(axis=0)
    redo = np.zeros(tested.shape, dtype=bool)
    if all(grid.at_bounds):
        status[lost & tested] = Status.NOT_FINITE
        tested &= ~lost
    else:
        outside = ((x == -1.0) & ~at_low) | ((x == 1.0) & ~at_high)
        outside |= curves[:, k:].min(axis=1, initial=np.inf) < lowest + grid.margin
        outside |= share.max(axis=0) > LARGE_SHARE
        redo = (lost | outside.any(axis=0)) & tested

    log_gamma = low + half * (x + 1.0)
    root = np.exp(0.5 * log_gamma[0])  # takes the scale of the nodes away
    u, v = (np.einsum("kv,kv->v", weights[:, 0], z[:k]) for z in (u, v))
    rss = grid.rss[:k] @ weights[:, 0]
    beta = v / u
    share = np.minimum(v * beta / rss, 1.0)
    sigma_sq = root * rss * (1.0 - share) / dof
    ratio = -2.0 * lowest[1]
    chi_sq = np.maximum(ratio, 0.0) if null.fixed.test == "lrt" else dof * share / (1.0 - share)
    log_likelihood = null.log_likelihood + 0.5 * ratio
    values = np.stack([beta, np.sqrt(sigma_sq / (root * u)), sigma_sq, chi_sq, *log_gamma, log_likelihood])
    return np.where(tested, values, np.nan), (at_low | at_high).any(axis=0) & tested, status, redo


def _after_covariates(
    grid: RefitGrid, sums: Float, tolerance: float
) -> tuple[Float, Float, Float, Float, NDArray[np.int8]]:
    """u, v, share (node, variant), what the subtractions cost at most (variant), and the status.

    They leave u of <a, a> and RSS of RSS0: the sum of the two quotients tells the digits that rounding takes.

    A row without a test goes on as one without an effect.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        q, v, c = sums[:, 0].T, sums[:, 1].T, sums[:, 2:]
        u = q - np.einsum("vaj,vaj->jv", c, c)
        share = v * v / (u * grid.rss[:, None])
        left, explained = (u / q).min(axis=0), share.max(axis=0)
        status = np.zeros(left.shape, dtype=np.int8)
        status[explained >= 1.0 - NOTHING_LEFT] = Status.PERFECT_FIT
        status[~np.isfinite(explained)] = Status.NOT_FINITE
        status[left <= tolerance] = Status.COLLINEAR_WITH_COVARIATES
        status[~np.isfinite(left)] = Status.NOT_FINITE
        status[q[0] == 0.0] = Status.CONSTANT
    tested = status == Status.OK
    if not tested.all():
        u, v, share = (np.where(tested, z, other) for z, other in ((u, 1.0), (v, 0.0), (share, 0.0)))
        left, explained = np.where(tested, left, 1.0), np.where(tested, explained, 0.0)
    return u, v, share, 1.0 / left + 1.0 / (1.0 - explained), status


def _vertex(left: Float, middle: Float, right: Float) -> Float:
    """Lowest place of parabolas through three even points, in steps from the middle; 0 where it is no valley."""
    bend = right + left - 2.0 * middle
    valley = (middle <= left) & (middle <= right) & (bend > 0.0)
    return np.where(valley, 0.5 * (left - right) / np.where(valley, bend, 1.0), 0.0)


def _first_lowest(values: Float) -> NDArray[np.intp]:
    """``values.argmin(axis=1)`` of three axes, in a third of its time."""
    lowest = values.min(axis=1)
    places = np.unravel_index(np.flatnonzero(values == lowest[:, None])[::-1], values.shape)
    best = np.zeros(lowest.shape, dtype=np.intp)
    best[places[0], places[2]] = places[1]  # the first of equals is written last
    return best


def _lowest(points: Float, values: Float, slopes: Float, half: float) -> Float:
    """Where curves are lowest.

    Parameters
    ----------
    points : ndarray (point)
        Even, from -1 to 1.
    values : ndarray (curve, point, variant)
    slopes : ndarray (node, 2, curve, variant)
        Series of the first and second derivative in log gamma.
    half : float
        Log gamma a unit of `points`.

    Returns
    -------
    ndarray (curve, variant)
        In [-1, 1]. The vertices of parabolas choose among minima and start Newton's method, which is kept
        between the points beside them and halves that interval where it would leave it.
    """
    step = points[1] - points[0]
    middle, left, right = values[:, 1:-1], values[:, :-2], values[:, 2:]
    valley = (middle <= left) & (middle <= right)
    valleys = np.unravel_index(np.flatnonzero(valley), valley.shape)  # a few of all points
    depth, vertex = values.copy(), _vertex(left[valleys], middle[valleys], right[valleys])
    depth[:, 1:-1][valleys] += 0.25 * (right[valleys] - left[valleys]) * vertex
    best = _first_lowest(depth)
    inside = np.clip(best, 1, points.size - 2)
    around = (np.take_along_axis(values, (inside + k)[:, None], 1)[:, 0] for k in (-1, 0, 1))
    x = points[best] + step * np.where(best == inside, _vertex(*around), 0.0)
    low, high = points[np.maximum(best - 1, 0)], points[np.minimum(best + 1, points.size - 1)]
    done = np.zeros(x.shape, dtype=bool)
    for _ in range(NEWTON_STEPS):
        first, second = np.einsum("kcv,kdcv->dcv", polynomials(x, slopes.shape[0]), slopes)
        low, high = np.where(first < 0.0, x, low), np.where(first > 0.0, x, high)
        to = x - first / np.where(second > 0.0, half * second, np.inf)
        newton = (second > 0.0) & (to >= low) & (to <= high)
        to = np.where(newton, to, 0.5 * (low + high))
        moved = half * np.abs(to - x)
        x = np.where(done, x, to)
        done |= moved <= np.where(newton, NEWTON_STEP, 1e-12)  # the error left is the square of a Newton step
        if done.all():
            break
    return np.asarray(x)
