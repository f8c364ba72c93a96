"""Tests of a block of alternatives at the null's variance ratio, by the Schur complement of the null.

For an alternative a, with M = <X, X> = L L^T and z = L^-1 <X, y> of the null:
u = <a, a> - |L^-1 <X, a>|^2 is what of a is left after X, v = <a, y> - (L^-1 <X, a>)^T z its product with
what of y is left; then beta = v/u and the residual sum of squares falls by v^2/u (mathematics of
``docs``; checked against Hail 0.2.93, GEMMA 0.98.5 and FaST-LMM 0.6.13).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from dasklmm.errors import CovariateError, OptionError, RankError, ShapeError
from dasklmm.numerics.records import (
    AlternativeStats,
    AlternativeTest,
    Float,
    RotatedData,
    StackedTests,
    Status,
)
from dasklmm.numerics.reml import evaluate
from dasklmm.numerics.tails import log_sf_chi2_1, log_sf_f1

Test = Literal["lrt", "wald", "score"]
TESTS: tuple[Test, ...] = ("lrt", "wald", "score")

# Bytes of a tile of rows in float64: it must stay in a core's L2 cache (1 MB where this was measured). A variant
# of 2,000 eigenvectors took 2.0 us at 256 KB and 1.7 at 512; sums are float64 throughout.
TILE_BYTES = 512 * 1024

# Share of RSS0 below which what is left of y after X and the alternative is rounding of float64 sums.
NOTHING_LEFT = 1e-12

# Columns of weights come in eights, and each product is of eight: one of three takes 1.4 times one of four, and
# the bits of a product depend on its shape. Up to 1e6 multiplications, as 512 KB by eight columns are, OpenBLAS
# 0.3.31 has another kernel than above. So a phenotype has the same results alone and among a hundred.
COLUMNS = 8


def alternative_test(data: RotatedData, log_gamma: float, test: Test = "lrt") -> AlternativeTest:
    """Prepare the test of alternatives at a fixed variance ratio.

    Parameters
    ----------
    data : RotatedData
    log_gamma : float
        From the REML fit for "lrt" and "wald", from the ML fit for "score".
    test : {"lrt", "wald", "score"}

    Returns
    -------
    AlternativeTest
        Cost O((eigen + sample) covariate^2), once.

    Raises
    ------
    OptionError
        Unknown test.
    CovariateError
        No degree of freedom is left for an alternative.
    """
    if test not in TESTS:
        raise OptionError(f"test is {test!r}; it is one of {', '.join(map(repr, TESTS))}.")
    if data.n - data.f - 1 < 1:
        raise CovariateError(
            f"{data.n} samples and {data.f} covariates leave no degree of freedom for an alternative; "
            f"at least {data.f + 2} samples are needed."
        )
    at = evaluate(data, log_gamma)

    def stacked(y: Float, x: Float) -> Float:
        return np.column_stack([y, linalg.solve_triangular(at.cholesky, x.T, lower=True).T])

    direct = None
    if data.y is not None and data.x is not None:
        direct = at.metric.identity * stacked(data.y, data.x)
    return AlternativeTest(
        test=test,
        weights=np.ascontiguousarray(at.metric.rotated[:, None] * stacked(data.py, data.px)),
        direct=direct,
        square_weights=at.metric.rotated,
        identity=at.metric.identity,
        z=at.z,
        rss=at.rss,
        n=data.n,
        f=data.f,
    )


class RowPieces(Protocol):
    """Rows (variant, column) as consecutive pieces, in order; a piece need not outlive the next."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Pieces (variant, column)."""


Rows = NDArray[Any] | RowPieces


def test_block(null: AlternativeTest, pa: Rows, a: Rows | None = None) -> AlternativeStats:
    """Test every row of a block.

    Parameters
    ----------
    null : AlternativeTest
    pa : ndarray (variant, eigen), float32 or float64, or its pieces
        Rotated alternatives.
    a : ndarray (variant, sample), or its pieces, optional
        The same alternatives unrotated; needed exactly by a low-rank model.

    Returns
    -------
    AlternativeStats
        One pass over the block in tiles that stay in cache, sums in float64; cost
        O(variant (eigen + sample) covariate). A row that is not finite, or lies in the span of the
        covariates, has a status and NaN; its neighbours are untouched.

    Raises
    ------
    RankError
        `a` missing for a low-rank model, or given for a full-rank one.
    ShapeError
        Numbers of eigenvectors, samples or variants that disagree.
    """
    check_block(null, pa.shape, None if a is None else a.shape)
    products, squares = np.zeros((pa.shape[0], 1 + null.f)), np.zeros(pa.shape[0])
    for rows, piece in _pieces(pa):
        add_rotated(null, piece, slice(None), products[rows], squares[rows])
    for rows, piece in () if a is None else _pieces(a):
        add_plain(null, piece, products[rows], squares[rows])
    stored = np.result_type(pa.dtype, np.float32)
    return alternative_stats(null, products, squares, collinearity_tolerance(stored, pa.shape[1]))


test_block.__test__ = False  # type: ignore[attr-defined]  # a test of variants, not of this package


def _pieces(block: Rows) -> Iterator[tuple[slice, NDArray[Any]]]:
    done = 0
    for piece in (block,) if isinstance(block, np.ndarray) else block:
        yield slice(done, done + piece.shape[0]), piece
        done += piece.shape[0]


def check_block(null: AlternativeTest, pa: tuple[int, ...], a: tuple[int, ...] | None) -> None:
    """Refuse blocks whose shapes do not belong to the null model; see :func:`test_block`."""
    r = null.weights.shape[0]
    if null.low_rank and a is None:
        raise RankError(
            "the model is low rank, so the unrotated alternatives are needed beside the rotated ones: "
            f"give a with {null.n} samples."
        )
    if a is not None and not null.low_rank:
        raise RankError(
            "the model is full rank, so a must not be given: the rotated alternatives say everything."
        )
    if len(pa) != 2 or pa[1] != r:
        raise ShapeError(
            f"rotated alternatives of shape {tuple(pa)} (variant, eigen) do not belong to a model of {r} "
            f"eigenvectors; shape (m, {r}) is needed."
        )
    if a is not None and tuple(a) != (pa[0], null.n):
        raise ShapeError(
            f"alternatives of shape {tuple(a)} (variant, sample) do not match rotated ones of shape "
            f"{tuple(pa)} and {null.n} samples; shape ({pa[0]}, {null.n}) is needed."
        )


def stacked_tests(tests: Sequence[AlternativeTest]) -> StackedTests:
    """Tests side by side; all of the same samples, covariates and kind."""
    tests = tuple(tests)
    direct = [test.direct for test in tests if test.direct is not None]
    return StackedTests(
        tests,
        in_eights(np.column_stack([test.weights for test in tests])),
        in_eights(np.column_stack(direct)) if direct else None,
        in_eights(np.column_stack([test.square_weights for test in tests])),
        in_eights(np.array([[test.identity for test in tests]]))[0],
    )


def in_eights(columns: Float) -> Float:
    """Columns with zeros beside them to a multiple of COLUMNS."""
    return np.ascontiguousarray(np.pad(columns, ((0, 0), (0, -columns.shape[1] % COLUMNS))))


def empty_sums(null: StackedTests, variants: int) -> tuple[Float, Float]:
    """Zeros for :func:`add_rotated`: products and squares."""
    return np.zeros((variants, null.weights.shape[1])), np.zeros((variants, null.square_weights.shape[1]))


def stacked_stats(
    null: StackedTests, products: Float, squares: Float, tolerance: float
) -> list[AlternativeStats]:
    """Statistics of each of the tests; see :func:`alternative_stats`."""
    width = 1 + null.tests[0].f
    return [
        # copies: a sum over strided memory can differ in its last bits
        alternative_stats(
            test, products[:, i * width : (i + 1) * width].copy(), squares[:, i].copy(), tolerance
        )
        for i, test in enumerate(null.tests)
    ]


def add_rotated(
    null: AlternativeTest | StackedTests, pa: NDArray[Any], eigen: slice, products: Float, squares: Float
) -> None:
    """Add what some eigenvectors give to the inner products of a block, in place.

    Parameters
    ----------
    null : AlternativeTest or StackedTests
    pa : ndarray (variant, eigen)
        Alternatives rotated by those eigenvectors.
    eigen : slice
        Their place among the model's.
    products : ndarray (variant, 1 + covariate), of stacked tests (variant, column)
        <a, y> and L^-1 <X, a>.
    squares : ndarray (variant), of stacked tests (variant, column)
        <a, a>.
    """
    _accumulate(pa, null.weights[eigen], null.square_weights[eigen], products, squares)


def add_plain(null: AlternativeTest | StackedTests, a: NDArray[Any], products: Float, squares: Float) -> None:
    """Add what unrotated alternatives (variant, sample) give in a low-rank model, in place."""
    if null.direct is not None:
        ones = in_eights(np.ones((a.shape[1], 1)))
        plain = np.zeros((a.shape[0], COLUMNS))
        _accumulate(a, null.direct, ones, products, plain)
        squares += np.multiply.outer(plain[:, 0], null.identity)


def _accumulate(
    block: NDArray[Any], weights: Float, square_weights: Float, products: Float, squares: Float
) -> None:
    rows = max(1, TILE_BYTES // (8 * max(1, block.shape[1])))
    tile = np.empty((min(rows, block.shape[0]), block.shape[1]))
    for start in range(0, block.shape[0], rows):
        part = slice(start, start + rows)
        t = tile[: block[part].shape[0]]
        t[...] = block[part]
        with np.errstate(invalid="ignore", over="ignore"):
            _add_product(t, weights, products[part])
            np.multiply(t, t, out=t)
            _add_product(t, square_weights, squares[part])


def _add_product(tile: Float, weights: Float, sums: Float) -> None:
    """Add tile @ weights, of one column or of COLUMNS at a time, in place."""
    # np.dot lets other threads run meanwhile, @ does not where the product has 500 elements or fewer (NumPy 2.4)
    if weights.ndim == 1:
        sums += np.dot(tile, weights)
        return
    for start in range(0, weights.shape[1], COLUMNS):
        own = slice(start, start + COLUMNS)
        sums[:, own] += np.dot(tile, weights[:, own])


def collinearity_tolerance(stored: np.dtype[Any], r: int, condition: float = 1.0) -> float:
    """Share u/q of an alternative below which it counts as lying in the span of the covariates.

    Rotation stored with precision eps leaves each of r elements an error of some eps |a|, so that a
    vector in the span keeps u/q of about r eps^2; sums in float64 leave 1e-13. An element of a whitened
    vector is a sum of larger terms: its error is up to eps |a| / sqrt(lowest variance), while |Wa| can be as
    short as |a| / sqrt(largest), so that `condition`, their ratio, is a factor.
    """
    return max(1e-11, 16.0 * r * float(np.finfo(stored).eps) ** 2 * condition)


def alternative_stats(
    null: AlternativeTest, products: Float, squares: Float, tolerance: float
) -> AlternativeStats:
    """Statistics of alternatives from their inner products with the null.

    Parameters
    ----------
    null : AlternativeTest
    products : ndarray (variant, 1 + covariate)
        <a, y> and L^-1 <X, a>.
    squares : ndarray (variant)
        <a, a>.
    tolerance : float
        See :func:`collinearity_tolerance`.
    """
    dof = null.n - null.f - 1
    c = products[:, 1:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        u = squares - np.einsum("ij,ij->i", c, c)
        v = products[:, 0] - c @ null.z
        status = np.zeros(u.shape[0], dtype=np.int8)
        status[~(u > tolerance * squares)] = Status.COLLINEAR_WITH_COVARIATES
        status[squares == 0.0] = Status.CONSTANT
        status[~(np.isfinite(squares) & np.isfinite(products).all(axis=1))] = Status.NOT_FINITE
        u = np.where(status == Status.OK, u, np.nan)
        beta = v / u
        # share of the null's residual sum of squares that the alternative explains, in [0, 1]
        share = v * beta / null.rss
        perfect = share >= 1.0 - NOTHING_LEFT
        status[perfect] = Status.PERFECT_FIT
        beta, share = np.where(perfect, np.nan, (beta, share))
        sigma_sq = null.rss * (1.0 - share) / dof
        standard_error = np.sqrt(sigma_sq / u)
        if null.test == "lrt":
            chi_sq = -null.n * np.log1p(-share)
            log_p = log_sf_chi2_1(chi_sq)
        elif null.test == "wald":
            chi_sq = dof * share / (1.0 - share)
            log_p = log_sf_f1(chi_sq, dof)
        else:
            chi_sq = null.n * share
            log_p = log_sf_f1(chi_sq, dof)
    return AlternativeStats(beta, standard_error, sigma_sq, chi_sq, log_p, status)
