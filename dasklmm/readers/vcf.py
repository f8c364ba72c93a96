"""VCF and BCF to VCF-Zarr, by bio2zarr."""

from __future__ import annotations

import os
import shutil
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
        A file is not there, or is no VCF that bio2zarr reads; or no genotype or dosage of it could be read here.
    StoreError
        `out` exists already, or is to be replaced and is no VCF-Zarr.

    Notes
    -----
    All fields are converted: GT becomes call_genotype, and DS call_DS, which `open_genotypes(…,
    field="dosage")` reads. Of GP alone no dosage is made.

    It is written beside `out`, as ``*.partial``, and renamed when it is complete. An interrupted conversion starts
    again; for cohorts where that hurts, bio2zarr's own vcf2zarr explode and encode go on by partitions.

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
    for path in files:
        if not path.is_file():
            raise GenotypeFormatError(f"there is no VCF at {str(path)!r}.")
    if out.exists():
        if not overwrite:
            raise StoreError(f"{str(out)!r} exists already. Give another path, or overwrite (--overwrite).")
        if not _is_vcf_zarr(out):
            raise StoreError(
                f"{str(out)!r} holds something that is no VCF-Zarr, which is never replaced. Give another path."
            )
    vcf = _bio2zarr()
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        vcf.convert([str(p) for p in files], str(partial), worker_processes=workers, show_progress=progress)
        from dasklmm.readers.vcfzarr import open_zarr

        open_zarr(str(partial), None, "auto")  # one that this package cannot read is refused now
        if overwrite and out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, GenotypeFormatError):
            raise GenotypeFormatError(
                str(error).replace(str(partial), ", ".join(str(p) for p in files))
            ) from error
        raise GenotypeFormatError(
            f"{', '.join(str(p) for p in files)} cannot be converted: {error}. A whole, sorted VCF is "
            "needed; one of several contigs is compressed by bgzip and indexed (bcftools index X.vcf.gz)."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out
