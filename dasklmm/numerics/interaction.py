"""Tests of variants' interactions with a covariate beside both main effects, by Schur complements taken twice.

The variance ratio is the null's. Let b0 be the variant and b1 its product with the covariate. After X,
u_ij = <b_i, b_j> - (L^-1 <X, b_i>)^T L^-1 <X, b_j>, and v_i is the product of b_i with what of y is left
(:mod:`dasklmm.numerics.alternatives`). After X and b0,

u = u11 - u01^2 / u00,  v = v1 - u01 v0 / u00,  RSS = RSS0 - v0^2 / u00,

and the tests are those of one alternative whose null has f + 1 fixed effects.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklmm.errors import CovariateError, ShapeError
from dasklmm.numerics.alternatives import (
    NOTHING_LEFT,
    TILE_BYTES,
    add_plain,
    add_rotated,
    alternative_stats,
    collinearity_tolerance,
)
from dasklmm.numerics.design import as_vector
from dasklmm.numerics.genotypes import block_statistics, centered, imputed
from dasklmm.numerics.records import AlternativeTest, Filters, Float, InteractionStats, Status
from dasklmm.numerics.scan import TILE_VARIANTS, RowBlocks, rotate, row_blocks, untested

# Share <e, e> of the covariate that may be left after X. It tells a covariate that was left out (a share of
# order 1) from rounding, which for a column with mean / deviation = 1e5 and an intercept reaches 1e-6.
OUT_OF_SPAN = 1e-4


def interaction_block(
    null: AlternativeTest,
    p: NDArray[Any] | RowBlocks,
    block: NDArray[Any],
    e: object,
    *,
    samples: NDArray[np.intp] | None = None,
    intercept: bool = True,
    mean_impute: bool = True,
    ploidy: int = 2,
    filters: Filters | None = None,
) -> InteractionStats:
    """Test the product of every variant with a covariate, beside the main effects of both.

    Parameters
    ----------
    null : AlternativeTest
        Its design holds `e`, or a basis of a space that does.
    p : ndarray (eigen, sample), float32 or float64, or its row blocks one after the other
        Its dtype is the precision of the rotation; sums over eigenvectors are float64 in any case.
    block : ndarray (variant, sample)
        int8 calls (negative: missing) or float dosages (NaN: missing).
    e : array_like (sample)
        The covariate, in the model's samples and order, in any units.
    samples : ndarray of int, optional
        Columns of `block` that are the model's samples, in the model's order. Default: all.
    intercept : bool
        Whether a constant lies in the span of the covariates. Variants are then centred.
    mean_impute : bool
        Impute missing dosages by the variant's mean; otherwise such a variant has a status and no test.
    ploidy : int
        Copies of an allele at most; the frequency is the mean dosage over it.
    filters : Filters, optional

    Returns
    -------
    InteractionStats
        Cost 4 eigen sample flop a variant, twice that of a scan; memory five times TILE_VARIANTS rows
        beside the block. A variant whose product lies in the span of X and the variant (carriers in one
        group of a binary `e` only) is COLLINEAR_WITH_COVARIATES; one that leaves nothing of y, as its
        copy does, is PERFECT_FIT.

    Raises
    ------
    ShapeError
        P has not the model's eigenvectors and samples, or `e` not the model's samples.
    NotFiniteError
        `e` has NaN or infinity.
    CovariateError
        `e` is constant or not in the span of the null's covariates, or no degree of freedom is left.

    Notes
    -----
    The product is taken of the centred variant (given an intercept) and of `e` centred and divided by its
    standard deviation. With both main effects in the model that changes neither the interaction's test nor,
    once scaled back, its effect; it spares rounding where `e` is far from 0.
    """
    if samples is not None:
        block = np.take(block, samples, axis=1)
    values, mean, scale = _standardised(e, block.shape[1], null.f)
    counted = block_statistics(block)
    m = block.shape[0]
    products, squares, cross = np.zeros((2, m, 1 + null.f)), np.zeros((2, m)), np.zeros(m)
    e_products, e_squares = np.zeros((1, 1 + null.f)), np.zeros(1)
    convert = centered if intercept else imputed
    factor = values.astype(p.dtype)
    main = (values if intercept else values + mean / scale).astype(p.dtype)[None]
    done, eigen = 0, slice(0, 0)
    for p_rows in row_blocks(p):
        if p_rows.shape[1] != block.shape[1]:
            raise ShapeError(
                f"p has {p_rows.shape[1]} samples and the genotypes {block.shape[1]}; both must be the model's."
            )
        eigen = slice(done, done + p_rows.shape[0])
        if eigen.stop > null.weights.shape[0]:
            break
        add_rotated(null, main @ p_rows.T, eigen, e_products, e_squares)
        if done == 0:
            add_plain(null, main, e_products, e_squares)
        for start in range(0, m, TILE_VARIANTS):
            part = slice(start, start + TILE_VARIANTS)
            variant = convert(block[part], counted.rows(part), p.dtype)
            with np.errstate(invalid="ignore", over="ignore"):
                pair = (variant, variant * factor)
            first = eigen.start if null.triangular else None
            rotated = (rotate(pair[0], p_rows, first), rotate(pair[1], p_rows, first))
            _add_cross(*rotated, null.square_weights[eigen], cross[part])
            if null.low_rank and done == 0:
                _add_cross(*pair, np.full(block.shape[1], null.identity), cross[part])
            for i in (0, 1):
                add_rotated(null, rotated[i], eigen, products[i, part], squares[i, part])
                if done == 0:
                    add_plain(null, pair[i], products[i, part], squares[i, part])
        done = eigen.stop
    if eigen.stop != null.weights.shape[0]:
        raise ShapeError(f"p has {eigen.stop} eigenvectors and the model {null.weights.shape[0]}.")
    if not e_squares[0] - e_products[0, 1:] @ e_products[0, 1:] <= OUT_OF_SPAN * e_squares[0]:
        raise CovariateError(
            "e does not lie in the span of the null model's covariates, and its interaction would take up its "
            "main effect. Add e to the covariates and fit the null again (or give e in the model's order of "
            "samples; intercept=False where the covariates hold no constant)."
        )
    tolerance = collinearity_tolerance(np.result_type(p.dtype, np.float32), done, null.condition)
    status = untested(counted, block.shape[1], mean_impute, ploidy, filters)
    frequency = np.where(counted.n_called > 0, counted.mean / ploidy, np.nan)
    stats = _estimates(null, products, squares, cross, tolerance, status, (mean / scale, scale))
    return InteractionStats(counted.n_called, frequency, *stats)


def check_covariate(e: Float, f: int, name: str = "e") -> None:
    """Refuse a covariate (sample) whose interaction with a variant cannot be tested beside f fixed effects.

    Raises
    ------
    CovariateError
        It is constant, or no degree of freedom is left.
    """
    n = e.shape[0]
    if n - f - 2 < 1:
        raise CovariateError(
            f"{n} samples and {f} covariates leave no degree of freedom for a variant and its "
            f"interaction; at least {f + 3} samples are needed."
        )
    if np.ptp(e) == 0.0 or e.std() == 0.0:
        raise CovariateError(
            f"{name} is {e[0]} in every sample; its product with a variant is the variant again. "
            "Give a covariate that varies."
        )


def _standardised(e: object, n: int, f: int) -> tuple[Float, float, float]:
    """(e - mean) / scale, mean and scale; refused unless it is finite, varies and has n samples."""
    values = as_vector(e, "e")
    if values.shape[0] != n:
        raise ShapeError(f"e has {values.shape[0]} samples and the genotypes {n}; both must be the model's.")
    check_covariate(values, f)
    mean, scale = float(values.mean()), float(values.std())
    return (values - mean) / scale, mean, scale


def _add_cross(b0: NDArray[Any], b1: NDArray[Any], weights: Float, cross: Float) -> None:
    """Add the weighted products of the rows of b0 with those of b1, in place and in float64 tiles."""
    rows = max(1, TILE_BYTES // (8 * max(1, b0.shape[1])))
    for start in range(0, b0.shape[0], rows):
        part = slice(start, start + rows)
        with np.errstate(invalid="ignore", over="ignore"):
            cross[part] += np.dot(np.multiply(b0[part], b1[part], dtype=np.float64), weights)


def _estimates(
    null: AlternativeTest,
    products: Float,
    squares: Float,
    cross: Float,
    tolerance: float,
    status: NDArray[np.int8],
    covariate: tuple[float, float],
) -> tuple[NDArray[Any], ...]:
    """Fields of InteractionStats from `beta` on; `status` of what was counted, completed here.

    `products` (2, variant, 1 + covariate) and `squares` (2, variant) are those of b0 and b1, `cross`
    (variant) is <b0, b1>, and b1 the variant times e / scale less shift, (shift, scale) = `covariate`.
    """
    shift, scale = covariate
    c0, c1 = products[:, :, 1:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        u00 = squares[0] - np.einsum("ij,ij->i", c0, c0)
        u00 = np.where(u00 > tolerance * squares[0], u00, np.nan)
        u01 = cross - np.einsum("ij,ij->i", c0, c1)
        slope = u01 / u00
        u = squares[1] - np.einsum("ij,ij->i", c1, c1) - slope * u01
        v0, v1 = products[:, :, 0] - products[:, :, 1:] @ null.z
        rss = null.rss - v0**2 / u00
        # what is left is b1 - slope b0: the rounding of either counts, by its length there
        collinear = ~(u > tolerance * (squares[1] + slope**2 * squares[0]))
        perfect = (rss <= NOTHING_LEFT * null.rss) & ~collinear
        finite = np.isfinite(products.sum(axis=(0, 2)) + squares.sum(axis=0) + cross)
        undecided = status == Status.OK
        status[undecided & collinear] = Status.COLLINEAR_WITH_COVARIATES
        status[undecided & perfect] = Status.PERFECT_FIT
        status[undecided & ~finite] = Status.NOT_FINITE
        tested = status == Status.OK
        # in units of what is left of y: one alternative without covariates, whose null has RSS 1
        unit = np.sqrt(np.where(tested, rss, np.nan))
        left = replace(null, z=np.empty(0), rss=1.0, f=null.f + 1)
        one = alternative_stats(left, ((v1 - slope * v0) / unit)[:, None], np.where(tested, u, np.nan), 0.0)
        along = slope + shift
        main = v0 / u00 - along * unit * one.beta
        main_error = unit * np.sqrt(one.sigma_sq * (1.0 / u00 + along**2 / u))
    beta, error = unit * one.beta / scale, unit * one.standard_error / scale
    return beta, error, unit**2 * one.sigma_sq, one.chi_sq, one.log_p, main, main_error, status
