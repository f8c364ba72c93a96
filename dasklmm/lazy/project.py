"""Rotation of alternatives by the eigenvectors, block by block."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

import dasklmm
from dasklmm import schema
from dasklmm.errors import OptionError
from dasklmm.lazy import blocks, run
from dasklmm.lazy.inputs import content_digest, genotype_stamp
from dasklmm.numerics.scan import imputed_block, project_block
from dasklmm.store import arrays
from dasklmm.store.arrays import StoredArray, create_array, finish_array, open_array, write_array
from dasklmm.store.places import absolute, check_place, clear, is_local, present, work_of, writing
from dasklmm.store.publish import discard, empty, exchange, unchanged
from dasklmm.store.records import Records, one_writer, vacant
from dasklmm.store.results import fingerprint


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
    p: Any,
    a: Any,
    *,
    dims: Any = None,
    mean_impute: bool = True,
    partition_size: int | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> xr.DataArray:
    """Rotate alternatives by eigenvectors: PA. Lazy; with `store` eager.

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
    store : path or URL, optional
        Compute it now and keep it there as a Zarr array, for :meth:`LinearMixedModel.fit_alternatives` of many
        phenotypes. A call that was interrupted goes on, and one that ended is opened, where p and a are the
        same: p is read for that before and after, and an `a` that is not a reader's.
    overwrite : bool
        Replace the array that `store` holds.
    progress : callable (stage, done, total), optional
        With `store`, called for each block.

    Returns
    -------
    DataArray (variant, eigen)
        Coordinates of `a` along variant are kept. Cost 2 eigen sample flop a variant.

    Raises
    ------
    ShapeError, DimensionError, SampleError
        Before anything is read.
    StoreError
        `store` holds something else, or another call writes there; or p or `a` changed meanwhile.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(50, 200, n_contigs=2, seed=1)
    >>> pa = dasklmm.project(dasklmm.eigendecompose(cohort, rank=5), cohort)  # lazy
    >>> pa.dims, pa.shape
    (('variant', 'eigen'), (200, 5))
    """
    whole = a
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
    rotated = rotated_rows(rows, eigenvectors, columns, mean_impute)
    if store is None:
        return rotated
    check_apart(store, eigenvectors)
    of = functools.partial(rotation_inputs, whole, rows, eigenvectors, columns, mean_impute)
    stored = keep_rows(rotated, store, of, overwrite=overwrite, progress=progress)
    out = rotated.copy(data=da.from_array(arrays.CheckedRows(stored), name=False, inline_array=True))
    return out.assign_attrs({arrays.EIGENVECTORS: arrays.eigenvectors_of(stored)})


def rotation_inputs(
    a: Any, rows: xr.DataArray, p: Any, samples: np.ndarray | None, mean_impute: bool
) -> dict[str, Any]:
    """Every input of rotated (or, without p, imputed) alternatives by name, as a value or a digest. Eager.

    `a` are the alternatives as they were given, `rows` (variant, sample) as they are read.
    """
    digest = vectors = None
    if isinstance(p, StoredArray):
        digest, vectors = p.token or fingerprint(p.load()), arrays.eigenvectors_of(p.array)
    elif p is not None:
        p = np.asarray(p)
        digest, vectors = fingerprint(p), arrays.eigenvectors_digest(p)
    return {
        "version": dasklmm.__version__,
        "p": digest,
        arrays.EIGENVECTORS: vectors,
        "alternatives": genotype_stamp(a) if isinstance(a, xr.Dataset) else content_digest(rows.data),
        "samples": None if samples is None else fingerprint(samples),
        "mean_impute": mean_impute,
    }


def check_apart(path: str | Path, p: Any) -> None:
    """Refuse to write where the eigenvectors lie that are to be read; OptionError."""
    held = p.array if isinstance(p, StoredArray) else p
    if isinstance(held, zarr.Array):
        held = str(held.store_path)
    if isinstance(held, (str, Path)) and _real(path) == _real(held):
        raise OptionError(f"{str(path)!r} holds the eigenvectors, which are needed. Give another place.")


def _real(path: str | Path) -> str:
    """A path by its one name."""
    path = absolute(path)
    return os.path.realpath(path) if is_local(path) else path


def check_rows(
    array: xr.DataArray, path: str | Path, of: Callable[[], dict[str, Any]], *, overwrite: bool = False
) -> None:
    """Refuse a path where :func:`keep_rows` would not write or open the same, before any work. Eager.

    Raises
    ------
    StoreError
    """
    check_place(path)
    if overwrite or not present(absolute(path)) or arrays.begun_array(path, of(), array.data) is None:
        vacant(path, overwrite or arrays.unfinished(path), "array")


def keep_rows(
    array: xr.DataArray,
    path: str | Path,
    of: Callable[[], dict[str, Any]],
    *,
    label: str = "rotate",
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> zarr.Array:
    """Write a lazy array (variant, …) as a Zarr array with its dim names, block by block. Eager.

    `of` describes its inputs. Each block that is written leaves a record with its checksum in `path`.work, after
    it. A writing of the same inputs that ended early goes on with the others; one that is complete is opened. On
    a local disk the array is `path`.partial until it is complete.

    Raises
    ------
    StoreError
        `path` holds something else, or another call writes there; or the inputs changed meanwhile.
    """
    path = absolute(path)
    check_place(path)
    data = array.data.rechunk(array.data.chunksize)  # one chunk a block, so that no two tasks write the same
    made_of = of()
    work, place = work_of(path), f"{path}.partial" if is_local(path) else path

    def complete() -> bool:
        held = None if overwrite else arrays.begun_array(path, made_of, data)
        return held is not None and arrays.finished(held)

    def drop() -> None:
        if is_local(place):
            discard(place)
        else:
            empty(place)
        clear(work, keep="lock")

    if complete() and not present(work):
        return open_array(path)  # also where nothing can be written
    with one_writer(work) as still_ours:
        if complete():
            clear(work, keep="lock")
            return open_array(path)
        vacant(path, overwrite or arrays.unfinished(path), "array")
        kept = Records(work, fingerprint(made_of))
        stored = arrays.begun_array(place, made_of, data)
        if stored is None or (place == path and arrays.finished(stored)):
            vacant(place, True, "array")
            kept.check_own()
            drop()
            with writing(path):
                stored = create_array(
                    place,
                    data.shape,
                    data.dtype,
                    tuple(str(d) for d in array.dims),
                    chunks=data.chunksize,
                    attributes={"made_of": made_of},
                )
        with unchanged(of, made_of, drop):
            _write_blocks(data, stored, kept, label, progress)
        still_ours()
        with writing(path):
            finish_array(stored)
            if place != path:
                exchange(place, path)
        clear(work, keep="lock")
    return open_array(path)


def _write_blocks(
    data: da.Array,
    stored: zarr.Array,
    kept: Records,
    label: str,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Write the blocks that have no record, or are not what their record says."""
    ends = np.cumsum(data.chunks[0]).tolist()
    rows = [slice(end - size, end) for end, size in zip(ends, data.chunks[0], strict=True)]
    names = [f"{i:06d}" for i in range(len(rows))]
    marked = [i for i, name in enumerate(names) if kept.read(name) is not None]
    check = blocks.delayed_call(_is_kept, "verify")
    intact = run.run_blocks([check(stored, rows[i], kept, names[i]) for i in marked])
    done = {i for i, good in zip(marked, intact, strict=True) if good}
    lazy = blocks.delayed_blocks(data)
    keep = blocks.delayed_call(_keep_rows, label)
    parts = [keep(block, stored, rows[i], kept, names[i]) for i, block in enumerate(lazy) if i not in done]

    def tell(ready: int, total: int) -> None:
        if progress is not None:
            progress("rotation", len(done) + ready, len(done) + total)

    run.run_blocks(parts, tell)


def _keep_rows(block: np.ndarray, stored: zarr.Array, rows: slice, kept: Records, name: str) -> None:
    with writing(kept.path):
        stored[rows] = block
    kept.write(name, np.array([zlib.crc32(np.ascontiguousarray(block))]))


def _is_kept(stored: zarr.Array, rows: slice, kept: Records, name: str) -> bool:
    """Whether the rows of a record are there, and what was written."""
    found = kept.read(name)
    try:
        values = np.ascontiguousarray(stored[rows])
    except Exception:  # noqa: BLE001  (codecs raise what they like on damaged bytes)
        return False
    return found is not None and zlib.crc32(values) == int(found[0][0])


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
    """Write an array in memory as a Zarr array with its dim names and sample ids. Eager."""
    ids = schema.sample_ids(array)
    attributes = {} if ids is None else {"sample_id": ids.tolist()}
    path, dims, values = absolute(path), tuple(str(d) for d in array.dims), np.asarray(array.values)
    attributes[arrays.EIGENVECTORS] = arrays.eigenvectors_digest(values)
    check_place(path)
    with one_writer(work_of(path)) as still_ours:
        still_ours()
        return write_array(path, values, dims, overwrite=overwrite, attributes=attributes)
