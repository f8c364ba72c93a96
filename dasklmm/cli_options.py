"""Options and arguments that several commands share, and what is done with them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make a directory, or say in one message why it cannot be; one that an error leaves empty is taken away."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise click.ClickException(
            f"--out is a directory of this machine, and {str(path)!r} is a URL. Results are written to one as "
            "--store URL (from Python store=URL), beside an --out for the tables and plots."
        )
    new = [place for place in (path, *path.parents) if not place.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"{str(path)!r} cannot be a directory for what is written: {error.strerror}. Give another --out."
        ) from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for place in new:
                place.rmdir()
        raise


def complete_paths(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Files, for the Tab key; a path here may also be a URL or a prefix, so that its type is text."""
    return [CompletionItem(typed, type="file")]


def complete_kinships(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Methods of a kinship, or files, for the Tab key."""
    methods = [CompletionItem(name) for name in ("rrm", "grm", "centered") if name.startswith(typed)]
    return methods or complete_paths(context, parameter, typed)


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


verbose = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    is_eager=True,
    callback=_log,
    help="Tell the log of each stage, in place of bars; -vv of each block.",
)


def format_option(text: str, *, required: bool = False) -> Any:
    """The option --format, which may be given again."""
    formats = click.Choice(["tsv", "gemma", "regenie", "ssf", "parquet"])
    return click.option("--format", "formats", multiple=True, required=required, type=formats, help=text)


field = click.option(
    "--field",
    type=click.Choice(["auto", "genotype", "dosage"]),
    default="auto",
    show_default=True,
    help="What is read of a VCF-Zarr or .pgen that holds both. auto: of a VCF-Zarr calls (DS where it has none), "
    "of a .pgen dosages.",
)


def results_options(function: Any) -> Any:
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


def logs() -> bool:
    """Whether -v tells each stage, in place of bars."""
    return logging.getLogger("dasklmm").isEnabledFor(logging.INFO)


_IDENTITY = (
    "variant_contig", "variant_position", "variant_id", "variant_effect_allele", "variant_other_allele",
)  # fmt: skip


def tested_genotypes(ds: Any, results: Any) -> Any:
    """Genotypes of the variants in the results: chosen ones, which ids alone do not tell apart."""
    if ds.sizes["variant"] <= results.sizes["variant"]:
        return ds
    import pandas as pd

    known = [name for name in _IDENTITY if name in ds.variables and name in results.variables]
    here, there = (pd.MultiIndex.from_arrays([of[name].values for name in known]) for of in (ds, results))
    return ds.isel(variant=here.isin(there))


def cohort_options(least_samples: int, least_variants: int) -> Any:
    """Size and seed of a simulated cohort."""

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
