"""VCF-Zarr (spec 0.4 and 0.5), and this package's own genotype stores."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from dasklmm.errors import GenotypeFormatError, StoreError
from dasklmm.lazy import budget
from dasklmm.numerics.genotypes import allele_counts, haploid_calls
from dasklmm.readers.dataset import KNOWN, checked_ploidy, genotype_dataset, text
from dasklmm.store.genotypes import COORDINATES, UNFINISHED
from dasklmm.store.places import is_local, reach
from dasklmm.store.records import MARK

logger = logging.getLogger(__name__)

CALLS = "call_genotype"
DOSAGES = ("call_DS", "call_dosage")
GENOTYPES = "genotypes.zarr"  # in a directory that dasklmm simulate made
SITES = ("variant_contig", "variant_position", "variant_allele")

# Chunks of calls that tell whether there are any.
LOOKED_INTO = 5

# Dosage of one allele, and its rounding in a VCF.
MOST_OF_ONE = 1.01

# Bytes of calls that are counted at a time, so that temporaries stay small beside the block.
TILE_BYTES = 8 * 1024**2


class ZarrRows:
    """Rows (variant, sample) of a Zarr array, read by region; pickles to workers.

    Parameters
    ----------
    array : zarr.Array
    rows : int
        Length of the first dim.
    dtype : dtype
        Of what is returned.
    """

    ndim = 2

    def __init__(self, array: zarr.Array, rows: int, dtype: Any) -> None:
        self.array, self.dtype = array, np.dtype(dtype)
        self.shape = (rows, array.shape[1])

    def read(self, rows: Any) -> np.ndarray:
        """Rows of the array.

        Zarr takes a chunk that is not there for one of fill values, which are genotypes: so it reads a path that
        this process cannot see, and one that has gone while it was read. What was read is believed when the
        array is there afterwards.
        """
        try:
            values = np.asarray(self.array[rows])
        except (ValueError, RuntimeError) as error:  # codecs raise what they like on damaged bytes
            raise StoreError(
                f"the array at {str(self.array.store_path)!r} is damaged in rows {rows.start} to {rows.stop} "
                f"({error}). Copy or write it again."
            ) from error
        try:
            zarr.open_array(self.array.store_path, mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise StoreError(
                f"this process finds no array at {str(self.array.store_path)!r}, which was there when the "
                "genotypes were opened. Give a path or URL that every worker can read; where it was gone for a "
                "while, run the same command again: with a store, what is finished is kept."
            ) from error
        return values

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        return self.read(rows).astype(self.dtype, copy=False)[:, columns]


class AlleleRows(ZarrRows):
    """Rows of a VCF-Zarr array, one for each ALT allele of each site.

    Parameters
    ----------
    array : zarr.Array (site, sample, …)
    dtype : dtype
    site, allele : ndarray (variant)
        Site, and allele number from 1, of each row.
    """

    def __init__(self, array: zarr.Array, dtype: Any, site: np.ndarray, allele: np.ndarray) -> None:
        super().__init__(array, site.size, dtype)
        self.site, self.allele = site, allele

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        site, allele = self.site[rows], self.allele[rows]
        out = np.empty((site.size, self.shape[1]), self.dtype)
        if site.size:
            first = int(site.min())
            values = self.read(slice(first, int(site.max()) + 1))
            tile = max(1, TILE_BYTES * values.shape[0] // max(1, values.nbytes))
            for start in range(0, site.size, tile):
                part = slice(start, start + tile)
                self.fill(out[part], values, site[part] - first, allele[part])
        return out[:, columns]

    def fill(self, out: np.ndarray, values: np.ndarray, site: np.ndarray, allele: np.ndarray) -> None:
        """Write the rows of some sites and alleles into `out`."""
        raise NotImplementedError


class CallRows(AlleleRows):
    """Copies of each ALT allele in call_genotype (site, sample, ploidy), int8."""

    def fill(self, out: np.ndarray, values: np.ndarray, site: np.ndarray, allele: np.ndarray) -> None:
        """Count the alleles of calls."""
        low = int(site.min())
        out[...] = allele_counts(values[low : int(site.max()) + 1], site - low, allele)


class HaploidRows(AlleleRows):
    """Whether each call in call_genotype (site, sample, ploidy) is of one allele, bool."""

    def fill(self, out: np.ndarray, values: np.ndarray, site: np.ndarray, allele: np.ndarray) -> None:
        """Tell calls apart."""
        low = int(site.min())
        out[...] = haploid_calls(values[low : int(site.max()) + 1])[site - low]


class DosageRows(AlleleRows):
    """Dosage of each ALT allele, from (site, sample) or (site, sample, ALT), float32.

    Parameters
    ----------
    array, dtype, site, allele
        As of AlleleRows.
    calls : zarr.Array (site, sample, ploidy) or None
        Calls beside them, which tell which are haploid: their dosage of 0 to 1 is doubled.
    """

    def __init__(
        self,
        array: zarr.Array,
        dtype: Any,
        site: np.ndarray,
        allele: np.ndarray,
        calls: zarr.Array | None = None,
    ) -> None:
        super().__init__(array, dtype, site, allele)
        self.haploid = None if calls is None else HaploidRows(calls, np.bool_, site, allele)

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        out = super().__getitem__(index)
        if self.haploid is not None:
            haploid = self.haploid[index]
            if (out[haploid] > MOST_OF_ONE).any():
                raise GenotypeFormatError(
                    f"{str(self.array.store_path)!r} holds dosages above 1 of haploid calls (GT). Read the calls "
                    "with field='genotype', or make DS anew."
                )
            out[haploid] *= 2
        return out

    def fill(self, out: np.ndarray, values: np.ndarray, site: np.ndarray, allele: np.ndarray) -> None:
        """Take the dosages of alleles; -1 (missing) and -2 (fill) become NaN, as the spec's NaNs are."""
        out[...] = values[site] if values.ndim == 2 else values[site, :, allele - 1]
        out[out < 0] = np.nan


def open_zarr(path: str, chunks: int | None, field: str) -> xr.Dataset:
    """Open a Zarr group of genotypes. Lazy.

    Parameters
    ----------
    path : str
        Path or URL.
    chunks : int or None
        Variants of a block; None for about 64 MB as float32.
    field : {"auto", "genotype", "dosage"}

    Raises
    ------
    GenotypeFormatError
        No group, or arrays missing, unfinished, or of shapes or values that disagree; or a ploidy other than
        1 and 2.
    MissingExtraError
        The library of the URL's file system is not installed.
    StoreError
        The URL cannot be reached.
    """
    # absolute: where a relative path is not found later, Zarr reads fill values
    place = path if "://" in path else str(Path(path).absolute())
    reach(place)
    try:
        group = zarr.open_group(place, mode="r")
    except (FileNotFoundError, ValueError, zarr.errors.NodeTypeValidationError) as error:
        raise GenotypeFormatError(
            f"{path!r} is not a Zarr group of genotypes. Give "
            + (_instead(path) if is_local(path) else "the URL of a VCF-Zarr.")
        ) from error
    if group.attrs.get(UNFINISHED, False):
        raise GenotypeFormatError(
            f"{path!r} was being written and is not complete. Write it again with write_genotypes(…, "
            "overwrite=True)."
        )
    names = {*COORDINATES, "dosage", "contig_id", "variant_allele", CALLS, *DOSAGES}
    try:
        arrays = {str(k): v for k in names if isinstance(v := group.get(k), zarr.Array)}
    except ValueError as error:
        # zarr refuses pickled objects, whose reading could run code, and data types that it does not know
        raise GenotypeFormatError(
            f"{path!r} holds an array that is never read here ({error}). Write text as strings."
        ) from error
    if "dosage" in arrays:
        return _own(path, group, arrays, chunks)
    return _vcf(path, group, arrays, chunks, field)


def _instead(path: str) -> str:
    """What to give in place of a path that holds no group."""
    inside = Path(path) / GENOTYPES
    return f"{str(inside)!r}, which lies in it." if inside.is_dir() else f"{KNOWN}."


def _required(path: str, group: zarr.Group, arrays: dict[str, zarr.Array], names: tuple[str, ...]) -> None:
    absent = [name for name in names if name not in arrays]
    if absent:
        held = sorted(group.array_keys())
        raise GenotypeFormatError(
            f"{path!r} lacks {', '.join(absent)}; it holds {', '.join(held) or 'no array'}. A VCF-Zarr group "
            "(spec 0.4 or 0.5) is needed."
        )


def _check_lengths(
    path: str, arrays: dict[str, zarr.Array], name: str, ndims: tuple[int, ...], per_site: tuple[str, ...]
) -> None:
    """The first two dims of array `name` are the variants and the samples of the arrays beside it."""
    array = arrays[name]
    sites, samples = arrays["variant_position"].shape[0], arrays["sample_id"].shape[0]
    if array.ndim not in ndims or array.shape[:2] != (sites, samples):
        raise GenotypeFormatError(
            f"{path!r}: {name} has shape {array.shape}, with {sites} variants and {samples} samples; the first "
            f"two dims must be those, of {' or '.join(map(str, ndims))} in all."
        )
    for other in per_site:
        if other in arrays and arrays[other].shape[0] != sites:
            raise GenotypeFormatError(
                f"{path!r}: {other} has shape {arrays[other].shape}, with {sites} variants."
            )


def _own(path: str, group: zarr.Group, arrays: dict[str, zarr.Array], chunks: int | None) -> xr.Dataset:
    _required(path, group, arrays, COORDINATES)
    array = arrays["dosage"]
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names is not None and tuple(names) != ("variant", "sample"):
        raise GenotypeFormatError(f"{path!r}: dosage has dims {tuple(names)}; (variant, sample) are needed.")
    _check_lengths(path, arrays, "dosage", (2,), COORDINATES[:-1])
    for name in (*COORDINATES, "dosage") if MARK in group.attrs else ():
        there, all_of_them = arrays[name].nchunks_initialized, arrays[name].nchunks
        if there < all_of_them:
            # this package writes every chunk; one that is gone would read as missing calls without a word
            raise GenotypeFormatError(
                f"{path!r} is not whole: {there} of {all_of_them} chunks of {name} are there. Copy or write it "
                "again."
            )
    if array.dtype != np.int8 and array.dtype.kind != "f":
        raise GenotypeFormatError(
            f"{path!r}: dosage is of dtype {array.dtype}; int8 (-1 missing) or float32 (NaN missing) is needed."
        )
    values = {}
    for name in COORDINATES:
        try:
            values[name] = arrays[name][...]
        except Exception as error:  # codecs raise what they like on damaged bytes
            raise GenotypeFormatError(
                f"{path!r}: {name} is damaged: it is not what was written. Copy or write it again."
            ) from error
    out = genotype_dataset(
        ZarrRows(array, array.shape[0], np.int8 if array.dtype == np.int8 else np.float32),
        chunks=chunks,
        stored_chunk=array.chunks[0],
        sample_id=text(values["sample_id"]),
        contig=text(values["variant_contig"]),
        position=np.asarray(values["variant_position"], dtype=np.int64),
        variant_id=text(values["variant_id"]),
        effect_allele=text(values["variant_effect_allele"]),
        other_allele=text(values["variant_other_allele"]),
        path=path,
        file_format="dasklmm",
        ploidy=checked_ploidy(path, group.attrs.get("ploidy", 2)),
    )
    if group.attrs.get("sample_ids_have_family", False):
        out.attrs["sample_ids_have_family"] = True
    return out


def _vcf(
    path: str, group: zarr.Group, arrays: dict[str, zarr.Array], chunks: int | None, field: str
) -> xr.Dataset:
    _required(path, group, arrays, ("sample_id", *SITES, "contig_id"))
    dosages = next((name for name in DOSAGES if name in arrays), None)
    use_calls = field == "genotype" or (field == "auto" and CALLS in arrays)
    if field == "auto" and use_calls and dosages and _is_empty(arrays[CALLS]):
        # a header may declare GT of which no row has any
        logger.warning(
            "%s: %s holds no call where it was looked into, so that %s is read; field='genotype' "
            "(--field genotype) reads the calls",
            path,
            CALLS,
            dosages,
        )
        use_calls = False
    name = CALLS if use_calls else dosages
    if name is None or name not in arrays:
        wanted = CALLS if use_calls else " or ".join(DOSAGES)
        raise GenotypeFormatError(f"{path!r} holds no {wanted}, which field={field!r} needs.")
    array = arrays[name]
    _check_lengths(path, arrays, name, (3,) if use_calls else (2, 3), (*SITES, "variant_id"))
    if use_calls:
        checked_ploidy(path, array.shape[2])
    alleles = text(arrays["variant_allele"][...])
    if alleles.ndim != 2:
        raise GenotypeFormatError(f"{path!r}: variant_allele has shape {alleles.shape}; two dims are needed.")
    # one row an ALT; a site with none has no row
    site, column = np.nonzero((alleles[:, 1:] != "") & (alleles[:, 1:] != "."))
    allele = column + 1
    without = alleles.shape[0] - np.unique(site).size
    if without:
        logger.info("%s: %d of %d sites without an ALT have no row", path, without, alleles.shape[0])
    most = int(allele.max(initial=0))
    held = 1 if array.ndim == 2 else array.shape[2]
    if not use_calls and most > held:
        raise GenotypeFormatError(
            f"{path!r}: {name} has {held} values a call, and a site has {most} ALT alleles, so it cannot be told "
            "whose they are. Split such sites (bcftools norm -m-), or read calls with field='genotype'."
        )
    contig = _contigs(path, arrays)[site]
    position = np.asarray(arrays["variant_position"][...], dtype=np.int64)[site]
    reference, alternate = alleles[site, 0], alleles[site, allele]
    calls = arrays.get(CALLS)
    if calls is not None and (calls.shape[:2] != array.shape[:2] or calls.shape[2:] not in ((1,), (2,))):
        calls = None
    source = (
        CallRows(array, np.int8, site, allele) if use_calls else DosageRows(array, "f4", site, allele, calls)
    )
    out = genotype_dataset(
        source,
        chunks=chunks or _blocks(site, alleles.shape[0], array),
        stored_chunk=array.chunks[0],
        sample_id=text(arrays["sample_id"][...]),
        contig=contig,
        position=position,
        variant_id=_ids(arrays, site, contig, position, reference, alternate),
        effect_allele=alternate,
        other_allele=reference,
        path=path,
        file_format="VCF-Zarr",
    )
    out.attrs["sites_without_alternate"] = without
    return out


def _is_empty(calls: zarr.Array) -> bool:
    """Whether no call is there in five chunks, of the first samples, that lie evenly among the sites."""
    if calls.ndim != 3 or 0 in calls.shape:
        return False
    sites, rows = calls.shape[0], calls.chunks[0]
    starts = sorted({int(k) // rows * rows for k in np.linspace(0, sites - 1, LOOKED_INTO)})
    return not any((np.asarray(calls[k : k + rows, : calls.chunks[1]]) >= 0).any() for k in starts)


def _contigs(path: str, arrays: dict[str, zarr.Array]) -> np.ndarray:
    """Name of each site's contig."""
    names, index = text(arrays["contig_id"][...]), np.asarray(arrays["variant_contig"][...])
    outside = np.flatnonzero((index < 0) | (index >= names.size))
    if outside.size:
        raise GenotypeFormatError(
            f"{path!r}: {outside.size} sites have no contig; variant_contig is {index[outside[0]]} at site "
            f"{outside[0]}, and contig_id has {names.size}."
        )
    return names[index]


def _blocks(site: np.ndarray, sites: int, array: zarr.Array) -> tuple[int, ...] | None:
    """Rows of each block where blocks are whole stored chunks of sites; None where there is no row."""
    if not site.size:
        return None
    rows_per_site = max(1, -(-site.size // sites))
    step = budget.rows_per_task(4 * array.shape[1] * rows_per_site, array.chunks[0], sites)
    edges = np.searchsorted(site, np.arange(0, sites + step, step))
    return tuple(int(rows) for rows in np.diff(edges) if rows)


def _ids(
    arrays: dict[str, zarr.Array],
    site: np.ndarray,
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
