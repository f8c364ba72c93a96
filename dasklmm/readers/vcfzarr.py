"""VCF-Zarr (spec 0.4 and 0.5), and this package's own genotype stores."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
import zarr

from dasklmm.errors import GenotypeFormatError
from dasklmm.numerics.genotypes import allele_counts
from dasklmm.readers.dataset import genotype_dataset, text

CALLS = "call_genotype"
DOSAGES = ("call_DS", "call_dosage")


class CallRows:
    """Rows (variant, sample) of call_genotype: one row an ALT allele of each site."""

    ndim = 2
    dtype = np.dtype(np.int8)

    def __init__(self, array: zarr.Array, site: np.ndarray, allele: np.ndarray) -> None:
        self.array, self.site, self.allele = array, site, allele
        self.shape = (site.size, array.shape[1])

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        site, allele = self.site[rows], self.allele[rows]
        first = int(site[0]) if site.size else 0
        calls = np.asarray(self.array[first : int(site[-1]) + 1 if site.size else 0])
        return allele_counts(calls, site - first, allele)[:, columns]


class DosageRows:
    """Rows (variant, sample) of a dosage array (site, sample) or (site, sample, ALT)."""

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, array: zarr.Array, site: np.ndarray, allele: np.ndarray) -> None:
        self.array, self.site, self.allele = array, site, allele
        self.shape = (site.size, array.shape[1])

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        site, allele = self.site[rows], self.allele[rows]
        first = int(site[0]) if site.size else 0
        values = np.asarray(self.array[first : int(site[-1]) + 1 if site.size else 0], dtype=np.float32)
        values = values[site - first]
        if values.ndim == 3:
            values = np.take_along_axis(values, (allele - 1)[:, None, None], axis=2)[..., 0]
        values = np.where(values < 0, np.float32(np.nan), values)  # -1 missing, -2 fill
        return values[:, columns]


class StoredRows:
    """Rows (variant, sample) of a stored dosage array, all samples at once."""

    ndim = 2

    def __init__(self, array: zarr.Array) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        return np.asarray(self.array[rows])[:, columns]


def open_zarr(path: str, chunks: int | None, field: str) -> xr.Dataset:
    """Open a Zarr group of genotypes. Lazy.

    Raises
    ------
    GenotypeFormatError
        No group, or arrays missing or of shapes that disagree.
    """
    try:
        group = zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError, zarr.errors.NodeTypeValidationError) as error:
        raise GenotypeFormatError(
            f"{path!r} is not a Zarr group of genotypes. Give a PLINK 1 .bed or its prefix, or a VCF-Zarr."
        ) from error
    try:
        arrays = dict(group.arrays())
    except ValueError as error:
        # zarr refuses pickled objects, whose reading could run code, and data types that it does not know
        raise GenotypeFormatError(
            f"{path!r} holds an array that is never read here ({error}). Write text as strings."
        ) from error
    return _own(path, arrays, chunks) if "dosage" in arrays else _vcf(path, arrays, chunks, field)


def _required(path: str, arrays: dict[str, zarr.Array], names: tuple[str, ...]) -> None:
    absent = [name for name in names if name not in arrays]
    if absent:
        raise GenotypeFormatError(
            f"{path!r} lacks {', '.join(absent)}; it holds {', '.join(sorted(arrays)) or 'no array'}. A "
            "VCF-Zarr group (spec 0.4 or 0.5) is needed."
        )


def _own(path: str, arrays: dict[str, zarr.Array], chunks: int | None) -> xr.Dataset:
    names = ("variant_contig", "variant_position", "variant_id", "variant_effect_allele")
    _required(path, arrays, ("sample_id", *names, "variant_other_allele"))
    return genotype_dataset(
        StoredRows(arrays["dosage"]),
        chunks=chunks,
        stored_chunk=arrays["dosage"].chunks[0],
        sample_id=text(arrays["sample_id"][...]),
        contig=text(arrays["variant_contig"][...]),
        position=np.asarray(arrays["variant_position"][...], dtype=np.int64),
        variant_id=text(arrays["variant_id"][...]),
        effect_allele=text(arrays["variant_effect_allele"][...]),
        other_allele=text(arrays["variant_other_allele"][...]),
        path=path,
        file_format="dasklmm",
    )


def _vcf(path: str, arrays: dict[str, zarr.Array], chunks: int | None, field: str) -> xr.Dataset:
    _required(
        path, arrays, ("sample_id", "variant_contig", "variant_position", "variant_allele", "contig_id")
    )
    dosage = next((name for name in DOSAGES if name in arrays), None)
    use_calls = field == "genotype" or (field == "auto" and CALLS in arrays)
    name = CALLS if use_calls else dosage
    if name is None or name not in arrays:
        wanted = CALLS if use_calls else " or ".join(DOSAGES)
        raise GenotypeFormatError(f"{path!r} holds no {wanted}, which field={field!r} needs.")
    array = arrays[name]
    alleles = np.asarray(arrays["variant_allele"][...].tolist(), dtype=str)
    sites, samples = arrays["variant_position"].shape[0], arrays["sample_id"].shape[0]
    if array.shape[:2] != (sites, samples) or alleles.shape[0] != sites:
        raise GenotypeFormatError(
            f"{path!r}: {name} has shape {array.shape}, with {sites} variants and {samples} samples; the first "
            "two dims must be those."
        )
    site, column = np.nonzero((alleles[:, 1:] != "") & (alleles[:, 1:] != "."))
    allele = column + 1
    if array.ndim == 3 and name != CALLS and allele.size and allele.max() > array.shape[2]:
        raise GenotypeFormatError(
            f"{path!r}: {name} has {array.shape[2]} values a call, and a site has {allele.max()} ALT alleles."
        )
    contigs = text(arrays["contig_id"][...])
    contig = contigs[np.asarray(arrays["variant_contig"][...])][site]
    position = np.asarray(arrays["variant_position"][...], dtype=np.int64)[site]
    reference, alternate = alleles[site, 0], alleles[site, allele]
    source = (CallRows if use_calls else DosageRows)(array, site, allele)
    return genotype_dataset(
        source,
        chunks=chunks,
        stored_chunk=array.chunks[0],
        sample_id=text(arrays["sample_id"][...]),
        contig=contig,
        position=position,
        variant_id=_ids(arrays, site, allele, contig, position, reference, alternate),
        effect_allele=alternate,
        other_allele=reference,
        path=path,
        file_format="VCF-Zarr",
    )


def _ids(
    arrays: dict[str, zarr.Array],
    site: np.ndarray,
    allele: np.ndarray,
    contig: np.ndarray,
    position: np.ndarray,
    reference: np.ndarray,
    alternate: np.ndarray,
) -> np.ndarray:
    """The site's id, with its ALT where it has several; contig:position:REF:ALT where it has none."""
    given = text(arrays["variant_id"][...]) if "variant_id" in arrays else np.zeros(0, dtype=str)
    several = np.bincount(site)[site] > 1 if site.size else np.zeros(0, dtype=bool)
    out = []
    for j in range(site.size):
        name = given[site[j]] if given.size else "."
        if name in ("", "."):
            out.append(f"{contig[j]}:{position[j]}:{reference[j]}:{alternate[j]}")
        else:
            out.append(f"{name}:{alternate[j]}" if several[j] else name)
    return np.array(out, dtype=str)
