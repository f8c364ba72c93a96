"""The command line: each command gathers its options and calls the library."""

from __future__ import annotations

import errno
import logging
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from dasklmm.cluster_options import Cluster, client_of, cluster_options
from dasklmm.errors import DaskLMMError

# Dask, xarray and the rest are imported by the commands that use them: --help answers at once.


class _Group(click.Group):
    """Shows this package's own errors as one plain message, not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DaskLMMError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise click.ClickException(str(error) or type(error).__name__) from error


def _folder(path: Path) -> None:
    """Make a directory, or say in one message why it cannot be."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise click.ClickException(
            f"--out is a directory of this machine, and {str(path)!r} is a URL. Results are written to one as "
            "--store URL (from Python store=URL), beside an --out for the tables and plots."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"{str(path)!r} cannot be a directory for what is written: {error.strerror}. Give another --out."
        ) from error


# An option or choice may be written with _ or -, as Python has the one and shells like the other.
_SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
}


def _paths(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Files, for the Tab key; a path here may also be a URL or a prefix, so that its type is text."""
    return [CompletionItem(typed, type="file")]


def _kinships(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    methods = [CompletionItem(name) for name in ("rrm", "grm", "centered") if name.startswith(typed)]
    return methods or _paths(context, parameter, typed)


def _say_versions(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from dasklmm.versions import versions

    for name, version in versions().items():
        click.echo(f"{name} {version}")
    context.exit()


def _log(context: click.Context, option: click.Parameter, count: int) -> None:
    """Tell the log of this package on standard error: what each stage does, and with -vv each block."""
    if not count or context.resilient_parsing:
        return
    logger = logging.getLogger("dasklmm")
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO if count == 1 else logging.DEBUG)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]

    context.call_on_close(end)


_verbose = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    is_eager=True,
    callback=_log,
    help="Tell the log of each stage, in place of bars; -vv of each block.",
)


@click.group(cls=_Group, context_settings=_SETTINGS)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_say_versions,
    help="Show the versions of dasklmm and of what decides its numbers, and exit.",
)
def main() -> None:
    """Exact linear mixed models for association studies, out of core."""


def _format_option(text: str, *, required: bool = False) -> Any:
    formats = click.Choice(["tsv", "gemma", "regenie", "ssf", "parquet"])
    return click.option("--format", "formats", multiple=True, required=required, type=formats, help=text)


_field = click.option(
    "--field",
    type=click.Choice(["auto", "genotype", "dosage"]),
    default="auto",
    show_default=True,
    help="What is read of a VCF-Zarr or .pgen that holds both. auto: of a VCF-Zarr calls, of a .pgen dosages.",
)


def _results_options(function: Any) -> Any:
    """RESULTS, and where what is made of which of its phenotypes goes."""
    for option in (
        click.option(
            "--pheno-col",
            metavar="NAME",
            multiple=True,
            help="Of several phenotypes this one; repeatable.  [default: all]",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Directory of the files.  [default: beside the results]",
        ),
        click.argument("results", type=click.Path(exists=True, path_type=Path)),
    ):
        function = option(function)
    return function


@main.command()
@click.argument("genotypes", shell_complete=_paths)
@click.option(
    "--pheno",
    metavar="FILE",
    shell_complete=_paths,
    help="Phenotypes: a table with FID/IID or sample_id, or a .fam.  [default: the .fam of GENOTYPES]",
)
@click.option(
    "--pheno-col",
    metavar="NAME",
    multiple=True,
    help="Column of --pheno; give it again for several.  [default: all; of a .fam the sixth]",
)
@click.option(
    "--transform",
    type=click.Choice(["inverse_normal", "standardise"]),
    help="Of each phenotype: rank-based inverse normal, or mean 0 and standard deviation 1.",
)
@click.option(
    "--covar", metavar="FILE", shell_complete=_paths, help="Covariates: a table with FID/IID or sample_id."
)
@click.option(
    "--kinship",
    default="rrm",
    show_default=True,
    metavar="rrm|grm|centered|PATH",
    shell_complete=_kinships,
    help="How the kinship is computed, or where it is stored.",
)
@click.option(
    "--loco/--no-loco",
    default=True,
    show_default=True,
    help="Leave the tested variant's contig out of its kinship.",
)
@click.option(
    "--test",
    type=click.Choice(["lrt", "wald", "score"]),
    default="lrt",
    show_default=True,
    help="lrt: likelihood ratio, as Hail; wald: F test; score: score test at the ML null.",
)
@click.option(
    "--condition", metavar="ID", multiple=True, help="A variant that joins the covariates; repeatable."
)
@click.option(
    "--interaction",
    metavar="COVARIATE",
    help="Test each variant's product with this covariate, the variant itself in the model, at the null's "
    "variance ratio. Of a category a level: NAME[LEVEL].",
)
@click.option(
    "--samples", metavar="FILE", shell_complete=_paths, help="Analyse these only: an id a line, or a table."
)
@click.option("--variants", metavar="FILE", shell_complete=_paths, help="Test these only: an id a line.")
@click.option(
    "--contigs", metavar="NAME", multiple=True, help="Test this contig only; repeatable. Narrows --variants."
)
@click.option(
    "--regions",
    metavar="CONTIG:START-END",
    multiple=True,
    help="Test this region only; repeatable. Narrows --variants and --contigs.",
)
@click.option(
    "--min-allele-count",
    type=float,
    default=0,
    help="Leave variants with fewer of the rarer allele untested.",
)
@click.option(
    "--min-allele-frequency",
    type=float,
    default=0.0,
    help="Leave variants whose rarer allele is rarer than this untested.",
)
@click.option(
    "--max-missing",
    type=float,
    default=1.0,
    help="Leave variants with a larger share of missing calls untested.",
)
@click.option(
    "--variance-ratio",
    type=click.Choice(["null", "per-variant"]),
    default="null",
    show_default=True,
    help="Test every variant at the null's variance ratio, or refit it for each, as GEMMA (not for the score test "
    "or an interaction).",
)
@click.option("--rank", type=click.IntRange(min=1), help="Keep only this many eigenpairs.  [default: all]")
@click.option(
    "--truncated",
    is_flag=True,
    help="Find the --rank pairs without forming the kinship: for cohorts whose n² does not fit; "
    "slower for small ones.",
)
@click.option(
    "--precision",
    type=click.Choice(["single", "double"]),
    default="single",
    show_default=True,
    help="Precision of the products of genotypes.",
)
@click.option(
    "--intercept/--no-intercept",
    default=True,
    show_default=True,
    help="Put a column of ones before the covariates, or take them as they are.",
)
@click.option(
    "--clump",
    is_flag=True,
    help="Clump hits by r² in the genotypes too, as PLINK's --clump (p 1e-4 and 0.01, r² 0.5, 250 kb): "
    "clumps.tsv, and the report's hits.",
)
@_format_option("Write the table in this format too, beside results.tsv.gz; repeatable.")
@_field
@cluster_options
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Directory of the results."
)
@click.option(
    "--store",
    metavar="PATH",
    shell_complete=_paths,
    help="Where the results and unfinished work are kept: a path or URL that all workers see.  "
    "[default: results.zarr in DIR]",
)
@click.option("--overwrite", is_flag=True, help="Replace the results that DIR holds.")
@click.option(
    "--plots/--no-plots",
    "drawn",
    default=True,
    show_default=True,
    help="Draw plots and a report beside the table; `dasklmm plot` draws the plots later.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
@_verbose
def gwas(
    genotypes: str,
    pheno: str | None,
    pheno_col: tuple[str, ...],
    covar: str | None,
    variance_ratio: str,
    samples: str | None,
    variants: str | None,
    contigs: tuple[str, ...],
    regions: tuple[str, ...],
    cluster: Cluster,
    out: Path,
    store: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Scan GENOTYPES (a PLINK .bed or .pgen or its prefix, a .bgen, or a VCF-Zarr path or URL) for phenotypes.

    Each phenotype is analysed as if it were the only one; of several, each has a directory in DIR.

    The same command continues an interrupted run: what was finished is kept in DIR and not computed again.

    \b
    Example:
    dasklmm gwas cohort.bed --pheno traits.tsv --pheno-col height --out height
    """
    if "://" not in genotypes and not any(
        Path(f"{genotypes}{end}").exists() for end in ("", ".bed", ".pgen")
    ):
        raise click.ClickException(
            f"there are no genotypes at {genotypes!r}, nor at {genotypes + '.bed'!r} or {genotypes + '.pgen'!r}."
        )
    if pheno is None:
        fam = Path(re.sub(r"\.(bed|pgen|bgen)$", "", genotypes) + ".fam")
        if not fam.is_file():
            raise click.UsageError(f"give --pheno: there is no {fam} whose phenotype could be used.")
        pheno = str(fam)
    cluster.check()
    from dasklmm.readers.tables import read_ids

    _folder(out)
    store = store or str(out / "results.zarr")
    run_scan(
        genotypes,
        pheno,
        covar,
        out,
        cluster=cluster,
        store=store,
        quiet=quiet,
        command=["dasklmm", *cluster.shown(sys.argv[1:])],
        phenotype=pheno_col[0] if len(pheno_col) == 1 else (list(pheno_col) or None),
        variance_ratio=variance_ratio.replace("-", "_"),
        samples=None if samples is None else read_ids(samples),
        variants=None if variants is None else read_ids(variants),
        contigs=contigs or None,
        regions=regions or None,
        **options,
    )


def run_scan(
    genotypes: str,
    pheno: str,
    covar: str | None,
    out: Path,
    *,
    cluster: Cluster,
    store: str | None = None,
    quiet: bool = False,
    field: str = "auto",
    clump: bool = False,
    formats: tuple[str, ...] = (),
    drawn: bool = True,
    command: list[str] | None = None,
    **options: Any,
) -> None:
    """Scan, write the files of a run, and say in a few lines what was found and where it is."""
    import dasklmm
    from dasklmm.association import prepared
    from dasklmm.describe import findings, strongest
    from dasklmm.formats_out import check_formats
    from dasklmm.kept_scan import unfinished_work
    from dasklmm.outputs import write_outputs
    from dasklmm.plots.drawing import import_ahead

    start = time.perf_counter()
    check_formats(formats)  # before any work
    _folder(out)
    store = store or str(out / "results.zarr")
    opened = dasklmm.open_genotypes(genotypes, field=field)
    scan = prepared(opened, pheno, covar, store=store, **options)
    if unfinished_work(store) and not options.get("overwrite"):
        click.echo("found the work of an unfinished run", err=True)
    with client_of(cluster, genotypes, store):  # after all that could be wrong with the input
        if drawn:
            import_ahead()
        results = _scanned(scan, quiet)
        if "created" not in results.attrs:
            click.echo("these results were complete already")
        kept = {k: v for k, v in results.attrs.get("resumed", {}).items() if v["kept"]}
        if kept:
            parts = [f"{k} {v['kept']} of {v['kept'] + v['computed']}" for k, v in kept.items()]
            click.echo(f"kept from a former run: {', '.join(parts)}")
        ds = _tested_genotypes(opened, results) if clump else None
        written = write_outputs(
            results,
            out,
            command=command or ["dasklmm", *sys.argv[1:]],
            genotypes=ds,
            formats=formats,
            drawn=drawn,
        )
    if "phenotypes" in results.attrs:
        for name in results.attrs["phenotype"]:
            one = dasklmm.phenotype_results(results, name)
            if "error" in one.attrs:
                click.echo(f"{name}: {one.attrs['error']}")
            else:
                counts = one.attrs["counts"]
                click.echo(
                    f"{name}: {counts['samples_used']:,} samples, {counts.get('status_ok', 0):,} variants tested, "
                    f"lambda_GC {one.attrs['lambda_gc']:.3f}"
                )
    else:
        for line in (*findings(results.attrs), *strongest(results)):
            click.echo(line)
    click.echo(f"{time.perf_counter() - start:.1f} s; results in {out}:")
    for name, path in written.items():
        click.echo(f"  {name:<10} {path}")


def _logs() -> bool:
    return logging.getLogger("dasklmm").isEnabledFor(logging.INFO)


def _scanned(scan: Any, quiet: bool) -> Any:
    """Results of a prepared scan, with bars; an interruption leaves its work and ends the command."""
    from dasklmm.progress import Terminal

    progress = Terminal()
    try:
        return scan.run(False if quiet or _logs() else progress)
    except KeyboardInterrupt:
        click.echo("interrupted; the same command goes on from here", err=True)
        raise SystemExit(130) from None
    finally:
        progress.close()


def _tested_genotypes(ds: Any, results: Any) -> Any:
    """Genotypes of the variants in the results."""
    if ds.sizes["variant"] > results.sizes["variant"]:  # chosen ones were tested
        ds = ds.isel(variant=ds["variant_id"].isin(results["variant_id"].values).values)
    return ds


def _cohort_options(least_samples: int, least_variants: int) -> Any:
    def decorate(function: Any) -> Any:
        for option, default, least, text in (
            ("--seed", 1, None, "Seed of the random numbers; equal seeds give equal cohorts."),
            ("--variants", 20_000, least_variants, "Variants, over 22 contigs."),
            ("--samples", 1000, least_samples, "Samples."),
        ):
            kind = int if least is None else click.IntRange(min=least)
            function = click.option(option, default=default, show_default=True, type=kind, help=text)(
                function
            )
        return function

    return decorate


@main.command()
@_cohort_options(10, 22)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Directory of the cohort."
)
@click.option("--overwrite", is_flag=True, help="Replace the cohort that DIR holds.")
def simulate(samples: int, variants: int, seed: int, out: Path, overwrite: bool) -> None:
    """Simulate a cohort with families, populations and planted effects."""
    from dasklmm.datasets import DEMONSTRATION, write_cohort
    from dasklmm.datasets import simulate as simulate_cohort

    _folder(out)
    cohort = simulate_cohort(samples, variants, seed=seed, **DEMONSTRATION)
    paths = write_cohort(cohort, out, overwrite=overwrite)
    for name, path in paths.items():
        click.echo(f"{name:<11} {path}")
    command = ["dasklmm", "gwas", paths["genotypes"], "--pheno", paths["phenotypes"]]
    command += ["--covar", paths["covariates"], "--out", out / "scan"]
    click.echo(f"scan it with: {shlex.join(map(str, command))}")


@main.command()
@click.option(
    "--out",
    default=Path("dasklmm-demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory of the cohort and the results; what it holds of them is replaced.",
)
@_cohort_options(50, 100)
@click.option(
    "--workers",
    default=2,
    show_default=True,
    type=click.IntRange(min=1),
    help="Worker processes of the local cluster.",
)
def demo(out: Path, samples: int, variants: int, seed: int, workers: int) -> None:
    """Simulate a cohort and scan it on a local cluster; nothing is downloaded."""
    from dasklmm.datasets import DEMONSTRATION, write_cohort
    from dasklmm.datasets import simulate as simulate_cohort

    _folder(out)
    click.echo(f"simulating {samples:,} samples x {variants:,} variants")
    cohort = simulate_cohort(samples, variants, seed=seed, **DEMONSTRATION)
    paths = write_cohort(cohort, out / "cohort", overwrite=True)
    run_scan(
        str(paths["genotypes"]),
        str(paths["phenotypes"]),
        str(paths["covariates"]),
        out,
        cluster=Cluster(workers=workers),
        overwrite=True,
    )
    click.echo(f"open {out / 'report.html'} in a browser")


@main.command()
@click.argument("genotypes", shell_complete=_paths)
@click.option(
    "--method",
    type=click.Choice(["rrm", "grm", "centered"]),
    default="rrm",
    show_default=True,
    help="rrm: realized relationship matrix; grm: GCTA's; centered: GEMMA's -gk 1.",
)
@click.option(
    "--samples",
    metavar="FILE",
    shell_complete=_paths,
    help="Only these samples are used: an id a line, or a table such as that of the phenotypes.",
)
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    help="Find this many leading eigenpairs instead, without forming the kinship.",
)
@click.option(
    "--precision",
    type=click.Choice(["single", "double"]),
    default="double",
    show_default=True,
    help="Precision of the products of genotypes.",
)
@_field
@cluster_options
@click.option(
    "--out",
    required=True,
    metavar="PATH",
    shell_complete=_paths,
    help="Where it is kept, as a Zarr group: a path or URL.",
)
@click.option("--overwrite", is_flag=True, help="Replace the kinship that PATH holds.")
@click.option("--quiet", is_flag=True, help="No progress.")
@_verbose
def kinship(
    genotypes: str,
    method: str,
    samples: str | None,
    rank: int | None,
    precision: str,
    field: str,
    cluster: Cluster,
    out: str,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Compute the kinship of GENOTYPES, or its leading eigenpairs, once for many scans.

    What PATH holds already of the same genotypes and options is not computed again.

    \b
    Example:
    dasklmm kinship cohort.bed --out cohort.kinship.zarr
    dasklmm gwas cohort.bed --kinship cohort.kinship.zarr --no-loco --out height
    """
    import numpy as np

    import dasklmm
    from dasklmm.progress import Terminal
    from dasklmm.readers.tables import read_ids
    from dasklmm.store import arrays

    ds = dasklmm.open_genotypes(genotypes, field=field)
    if samples is not None:
        wanted = np.asarray(read_ids(samples))
        kept = np.isin(ds["sample_id"].values, wanted)
        if not kept.any():
            raise click.ClickException(
                f"none of the {wanted.size:,} samples of {samples!r} is among the {kept.size:,} of the genotypes. "
                "Check that both use the same ids."
            )
        ds = ds.isel(sample=kept)
    size = f"{ds.sizes['sample']:,} samples, {ds.sizes['variant']:,} variants"
    if arrays.exists(out) and not arrays.unfinished(out) and not overwrite:
        click.echo(f"{out} is there already: used where it is of these genotypes and options", err=True)
    progress = Terminal()
    keeping: dict[str, Any] = {
        "store": out, "overwrite": overwrite, "progress": None if quiet or _logs() else progress
    }  # fmt: skip
    with client_of(cluster, genotypes, out):
        if rank is None:
            try:
                dasklmm.kinship(ds, method, precision=precision, **keeping)
            finally:
                progress.close()
            click.echo(f"{method} kinship of {size}: {out}")
        else:
            try:
                pairs = dasklmm.eigendecompose(ds, rank, method=method, precision=precision, **keeping)
            finally:
                progress.close()
            worst = float((pairs["residual"] / pairs["s"][0]).max())
            click.echo(f"{rank} leading eigenpairs of the {method} kinship of {size}: {out}")
            click.echo(f"largest residual {worst:.1e} of the largest eigenvalue")


@main.command()
@_results_options
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
    shell_complete=_paths,
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
        ds = None if opened is None else _tested_genotypes(opened, one)
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
        _folder(place)
        yield place, one


@main.command()
@_format_option("Repeatable.", required=True)
@_results_options
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


@main.command()
@click.argument("vcf", nargs=-1, required=True, shell_complete=_paths)
@click.argument("out", shell_complete=_paths)
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

    dasklmm.convert_vcf(vcf, out, workers=workers, progress=not quiet, overwrite=overwrite)
    ds = dasklmm.open_genotypes(out)
    click.echo(f"{ds.sizes['sample']:,} samples, {ds.sizes['variant']:,} variants: {out}")


@main.command()
@click.argument("path", required=False, shell_complete=_paths)
def info(path: str | None) -> None:
    """Describe PATH (genotypes, a table, a kinship, results, a directory of a run or cohort), or the versions."""
    from dasklmm.describe import describe

    for line in describe(path):
        click.echo(line)


if __name__ == "__main__":
    main()
