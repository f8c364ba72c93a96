"""Rotation of alternatives by the eigenvectors, block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from dasklmm import schema
from dasklmm.lazy import blocks
from dasklmm.numerics.scan import imputed_block, project_block
from dasklmm.store.arrays import StoredArray, create_array, finish_array, open_array, write_array


def operand(p: Any) -> Any:
    """Eigenvectors as an operand of block calls, and their shape and dtype.

    A path or Zarr array becomes a handle that each process reads once; an array in memory one key.
    """
    if isinstance(p, xr.Dataset):
        p = p["p"]
    if isinstance(p, xr.DataArray):
        p = p.transpose(schema.EIGEN, schema.SAMPLE).data
    if isinstance(p, (str, Path)):
        p = open_array(p, "p")
    return StoredArray(p) if isinstance(p, zarr.Array) else p


def project(
    p: Any, a: Any, *, dims: Any = None, mean_impute: bool = True, partition_size: int | None = None
) -> xr.DataArray:
    """Rotate alternatives by eigenvectors: PA. Lazy.

    Parameters
    ----------
    p : Dataset of `eigendecompose`, DataArray, ndarray (eigen, sample), zarr.Array, path or URL
        Eigenvectors; on a cluster give a path or a Zarr array, which each worker process reads once. The
        dtype of p is the precision of the result.
    a : Dataset of `open_genotypes`, DataArray, Dask array, ndarray, zarr.Array, path or URL
        Alternatives (variant, sample) in any order of dims; int8 calls (negative: missing) or float
        dosages (NaN: missing). With sample ids on both sides they are joined by id.
    dims : (str, str), optional
        Dims of an `a` without names, where its shape does not tell.
    mean_impute : bool
        Impute missing dosages by the variant's mean; False gives NaN for such a variant.
    partition_size : int, optional
        Variants of a task.

    Returns
    -------
    DataArray (variant, eigen)
        Coordinates of `a` along variant are kept. Cost 2 eigen sample flop a variant.

    Raises
    ------
    ShapeError, DimensionError, SampleError
        Before anything is read.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(50, 200, n_contigs=2, seed=1)
    >>> pa = dasklmm.project(dasklmm.eigendecompose(cohort, rank=5), cohort)  # lazy
    >>> pa.dims, pa.shape
    (('variant', 'eigen'), (200, 5))
    """
    ids = None if not isinstance(p, (xr.Dataset, xr.DataArray)) else schema.sample_ids(p)
    eigenvectors = operand(p)
    if isinstance(eigenvectors, StoredArray):
        ids = eigenvectors.sample_id
    n = eigenvectors.shape[1]
    if isinstance(a, xr.Dataset):
        a = a["dosage"]
    columns = None
    if ids is not None and isinstance(a, xr.DataArray) and "sample_id" in a.coords:
        available = schema.sample_ids(a)
        if not np.array_equal(available, ids):
            columns = schema.positions(ids, available, "the alternatives")
    size = n if columns is None else None
    rows = schema.as_rows(
        a, "a", (schema.VARIANT, schema.SAMPLE), size, given=dims, partition_size=partition_size
    )
    return rotated_rows(rows, eigenvectors, columns, mean_impute)


def rotated_rows(rows: xr.DataArray, p: Any, samples: np.ndarray | None, mean_impute: bool) -> xr.DataArray:
    """Rotation (variant, eigen) of dosages (variant, sample), of the columns `samples` if given. Lazy."""
    data = blocks.map_variants(
        _rotate, rows.data, label="rotate", width=p.shape[0], dtype=p.dtype, p=p, samples=samples,
        mean_impute=mean_impute,
    )  # fmt: skip
    return _named(data, schema.EIGEN, "pa", rows)


def imputed_rows(rows: xr.DataArray, samples: np.ndarray | None, mean_impute: bool) -> xr.DataArray:
    """Dosages (variant, sample) with missing ones imputed by the mean, or NaN throughout. Lazy."""
    width = rows.shape[1] if samples is None else samples.size
    data = blocks.map_variants(
        _impute, rows.data, label="impute", width=width, samples=samples, mean_impute=mean_impute
    )
    return _named(data, schema.SAMPLE, "a", rows)


def _named(data: da.Array, dim: str, name: str, rows: xr.DataArray) -> xr.DataArray:
    out = xr.DataArray(data, dims=(schema.VARIANT, dim), name=name)
    return out.assign_coords({k: v.variable for k, v in rows.coords.items()})


def _rotate(block: np.ndarray, *, p: np.ndarray, samples: np.ndarray | None, mean_impute: bool) -> np.ndarray:
    return project_block(block if samples is None else block[:, samples], p, mean_impute)


def _impute(block: np.ndarray, *, samples: np.ndarray | None, mean_impute: bool) -> np.ndarray:
    return imputed_block(block if samples is None else block[:, samples], np.float64, mean_impute)


def write_rows(array: xr.DataArray, path: str | Path, *, overwrite: bool = False) -> zarr.Array:
    """Write an array, lazy or in memory, as a Zarr array with its dim names. Eager."""
    data, dims = array.data, tuple(str(d) for d in array.dims)
    ids = schema.sample_ids(array)
    attributes = {} if ids is None else {"sample_id": ids.tolist()}
    if not isinstance(data, da.Array):
        return write_array(path, data, dims, overwrite=overwrite, attributes=attributes)
    # one chunk a block, so that no two tasks write the same chunk
    data = data.rechunk(data.chunksize)
    stored = create_array(
        path, data.shape, data.dtype, dims, overwrite=overwrite, chunks=data.chunksize, attributes=attributes
    )
    da.store(data, stored, lock=False)
    finish_array(stored)
    return open_array(path)
