"""The one door for genotypes: finds the reader of a path by what lies there."""

from __future__ import annotations

import os
import shlex
from numbers import Integral
from os import PathLike
from pathlib import Path

import xarray as xr

from dasklmm.errors import GenotypeFormatError, OptionError
from dasklmm.readers.dataset import KNOWN

FIELDS = ("auto", "genotype", "dosage")
VCF = (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")
FILES = (".bed", ".bim", ".fam", ".pgen", ".pvar", ".pvar.zst", ".psam", ".bgen", *VCF)


def open_genotypes(path: str | Path, chunks: int | str = "auto", *, field: str = "auto") -> xr.Dataset:
    """Open genotypes. Lazy: variants and samples are read, no genotype is.

    Parameters
    ----------
    path : str or Path
        A PLINK 1 .bed, its prefix, or the .bim or .fam beside it; a PLINK 2 .pgen, its prefix, or the .pvar or
        .psam beside it; a .bgen; a VCF-Zarr path or URL; a store of `write_genotypes`; or a netCDF or HDF5 file
        with dosage (variant, sample) and the coordinates below by name. (A VCF is converted first, by
        `convert_vcf`.)
    chunks : int or "auto"
        Variants of a block. "auto": about 64 MB as float32, a whole number of stored chunks; fewer where
        there would be under 16 blocks.
    field : {"auto", "genotype", "dosage"}
        What is read of a VCF-Zarr or a .pgen, which may hold both: hard calls or dosages. "auto": of a VCF-Zarr,
        calls, unless five chunks of them are looked into and hold none while there are dosages, which the log
        says; of a .pgen, dosages where there are any. Of any other, which holds one of the
        two, "auto" or the one it holds.

    Returns
    -------
    Dataset (variant, sample)
        dosage : int8 copies of the effect allele (-1 missing), or float32 dosage (NaN missing), 0 to 2, a haploid
        call as the homozygous one; all samples by a block of variants a chunk. Coordinates sample_id,
        variant_id, variant_contig (always text), variant_position, variant_effect_allele,
        variant_other_allele. attrs: source, format, field ("genotype" or "dosage"), ploidy (2, unless a
        Dataset that was written with another says so); of a VCF-Zarr also sites_without_alternate,
        which have no row; where PLINK's sample ids are FID:IID also sample_ids_have_family.

    Notes
    -----
    A block is one task, which reads all samples of its variants. Every process that computes must see the
    path; a relative one is resolved when it is opened.

    Raises
    ------
    OptionError
        `chunks` or `field` is none of the above, or the format does not hold that field.
    SampleError
        A sample id stands more than once.
    GenotypeFormatError
        No path, no such file, or not a format that is known, or inconsistent; or calls of a ploidy other than
        1 and 2.
    MissingExtraError
        The library of the format or of the URL's file system is not installed; with the remedy.
    StoreError
        A URL that cannot be reached: no credentials, no permission, no server.

    Examples
    --------
    >>> import dasklmm
    >>> from dasklmm.store.genotypes import write_genotypes
    >>> write_genotypes(dasklmm.simulate(50, 200, n_contigs=2, seed=1), "cohort.zarr")
    >>> ds = dasklmm.open_genotypes("cohort.zarr")
    >>> ds["dosage"].dims, ds["dosage"].shape, ds["dosage"].dtype
    (('variant', 'sample'), (200, 50), dtype('int8'))
    """
    if not isinstance(path, (str, PathLike)):
        raise GenotypeFormatError(
            f"genotypes are a {type(path).__name__}; a path, a URL, or a Dataset with dosage (variant, sample) "
            "and sample_id is needed."
            + (" This Dataset is open already: use it as it is." if isinstance(path, xr.Dataset) else "")
        )
    number = isinstance(chunks, Integral) and not isinstance(chunks, bool)
    if not (chunks == "auto" or (number and int(chunks) > 0)):
        raise OptionError(f"chunks is {chunks!r}; a positive number of variants or 'auto' is needed.")
    if field not in FIELDS:
        raise OptionError(f"field is {field!r}; it is one of {', '.join(map(repr, FIELDS))}.")
    # a process that changes its folder reads on
    text = str(path) if "://" in str(path) else os.path.abspath(path)
    ds = _opened(text, None if chunks == "auto" else int(chunks), field)
    if field not in ("auto", ds.attrs["field"]):
        kind = {"genotype": "hard calls (int8)", "dosage": "dosages"}[ds.attrs["field"]]
        raise OptionError(
            f"field is {field!r}, and {str(path)!r} holds {kind} only. Give field='auto' (--field auto)."
        )
    return ds


def _opened(text: str, size: int | None, field: str) -> xr.Dataset:
    """Open by what lies at a path."""
    if "://" in text:
        if text.endswith(FILES):
            raise GenotypeFormatError(
                f"{text!r} is a URL, and files such as PLINK's are read from a disk. Copy it and what belongs to "
                "it, or convert it to VCF-Zarr, which is read from URLs (bio2zarr's plink2zarr of a .bed, "
                "vcf2zarr of a VCF)."
            )
    else:
        named = text.endswith((".bed", ".bim", ".fam"))
        bed = Path(text).with_suffix(".bed") if named else Path(f"{text}.bed")
        if named or bed.is_file():
            from dasklmm.readers import plink

            return plink.open_plink(bed, size)
        named = text.endswith((".pgen", ".pvar", ".pvar.zst", ".psam"))
        pgen = Path(text.removesuffix(".zst")).with_suffix(".pgen") if named else Path(f"{text}.pgen")
        if named or pgen.is_file():
            from dasklmm.readers import pgen as plink2

            return plink2.open_pgen(pgen, size, field)
        if Path(text).is_file():
            return _file(Path(text), size)
        if not Path(text).exists():
            raise GenotypeFormatError(
                f"there is nothing at {text!r}, nor a {bed.name!r} or {pgen.name!r}. Give {KNOWN}."
            )
    from dasklmm.readers import vcfzarr

    return vcfzarr.open_zarr(text, size, field)


def _file(path: Path, chunks: int | None) -> xr.Dataset:
    """Open a single file, by its name."""
    name = path.name.lower()
    if name.endswith(".bgen"):
        from dasklmm.readers import bgen

        return bgen.open_bgen(path, chunks)
    if name.endswith(VCF):
        end = next(end for end in VCF if name.endswith(end))
        out = path.with_name(path.name[: -len(end)] + ".vcz")
        raise GenotypeFormatError(
            f"{str(path)!r} is a VCF, which is text that only reads from its start. Convert it once, then give "
            f"{str(out)!r}: {shlex.join(['dasklmm', 'convert', str(path), str(out)])}"
        )
    from dasklmm.readers import netcdf

    if name.endswith(netcdf.SUFFIXES):
        return netcdf.open_netcdf(path, chunks)
    raise GenotypeFormatError(f"{str(path)!r} is a file of no format that is read here. Give {KNOWN}.")
