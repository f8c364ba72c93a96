"""Genotypes written by this package: a Zarr group (variant, sample), compressed."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from dasklmm.errors import StoreError
from dasklmm.store.arrays import exists

COORDINATES = (
    "variant_contig",
    "variant_position",
    "variant_id",
    "variant_effect_allele",
    "variant_other_allele",
    "sample_id",
)


def write_genotypes(ds: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a genotype Dataset as a Zarr group, format 3. Eager.

    Parameters
    ----------
    ds : Dataset (variant, sample)
        As `open_genotypes` returns it.
    path : str or Path
    overwrite : bool
        Replace what is there.

    Notes
    -----
    All samples by about 4 MB of variants a chunk, Zstandard behind a bit shuffle (int8 calls shrink about
    fivefold). The dosage is written last.
    """
    if not overwrite and exists(path):
        raise StoreError(f"{str(path)!r} exists already. Give another path, or overwrite=True.")
    group = zarr.open_group(str(path), mode="w")
    for name in COORDINATES:
        values = np.asarray(ds[name].values)
        if values.dtype.kind in "UO":
            values = values.astype(np.dtypes.StringDType())
        group.create_array(name, data=values, dimension_names=[str(d) for d in ds[name].dims])
    dosage = ds["dosage"].transpose("variant", "sample").data
    m, n = dosage.shape
    rows = max(1, min(m, 4 * 1024**2 // max(1, n * dosage.dtype.itemsize)))
    array = group.create_array(
        "dosage",
        shape=(m, n),
        dtype=dosage.dtype,
        chunks=(rows, max(1, n)),
        dimension_names=["variant", "sample"],
        compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
        config={"write_empty_chunks": True},
    )
    lazy = da.asarray(dosage).rechunk((max(1, 16 * rows), -1))
    da.store(lazy, array, lock=False)
