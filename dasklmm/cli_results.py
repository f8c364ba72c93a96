"""Commands on what is there: plots, tables and descriptions of results, conversion of files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dasklmm.cli_options import complete_paths, format_option, made_folder, results_options, tested_genotypes


@click.command(short_help="Draw plots of results.")
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
    help="Base pairs on either side of --region's variant.  [default: 500000]",
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
    window: int | None,
    genotypes: str | None,
) -> None:
    """Draw manhattan.png and qq.png from RESULTS (a results.zarr, or a run's directory).

    Of several phenotypes each has a directory of its name.

    \b
    Example:
    dasklmm plot height --region top --genotypes cohort.bed
    """
    for option, given in (("--genotypes", genotypes), ("--window", window)):
        if given is not None and not leads:
            raise click.UsageError(f"{option} is for --region: give --region ID, or --region top.")
    import dasklmm
    from dasklmm.plots import save_plots, save_region
    from dasklmm.plots.region import check_region

    opened = None if genotypes is None else dasklmm.open_genotypes(genotypes)
    centres = [None if lead == "top" else lead for lead in leads]
    chosen = []
    for folder, one in _each_phenotype(results, out, pheno_col):
        ds = None if opened is None else tested_genotypes(opened, one)
        for lead in centres:
            check_region(one, ds, lead)  # before anything is drawn
        chosen.append((folder, one, ds))
    for folder, one, ds in chosen:
        with made_folder(folder):
            save_plots(one, folder)
            click.echo(f"{folder / 'manhattan.png'}\n{folder / 'qq.png'}")
            for lead in centres:
                click.echo(save_region(one, folder, ds, lead=lead, window=window or 500_000))


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
        yield place, one


@click.command(short_help="Write results in other programs' formats.")
@format_option("Repeatable.", required=True)
@results_options
@click.option(
    "--genome-assembly",
    metavar="NAME",
    help="For the metadata of ssf, as GRCh38.  [default: unknown]",
)
def export(
    results: Path,
    formats: tuple[str, ...],
    out: Path | None,
    pheno_col: tuple[str, ...],
    genome_assembly: str | None,
) -> None:
    """Write RESULTS (a results.zarr, or a run's directory) in other programs' formats.

    Of several phenotypes each has a directory of its name.

    \b
    Example:
    dasklmm export height --format ssf --genome-assembly GRCh38
    """
    if genome_assembly is not None and "ssf" not in formats:
        raise click.UsageError("--genome-assembly is for --format ssf, whose metadata hold it.")
    from dasklmm.formats_out import check_formats, ssf_metadata_of, write_format
    from dasklmm.wording import counted

    check_formats(formats)
    for folder, one in _each_phenotype(results, out, pheno_col):
        with made_folder(folder):
            for name in dict.fromkeys(formats):
                assembly = genome_assembly or "unknown"
                written, left_out = write_format(one, name, folder, genome_assembly=assembly)
                note = f" ({counted(left_out, 'variant')} without a row in this format)" if left_out else ""
                click.echo(f"{written}{note}")
                if name == "ssf":
                    click.echo(ssf_metadata_of(written))


@click.command(short_help="Convert VCF files to a VCF-Zarr.")
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


@click.command(short_help="Describe genotypes, results, tables, kinships.")
@click.argument("path", required=False, shell_complete=complete_paths)
def info(path: str | None) -> None:
    """Describe PATH (genotypes, a table, a kinship, results, a directory of a run or cohort), or the versions."""
    from dasklmm.describe import describe

    for line in describe(path):
        click.echo(line)
