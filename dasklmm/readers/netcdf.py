"""Files that xarray opens (netCDF, HDF5) and that name their dims and coordinates as this package does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dasklmm import schema
from dasklmm.errors import GenotypeFormatError, MissingExtraError
from dasklmm.readers.dataset import checked_ploidy, genotype_dataset, text

SUFFIXES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5")
COORDINATES = (
    "sample_id",
    "variant_contig",
    "variant_position",
    "variant_id",
    "variant_effect_allele",
    "variant_other_allele",
)


class XarrayRows:
    """Rows (variant, sample) of the variable dosage of a file; holds a path, and so pickles."""

    ndim = 2

    def __init__(self, path: str, shape: tuple[int, int], dtype: Any) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        with xr.open_dataset(self.path, cache=False) as ds:
            values = ds["dosage"].isel(variant=rows).transpose(schema.VARIANT, schema.SAMPLE).values
        return values.astype(self.dtype, copy=False)[:, columns]


def open_netcdf(path: Path, chunks: int | None) -> xr.Dataset:
    """Open a file with dosage (variant, sample) and the coordinates of `open_genotypes` by name. Lazy.

    The effect allele, of which dosage counts copies, is variant_effect_allele. dosage is int8 (-1 missing) or of
    floating point (NaN missing).

    Raises
    ------
    GenotypeFormatError
        xarray cannot open it, or a name, dim or dtype is not as above; or an attribute ploidy is neither 1 nor 2.
    MissingExtraError
        No library that reads such files is installed.
    """
    name = str(path)
    try:
        ds = xr.open_dataset(path, cache=False)
    except (ValueError, ImportError) as error:
        with path.open("rb") as file:
            hdf = file.read(4) == b"\x89HDF"
        if hdf:
            raise MissingExtraError(
                f"{name!r} is of HDF5, which xarray reads by h5netcdf: pip install 'dasklmm[netcdf]'"
            ) from error
        raise GenotypeFormatError(f"{name!r} is a file that xarray does not open ({error}).") from error
    except OSError as error:
        raise GenotypeFormatError(f"{name!r} is damaged, or no file that xarray opens ({error}).") from error
    with ds:
        absent = [v for v in ("dosage", *COORDINATES) if v not in ds.variables]
        if absent:
            raise GenotypeFormatError(
                f"{name!r} lacks {', '.join(absent)}; it holds {', '.join(map(str, ds.variables)) or 'nothing'}. "
                "Rename what it has, with dims variant and sample."
            )
        dosage = ds["dosage"]
        if set(dosage.dims) != {schema.VARIANT, schema.SAMPLE}:
            raise GenotypeFormatError(
                f"{name!r}: dosage has dims {dosage.dims}; variant and sample are needed."
            )
        if dosage.dtype != np.int8 and dosage.dtype.kind != "f":
            raise GenotypeFormatError(
                f"{name!r}: dosage is of dtype {dosage.dtype}; int8 (-1 missing) or floating point (NaN missing) "
                "is needed."
            )
        for coordinate in COORDINATES:
            dim = schema.SAMPLE if coordinate == "sample_id" else schema.VARIANT
            if ds[coordinate].dims != (dim,):
                raise GenotypeFormatError(
                    f"{name!r}: {coordinate} has dims {ds[coordinate].dims}; ({dim!r},) is needed."
                )
        shape = (ds.sizes[schema.VARIANT], ds.sizes[schema.SAMPLE])
        stored = dosage.encoding.get("chunksizes") or (1, 1)
        return genotype_dataset(
            XarrayRows(str(path.absolute()), shape, np.int8 if dosage.dtype == np.int8 else np.float32),
            chunks=chunks,
            stored_chunk=int(stored[dosage.dims.index(schema.VARIANT)]),
            sample_id=text(ds["sample_id"].values),
            contig=text(ds["variant_contig"].values),
            position=np.asarray(ds["variant_position"].values, dtype=np.int64),
            variant_id=text(ds["variant_id"].values),
            effect_allele=text(ds["variant_effect_allele"].values),
            other_allele=text(ds["variant_other_allele"].values),
            path=name,
            file_format="xarray",
            ploidy=checked_ploidy(name, ds.attrs.get("ploidy", 2)),
        )
