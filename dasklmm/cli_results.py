"""Commands on what is there: plots, tables and descriptions of results, conversion of files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dasklmm.cli_options import complete_paths, format_option, made_folder, results_options, tested_genotypes


@click.command()
@results_options
@click.option(
    "--region",
    "leads",
    metavar="ID",
    multiple=True,
    help="Draw region_ID.png too: the variants around this one; repeatable. top: around the strongest.",
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=500_000,
    show_default=True,
    help="Base pairs on either side of --region's variant.",
)
@click.option(
    "--genotypes",
    metavar="PATH",
    shell_complete=complete_paths,
    help="Genotypes of the scan, so that --region shows r² with its variant.",
)
def plot(
    results: Path,
    out: Path | None,
    pheno_col: tuple[str, ...],
    leads: tuple[str, ...],
    window: int,
    genotypes: str | None,
) -> None:
    """Draw manhattan.png and qq.png from RESULTS (a results.zarr, or a run's directory).

    Of several phenotypes each has a directory of its name.

    \b
    Example:
    dasklmm plot height --region top --genotypes cohort.bed
    """
    if genotypes is not None and not leads:
        raise click.UsageError("--genotypes is for --region: give --region ID, or --region top.")
    import dasklmm
    from dasklmm.plots import save_plots, save_region

    opened = None if genotypes is None else dasklmm.open_genotypes(genotypes)
    for folder, one in _each_phenotype(results, out, pheno_col):
        save_plots(one, folder)
        click.echo(f"{folder / 'manhattan.png'}\n{folder / 'qq.png'}")
        ds = None if opened is None else tested_genotypes(opened, one)
        for lead in leads:
            click.echo(save_region(one, folder, ds, lead=None if lead == "top" else lead, window=window))


def _each_phenotype(
    results: Path, out: Path | None, pheno_col: tuple[str, ...]
) -> Iterator[tuple[Path, Any]]:
    """Results of each phenotype asked for, with its directory; says which of them have none."""
    from dasklmm.association import phenotype_results
    from dasklmm.export import directories
    from dasklmm.store.results import open_results

    found = open_results(results)
    folder = out or (results.parent if results.name == "results.zarr" else results)
    for name in pheno_col:
        phenotype_results(found, name)  # refuses a name that is not there before anything is written
    places = {folder: found}
    if "phenotypes" in found.attrs:
        names = found.attrs["phenotype"]
        own = dict(zip(names, directories(names), strict=True))
        places = {folder / own[name]: phenotype_results(found, name) for name in pheno_col or names}
    for place, one in places.items():
        if "error" in one.attrs:
            click.echo(f"{one.attrs['phenotype']}: {one.attrs['error']}")
            continue
        made_folder(place)
        yield place, one


@click.command()
@format_option("Repeatable.", required=True)
@results_options
@click.option(
    "--genome-assembly",
    default="unknown",
    metavar="NAME",
    help="For the metadata of ssf, as GRCh38.  [default: unknown]",
)
def export(
    results: Path,
    formats: tuple[str, ...],
    out: Path | None,
    pheno_col: tuple[str, ...],
    genome_assembly: str,
) -> None:
    """Write RESULTS (a results.zarr, or a run's directory) in other programs' formats.

    Of several phenotypes each has a directory of its name.

    \b
    Example:
    dasklmm export height --format ssf --genome-assembly GRCh38
    """
    from dasklmm.formats_out import check_formats, write_format

    check_formats(formats)
    for folder, one in _each_phenotype(results, out, pheno_col):
        for name in dict.fromkeys(formats):
            written, left_out = write_format(one, name, folder, genome_assembly=genome_assembly)
            note = f" ({left_out:,} variants have no row in this format)" if left_out else ""
            click.echo(f"{written}{note}")


@click.command()
@click.argument("vcf", nargs=-1, required=True, shell_complete=complete_paths)
@click.argument("out", shell_complete=complete_paths)
@click.option("--workers", default=0, type=click.IntRange(min=0), help="Processes beside this one.")
@click.option("--overwrite", is_flag=True, help="Replace what OUT holds.")
@click.option("--quiet", is_flag=True, help="No progress.")
def convert(vcf: tuple[str, ...], out: str, workers: int, overwrite: bool, quiet: bool) -> None:
    """Convert VCF files (.vcf, .vcf.gz, .bcf) to the VCF-Zarr OUT, once for many scans.

    One of several contigs has its index beside it (bcftools index).

    \b
    Example:
    dasklmm convert cohort.vcf.gz cohort.vcz
    dasklmm gwas cohort.vcz --pheno traits.tsv --out height
    """
    import dasklmm

    # bars are for a terminal: in a file each step of one is a line
    progress = not quiet and sys.stderr.isatty()
    dasklmm.convert_vcf(vcf, out, workers=workers, progress=progress, overwrite=overwrite)
    ds = dasklmm.open_genotypes(out)
    click.echo(f"{ds.sizes['sample']:,} samples, {ds.sizes['variant']:,} variants: {out}")


@click.command()
@click.argument("path", required=False, shell_complete=complete_paths)
def info(path: str | None) -> None:
    """Describe PATH (genotypes, a table, a kinship, results, a directory of a run or cohort), or the versions."""
    from dasklmm.describe import describe

    for line in describe(path):
        click.echo(line)
