"""Clumping: independent hits among associated variants, by distance and by r² of their dosages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklmm.errors import ShapeError
from dasklmm.numerics.genotypes import calls_to_dosage

__all__ = ["DISTANCE", "R_SQUARED", "SECONDARY_P_VALUE", "Clumps", "clump_variants", "squared_correlations"]

# PLINK's --clump-kb, --clump-r2 and --clump-p2.
DISTANCE = 250_000
R_SQUARED = 0.5
SECONDARY_P_VALUE = 0.01

_Int = NDArray[np.int64]
_Float = NDArray[np.float64]

# Elements of a tile; four float64 arrays of this size are worked on at a time.
_TILE_ELEMENTS = 1 << 17
# r² of two equal variants falls short of 1 by rounding.
_ROUNDING = 1e-12
# A spread below this share of the mean is rounding of a constant.
_CONSTANT = 1e-12


@dataclass(frozen=True, eq=False)
class Clumps:
    """Which variants are clumped under which.

    Attributes
    ----------
    index : ndarray (clump), int64
        The index variant of each clump, most significant first.
    member_of : ndarray (variant), int64
        Number of the clump that a variant belongs to, its index included; -1: none.
    """

    index: _Int
    member_of: _Int


def clump_variants(
    contig: NDArray[np.integer[Any]],
    position: NDArray[np.integer[Any]],
    neg_log10_p: _Float,
    *,
    threshold: float,
    secondary: float | None = None,
    distance: int = DISTANCE,
    r2: float = R_SQUARED,
    r_squared: Callable[[int, _Int], _Float] | None = None,
    at_most: int | None = None,
) -> Clumps:
    """Clump variants greedily under the most significant ones.

    The most significant variant in no clump is an index. The variants in no clump that are within `distance`
    of it on its contig and, where `r_squared` is given, have r² >= `r2` with it, join its clump. Repeat.

    Parameters
    ----------
    contig : ndarray (variant), integer
        Code of the contig; negative where it is unknown.
    position : ndarray (variant), integer
        Base pairs, below 1 where unknown.
    neg_log10_p : ndarray (variant), float64
        NaN without a test: in no clump.
    threshold : float
        An index has -log10 p of at least this.
    secondary : float, optional
        Members have at least this. Default: `threshold`.
    distance : int
        Base pairs, inclusive.
    r2 : float
        Inclusive, up to rounding (1e-12).
    r_squared : callable (index, variants) -> ndarray, optional
        r² of one variant with others, which come in order of position. Default: distance alone decides.
    at_most : int, optional
        Stop after so many clumps.

    Returns
    -------
    Clumps

    Raises
    ------
    ShapeError
        The three arrays have different lengths.

    Notes
    -----
    A variant joins the most significant index that takes it, as PLINK does without --clump-allow-overlap.
    Equally significant variants come in order of contig code, position and place in the arrays. Variants of
    unknown position are at one place of their contig, near each other and no others; a variant without a
    contig is near no other.

    Cost: a sort of the variants at or above `secondary`, and one call of `r_squared` a clump.

    Source: Purcell et al. 2007, doi:10.1086/519795 (PLINK, --clump).
    """
    sizes = {contig.size, position.size, neg_log10_p.size}
    if len(sizes) > 1:
        raise ShapeError(
            f"contig, position and neg_log10_p have {contig.size}, {position.size} and {neg_log10_p.size} "
            "variants; give one of each for every variant."
        )
    least = threshold if secondary is None else min(threshold, secondary)
    rows = np.flatnonzero(neg_log10_p >= least)
    rows = rows[np.lexsort((np.maximum(position[rows], 0), contig[rows]))]
    code, place, score = contig[rows], np.maximum(position[rows], 0), neg_log10_p[rows]
    member_of = np.full(rows.size, -1, dtype=np.int64)
    found: list[int] = []
    for i in np.argsort(-score, kind="stable").tolist():
        if score[i] < threshold or len(found) == at_most:
            break
        if member_of[i] >= 0:
            continue
        member_of[i] = len(found)
        near = _near(code, place, i, distance)
        near = near[member_of[near] < 0]
        if r_squared is not None and near.size:
            near = near[r_squared(int(rows[i]), rows[near]) >= r2 - _ROUNDING]
        member_of[near] = len(found)
        found.append(i)
    out = np.full(contig.size, -1, dtype=np.int64)
    out[rows] = member_of
    return Clumps(rows[np.array(found, dtype=np.int64)], out)


def _near(code: NDArray[Any], place: NDArray[Any], i: int, distance: int) -> _Int:
    """Variants near the i-th, itself among them; contigs and places are sorted."""
    if code[i] < 0:
        return np.array([i], dtype=np.int64)
    start, stop = np.searchsorted(code, code[i]), np.searchsorted(code, code[i], side="right")
    known = place[i] > 0
    low, high = (max(int(place[i]) - distance, 1), int(place[i]) + distance) if known else (0, 0)
    of_contig = place[start:stop]
    return np.arange(
        start + np.searchsorted(of_contig, low),
        start + np.searchsorted(of_contig, high, side="right"),
        dtype=np.int64,
    )


def squared_correlations(
    index: NDArray[Any], block: NDArray[Any], samples: NDArray[np.integer[Any]] | None = None
) -> _Float:
    """r² of one variant with each of a block: squared Pearson correlations of dosages.

    Parameters
    ----------
    index : ndarray (sample)
        Integers (negative: missing) or floats (NaN: missing).
    block : ndarray (variant, sample)
        Likewise.
    samples : ndarray of int, optional
        Columns to use. Default: all.

    Returns
    -------
    ndarray (variant), float64
        Over the samples with both dosages (complete pairs, as PLINK's r²). 0 where it is not defined: fewer
        than two pairs, or one of the two is constant over them. An infinite dosage counts as missing.

    Raises
    ------
    ShapeError
        The two have different numbers of samples.

    Notes
    -----
    Two passes of float64 sums. Cost: about 20 ns a dosage; memory four tiles of 1 MB.
    """
    if index.ndim != 1 or block.ndim != 2 or block.shape[1] != index.size:
        raise ShapeError(
            f"the index variant has shape {index.shape} and the block {block.shape}; (sample) and "
            "(variant, sample) over the same samples are needed."
        )
    x = calls_to_dosage((index if samples is None else index[samples])[None], np.float64)[0]
    x_known = np.isfinite(x)
    rows = max(1, _TILE_ELEMENTS // max(x.size, 1))
    out = np.zeros(block.shape[0])
    for start in range(0, block.shape[0], rows):
        tile = block[start : start + rows]
        y = calls_to_dosage(tile if samples is None else np.take(tile, samples, axis=1), np.float64)
        pair = np.isfinite(y) & x_known
        pairs = np.maximum(pair.sum(axis=1), 1)
        x_centred, x_varies = _centred(np.where(pair, x, 0.0), pair, pairs)
        y_centred, y_varies = _centred(np.where(pair, y, 0.0), pair, pairs)
        varies = x_varies & y_varies
        product = np.einsum("ij,ij->i", x_centred, y_centred)[varies]
        squares = (
            np.einsum("ij,ij->i", x_centred, x_centred)[varies],
            np.einsum("ij,ij->i", y_centred, y_centred)[varies],
        )
        out[start : start + rows][varies] = np.minimum(product / squares[0] * (product / squares[1]), 1.0)
    return out


def _centred(
    values: _Float, pair: NDArray[np.bool_], pairs: NDArray[Any]
) -> tuple[_Float, NDArray[np.bool_]]:
    """Values less their mean over the pairs, 0 elsewhere, and whether they vary."""
    mean = values.sum(axis=1) / pairs
    values -= mean[:, None]
    values *= pair
    return values, np.abs(values).max(axis=1, initial=0.0) > _CONSTANT * np.abs(mean)
