"""The Dataset that every genotype reader returns."""

from __future__ import annotations

import logging
import os
import time
from numbers import Integral
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.blockwise import Blockwise

from dasklmm import schema
from dasklmm.errors import GenotypeFormatError, GenotypeReadError
from dasklmm.lazy import budget

logger = logging.getLogger(__name__)

ATTEMPTS = 3
PAUSE_SECONDS = 0.2

# What genotypes may be given as, for messages.
KNOWN = (
    "a PLINK 1 .bed or a PLINK 2 .pgen, or the prefix of one, a .bgen, a netCDF file, a VCF-Zarr (dasklmm convert "
    "makes one of a VCF), or a store of write_genotypes"
)

# Path and source of rows that are behind each Dask array that a reader made in this process, by the array's name.
_issued: dict[str, tuple[str, Retried]] = {}


class Retried:
    """Source of rows whose reading is tried again after a transient error of the file system."""

    ndim = 2

    def __init__(self, source: Any) -> None:
        self.source, self.shape, self.dtype = source, source.shape, source.dtype

    def __getitem__(self, index: tuple[Any, Any]) -> Any:
        rows, columns = index
        if isinstance(rows, Integral):  # one row; sources know slices and lists of rows
            return self[slice(int(rows), int(rows) + 1), columns][0]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self.source[index]
            except OSError as error:
                if attempt == ATTEMPTS:
                    raise GenotypeReadError(
                        f"genotypes cannot be read ({_rows(rows)}, {ATTEMPTS} attempts): "
                        f"{error}. Check that the files are where they were, and the same on every worker, and "
                        "run the same command again: with a store, what is finished is kept."
                    ) from error
                logger.warning("reading %s failed (%s); attempt %d of %d", index, error, attempt, ATTEMPTS)
                time.sleep(PAUSE_SECONDS * attempt)
        raise AssertionError("unreachable")


def _rows(rows: Any) -> str:
    return f"rows {rows.start} to {rows.stop}" if isinstance(rows, slice) else f"{len(rows)} rows"


def path_of(array: Any) -> str | None:
    """Path behind an array that is as a reader made it, so that its files tell its content; None of any other."""
    return _path(array.__dask_graph__(), array.name) if isinstance(array, da.Array) else None


def paths_of(array: da.Array) -> list[str] | None:
    """Paths behind all that an array is made of; None where some of it is from elsewhere than a reader."""
    graph = array.__dask_graph__()
    roots = [_path(graph, name) for name, before in graph.dependencies.items() if not before]
    return None if None in roots else sorted(set(map(str, roots)))


def _path(graph: Any, name: str) -> str | None:
    # blocks that were persisted keep their name, and are of the file as it was then
    return _issued[name][0] if name in _issued and isinstance(graph.layers.get(name), Blockwise) else None


def in_blocks_of_at_most(array: da.Array, size: int) -> da.Array:
    """The same rows in blocks of at most `size`.

    Of an array as a reader made it each block is read by itself: slices of a larger one would wait in memory for
    one another, and no budget knows the larger one.
    """
    if path_of(array) is None or max(array.chunks[0], default=0) <= size:
        return schema.blocks_of_at_most(array, size)
    cut = (min(size, block - start) for block in array.chunks[0] for start in range(0, block, size))
    return _read_by(*_issued[array.name], tuple(cut))


def _read_by(path: str, source: Retried, chunks: int | tuple[int, ...]) -> da.Array:
    # a fresh name (name=False): the file behind a path can change, and Dask answers equal names from cache
    data = da.from_array(
        source,
        chunks=(chunks, -1) if source.shape[0] else -1,
        name=False,
        inline_array=True,
        asarray=True,
        meta=np.empty((0, 0), dtype=source.dtype),
    )
    _issued[data.name] = path, source
    return data


def text(values: Any) -> np.ndarray:
    """Fixed-width unicode of an array of strings or bytes, of any shape: never an object array."""
    values = np.asarray(values)
    if values.dtype.kind == "S":
        return np.strings.decode(values, "utf-8")
    return values.astype(object).astype(str)


def unnamed(
    ids: np.ndarray, contig: np.ndarray, position: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Ids with contig:position:first:second in place of those that are empty or "."."""
    out = ids.astype(object)
    for j in np.flatnonzero((ids == "") | (ids == ".")).tolist():
        out[j] = f"{contig[j]}:{position[j]}:{first[j]}:{second[j]}"
    return text(out)


def checked_ploidy(path: str, ploidy: Any) -> int:
    """Ploidy of genotypes, which frequencies are by; others than 1 and 2 are refused."""
    if ploidy not in (1, 2):
        raise GenotypeFormatError(
            f"{path!r} holds genotypes of ploidy {ploidy}; 1 or 2 is needed. Others are not supported yet: allele "
            "frequencies assume it."
        )
    return int(ploidy)


def genotype_dataset(
    source: Any,
    *,
    chunks: int | tuple[int, ...] | None,
    stored_chunk: int,
    sample_id: np.ndarray,
    contig: np.ndarray,
    position: np.ndarray,
    variant_id: np.ndarray,
    effect_allele: np.ndarray,
    other_allele: np.ndarray,
    path: str,
    file_format: str,
    ploidy: int = 2,
) -> xr.Dataset:
    """Dataset (variant, sample) over a source of rows.

    Parameters
    ----------
    source : array-like
        shape (variant, sample), dtype, and slicing by rows that reads when it is asked; pickles.
    chunks : int, tuple of int, or None
        Variants of every block, or of each; None for about 64 MB as float32.
    stored_chunk : int
        Variants of a chunk in the file; "auto" blocks are a whole number of them.
    ploidy : int
        Copies that a dosage counts at most.

    Notes
    -----
    attrs: source, format, ploidy and field ("genotype" of int8, else "dosage").
    """
    m, n = source.shape
    if chunks is None:
        chunks = budget.rows_per_task(4 * n, stored_chunk, m)
    if isinstance(chunks, int):
        chunks = max(1, min(chunks, m))
    place = path if "://" in path or not path else os.path.abspath(path)
    data = _read_by(place, Retried(source), chunks)
    coords = {
        "sample_id": (schema.SAMPLE, sample_id),
        "variant_contig": (schema.VARIANT, contig),
        "variant_position": (schema.VARIANT, position),
        "variant_id": (schema.VARIANT, variant_id),
        "variant_effect_allele": (schema.VARIANT, effect_allele),
        "variant_other_allele": (schema.VARIANT, other_allele),
    }
    out = xr.Dataset(
        # the ploidy is on the variable too, which may be given without its Dataset
        {"dosage": ((schema.VARIANT, schema.SAMPLE), data, {"ploidy": ploidy})},
        coords=coords,
        attrs={
            "source": path,
            "format": file_format,
            "field": "genotype" if source.dtype == np.int8 else "dosage",
            "ploidy": ploidy,
        },
    )
    schema.sample_ids(out)  # refuses duplicates
    return out
