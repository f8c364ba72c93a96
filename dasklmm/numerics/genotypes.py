"""Genotype blocks (variant, sample): counts, mean imputation, standardisation and Gram matrices.

A block holds int8 hard calls, copies of the effect allele with any negative value for missing, or
float dosages with NaN for missing. Work goes through tiles of rows that fit a core's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dasklmm.errors import OptionError, ShapeError

__all__ = [
    "BlockStatistics",
    "Gram",
    "Method",
    "block_statistics",
    "calls_to_dosage",
    "centered",
    "counted_dosages",
    "gram",
    "imputed",
    "standardise",
]

Method = Literal["rrm", "grm", "centered"]
Samples = NDArray[np.integer[Any]] | None
_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]
_Block = NDArray[Any]

# Elements of a tile, 1 MB in single precision: 2,000 samples took 2.0 us a variant; half of it 2.2, a quarter 2.7.
_TILE_ELEMENTS = 1 << 18
# Sums of integers are exact in float32 below this.
_EXACT_BELOW = 1 << 24
# Variants of one rank-k update, about: enough for its full speed, few enough for sums in float32.
GRAM_TILE = 2048
MOST_IN_GRAM_TILE = 3 * GRAM_TILE // 2


def gram_tile(rows: int) -> int:
    """Variants of a block's rank-k updates: equal parts of it, at most MOST_IN_GRAM_TILE.

    A short rest would cost as many sums of n^2 as a whole tile: 2,560 variants of 3,000 samples took 294 ms as
    2,048 and 512, and 255 as one.
    """
    return max(1, -(-rows // max(1, round(rows / GRAM_TILE))))


@dataclass(frozen=True, eq=False)
class BlockStatistics:
    """What a block's variants hold; every array has shape (variant).

    Attributes
    ----------
    n_called : ndarray, int64
        Samples that are not missing.
    mean : ndarray, float64
        Mean dosage of the called samples; NaN if all are missing or one is infinite.
    sum_squares_centered : ndarray, float64
        Sum of (g - mean)^2 over the called samples; it is that of the mean-imputed variant as well.
        NaN where `mean` is.
    constant : ndarray, bool
        All called samples have the same value (and there is one).
    all_missing : ndarray, bool
    not_finite : ndarray, bool
        A dosage is plus or minus infinity.

    Notes
    -----
    Each variant has at most one of the three flags.
    """

    n_called: NDArray[np.int64]
    mean: _Float
    sum_squares_centered: _Float
    constant: _Bool
    all_missing: _Bool
    not_finite: _Bool

    @classmethod
    def of(cls, parts: Sequence[BlockStatistics]) -> BlockStatistics:
        """Those of a block, of those of its parts in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def varies(self) -> _Bool:
        """Variants with two or more distinct, finite dosages: none of the flags."""
        return ~(self.constant | self.all_missing | self.not_finite)

    def rows(self, index: slice | NDArray[Any]) -> BlockStatistics:
        """Statistics of some of the variants."""
        return BlockStatistics(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Gram:
    """Z^T Z of standardised variants; adds over disjoint sets of variants.

    Attributes
    ----------
    matrix : ndarray (sample, sample), float64
        Exactly symmetric. The kinship is ``matrix / n_variants``.
    n_variants : int
        Variants that were kept.
    """

    matrix: _Float
    n_variants: int

    def __add__(self, other: Gram) -> Gram:
        self._check(other)
        return Gram(self.matrix + other.matrix, self.n_variants + other.n_variants)

    def __sub__(self, other: Gram) -> Gram:
        """What is left without the variants of `other`: leave one contig out."""
        self._check(other)
        return Gram(self.matrix - other.matrix, self.n_variants - other.n_variants)

    def _check(self, other: Gram) -> None:
        if self.matrix.shape != other.matrix.shape:
            raise ShapeError(
                f"Gram matrices of shapes {self.matrix.shape} and {other.matrix.shape} cannot be "
                "combined; compute both over the same samples."
            )


def calls_to_dosage(calls: _Block, dtype: DTypeLike = np.float32) -> _Block:
    """Hard calls or dosages as floats with NaN for missing.

    Parameters
    ----------
    calls : ndarray (variant, sample)
        Integers (negative: missing) or floats (NaN: missing).
    dtype : float32 or float64

    Returns
    -------
    ndarray (variant, sample) of `dtype`, a new array
    """
    fill = np.nan if calls.dtype.kind in "iu" else None
    return _converted(_checked(calls), dtype, None, fill=fill)


def block_statistics(block: _Block, samples: Samples = None) -> BlockStatistics:
    """Count, mean and centred sum of squares of each variant of a block.

    Parameters
    ----------
    block : ndarray (variant, sample)
        Integers (negative: missing) or floats (NaN: missing).
    samples : ndarray of int, optional
        Columns to use, in any order. Default: all.

    Returns
    -------
    BlockStatistics
        int8: from integer counts, so exact but for the last division. Others: two passes of float64
        sums. A variant's numbers do not depend on the rest of its block.

    Raises
    ------
    ShapeError
        The block is not two-dimensional.
    OptionError
        Its values are neither integers nor floats.

    Notes
    -----
    One pass, about 1 ns a call in int8 on one core.
    """
    block = _checked(block)
    parts = []
    for _, tile in _tiles(block, samples):
        if tile.dtype == np.int8:
            parts.append(_count_int8(tile, tile.astype(np.float32), _missing_places(tile)))
        else:
            parts.append(_count_float(tile))
    return BlockStatistics.of(parts)


def counted_dosages(
    block: _Block, dtype: DTypeLike = np.float32, *, center: bool, samples: Samples = None
) -> tuple[_Block, BlockStatistics]:
    """`centered` (or `imputed`) dosages of a block and its `block_statistics`, which read it once together.

    Parameters
    ----------
    block : ndarray (variant, sample)
        Integers (negative: missing) or floats (NaN: missing).
    dtype : float32 or float64
    center : bool
    samples : ndarray of int, optional
        Columns to use, in this order. Default: all.

    Returns
    -------
    ndarray (variant, sample) of `dtype`
    BlockStatistics

    Notes
    -----
    int8 to float32: 2.0 us a variant of 2,000 samples, 1 % missing, on one core.
    """
    return _counted(block, dtype, samples, center, None)


def _counted(
    block: _Block,
    dtype: DTypeLike,
    samples: Samples,
    center: bool,
    scale: Callable[[BlockStatistics], _Float] | None,
) -> tuple[_Block, BlockStatistics]:
    block = _checked(block)
    out, parts = _empty(block, dtype, samples), []
    for part, tile in _tiles(block, samples):
        target, missing = out[part], _missing_places(tile)
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(target, tile, casting="unsafe")
        counts = _count_int8(tile, target, missing) if tile.dtype == np.int8 else _count_float(tile)
        _place(
            target,
            missing,
            counts.mean if center else None,
            None if scale is None else scale(counts),
            0.0 if center else counts.mean,
        )
        target[counts.not_finite] = 0.0 if center else np.nan
        parts.append(counts)
    return out, BlockStatistics.of(parts)


def _count_int8(tile: _Block, values: _Block, missing: NDArray[np.intp]) -> BlockStatistics:
    """Counts of a tile of int8, of `values`, the same as floats; those at the `missing` places become 0."""
    m, n = tile.shape
    called = np.full(m, n, dtype=np.int64)
    if missing.size:
        values.reshape(-1)[missing] = 0.0
        called -= np.bincount(missing // n, minlength=m)
    total, total_sq = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
    largest = max(int(tile.max(initial=1)), 1)
    step = max(1, (_EXACT_BELOW - 1) // largest**2)
    ones = np.ones(min(n, step), dtype=values.dtype)
    for start in range(0, n, step):
        stripe = values[:, start : start + step]
        total += np.dot(stripe, ones[: stripe.shape[1]]).astype(np.int64)
        total_sq += np.vecdot(stripe, stripe).astype(np.int64)
    # In integers, so that zero means constant.
    numerator = called * total_sq - total * total
    with np.errstate(invalid="ignore"):
        return BlockStatistics(
            n_called=called,
            mean=total / called,
            sum_squares_centered=numerator / called,
            constant=(numerator == 0) & (called > 0),
            all_missing=called == 0,
            not_finite=np.zeros(m, dtype=bool),
        )


def _count_float(tile: _Block) -> BlockStatistics:
    values = tile.astype(np.float64)
    missing = _missing(tile)
    infinite = np.isinf(values)
    called = values.shape[1] - np.count_nonzero(missing, axis=1).astype(np.int64)
    not_finite = np.asarray(infinite.any(axis=1))
    # First called value of each variant; argmin of the mask finds it.
    first = values[np.arange(values.shape[0]), missing.argmin(axis=1)] if values.size else called
    same = ((values == first[:, None]) | missing).all(axis=1)
    constant = np.asarray(same & (called > 0) & ~not_finite)
    left_out = missing | infinite
    values[left_out] = 0.0
    with np.errstate(invalid="ignore"):
        mean = values.sum(axis=1) / called
    mean[not_finite] = np.nan
    mean[constant] = first[constant]
    values -= mean[:, None]
    values[left_out] = 0.0
    # A row sum rather than einsum: its order, and so its rounding, is that of one row alone.
    squares = np.square(values).sum(axis=1)
    squares[np.isnan(mean)] = np.nan
    return BlockStatistics(called, mean, squares, constant, called == 0, not_finite)


def centered(
    block: _Block,
    stats: BlockStatistics,
    dtype: DTypeLike = np.float32,
    mean_impute: bool = True,
    samples: Samples = None,
) -> _Block:
    """Dosages less their variant's mean; a missing one is the mean, hence 0.

    Parameters
    ----------
    block : ndarray (variant, sample)
        Integers (negative: missing) or floats (NaN: missing).
    stats : BlockStatistics
        Of the same block and samples.
    dtype : float32 or float64
    mean_impute : bool
        False leaves NaN for missing.
    samples : ndarray of int, optional
        Columns to use, in this order. Default: all.

    Returns
    -------
    ndarray (variant, sample) of `dtype`
        Variants that are constant or not finite are rows of exact zeros, and so is one that is all
        missing and imputed.

    Raises
    ------
    ShapeError
        `stats` has another number of variants than `block`.

    Notes
    -----
    int8 to float32: about 1 ns a call on one core.
    """
    block = _checked(block, stats)
    out = _converted(
        block,
        dtype,
        samples,
        shift=stats.mean,
        fill=0.0 if mean_impute else np.nan,
    )
    out[stats.not_finite] = 0.0
    return out


def imputed(
    block: _Block,
    stats: BlockStatistics,
    dtype: DTypeLike = np.float32,
    samples: Samples = None,
) -> _Block:
    """Dosages with missing ones replaced by their variant's mean, not centred.

    Parameters
    ----------
    block : ndarray (variant, sample)
        Integers (negative: missing) or floats (NaN: missing).
    stats : BlockStatistics
        Of the same block and samples.
    dtype : float32 or float64
    samples : ndarray of int, optional
        Columns to use, in this order. Default: all.

    Returns
    -------
    ndarray (variant, sample) of `dtype`
        Variants that are all missing or not finite are rows of NaN.

    Raises
    ------
    ShapeError
        `stats` has another number of variants than `block`.
    """
    block = _checked(block, stats)
    out = _converted(block, dtype, samples, fill=stats.mean)
    out[stats.not_finite] = np.nan
    return out


def standardise(
    block: _Block,
    method: Method,
    dtype: DTypeLike = np.float32,
    samples: Samples = None,
) -> tuple[_Block, int]:
    """Variants as rows of Z, of which the kinship is Z^T Z / m.

    =========== ============================================ ==================================
    "rrm"       (g - mean) / ||g - mean|| * sqrt(n)          Hail's realized relationship matrix
    "grm"       (g - 2f) / sqrt(2f(1 - f)), f = mean / 2     GCTA (Yang et al. 2011, eq. 3)
    "centered"  g - mean                                     GEMMA -gk 1
    =========== ============================================ ==================================

    Missing dosages are the mean (0 after centring); n counts all samples, the norm is of the
    imputed variant.

    Parameters
    ----------
    block : ndarray (variant, sample)
        Integers (negative: missing) or floats (NaN: missing).
    method : {"rrm", "grm", "centered"}
    dtype : float32 or float64
    samples : ndarray of int, optional
        Columns to use, in this order. Default: all.

    Returns
    -------
    z : ndarray (variant_kept, sample) of `dtype`
        Without variants that are constant, all missing or not finite; for "grm" also without those
        whose mean dosage does not lie between 0 and 2.
    n_kept : int
        Rows of z.

    Raises
    ------
    OptionError
        `method` is none of the three.
    """
    if method not in get_args(Method):
        raise OptionError(
            f"standardisation method is {method!r}; it is one of {', '.join(get_args(Method))}."
        )
    n = _n_columns(_checked(block), samples)

    def scale(stats: BlockStatistics) -> _Float:
        with np.errstate(divide="ignore", invalid="ignore"):
            if method == "rrm":
                return np.asarray(np.sqrt(n / stats.sum_squares_centered))
            frequency = 0.5 * stats.mean
            return np.asarray(1.0 / np.sqrt(2.0 * frequency * (1.0 - frequency)))

    z, stats = _counted(block, dtype, samples, True, None if method == "centered" else scale)
    keep = stats.varies
    if method == "grm":
        keep &= (stats.mean > 0.0) & (stats.mean < 2.0)
    if not keep.all():
        z = z[keep]
    return z, z.shape[0]


def gram(
    block: _Block,
    method: Method,
    dtype: DTypeLike = np.float32,
    samples: Samples = None,
    before: Gram | None = None,
) -> Gram:
    """Z^T Z over the variants of a block, Z as `standardise` makes it, added to that of others.

    Parameters
    ----------
    block : ndarray (variant, sample)
        Integers (negative: missing) or floats (NaN: missing).
    method : {"rrm", "grm", "centered"}
    dtype : float32 or float64
        Of the products inside a tile of some 2,048 variants; sums over tiles are float64.
    samples : ndarray of int, optional
        Columns to use, in this order. Default: all.
    before : Gram, optional
        Of other variants; left as it is.

    Returns
    -------
    Gram

    Raises
    ------
    OptionError
        `method` is unknown.
    ShapeError
        `before` is of another number of samples.

    Notes
    -----
    Cost sample^2 variant flop (one triangle by SYRK); memory two matrices (sample, sample) beside
    the block, one tile of Z and `before`.
    """
    block = _checked(block)
    n = _n_columns(block, samples)
    nothing = Gram(np.zeros((n, n)), 0)  # pages that are not written are not there
    total = nothing if before is None else before
    nothing._check(total)
    matrix, n_variants = total.matrix, total.n_variants
    step = gram_tile(block.shape[0])
    for start in range(0, block.shape[0], step):
        z, kept = standardise(block[start : start + step], method, dtype, samples)
        # NumPy sees z.T @ z as a rank-k update and mirrors one triangle, which makes it symmetric.
        product = z.T @ z
        # the first sum is a new matrix
        matrix = matrix + product if matrix is total.matrix else np.add(matrix, product, out=matrix)
        n_variants += kept
    return Gram(matrix, n_variants)


def _checked(block: _Block, stats: BlockStatistics | None = None) -> _Block:
    if block.ndim != 2:
        raise ShapeError(
            f"a genotype block has shape {block.shape}; it needs two dimensions (variant, sample)."
        )
    if block.dtype.kind not in "iuf":
        raise OptionError(
            f"genotypes have dtype {block.dtype}; give integer calls (negative: missing) or float "
            "dosages (NaN: missing)."
        )
    if stats is not None and stats.mean.shape[0] != block.shape[0]:
        raise ShapeError(
            f"statistics of {stats.mean.shape[0]} variants were given with a block of "
            f"{block.shape[0]}; compute them from the same block."
        )
    return block


def _n_columns(block: _Block, samples: Samples) -> int:
    return block.shape[1] if samples is None else len(samples)


def _tiles(block: _Block, samples: Samples) -> Iterator[tuple[slice, _Block]]:
    """Contiguous runs of rows, columns taken; one without rows where the block has none."""
    n = _n_columns(block, samples)
    rows = max(1, _TILE_ELEMENTS // max(n, 1))
    for start in range(0, max(1, block.shape[0]), rows):
        part = slice(start, min(start + rows, block.shape[0]))
        # take keeps rows contiguous and is three times as fast as block[:, samples]
        tile = block[part] if samples is None else np.take(block[part], samples, axis=1)
        yield part, np.ascontiguousarray(tile)


def _missing(tile: _Block) -> _Bool:
    return np.asarray(np.isnan(tile) if tile.dtype.kind == "f" else tile < 0)


def _converted(
    block: _Block,
    dtype: DTypeLike,
    samples: Samples,
    *,
    shift: _Float | None = None,
    fill: float | _Float | None = None,
) -> _Block:
    """(block - shift) by row, in `dtype`; then `fill`, one value or one a row, at missing."""
    out = _empty(block, dtype, samples)
    for part, tile in _tiles(block, samples):
        target = out[part]
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(target, tile, casting="unsafe")
        missing = np.empty(0, dtype=np.intp) if fill is None else _missing_places(tile)
        each = fill[part] if isinstance(fill, np.ndarray) else fill
        _place(target, missing, None if shift is None else shift[part], None, each)
    return out


def _empty(block: _Block, dtype: DTypeLike, samples: Samples) -> _Block:
    out = np.empty((block.shape[0], _n_columns(block, samples)), dtype=dtype)
    if out.dtype.kind != "f" or out.dtype.itemsize < 4:
        raise OptionError(f"dtype is {out.dtype}; it needs to be float32 or float64.")
    return out


def _missing_places(tile: _Block) -> NDArray[np.intp]:
    return np.flatnonzero(_missing(tile))


def _place(
    values: _Block,
    missing: NDArray[np.intp],
    shift: _Float | None,
    scale: _Float | None,
    fill: float | _Float | None,
) -> None:
    """(values - shift) * scale by row, in place; then `fill`, one value or one a row, at `missing` places."""
    with np.errstate(over="ignore", invalid="ignore"):
        if shift is not None:
            values -= shift.astype(values.dtype)[:, None]
        if scale is not None:
            values *= scale.astype(values.dtype)[:, None]
        if fill is not None and missing.size:
            each = fill[missing // values.shape[1]] if isinstance(fill, np.ndarray) else fill
            values.reshape(-1)[missing] = each


def allele_counts(
    calls: NDArray[Any], site: NDArray[np.integer[Any]], allele: NDArray[np.integer[Any]]
) -> NDArray[np.int8]:
    """Copies of one allele in each call, a haploid one on the scale of a diploid one: 0 or 2.

    Parameters
    ----------
    calls : ndarray (site, sample, ploidy), ploidy 1 or 2
        Allele numbers; -1 missing, -2 fill of a call of lower ploidy (VCF-Zarr spec 0.4).
    site, allele : ndarray (variant)
        Site and allele number that each row of the result counts.

    Returns
    -------
    ndarray (variant, sample), int8
        -1 where any allele of the call is missing, or none is there.
    """
    known = ~(calls == -1).any(axis=2) & (calls >= 0).any(axis=2)
    counts = (calls[site] == allele[:, None, None]).sum(axis=2, dtype=np.int8)
    haploid = haploid_calls(calls)
    if haploid.any():
        counts[haploid[site]] *= 2
    return np.where(known[site], counts, np.int8(-1))


def haploid_calls(calls: NDArray[Any]) -> _Bool:
    """Whether a call is of one allele, of calls (site, sample, ploidy) as `allele_counts` takes them."""
    return np.asarray(((calls >= 0).sum(axis=2, dtype=np.int8) == 1) & ~(calls == -1).any(axis=2))
