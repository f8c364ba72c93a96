"""What a plot of any number of tests needs: few points that keep every peak, and inflation from counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklmm.numerics.tails import chi_sq_median_ratio

__all__ = ["BINS", "CELLS", "Thinned"]

# Bins along the genome, and the slices of -log10 p within each, narrow where most tests lie.
BINS = 1250
_EDGES = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.5, 10.0, 15.0, 25.0, 50.0])
_SLICES = _EDGES.size + 1
_GOLDEN = 0.6180339887498949
CELLS = BINS * _SLICES
# Counts for the median: its error is that of a straight line within a thousandth of log10 p.
_STEP = 1e-3
_COUNTS = 8000


class Thinned:
    """The largest -log10 p of each cell of a grid over genome and -log10 p, and λ_GC of all.

    Never more than `CELLS` (20,000) points, however many tests are added; the largest of each bin of the genome
    is among them.

    Attributes
    ----------
    y : ndarray (cell), float32
        -log10 p, NaN where the cell is empty.
    row : ndarray (cell), int64
        The row given with it.
    n : int
        Tests that were added.
    """

    def __init__(self) -> None:
        self.y = np.full(CELLS, np.nan, dtype=np.float32)
        self.row = np.full(CELLS, -1, dtype=np.int64)
        self.n = 0
        self._best = np.full(CELLS, -1.0, dtype=np.float32)
        self._changed = np.zeros(CELLS, dtype=bool)
        self._counts = np.zeros(_COUNTS + 1, dtype=np.int64)

    def add(self, rows: NDArray[Any], x: NDArray[Any], neg_log10_p: NDArray[Any]) -> None:
        """Add tests: their rows, their places along the genome in [0, 1], and -log10 p (NaN: no test)."""
        tested = np.isfinite(neg_log10_p)
        rows, x, y = rows[tested], x[tested], neg_log10_p[tested].astype(np.float32)
        self.n += int(y.size)
        self._counts += np.bincount(np.minimum(y / _STEP, _COUNTS).astype(np.int64), minlength=_COUNTS + 1)
        place = np.minimum((x * BINS).astype(np.int64), BINS - 1)
        # edges lie elsewhere in each bin, or the largest below each would draw a line across the plot
        shift = 0.5 * ((place * _GOLDEN) % 1.0)
        cell = place * _SLICES + np.searchsorted(_EDGES, y - shift, "right")
        better = y > self._best[cell]
        cell, y, rows = cell[better], y[better], rows[better]
        np.maximum.at(self._best, cell, y)
        won = y == self._best[cell]
        self.y[cell[won]], self.row[cell[won]] = y[won], rows[won]
        self._changed[cell[won]] = True

    def take_changed(self) -> NDArray[np.int64]:
        """Cells that changed since the last call."""
        changed = np.flatnonzero(self._changed)
        self._changed[changed] = False
        return changed

    @property
    def lambda_gc(self) -> float:
        """Genomic inflation, to about 1e-3; NaN without a test, or with a median p below 1e-8."""
        total = np.cumsum(self._counts)
        place = int(np.searchsorted(total, 0.5 * self.n))
        if self.n == 0 or place >= _COUNTS:
            return float("nan")
        before = total[place] - self._counts[place]
        middle = _STEP * (place + (0.5 * self.n - before) / self._counts[place])
        return chi_sq_median_ratio(float(middle))


def block_means(rows: np.ndarray, size: int) -> np.ndarray:
    """Means of blocks of `size` by `size`; the last ones may be of fewer.

    Parameters
    ----------
    rows : ndarray (n, m)
    size : int

    Returns
    -------
    ndarray (ceil(n / size), ceil(m / size)), float64
    """
    if size == 1:
        return rows
    down, across = (np.arange(0, length, size) for length in rows.shape)
    sums = np.add.reduceat(np.add.reduceat(rows, down, axis=0), across, axis=1)
    heights, widths = (
        np.diff(np.append(starts, length)) for starts, length in zip((down, across), rows.shape, strict=True)
    )
    means: np.ndarray = sums / np.outer(heights, widths)
    return means


def clustered_order(kinship: np.ndarray) -> np.ndarray:
    """Order of samples in which relatives are neighbours: average linkage of the distances in the kinship.

    Parameters
    ----------
    kinship : ndarray (n, n), float64
        Symmetric.

    Returns
    -------
    ndarray (n) of int

    Notes
    -----
    The squared distance of two samples is k_ii + k_jj - 2 k_ij. Cost n^2 time and memory.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if kinship.shape[0] < 2:
        return np.arange(kinship.shape[0])
    diagonal = np.diag(kinship)
    squared = np.maximum(diagonal[:, None] + diagonal - kinship - kinship.T, 0.0)
    np.fill_diagonal(squared, 0.0)
    return leaves_list(linkage(squareform(np.sqrt(squared), checks=False), "average"))
