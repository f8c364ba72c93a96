"""What lazily read genotypes are, in digests: so that work kept of them is not taken for that of others."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

import dasklmm
from dasklmm import schema
from dasklmm.lazy import blocks, run
from dasklmm.readers.dataset import path_of, paths_of
from dasklmm.store.results import fingerprint, source_stamp


def genotype_stamp(ds: xr.Dataset) -> str:
    """Digest of the genotypes: of the file's names, sizes and times where a reader's own array is used. Eager.

    Any other array is read once for its content, since nothing else tells it from an edited one.
    """
    array = ds["dosage"].data
    return source_stamp(path_of(array) or "") or content_digest(array)


def files_stamp(array: Any) -> str:
    """Digest of the files that a reader's array, or a choice of its variants or samples, is read from.

    It tells an edit while they are read; "" where the files or their times are not known.
    """
    paths = paths_of(array) if isinstance(array, da.Array) else None
    stamps = [source_stamp(path) for path in paths or ()]
    return fingerprint(stamps) if stamps and all(stamps) else ""


def content_digest(rows: da.Array) -> str:
    """Digest of an array's values, from one pass over its blocks. Eager."""
    call = blocks.delayed_call(fingerprint, "fingerprint")
    parts = blocks.delayed_blocks(da.asarray(rows).rechunk({1: -1}))
    return fingerprint(run.run_blocks([call(part) for part in parts]))


def of_kinship(ds: xr.Dataset, method: str, precision: str) -> dict[str, Any]:
    """Every input of a kinship of genotypes by name, as a value or a digest. Eager."""
    ids = schema.sample_ids(ds)
    return {
        "of": "genotypes",
        "version": dasklmm.__version__,
        "genotypes": genotype_stamp(ds),
        "variants": fingerprint(
            *(np.asarray(ds[n].values) for n in schema.VARIANT_COORDS if n in ds.variables)
        ),
        "dtype": str(ds["dosage"].dtype),
        "method": method,
        "precision": precision,
        "samples": None if ids is None else fingerprint(ids),
    }
