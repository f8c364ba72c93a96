"""The Dataset that every genotype reader returns."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from dasklmm import schema
from dasklmm.lazy import budget


def text(values: Any) -> np.ndarray:
    """Fixed-width unicode of an array of strings or bytes, of any shape: never an object array."""
    values = np.asarray(values)
    if values.dtype.kind == "S":
        return np.strings.decode(values, "utf-8")
    return values.astype(object).astype(str)


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
    """
    m, n = source.shape
    if chunks is None:
        chunks = budget.rows_per_task(4 * n, stored_chunk, m)
    # a fresh name (name=False): the file behind a path can change, and Dask answers equal names from cache
    if isinstance(chunks, int):
        chunks = max(1, min(chunks, m))
    data = da.from_array(
        source,
        chunks=(chunks, -1) if m else -1,
        name=False,
        inline_array=True,
        asarray=True,
        meta=np.empty((0, 0), dtype=source.dtype),
    )
    coords = {
        "sample_id": (schema.SAMPLE, sample_id),
        "variant_contig": (schema.VARIANT, contig),
        "variant_position": (schema.VARIANT, position),
        "variant_id": (schema.VARIANT, variant_id),
        "variant_effect_allele": (schema.VARIANT, effect_allele),
        "variant_other_allele": (schema.VARIANT, other_allele),
    }
    out = xr.Dataset(
        {"dosage": ((schema.VARIANT, schema.SAMPLE), data)},
        coords=coords,
        attrs={"source": path, "format": file_format},
    )
    schema.sample_ids(out)  # refuses duplicates
    return out
