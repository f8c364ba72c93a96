"""The command line: each command gathers its options and calls the library."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from dasklmm import __version__
from dasklmm.errors import DaskLMMError

# Dask, xarray and the rest are imported by the commands that use them: --help answers at once.


class _Group(click.Group):
    """Shows this package's own errors as one plain message, not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DaskLMMError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dasklmm")
def main() -> None:
    """Exact linear mixed models for association studies, out of core."""


def _scheduler_options(function: Any) -> Any:
    function = click.option("--scheduler", metavar="ADDR", help="Address of a running Dask scheduler.")(
        function
    )
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Start a local cluster of this many worker processes.  [default: threads of this process]",
    )(function)


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[None]:
    """The Dask client asked for, or none: threads."""
    if workers is not None and scheduler is not None:
        raise click.UsageError("give --workers or --scheduler, not both.")
    with ExitStack() as stack:
        if workers is not None:
            from dasklmm.cluster import local_cluster

            cluster = stack.enter_context(local_cluster(workers))
            stack.enter_context(cluster.get_client())
            click.echo(f"{workers} workers, dashboard {cluster.dashboard_link}", err=True)
        elif scheduler is not None:
            from distributed import Client

            try:
                stack.enter_context(Client(scheduler, timeout=10))
            except OSError as error:
                raise click.ClickException(
                    f"no Dask scheduler answers at {scheduler!r} ({error}). Check the address, or give --workers."
                ) from error
        yield


class _Bars:
    """A progress bar a stage on the terminal, a line a stage elsewhere."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Any = None
        self._done = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage or self._bar is None:
            self.close()
            self._stage = stage
            self._bar = click.progressbar(length=total, label=f"{stage:<12}", file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._done)
        self._done = done
        if done == total:
            self.close()

    def close(self) -> None:
        """End the bar that is open."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        self._bar, self._stage, self._done = None, "", 0


@main.command()
@click.argument("genotypes")
@click.option(
    "--pheno",
    metavar="FILE",
    help="Phenotypes: a table with FID/IID or sample_id, or a .fam.  [default: the .fam of GENOTYPES]",
)
@click.option(
    "--pheno-col", metavar="NAME", help="Column of --pheno.  [default: its only one; of a .fam the sixth]"
)
@click.option("--covar", metavar="FILE", help="Covariates: a table with FID/IID or sample_id.")
@click.option(
    "--kinship",
    default="rrm",
    show_default=True,
    metavar="rrm|grm|centered|PATH",
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
    help="Likelihood ratio (as Hail), Wald F, or score at the ML null.",
)
@click.option("--rank", type=click.IntRange(min=1), help="Keep only this many eigenpairs.  [default: all]")
@click.option(
    "--truncated",
    is_flag=True,
    help="Find the --rank pairs without forming the kinship: for cohorts whose n^2 does not fit.",
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
    help="A column of ones among the covariates.",
)
@_scheduler_options
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Directory of the results."
)
@click.option("--overwrite", is_flag=True, help="Replace the results that DIR holds.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def gwas(
    genotypes: str,
    pheno: str | None,
    pheno_col: str | None,
    covar: str | None,
    workers: int | None,
    scheduler: str | None,
    out: Path,
    quiet: bool,
    **options: Any,
) -> None:
    """Scan GENOTYPES (a PLINK .bed or its prefix, or a VCF-Zarr path or URL) for a phenotype.

    The same command continues an interrupted run.

    \b
    dasklmm gwas cohort.bed --pheno traits.tsv --pheno-col height --out height
    """
    if "://" not in genotypes and not any(Path(f"{genotypes}{end}").exists() for end in ("", ".bed")):
        raise click.ClickException(f"there are no genotypes at {genotypes!r}, nor at {genotypes + '.bed'!r}.")
    if pheno is None:
        fam = Path(genotypes.removesuffix(".bed") + ".fam")
        if not fam.is_file():
            raise click.UsageError(f"give --pheno: there is no {fam} whose phenotype could be used.")
        pheno = str(fam)
    with _client(workers, scheduler):
        run_scan(genotypes, pheno, covar, out, quiet=quiet, phenotype=pheno_col, **options)


def run_scan(
    genotypes: str, pheno: str, covar: str | None, out: Path, *, quiet: bool = False, **options: Any
) -> None:
    """Scan, write the files of a run, and say in a few lines what was found and where it is."""
    import dasklmm
    from dasklmm.outputs import write_outputs

    start = time.perf_counter()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"{str(out)!r} cannot be a directory of results: {error.strerror}. Give another --out."
        ) from error
    bars = _Bars()
    try:
        results = dasklmm.gwas(
            genotypes,
            pheno,
            covar,
            store=out / "results.zarr",
            progress=None if quiet else bars,
            **options,
        )
    except KeyboardInterrupt:
        click.echo("interrupted: the same command goes on from here", err=True)
        raise SystemExit(130) from None
    finally:
        bars.close()
    if "created" not in results.attrs:
        click.echo("these results were complete already")
    kept = {k: v for k, v in results.attrs.get("resumed", {}).items() if v["kept"]}
    if kept:
        parts = [f"{k} {v['kept']} of {v['kept'] + v['computed']}" for k, v in kept.items()]
        click.echo(f"kept from a former run: {', '.join(parts)}")
    written = write_outputs(results, out, command=["dasklmm", *sys.argv[1:]])
    for line in _findings(results):
        click.echo(line)
    click.echo(f"{time.perf_counter() - start:.1f} s; results in {out}:")
    for name, path in written.items():
        click.echo(f"  {name:<10} {path}")


def _findings(results: Any) -> Iterator[str]:
    from dasklmm.export import top_hits

    attrs = results.attrs
    counts = attrs["counts"]
    yield (
        f"{counts['samples_used']:,} of {counts['samples_in_genotypes']:,} samples, "
        f"{counts['variants']:,} variants ({counts.get('status_ok', 0):,} tested)"
    )
    nulls = attrs["null"]
    h = [null["h_sq"] for null in nulls]
    if len(nulls) == 1:
        yield f"h_sq {h[0]:.4f}, standard error {nulls[0]['h_sq_standard_error']:.4f}"
    else:
        yield f"h_sq {min(h):.4f} to {max(h):.4f} over {len(h)} contigs left out in turn"
    bound = [null["contig"] for null in nulls if null["at_boundary"]]
    if bound and len(nulls) > 1:
        yield f"variance ratio at a bound of its search, with contig left out: {', '.join(bound)}"
    elif bound:
        yield f"variance ratio at a bound of its search: h_sq is near {round(h[0])}; the report says what it means"
    if not attrs["intercept"]:
        yield "no intercept among the covariates"
    if attrs["n"] - attrs["n_covariates"] < 10:
        yield f"only {attrs['n']} samples for {attrs['n_covariates']} covariates: read every number with care"
    yield f"lambda_GC {attrs['lambda_gc']:.3f}"
    hits = top_hits(results, n=3)
    for hit in hits.to_dict("records"):
        place = f"{hit['variant_contig']}:{hit['variant_position']}"
        if not hit["variant_position"] > 0:
            place = f"{hit['variant_contig']}, position unknown"
        yield (
            f"  {hit['variant_id']} at {place}: "
            f"-log10 p {hit['neg_log10_p_value']:.2f}, beta {hit['beta']:.4g}"
        )


@main.command()
@click.option("--samples", default=1000, show_default=True, type=click.IntRange(min=10))
@click.option("--variants", default=20_000, show_default=True, type=click.IntRange(min=10))
@click.option("--seed", default=1, show_default=True, type=int)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--overwrite", is_flag=True, help="Replace the cohort that DIR holds.")
def simulate(samples: int, variants: int, seed: int, out: Path, overwrite: bool) -> None:
    """Simulate a cohort with families, populations and planted effects."""
    from dasklmm.datasets import DEMONSTRATION, write_cohort
    from dasklmm.datasets import simulate as simulate_cohort

    cohort = simulate_cohort(samples, variants, seed=seed, **DEMONSTRATION)
    paths = write_cohort(cohort, out, overwrite=overwrite)
    for name, path in paths.items():
        click.echo(f"{name:<11} {path}")
    command = ["dasklmm", "gwas", paths["genotypes"], "--pheno", paths["phenotypes"]]
    command += ["--covar", paths["covariates"], "--out", out / "scan"]
    click.echo(f"scan it with: {shlex.join(map(str, command))}")


@main.command()
@click.option(
    "--out", default=Path("dasklmm-demo"), show_default=True, type=click.Path(path_type=Path), metavar="DIR"
)
@click.option("--samples", default=1000, show_default=True, type=click.IntRange(min=50))
@click.option("--variants", default=20_000, show_default=True, type=click.IntRange(min=100))
@click.option("--seed", default=1, show_default=True, type=int)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(min=1))
def demo(out: Path, samples: int, variants: int, seed: int, workers: int) -> None:
    """Simulate a cohort and scan it on a local cluster; nothing is downloaded."""
    from dasklmm.datasets import DEMONSTRATION, write_cohort
    from dasklmm.datasets import simulate as simulate_cohort

    click.echo(f"simulating {samples:,} samples x {variants:,} variants")
    cohort = simulate_cohort(samples, variants, seed=seed, **DEMONSTRATION)
    paths = write_cohort(cohort, out / "cohort", overwrite=True)
    with _client(workers, None):
        run_scan(
            str(paths["genotypes"]),
            str(paths["phenotypes"]),
            str(paths["covariates"]),
            out,
            overwrite=True,
        )
    click.echo(f"open {out / 'report.html'} in a browser")


@main.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="[default: beside the results]")
def plot(results: Path, out: Path | None) -> None:
    """Draw manhattan.png and qq.png from RESULTS (a results.zarr, or a run's directory)."""
    from dasklmm.plots import save_plots
    from dasklmm.store.results import open_results

    path = results / "results.zarr" if (results / "results.zarr").exists() else results
    folder = out or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    save_plots(open_results(path), folder)
    click.echo(f"{folder / 'manhattan.png'}\n{folder / 'qq.png'}")


@main.command()
@click.argument("path", required=False)
def info(path: str | None) -> None:
    """Describe PATH (genotypes, a table, results), or the versions in use."""
    from dasklmm.describe import describe

    for line in describe(path):
        click.echo(line)


if __name__ == "__main__":
    main()
