"""Names of dimensions and variables, and the joining of everything by sample id."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from dasklmm.errors import DimensionError, SampleError, ShapeError
from dasklmm.lazy import budget
from dasklmm.store import arrays
from dasklmm.store.chunk_files import ChunkFiles, chunk_files

SAMPLE, VARIANT, EIGEN, PHENOTYPE = "sample", "variant", "eigen", "phenotype"

VARIANT_COORDS = (
    "variant_contig",
    "variant_position",
    "variant_id",
    "variant_effect_allele",
    "variant_other_allele",
)


def as_rows(
    source: Any,
    name: str,
    dims: tuple[str, str],
    size: int | None,
    *,
    given: Sequence[str] | None = None,
    partition_size: int | None = None,
    in_pieces: bool = False,
) -> xr.DataArray:
    """Any of the accepted forms of a matrix, as a lazy DataArray of whole rows.

    Parameters
    ----------
    source : str, Path, zarr.Array, dask.array.Array, xarray.DataArray or numpy.ndarray
        A path or URL names a Zarr array, or a group that holds the array `name`.
    name : str
        Argument's name, for messages.
    dims : (str, str)
        Wanted dims, rows first, for example ("variant", "eigen").
    size : int or None
        Expected length of the second dim; None where any will do.
    given : sequence of str, optional
        Dims of a source that has no names, in its own order. Without it they are told from the shape.
    partition_size : int, optional
        Rows of a block. Default: the source's chunks, within the memory budget of a task.
    in_pieces : bool
        Blocks may come as `ChunkRows`, which are read piece by piece, where the source allows it.

    Returns
    -------
    xarray.DataArray
        Dask-backed, dims in the wanted order, the second dim in one chunk. Nothing is read. In attrs the
        digest of the eigenvectors that a stored source says it was rotated by.

    Raises
    ------
    DimensionError
        Dims unknown, or not to be told from the shape.
    ShapeError
        The second dim has another length than expected.
    """
    if partition_size is not None and partition_size < 1:
        raise ShapeError(
            f"partition_size is {partition_size}; the number of variants of a task must be positive."
        )
    coords: Mapping[Hashable, Any] = {}
    array = source
    if isinstance(source, xr.DataArray):
        names, array = tuple(str(d) for d in source.dims), source.data
        coords = {k: v for k, v in source.coords.items() if v.dims == (dims[0],)}
    else:
        if not isinstance(source, (zarr.Array, da.Array, np.ndarray)):
            array = arrays.open_array(source, name)
        stored = getattr(getattr(array, "metadata", None), "dimension_names", None)
        if given is None and stored and all(stored):
            given = stored
        names = _dims_of(array.shape, name, dims, size) if given is None else tuple(given)
    if len(array.shape) != 2 or sorted(names) != sorted(dims):
        raise DimensionError(
            f"{name} has dims {names} and shape {tuple(array.shape)}; the dims {dims} are needed, in any "
            "order. Rename them, or give dims=."
        )
    row = names.index(dims[0])
    if size is not None and array.shape[1 - row] != size:
        raise ShapeError(
            f"{name} has {array.shape[1 - row]} along {dims[1]!r} (shape {tuple(array.shape)}, dims {names}); "
            f"the model has {size}. Give the {name} of the same samples and the same eigenvectors."
        )
    vectors = arrays.eigenvectors_of(source if isinstance(source, xr.DataArray) else array)
    attrs = {} if vectors is None else {arrays.EIGENVECTORS: vectors}
    data = _whole_rows(array, row, partition_size, in_pieces)
    if data.dtype.kind in "iu" and data.dtype.itemsize > 1:
        data = data.astype(np.float64)  # int8 are calls, with -1 for missing; wider integers are numbers
    return xr.DataArray(data, dims=dims, coords=coords, name=name, attrs=attrs)


def _dims_of(shape: tuple[int, ...], name: str, dims: tuple[str, str], size: int | None) -> tuple[str, ...]:
    if len(shape) != 2:
        raise DimensionError(f"{name} has shape {shape}; two dims, {dims}, are needed.")
    if size is None or shape[0] == shape[1] == size:
        raise DimensionError(
            f"{name} has shape {shape} and no dim names, so it cannot be told which of {dims} comes first. "
            f"Give dims={dims} or dims={dims[::-1]}, an xarray.DataArray, or a Zarr array with "
            "dimension_names."
        )
    if size not in shape:
        raise ShapeError(f"{name} has shape {shape}; one side must be the model's {size} along {dims[1]!r}.")
    return dims if shape[1] == size else dims[::-1]


def _whole_rows(array: Any, row: int, partition_size: int | None, in_pieces: bool) -> da.Array:
    """Dask array with rows first, blocks of whole rows."""
    source = (chunk_files(array) if row == 0 else None) or array
    if isinstance(source, zarr.Array):
        source = arrays.CheckedRows(source)
    in_pieces = in_pieces and isinstance(source, ChunkFiles) and array.dtype.kind == "f"
    if isinstance(array, da.Array):
        data = array if row == 0 else array.T
        chunks: Any = data.chunks[0] if partition_size is None else partition_size
        return data.rechunk({0: chunks, 1: -1})
    m, width = array.shape[row], array.shape[1 - row]
    if partition_size is None:
        stored = array.chunks[row] if isinstance(array, zarr.Array) else 1
        row_bytes = width * array.dtype.itemsize
        # what is read in pieces may be larger: a task costs the cluster as much as 5 MB of sums
        partition_size = budget.rows_per_task(row_bytes // 4 if in_pieces else row_bytes, stored, m)
    chunks = (partition_size, -1) if row == 0 else (-1, partition_size)
    # a fresh name: the content behind a path can change, and Dask answers equal names from its cache
    data = da.from_array(
        source,
        chunks=chunks,
        name=False,
        asarray=not in_pieces,
        inline_array=not isinstance(source, np.ndarray),
        meta=_meta(array),
    )
    return data if row == 0 else data.T


def _meta(array: Any) -> np.ndarray:
    return np.empty((0, 0), dtype=array.dtype)


def dosage_rows(ds: xr.Dataset) -> da.Array:
    """Dosages (variant, sample) of genotypes in whole rows; a negative one is missing, whatever its dtype."""
    dosage = ds["dosage"]
    rows = as_rows(dosage, "dosage", (VARIANT, SAMPLE), None).data
    if dosage.dtype.kind == "i" and dosage.dtype.itemsize > 1:
        rows = rows.map_blocks(_without_negative, dtype=rows.dtype, meta=np.empty((0, 0), rows.dtype))
    return rows


def _without_negative(block: np.ndarray) -> np.ndarray:
    return np.where(block < 0, np.nan, block)


def ploidy(ds: xr.Dataset) -> int:
    """Copies of a locus that a sample has: of the Dataset, else of its dosages, else 2."""
    return int(ds.attrs.get("ploidy", ds["dosage"].attrs.get("ploidy", 2)))


def with_text(ds: xr.Dataset) -> xr.Dataset:
    """Genotypes whose coordinates of dtype object, as pandas leaves them, or StringDType, as Zarr, are text."""
    names = [n for n in ("sample_id", *VARIANT_COORDS) if n in ds.variables and ds[n].dtype.kind in "OT"]
    return ds.assign_coords({n: (ds[n].dims, np.asarray(ds[n].values).astype(str)) for n in names})


def sample_ids(array: xr.DataArray | xr.Dataset, coord: str = "sample_id") -> np.ndarray | None:
    """Sample ids of a named array as strings, or None where it has none; duplicates are refused."""
    if coord not in array.coords:
        return None
    ids = np.asarray(array.coords[coord].values, dtype=str)
    check_unique(
        ids,
        "the genotypes"
        if "dosage" in (getattr(array, "name", None), *getattr(array, "data_vars", ()))
        else "the array",
    )
    return ids


def check_unique(ids: np.ndarray, what: str) -> None:
    """Raise SampleError that names the ids standing more than once."""
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        repeated = values[counts > 1]
        raise SampleError(
            f"{what}: {repeated.size} sample ids stand more than once, for example "
            f"{', '.join(map(repr, repeated[:3].tolist()))}; every id must be unique. Rename or drop them."
        )


def positions(wanted: np.ndarray, available: np.ndarray, what: str) -> np.ndarray:
    """Index of each wanted sample id among the available ones; SampleError names those that are absent."""
    order = np.argsort(available, kind="stable")
    place = np.minimum(np.searchsorted(available, wanted, sorter=order), max(available.size - 1, 0))
    index = order[place] if available.size else np.zeros(wanted.size, dtype=np.intp)
    absent = wanted[available[index] != wanted] if available.size else wanted
    if absent.size:
        raise SampleError(
            f"{absent.size} of {wanted.size} samples are not in {what} ({available.size} samples), for "
            f"example {', '.join(map(repr, absent[:3].tolist()))}. Check that both use the same ids."
        )
    return np.asarray(index, dtype=np.intp)


def kinship_ids(k: xr.DataArray) -> np.ndarray | None:
    """Sample ids of a kinship; SampleError where those of its rows and columns differ."""
    rows, columns = sample_ids(k, "sample_id_0"), sample_ids(k, "sample_id_1")
    if rows is not None and columns is not None and not np.array_equal(rows, columns):
        raise SampleError(
            "the kinship's sample_id_0 and sample_id_1 differ; rows and columns must be the same samples in "
            "the same order. Select both alike."
        )
    return rows if rows is not None else sample_ids(k)


def take(rows: da.Array, index: np.ndarray) -> da.Array:
    """Rows at rising positions; a run of neighbours is a slice, which reads nothing beside it."""
    if index.size and index[-1] - index[0] + 1 == index.size:
        return rows[int(index[0]) : int(index[-1]) + 1]
    return rows[index]


def blocks_of_at_most(rows: da.Array, size: int) -> da.Array:
    """The same rows in blocks of at most `size`; a reader's block becomes slices that are read apart."""
    if max(rows.chunks[0], default=0) <= size:
        return rows
    parts, start = [], 0
    for block in rows.chunks[0]:
        parts += [rows[start + i : start + min(i + size, block)] for i in range(0, block, size)]
        start += block
    return da.concatenate(parts, axis=0)
