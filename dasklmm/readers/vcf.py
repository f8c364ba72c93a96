"""VCF and BCF to VCF-Zarr, by bio2zarr."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zarr

from dasklmm.errors import GenotypeFormatError, MissingExtraError, OptionError, StoreError


def _bio2zarr() -> Any:
    try:
        import cyvcf2  # noqa: F401  bio2zarr imports without it, and fails later
        from bio2zarr import vcf
    except ImportError as error:
        raise MissingExtraError(
            "VCF files are converted by bio2zarr with cyvcf2, which are not installed: pip install 'dasklmm[vcf]'"
        ) from error
    return vcf


def _is_vcf_zarr(path: Path) -> bool:
    try:
        return "vcf_zarr_version" in zarr.open_group(str(path), mode="r").attrs
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _check_start(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    if not start.startswith((b"##", b"#CHROM", b"BCF", b"\x1f\x8b")):
        raise GenotypeFormatError(
            f"{str(path)!r} cannot be converted: it is no VCF or BCF, but "
            + (f"starts with {start!r}." if start else "empty.")
            + " Other formats are read as they are."
        )


def _check_made(made: Path) -> None:
    """Refuse now what this package could not read, or nobody scan."""
    from dasklmm.readers.vcfzarr import CALLS, open_zarr

    held = zarr.open_group(str(made), mode="r")
    if not open_zarr(str(made), None, "genotype" if CALLS in held else "auto").sizes["sample"]:
        raise GenotypeFormatError(
            f"{str(made)!r} has no samples: its line #CHROM ends before the first. Give the VCF of the genotypes."
        )


def _said(error: Exception) -> str:
    """What a library's error says, or its kind and that the file may be cut short."""
    said = str(error).strip().rstrip(".")
    if isinstance(error, AssertionError) or not said or "htslib" in said:
        return f"it is cut short or damaged ({said or type(error).__name__})"
    return said


def convert_vcf(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    workers: int = 0,
    progress: bool = False,
    overwrite: bool = False,
) -> Path:
    """Convert VCF or BCF files to a VCF-Zarr that `open_genotypes` reads. Eager.

    Parameters
    ----------
    paths : path or sequence of path
        .vcf, .vcf.gz or .bcf of the same samples and of different regions. One of several contigs has its
        index (.csi or .tbi) beside it.
    out : path
        Directory that is made, by convention ``*.vcz``.
    workers : int
        Processes beside this one.
    progress : bool
        Draw bars.
    overwrite : bool
        Replace what `out` holds.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    MissingExtraError
        bio2zarr or cyvcf2 is not installed.
    GenotypeFormatError
        A file is not there, is no VCF that bio2zarr reads, has no samples, or is cut short; or no genotype or
        dosage of it could be read here.
    StoreError
        `out` exists already, or is to be replaced and is no VCF-Zarr.

    Notes
    -----
    All fields are converted: GT becomes call_genotype, and DS call_DS, which `open_genotypes(…,
    field="dosage")` reads. Of GP alone no dosage is made.

    It is written beside `out`, as ``*.partial`` with a name of its own, and renamed when it is complete. An
    interrupted conversion starts again; for cohorts where that hurts, bio2zarr's own vcf2zarr explode and encode
    go on by partitions.

    Cost: two passes over the data, with an intermediate form in the temporary directory (TMPDIR) about as large as
    the VCF.

    Examples
    --------
    >>> import dasklmm
    >>> path = dasklmm.convert_vcf("cohort.vcf.gz", "cohort.vcz")  # doctest: +SKIP
    >>> ds = dasklmm.open_genotypes(path)  # doctest: +SKIP
    """
    files = [Path(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    out = Path(out)
    if not files:
        raise OptionError("no VCF is given; one at least is needed.")
    if workers < 0:
        raise OptionError(f"workers is {workers}; it needs to be 0 or more.")
    vcf = _bio2zarr()
    for path in files:
        if not path.is_file():
            raise GenotypeFormatError(f"there is no VCF at {str(path)!r}.")
        _check_start(path)
    if out.exists():
        if not overwrite:
            raise StoreError(f"{str(out)!r} exists already. Give another path, or overwrite (--overwrite).")
        if not _is_vcf_zarr(out):
            raise StoreError(
                f"{str(out)!r} holds something that is no VCF-Zarr, which is never replaced. Give another path."
            )
    named = ", ".join(str(p) for p in files)
    partial = out.with_name(f"{out.name}.{uuid.uuid4().hex}.partial")
    try:
        vcf.convert([str(p) for p in files], str(partial), worker_processes=workers, show_progress=progress)
        _check_made(partial)
        if overwrite and out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    except GenotypeFormatError as error:
        raise GenotypeFormatError(str(error).replace(str(partial), named)) from error
    except KeyError as error:
        raise GenotypeFormatError(
            f"{named} cannot be converted: {error} stands in its rows and in no line of its header. A contig "
            "needs a line ##contig (bcftools reheader --fai writes them) or the file an index (bcftools index)."
        ) from error
    except Exception as error:  # bio2zarr and htslib raise what they like, a bare Exception too
        raise GenotypeFormatError(
            f"{named} cannot be converted: {_said(error)}. A whole, sorted VCF is needed; one of several contigs "
            "is compressed by bgzip and indexed (bcftools index X.vcf.gz)."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out
