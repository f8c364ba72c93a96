"""Genotypes written by this package: a Zarr group (variant, sample), compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from dasklmm import schema
from dasklmm.errors import GenotypeFormatError, StoreError
from dasklmm.numerics.genotypes import GRAM_TILE
from dasklmm.numerics.scan import TILE_VARIANTS
from dasklmm.store.places import absolute, is_local, work_of, writing
from dasklmm.store.publish import published
from dasklmm.store.records import MARK, one_writer, vacant

COORDINATES = (
    "variant_contig",
    "variant_position",
    "variant_id",
    "variant_effect_allele",
    "variant_other_allele",
    "sample_id",
)

# Attribute of a group that is being written; taken away when all of it is there.
UNFINISHED = "unfinished"

CHUNK_BYTES = 4 * 1024**2
# Of what Blosc compresses at a time. Calls of 2,000 simulated samples with zstd 1: 4.46 times smaller, written at
# 0.87 and read at 1.38 GB/s; in its own 128 KB with zstd 3: 4.41 times, 0.28 and 1.16 GB/s. Of 1,940 mice 12.4 and
# 11.6 times.
_BLOSC_BLOCK = 1024**2


def write_genotypes(ds: xr.Dataset, path: str | Path, overwrite: bool = False) -> None:
    """Write a genotype Dataset as a Zarr group, format 3. Eager: reads and writes every genotype.

    Parameters
    ----------
    ds : Dataset (variant, sample)
        As `open_genotypes` returns it: dosage int8 (-1 missing) or floating (NaN missing; kept as float32).
    path : str or Path
        Path or URL.
    overwrite : bool
        Replace the genotypes that are there.

    Raises
    ------
    StoreError
        Something is there already, and is not to be replaced or is no Zarr; a URL would be written over while it
        is read; another call writes there; or the place is full.
    GenotypeFormatError
        A variable is missing, or the dosage is of another dtype.

    Notes
    -----
    All samples by about 4 MB of variants a chunk, Zstandard behind a bit shuffle (int8 calls shrink about
    fivefold). On a local disk the group is made beside its place and renamed into it. On an object store it
    is marked unfinished until all is there, and `open_genotypes` refuses it so long.

    Examples
    --------
    >>> import dasklmm
    >>> from dasklmm.store.genotypes import write_genotypes
    >>> write_genotypes(dasklmm.simulate(50, 200, n_contigs=2, seed=1), "cohort.zarr")
    >>> dasklmm.open_genotypes("cohort.zarr").sizes["variant"]
    200
    """
    absent = [name for name in (*COORDINATES, "dosage") if name not in ds.variables]
    if absent:
        raise GenotypeFormatError(
            f"the Dataset lacks {', '.join(absent)}; one as open_genotypes returns it is needed."
        )
    dosage = _dosage(ds)
    place = absolute(path)
    vacant(place, overwrite, "genotypes")
    if not is_local(place) and str(ds.attrs.get("source", "")).rstrip("/") == place:
        raise StoreError(
            f"{place!r} is where these genotypes are read from, and an object store has no renaming: writing "
            "would destroy them. Give another path."
        )
    with one_writer(work_of(place)):
        vacant(place, overwrite, "genotypes")
        with published(place) as target:
            _write(ds, dosage, target, place)


def _dosage(ds: xr.Dataset) -> da.Array:
    """Dosage (variant, sample), int8 or float32."""
    data = da.asarray(ds["dosage"].transpose("variant", "sample").data)
    if data.dtype.kind == "f":
        return data.astype(np.float32)
    if data.dtype != np.int8:
        raise GenotypeFormatError(
            f"the dosage is of dtype {data.dtype}; int8 (copies of the effect allele, -1 missing) or a floating "
            "one (NaN missing) is needed. Convert it with astype."
        )
    return data


def chunk_rows(variants: int, samples: int, itemsize: int) -> int:
    """Variants of a chunk of about CHUNK_BYTES: whole tiles of products, for the rest of one costs as much."""
    rows = max(1, CHUNK_BYTES // max(1, samples * itemsize))
    rows -= rows % next((tile for tile in (GRAM_TILE, TILE_VARIANTS) if rows > tile), 1)
    return max(1, min(variants, rows))


class _Target:
    """Array that says itself what keeps a block from being written, apart from what keeps it from being read."""

    def __init__(self, array: zarr.Array, path: str) -> None:
        self.array, self.path = array, path

    def __setitem__(self, index: Any, block: np.ndarray) -> None:
        with writing(self.path):
            self.array[index] = block


def _write(ds: xr.Dataset, dosage: da.Array, target: str, place: str) -> None:
    m, n = dosage.shape
    rows = chunk_rows(m, n, dosage.dtype.itemsize)
    with writing(place):
        group, array = _template(ds, dosage, target, rows)
    if m and n:
        # whole chunks to a task, so that no two write the same one
        da.store(dosage.rechunk((16 * rows, -1)), _Target(array, place), lock=False)
    with writing(place):
        group.update_attributes({UNFINISHED: False})


def _template(ds: xr.Dataset, dosage: da.Array, target: str, rows: int) -> tuple[zarr.Group, zarr.Array]:
    """Group with its coordinates, and the array of dosages with none of its chunks."""
    attributes = {UNFINISHED: True, MARK: "genotypes"}
    if (ploidy := schema.ploidy(ds)) != 2:  # frequencies are by it
        attributes["ploidy"] = ploidy
    group = zarr.open_group(target, mode="w", zarr_format=3, attributes=attributes)
    for name in COORDINATES:
        values: Any = np.asarray(ds[name].values)
        if values.dtype.kind in "UOT":
            values = values.astype(np.dtypes.StringDType())
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            dimension_names=[str(d) for d in ds[name].dims],
            compressors=[zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        array[...] = values
    m, n = dosage.shape
    array = group.create_array(
        "dosage",
        shape=(m, n),
        dtype=dosage.dtype,
        chunks=(rows, max(1, n)),
        dimension_names=["variant", "sample"],
        # the checksum, for Blosc has none: a flipped bit would be another genotype
        compressors=[
            zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=_BLOSC_BLOCK),
            zarr.codecs.Crc32cCodec(),
        ],
        # a chunk that got lost reads as missing calls, not as a genotype
        fill_value=-1 if dosage.dtype == np.int8 else np.nan,
        config={"write_empty_chunks": True},
    )
    return group, array
