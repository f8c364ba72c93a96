"""Genotypes to tests with the variance ratio refitted for each variant: rotation and refit in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklmm.errors import ShapeError
from dasklmm.numerics.alternatives import collinearity_tolerance
from dasklmm.numerics.genotypes import BlockStatistics, block_statistics, centered, imputed
from dasklmm.numerics.records import Filters, Float, NodeWeights, RefitGrid, RefitStats, RefitTest
from dasklmm.numerics.refit import (
    add_plain_nodes,
    add_rotated_nodes,
    node_sums,
    node_weights,
    refit_stats,
    with_rows,
)
from dasklmm.numerics.scan import (
    RowBlocks,
    ScanStats,
    product_rows,
    rotate,
    row_blocks,
    untested,
    with_untested,
)


def refit_scan_block(
    nulls: Sequence[RefitTest],
    p: NDArray[Any] | RowBlocks,
    block: NDArray[Any],
    *,
    samples: NDArray[np.intp] | None = None,
    intercept: bool = True,
    mean_impute: bool = True,
    ploidy: int = 2,
    filters: Filters | None = None,
) -> ScanStats:
    """Test every variant of a block of genotypes, each at its own variance ratio.

    Parameters
    ----------
    nulls : sequence of RefitTest
        One a phenotype; all of the same samples and covariates.
    p, block, samples, intercept, mean_impute, ploidy, filters
        As in :func:`dasklmm.numerics.scan.scan_block`.

    Returns
    -------
    ScanStats
        Of RefitStats. Cost of :func:`scan_block` and of :func:`dasklmm.numerics.refit.refit_block` a
        phenotype; the few variants whose optimum lies outside the window are rotated once more. Memory:
        (2 + covariate) node float64 a phenotype and variant, of `product_rows` variants where P is in memory,
        of the block where it comes in row blocks.

    Raises
    ------
    ShapeError
        P has not the model's eigenvectors and samples.
    """
    if samples is not None:
        block = np.take(block, samples, axis=1)
    m = block.shape[0]
    pass_ = _Pass(p, block, block_statistics(block), intercept)
    step = product_rows(block.shape[1], p.dtype.itemsize) if isinstance(p, np.ndarray) else max(1, m)
    parts = [
        pass_.stats(nulls, [null.window for null in nulls], np.arange(start, min(start + step, m)))
        for start in range(0, max(1, m), step)
    ]
    stats, redo = (
        [_concatenated([part[0][k] for part in parts]) for k in range(len(nulls))],
        [np.concatenate([part[1][k] for part in parts]) for k in range(len(nulls))],
    )
    for k, null in enumerate(nulls):
        rows = np.flatnonzero(redo[k])
        for start in range(0, rows.size, step):
            some = rows[start : start + step]
            (again,), _ = pass_.stats([null], [null.whole], some)
            stats[k] = with_rows(stats[k], some, again)
    counted = pass_.counted
    codes = untested(counted, block.shape[1], mean_impute, ploidy, filters)
    frequency = np.where(counted.n_called > 0, counted.mean / ploidy, np.nan)
    return ScanStats(tuple(with_untested(each, codes) for each in stats), counted.n_called, frequency)


class _Pass:
    """Passes over rows of one block: imputed, rotated, and summed at the nodes of each null."""

    def __init__(
        self, p: NDArray[Any] | RowBlocks, block: NDArray[Any], counted: BlockStatistics, intercept: bool
    ) -> None:
        self.p, self.block, self.counted = p, block, counted
        self.weights: dict[tuple[int, int], NodeWeights] = {}
        self.eigen = slice(0, 0)
        self.convert = centered if intercept else imputed

    def stats(
        self, nulls: Sequence[RefitTest], grids: Sequence[RefitGrid], rows: NDArray[np.intp]
    ) -> tuple[list[RefitStats], list[NDArray[np.bool_]]]:
        """Statistics of some rows on a grid for each null, and which are to be done again."""
        r = nulls[0].data.r
        sums = [node_sums(null, grid, rows.size) for null, grid in zip(nulls, grids, strict=True)]
        done = 0
        for p_rows in row_blocks(self.p):
            if p_rows.shape[1] != self.block.shape[1]:
                raise ShapeError(
                    f"p has {p_rows.shape[1]} samples and the genotypes {self.block.shape[1]}; both must be the "
                    "model's."
                )
            eigen = slice(done, done + p_rows.shape[0])
            if eigen.stop > r:
                break
            self._add(nulls, grids, p_rows, eigen, rows, sums)
            done = eigen.stop
        if done != r:
            raise ShapeError(f"p has not the {r} eigenvectors of the model.")
        tolerance = collinearity_tolerance(np.result_type(self.p.dtype, np.float32), r)
        found = [
            refit_stats(null, grid, each, tolerance)
            for null, grid, each in zip(nulls, grids, sums, strict=True)
        ]
        return [each for each, _ in found], [redo for _, redo in found]

    def _add(
        self,
        nulls: Sequence[RefitTest],
        grids: Sequence[RefitGrid],
        p_rows: NDArray[Any],
        eigen: slice,
        rows: NDArray[np.intp],
        sums: list[Float],
    ) -> None:
        weights = [self._weights_of(null, grid, eigen) for null, grid in zip(nulls, grids, strict=True)]
        step = product_rows(self.block.shape[1], self.p.dtype.itemsize)
        for start in range(0, rows.size, step):
            part = slice(start, start + step)
            chosen = rows[part]
            dosage = self.convert(self.block[chosen], self.counted.rows(chosen), self.p.dtype)
            rotated = rotate(dosage, p_rows)
            for null, grid, own, each in zip(nulls, grids, weights, sums, strict=True):
                add_rotated_nodes(own, rotated, each[part])
                if eigen.start == 0:
                    add_plain_nodes(null, grid, dosage, each[part])

    def _weights_of(self, null: RefitTest, grid: RefitGrid, eigen: slice) -> NodeWeights:
        """Weights of some eigenvectors, made once while these are the ones that are summed."""
        if eigen != self.eigen:
            self.weights, self.eigen = {}, eigen
        key = id(null), id(grid)
        if key not in self.weights:
            self.weights[key] = node_weights(null, grid, eigen)
        return self.weights[key]


def _concatenated(parts: Sequence[RefitStats]) -> RefitStats:
    fields = [[getattr(part, name) for part in parts] for name in RefitStats.__dataclass_fields__]
    return RefitStats(*(np.concatenate(values) for values in fields))
