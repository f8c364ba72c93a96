"""The one door for genotypes: finds the reader of a path by what lies there."""

from __future__ import annotations

from numbers import Integral
from os import PathLike
from pathlib import Path

import xarray as xr

from dasklmm.errors import GenotypeFormatError, OptionError

FIELDS = ("auto", "genotype", "dosage")


def open_genotypes(path: str | Path, chunks: int | str = "auto", *, field: str = "auto") -> xr.Dataset:
    """Open genotypes. Lazy: variants and samples are read, no genotype is.

    Parameters
    ----------
    path : str or Path
        A PLINK 1 .bed, its prefix, or the .bim or .fam beside it; a VCF-Zarr path or URL; or a store of
        `write_genotypes`.
    chunks : int or "auto"
        Variants of a block. "auto": about 64 MB as float32, a whole number of stored chunks; fewer where
        there would be under 16 blocks.
    field : {"auto", "genotype", "dosage"}
        What of a VCF-Zarr is read: hard calls or dosages. "auto": calls where there are any.

    Returns
    -------
    Dataset (variant, sample)
        dosage : int8 copies of the effect allele (-1 missing), or float32 dosage (NaN missing); all
        samples by a block of variants a chunk. Coordinates sample_id, variant_id, variant_contig (always
        text), variant_position, variant_effect_allele, variant_other_allele. attrs: source, format, field
        ("genotype" or "dosage"), ploidy; of a VCF-Zarr also
        sites_without_alternate, which have no row; where PLINK's sample ids are FID:IID also
        sample_ids_have_family.

    Notes
    -----
    A block is one task, which reads all samples of its variants. Every process that computes must see the
    path; a relative one is resolved when it is opened.

    Raises
    ------
    OptionError
        `chunks` or `field` is none of the above.
    SampleError
        A sample id stands more than once.
    GenotypeFormatError
        No path, no such file, or not a format that is known, or inconsistent; or calls of a ploidy other than
        1 and 2.
    MissingExtraError
        The library of the format or of the URL's file system is not installed; with the remedy.
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
    size = None if chunks == "auto" else int(chunks)
    text = str(path)
    if "://" in text:
        if text.endswith((".bed", ".bim", ".fam")):
            raise GenotypeFormatError(
                f"{text!r} is a URL, and PLINK 1 files are read from a disk. Copy the .bed, .bim and .fam, or "
                "convert them to VCF-Zarr (bio2zarr's plink2zarr), which is read from URLs."
            )
    else:
        named = text.endswith((".bed", ".bim", ".fam"))
        bed = Path(text).with_suffix(".bed") if named else Path(f"{text}.bed")
        if named or bed.is_file():
            from dasklmm.readers import plink

            return plink.open_plink(bed, size)
        if Path(text).is_file():
            raise GenotypeFormatError(
                f"{text!r} is a file of no format that is read here. A PLINK 1 .bed, or a VCF-Zarr directory "
                "(bio2zarr's vcf2zarr makes one from a VCF) is needed."
            )
        if not Path(text).exists():
            raise GenotypeFormatError(
                f"there is nothing at {text!r}, nor a {bed.name!r}. Give a .bed or its prefix, or a VCF-Zarr."
            )
    from dasklmm.readers import vcfzarr

    return vcfzarr.open_zarr(text, size, field)
