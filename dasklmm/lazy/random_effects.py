"""Eigenpairs of K = Z Z^T from random effects: in memory, or from the Gram matrix of a Dask array."""

from __future__ import annotations

import logging
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from dasklmm import schema
from dasklmm.errors import NotFiniteError
from dasklmm.lazy import blocks, budget, run
from dasklmm.numerics import spectrum
from dasklmm.numerics.genotypes import block_statistics, imputed, standardise
from dasklmm.numerics.records import Spectrum

logger = logging.getLogger(__name__)


def decompose(z: Any, max_condition_number: float, complexity_bound: int) -> Spectrum:
    """Eigenpairs of Z Z^T. Eager; see :meth:`dasklmm.LinearMixedModel.from_random_effects`.

    Returns
    -------
    Spectrum
        Its `p` is a Dask array (eigen, sample) where z is one, has n > m and is beyond the bound.
    """
    n, m = z.shape
    in_memory = not isinstance(z, da.Array)
    if not in_memory and n * m * min(n, m) <= complexity_bound**3:
        z, in_memory = z.compute(), True
    if in_memory:
        bad = int(np.sum(~np.isfinite(z)))
        if bad:
            raise NotFiniteError(
                f"z has {bad} values that are not finite. Impute them, or leave those samples out."
            )
        return spectrum.factor_spectrum(z, max_condition_number)
    if n <= m:
        columns = z.rechunk({0: -1, 1: budget.rows_per_task(8 * n, 1, m)})
        gram = _sum_of_products(columns, transpose=False)
        budget.check_eigendecomposition(n)
        return spectrum.eigendecompose(gram.compute())
    rows = z.rechunk({0: budget.rows_per_task(8 * m, 1, n), 1: -1})
    gram = _sum_of_products(rows, transpose=True)
    budget.check_eigendecomposition(m)
    v, s, pairs = spectrum.gram_pairs(gram.compute(), max_condition_number)
    p = _left_vectors(rows, v, s)
    return Spectrum(p, s, pairs.n_dropped, pairs.largest_dropped)  # type: ignore[arg-type]


def _left_vectors(rows: da.Array, v: np.ndarray, s: np.ndarray) -> da.Array:
    by_sample = blocks.map_variants(_left_block, rows, label="left-vectors", width=s.size, v=v, s=s)
    return by_sample.T


def _left_block(z: np.ndarray, *, v: np.ndarray, s: np.ndarray) -> np.ndarray:
    return spectrum.left_vectors(z, v, s).T


def _sum_of_products(array: da.Array, transpose: bool) -> Any:
    call = blocks.delayed_call(_add_product, "gram")
    sums = blocks.lanes(
        blocks.delayed_blocks(array),
        run.parallelism(),
        lambda block, before: call(block, transpose, before),
    )
    return blocks.tree_sum(sums, "gram-sum")


def _add_product(block: np.ndarray, transpose: bool, before: np.ndarray | None) -> np.ndarray:
    block = np.asarray(block, dtype=np.float64)
    product = block.T @ block if transpose else block @ block.T
    return product if before is None else np.add(product, before, out=product)


def from_genotypes(z: Any, ids: np.ndarray | None, n: int, *, standardize: bool, mean_impute: bool) -> Any:
    """Random effects (sample, effect) of genotypes or features, standardised as Hail does.

    Parameters
    ----------
    z : Dataset, DataArray (variant, sample), or array (sample, effect)
    ids : ndarray of str or None
        The model's samples.
    n : int
        Number of the model's samples.
    standardize, mean_impute : bool
        See :func:`dasklmm.linear_mixed_model`.

    Returns
    -------
    ndarray or Dask array (sample, effect)
        Variants that do not vary are columns of zeros, which add nothing to K. One pass counts them.
    """
    samples = None
    if isinstance(z, xr.Dataset):
        z = z["dosage"]
    if isinstance(z, xr.DataArray):
        available = schema.sample_ids(z)
        if ids is not None and available is not None and not np.array_equal(ids, available):
            samples = schema.positions(ids, available, "z")
        lazy = isinstance(z.data, da.Array)
    else:
        lazy = isinstance(z, da.Array)
        z = xr.DataArray(z, dims=(schema.SAMPLE, schema.VARIANT))
    rows = schema.as_rows(z, "z", (schema.VARIANT, schema.SAMPLE), n if samples is None else None).data
    counts = blocks.map_variants(_count, rows, label="count", width=2, samples=samples).sum(axis=0)
    varying, missing = (int(v) for v in counts.compute())
    if missing and not mean_impute:
        raise NotFiniteError(
            f"{missing} of {rows.shape[0]} variants have missing dosages and mean_impute is False. Impute "
            "them, filter those variants, or use mean_impute=True."
        )
    if standardize and varying < rows.shape[0]:
        logger.warning(
            "%d of %d variants do not vary among the samples and are dropped",
            rows.shape[0] - varying, rows.shape[0],
        )  # fmt: skip
    effects = blocks.map_variants(
        _effects,
        rows,
        label="random-effects",
        width=n,
        samples=samples,
        standardize=standardize,
        varying=varying,
    ).T
    return effects if lazy else dask.compute(effects)[0]


def _selected(block: np.ndarray, samples: np.ndarray | None) -> np.ndarray:
    return block if samples is None else block[:, samples]


def _count(block: np.ndarray, *, samples: np.ndarray | None) -> np.ndarray:
    block = _selected(block, samples)
    counted = block_statistics(block)
    return np.column_stack([counted.varies, counted.n_called < block.shape[1]]).astype(np.float64)


def _effects(block: np.ndarray, *, samples: np.ndarray | None, standardize: bool, varying: int) -> np.ndarray:
    block = _selected(block, samples)
    counted = block_statistics(block)
    varies = counted.varies
    if not standardize:
        # a variant without a single call says nothing: a column of zeros
        return np.where(counted.all_missing[:, None], 0.0, imputed(block, counted, np.float64))
    out = np.zeros(block.shape)
    if varies.any():
        out[varies] = standardise(block[varies], "rrm", np.float64)[0] / np.sqrt(varying)
    return out
