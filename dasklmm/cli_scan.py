"""Commands that compute: scan, kinship, simulated cohorts."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from dasklmm.cli_options import (
    cohort_options,
    complete_kinships,
    complete_paths,
    field,
    format_option,
    logs,
    made_folder,
    tested_genotypes,
    verbose,
)
from dasklmm.cluster_options import Cluster, client_of, cluster_options
from dasklmm.interruptions import interruption_said


@click.command(short_help="Scan genotypes for phenotypes.")
@click.argument("genotypes", shell_complete=complete_paths)
@click.option(
    "--pheno",
    metavar="FILE",
    shell_complete=complete_paths,
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
    "--covar",
    metavar="FILE",
    shell_complete=complete_paths,
    help="Covariates: a table with FID/IID or sample_id.",
)
@click.option(
    "--kinship",
    default="rrm",
    show_default=True,
    metavar="rrm|grm|centered|PATH",
    shell_complete=complete_kinships,
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
    "--samples",
    metavar="FILE",
    shell_complete=complete_paths,
    help="Analyse these only: an id a line, or a table.",
)
@click.option(
    "--variants", metavar="FILE", shell_complete=complete_paths, help="Test these only: an id a line."
)
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
    "--whiten",
    is_flag=True,
    help="The same tests, but for rounding, in a quarter to a third less time: by the triangular factor of the "
    "null's inverse covariance instead of eigenvectors. For one phenotype at the null's variance ratio and full "
    "rank; pays from some 10 variants a sample on, with LOCO over 22 contigs from some 100.",
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
@format_option("Write the table in this format too, beside results.tsv.gz; repeatable.")
@field
@cluster_options
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Directory of the results."
)
@click.option(
    "--store",
    metavar="PATH",
    shell_complete=complete_paths,
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
@verbose
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
    found = pheno is None
    if pheno is None:
        fam = Path(re.sub(r"\.(bed|pgen|bgen)$", "", genotypes) + ".fam")
        if not fam.is_file():
            raise click.UsageError(f"give --pheno: there is no {fam} whose phenotype could be used.")
        pheno = str(fam)
    cluster.check()
    from dasklmm.readers.tables import read_ids

    with made_folder(out), _source_told(pheno if found else None):
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


@contextmanager
def _source_told(fam: str | None) -> Iterator[None]:
    """Say of an error about a phenotype that it was read from the .fam beside the genotypes, where it was."""
    from dasklmm.errors import PhenotypeError

    try:
        yield
    except PhenotypeError as error:
        if fam is None:
            raise
        raise click.ClickException(
            f"{error} It is that of {fam!r}, which is read where no --pheno is given: give --pheno FILE."
        ) from error


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
    from dasklmm.describe import each_phenotype, findings, significant, strongest
    from dasklmm.formats_out import check_formats
    from dasklmm.kept_scan import unfinished_work
    from dasklmm.outputs import check_outputs, write_outputs
    from dasklmm.plots.drawing import import_ahead

    start = time.perf_counter()
    check_formats(formats)  # before any work
    store = store or str(out / "results.zarr")
    opened = dasklmm.open_genotypes(genotypes, field=field)
    scan = prepared(opened, pheno, covar, store=store, **options)
    check_outputs(out, scan.cohorts.names if scan.cohorts.several else (), formats)
    if unfinished_work(store) and not options.get("overwrite"):
        click.echo("found the work of an unfinished run", err=True)
    with client_of(cluster, genotypes, store):  # after all that could be wrong with the input
        if drawn and importlib.util.find_spec("matplotlib") is None:
            click.echo("no plots: matplotlib is not installed (pip install 'dasklmm[plot]')", err=True)
        elif drawn:
            import_ahead()
        results = _scanned(scan, quiet)
        if "created" not in results.attrs:
            click.echo("these results were complete already")
        kept = {k: v for k, v in results.attrs.get("resumed", {}).items() if v["kept"]}
        if kept:
            parts = [f"{k} {v['kept']} of {v['kept'] + v['computed']}" for k, v in kept.items()]
            click.echo(f"kept from a former run: {', '.join(parts)}")
        ds = tested_genotypes(opened, results) if clump else None
        written = write_outputs(
            results,
            out,
            command=command or ["dasklmm", *sys.argv[1:]],
            genotypes=ds,
            formats=formats,
            drawn=drawn,
        )
    if "phenotypes" in results.attrs:
        lines = each_phenotype(results)
    else:
        lines = (*findings(results.attrs), significant(results), *strongest(results))
    for line in lines:
        click.echo(line)
    click.echo(f"{time.perf_counter() - start:.1f} s; results in {out}:")
    width = max(map(len, written))
    for name, path in written.items():
        click.echo(f"  {name:<{width}} {path}")


def _scanned(scan: Any, quiet: bool) -> Any:
    """Results of a prepared scan, with bars; an interruption leaves its work and ends the command."""
    from dasklmm.progress import Terminal

    words = (
        "interrupted; the same command goes on from here (kept is what was finished: the kinship by the contig "
        "with LOCO and as a whole without, null models, tests by the block)"
    )
    with interruption_said(words), closing(Terminal()) as progress:
        return scan.run(False if quiet or logs() else progress)


@click.command(short_help="Simulate a cohort.")
@cohort_options(10, 22)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Directory of the cohort."
)
@click.option("--overwrite", is_flag=True, help="Replace the cohort that DIR holds.")
def simulate(samples: int, variants: int, seed: int, out: Path, overwrite: bool) -> None:
    """Simulate a cohort with families, populations and planted effects."""
    from dasklmm.datasets import DEMONSTRATION, write_cohort
    from dasklmm.datasets import simulate as simulate_cohort

    with made_folder(out):
        cohort = simulate_cohort(samples, variants, seed=seed, **DEMONSTRATION)
        paths = write_cohort(cohort, out, overwrite=overwrite)
    for name, path in paths.items():
        click.echo(f"{name:<11} {path}")
    command = ["dasklmm", "gwas", paths["genotypes"], "--pheno", paths["phenotypes"]]
    command += ["--covar", paths["covariates"], "--out", out / "scan"]
    click.echo(f"scan it with: {shlex.join(map(str, command))}")


@click.command(short_help="Simulate a cohort and scan it.")
@click.option(
    "--out",
    default=Path("dasklmm-demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory of the cohort and the results; what it holds of them is replaced.",
)
@cohort_options(50, 100)
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

    with made_folder(out):
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


@click.command(short_help="Compute a kinship, or its leading eigenpairs.")
@click.argument("genotypes", shell_complete=complete_paths)
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
    shell_complete=complete_paths,
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
@field
@cluster_options
@click.option(
    "--out",
    required=True,
    metavar="PATH",
    shell_complete=complete_paths,
    help="Where it is kept, as a Zarr group: a path or URL.",
)
@click.option("--overwrite", is_flag=True, help="Replace the kinship that PATH holds.")
@click.option("--quiet", is_flag=True, help="No progress.")
@verbose
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
        "store": out, "overwrite": overwrite, "progress": None if quiet or logs() else progress
    }  # fmt: skip
    words = "interrupted; this is kept when it is whole, and the same command begins anew"
    with client_of(cluster, genotypes, out), interruption_said(words):
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
