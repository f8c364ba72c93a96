"""Genotypes to tests in one pass: impute, centre, rotate and test a block without keeping its rotation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dasklmm.errors import ShapeError
from dasklmm.numerics.alternatives import (
    add_plain,
    add_rotated,
    collinearity_tolerance,
    empty_sums,
    stacked_stats,
    stacked_tests,
)
from dasklmm.numerics.genotypes import BlockStatistics, centered, counted_dosages, imputed
from dasklmm.numerics.records import (
    AlternativeStats,
    AlternativeTest,
    Filters,
    Float,
    InteractionStats,
    RefitStats,
    StackedTests,
    Status,
)

# Variants rotated by one matrix product. Fixed, and padded at the end of a block, so that every variant
# goes through a product of the same shape: in double precision its bits then do not depend on how the data
# are chunked (OpenBLAS 0.3.31), in single they still depend on its place among the kernel's columns.
TILE_VARIANTS = 256

# Rows of a product, where there are so many: a multiple of the tile has the bits of its tiles (double precision,
# OpenBLAS 0.3.31, with AVX-512 only of eigenvectors in eights), and eight spare packing P, 5 to 10 % of the time.
_MOST_TILES = 8
_PRODUCT_BYTES = 16 * 1024**2

# Rows of a triangular matrix that are multiplied at a time, by the columns from their first on. Of 2,000 samples
# the product takes 1/1.60 of a whole one in float32 (128 rows 1.60, 512 1.48), 1/1.51 in float64 (1.44, 1.44).
TRIANGLE_ROWS = 256


class RowBlocks(Protocol):
    """P (eigen, sample) as blocks of its rows, in order, as often as it is asked."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Blocks (eigen, sample)."""


def row_blocks(p: NDArray[Any] | RowBlocks) -> Iterator[NDArray[Any]]:
    """P as blocks of its rows, whole if it is in memory.

    What came through a cluster or from a record may lie at any byte. NumPy gives BLAS a copy of that in another
    order, and products of it have other bits; here it is copied once, in its own.
    """
    for rows in (p,) if isinstance(p, np.ndarray) else p:
        yield np.require(rows, requirements="A")


@dataclass(frozen=True, eq=False)
class ScanStats:
    """Tests of a block of variants and what was counted on the way; each array has shape (variant).

    Attributes
    ----------
    by_phenotype : tuple of AlternativeStats, or of RefitStats
        In the order of the nulls.
    n : ndarray, int64
        Samples with a call.
    effect_allele_frequency : ndarray, float64
        Mean dosage of those samples over the ploidy.
    """

    by_phenotype: tuple[AlternativeStats, ...] | tuple[RefitStats, ...]
    n: NDArray[np.int64]
    effect_allele_frequency: Float

    @property
    def tests(self) -> Any:
        """Of the only phenotype."""
        (tests,) = self.by_phenotype
        return tests


def rotate(block: NDArray[Any], p: NDArray[Any], first: int | None = None) -> NDArray[Any]:
    """Rotate the rows of a block: block @ p.T, in the precision of `p`.

    Parameters
    ----------
    block : ndarray (variant, sample)
    p : ndarray (eigen, sample), float32 or float64
    first : int, optional
        `p` are rows of an upper triangular matrix, from this one on: zeros before the diagonal are passed over.

    Returns
    -------
    ndarray (variant, eigen)
        Cost 2 variant eigen sample flop, of a whole triangular matrix half.
    """
    m = block.shape[0]
    out = np.empty((m, p.shape[0]), dtype=p.dtype)
    rest = m % TILE_VARIANTS
    step = product_rows(block.shape[1], p.dtype.itemsize)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, m - rest, step):
            rows = slice(start, min(start + step, m - rest))
            _multiply(block[rows].astype(p.dtype, copy=False), p, first, out[rows])
        if rest:
            padded = np.zeros((TILE_VARIANTS, block.shape[1]), dtype=p.dtype)
            padded[:rest] = block[m - rest :]
            product = np.empty((TILE_VARIANTS, p.shape[0]), dtype=p.dtype)
            _multiply(padded, p, first, product)
            out[m - rest :] = product[:rest]
    return out


def _multiply(rows: NDArray[Any], p: NDArray[Any], first: int | None, out: NDArray[Any]) -> None:
    if first is None:
        np.matmul(rows, p.T, out=out)
        return
    for start in range(0, p.shape[0], TRIANGLE_ROWS):
        own, columns = slice(start, start + TRIANGLE_ROWS), slice(first + start, None)
        np.matmul(rows[:, columns], p[own, columns].T, out=out[:, own])


def product_rows(samples: int, itemsize: int) -> int:
    """Variants that one matrix product rotates: one to eight tiles, within 16 MB where one is."""
    tiles = _PRODUCT_BYTES // (TILE_VARIANTS * max(1, samples) * itemsize)
    return TILE_VARIANTS * min(max(1, tiles), _MOST_TILES)


def project_block(block: NDArray[Any], p: NDArray[Any], mean_impute: bool = True) -> NDArray[Any]:
    """Rotate a block of dosages, missing ones imputed by the variant's mean (or left NaN).

    Parameters
    ----------
    block : ndarray (variant, sample)
        int8 calls (negative: missing) or float dosages (NaN: missing).
    p : ndarray (eigen, sample)
    mean_impute : bool
        False leaves NaN in every eigenvector of a variant with a missing dosage.

    Returns
    -------
    ndarray (variant, eigen) of the dtype of `p`.
    """
    (aligned,) = row_blocks(p)
    return rotate(imputed_block(block, p.dtype, mean_impute), aligned)


def imputed_block(block: NDArray[Any], dtype: Any = np.float64, mean_impute: bool = True) -> NDArray[Any]:
    """Dosages (variant, sample) with missing ones replaced by the mean, or such variants NaN throughout."""
    dosage, _ = counted_dosages(block, dtype, center=False)
    if not mean_impute:
        dosage[_missing(block).any(axis=1)] = np.nan
    return dosage


def _missing(block: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isnan(block) if block.dtype.kind == "f" else block < 0


def scan_block(
    null: AlternativeTest | StackedTests,
    p: NDArray[Any] | RowBlocks,
    block: NDArray[Any],
    *,
    samples: NDArray[np.intp] | None = None,
    intercept: bool = True,
    mean_impute: bool = True,
    ploidy: int = 2,
    filters: Filters | None = None,
) -> ScanStats:
    """Test every variant of a block of genotypes.

    Parameters
    ----------
    null : AlternativeTest or StackedTests
        Of one phenotype, or of several, which share the rotation.
    p : ndarray (eigen, sample), float32 or float64, or its row blocks one after the other
        Its dtype is the precision of the rotation; sums over eigenvectors are float64 in any case. Row
        blocks are for a P that does not fit in memory. Of a whitened test the triangular W (sample, sample).
    block : ndarray (variant, sample)
        int8 calls (negative: missing) or float dosages (NaN: missing).
    samples : ndarray of int, optional
        Columns of `block` that are the model's samples, in the model's order. Default: all.
    intercept : bool
        Whether a constant lies in the span of the covariates. Variants are then centred before they are
        rotated, which leaves every test as it is and spares rounding for frequent alleles.
    mean_impute : bool
        Impute missing dosages by the variant's mean; otherwise such a variant has a status and no test.
    ploidy : int
        Copies of an allele at most; the frequency is the mean dosage over it.
    filters : Filters, optional

    Returns
    -------
    ScanStats
        Cost 2 eigen sample flop a variant (half of it whitened), and 2 eigen (2 + covariate) a phenotype; memory
        `product_rows` rows beside the block. A phenotype's numbers do not depend on the others.

    Raises
    ------
    ShapeError
        P has not the model's eigenvectors and samples.
    """
    null = null if isinstance(null, StackedTests) else stacked_tests([null])
    one = null.tests[0]
    if samples is not None:
        block = np.take(block, samples, axis=1)
    m = block.shape[0]
    products, squares = empty_sums(null, m)
    step = product_rows(block.shape[1], p.dtype.itemsize)
    parts = [slice(start, start + step) for start in range(0, max(1, m), step)]
    counts: list[BlockStatistics] = []

    def dosages(i: int) -> NDArray[Any]:
        if i < len(counts):  # with a further piece of P
            return (centered if intercept else imputed)(block[parts[i]], counts[i], p.dtype)
        dosage, counted = counted_dosages(block[parts[i]], p.dtype, center=intercept)
        counts.append(counted)
        return dosage

    done, eigen = 0, slice(0, 0)
    for p_rows in row_blocks(p):
        if p_rows.shape[1] != block.shape[1]:
            raise ShapeError(
                f"p has {p_rows.shape[1]} samples and the genotypes {block.shape[1]}; both must be the model's."
            )
        eigen = slice(done, done + p_rows.shape[0])
        if eigen.stop > null.weights.shape[0]:
            break
        for i, part in enumerate(parts):
            dosage = dosages(i)
            rotated = rotate(dosage, p_rows, eigen.start if one.triangular else None)
            add_rotated(null, rotated, eigen, products[part], squares[part])
            if done == 0:
                add_plain(null, dosage, products[part], squares[part])
        done = eigen.stop
    if eigen.stop != null.weights.shape[0]:
        raise ShapeError(f"p has {eigen.stop} eigenvectors and the model {null.weights.shape[0]}.")
    tolerance = collinearity_tolerance(np.result_type(p.dtype, np.float32), done, one.condition)
    counted = BlockStatistics.of(counts)
    codes = untested(counted, block.shape[1], mean_impute, ploidy, filters)
    tests = tuple(with_untested(stats, codes) for stats in stacked_stats(null, products, squares, tolerance))
    frequency = np.where(counted.n_called > 0, counted.mean / ploidy, np.nan)
    return ScanStats(tests, counted.n_called, frequency)


def untested(
    counted: BlockStatistics, n: int, mean_impute: bool, ploidy: int, filters: Filters | None
) -> NDArray[np.int8]:
    """Status of the variants whose counts alone say that there is no test, OK of the others."""
    status = np.zeros(counted.n_called.shape[0], dtype=np.int8)
    if not mean_impute:
        status[counted.n_called < n] = Status.MISSING_DOSAGE
    if filters is not None:
        with np.errstate(invalid="ignore"):
            frequency = counted.mean / ploidy
            rarer = np.minimum(frequency, 1.0 - frequency)
            # a count is a sum of dosages: one that is whole but for rounding is taken as whole
            count = rarer * ploidy * counted.n_called * (1.0 + 1e-12)
            status[counted.n_called < (1.0 - filters.max_missing) * n * (1.0 - 1e-12)] = (
                Status.HIGH_MISSINGNESS
            )
            # alternatives that are no genotypes can have a "frequency" below 0: a filter that is off passes all
            if filters.min_allele_frequency > 0.0:
                status[rarer * (1.0 + 1e-12) < filters.min_allele_frequency] = Status.LOW_ALLELE_FREQUENCY
            if filters.min_allele_count > 0.0:
                status[count < filters.min_allele_count] = Status.LOW_ALLELE_COUNT
    status[counted.constant] = Status.CONSTANT
    status[counted.not_finite] = Status.NOT_FINITE
    status[counted.all_missing] = Status.ALL_MISSING
    return status


Stats = TypeVar("Stats", AlternativeStats, RefitStats, InteractionStats)


def with_untested(stats: Stats, codes: NDArray[np.int8]) -> Stats:
    """The same statistics with NaN and the status wherever `codes` or their own is not OK."""
    status = np.where(codes == Status.OK, stats.status, codes)
    changed: dict[str, Any] = {"status": status}
    for field in fields(stats):
        values = getattr(stats, field.name)
        if field.name == "effect_allele_frequency":
            continue
        if values.dtype.kind == "f":
            changed[field.name] = np.where(status == Status.OK, values, np.nan)
        elif values.dtype.kind == "b":
            changed[field.name] = values & (status == Status.OK)
    return replace(stats, **changed)
