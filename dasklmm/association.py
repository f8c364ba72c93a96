"""A genome-wide scan, from genotypes and phenotypes to results: kinship, null models, tests, resumable."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from dasklmm import schema, settings
from dasklmm.clock import Clock, Progress
from dasklmm.cohort import Cohort, Cohorts, join_each
from dasklmm.errors import (
    MemoryBudgetError,
    OptionError,
    PhenotypeError,
    StoreError,
)
from dasklmm.kept_scan import run_kept
from dasklmm.lazy import associate, budget, run
from dasklmm.lazy import kinship as lazy_kinship
from dasklmm.live import page_url
from dasklmm.numerics import alternatives, spectrum
from dasklmm.numerics.records import Filters
from dasklmm.numerics.subspace import OVERSAMPLING
from dasklmm.numerics.transforms import Transform
from dasklmm.progress import bars
from dasklmm.readers.genotypes import open_genotypes
from dasklmm.scan_options import (
    check_interaction,
    check_options,
    check_whitening,
    chosen_filters,
    given_kinship,
    is_method,
    leading,
)
from dasklmm.scanning import Scan
from dasklmm.selection import Selection, contig_ranges, selected_variants
from dasklmm.store import arrays
from dasklmm.store.places import absolute, check_place, is_local
from dasklmm.store.records import Memory

logger = logging.getLogger(__name__)

# Values of the variance ratio at which a refit sums inner products, by eights: 68 over the whole range, where few
# samples leave the null's likelihood flat, and for the few variants of others that need it; else 20 to 30.
NODES = 72


def gwas(
    genotypes: Any,
    phenotypes: Any,
    covariates: Any = None,
    *,
    kinship: Any = "rrm",
    loco: bool = True,
    test: alternatives.Test = "lrt",
    variance_ratio: str = "null",
    rank: int | None = None,
    truncated: bool = False,
    precision: str = "single",
    whiten: bool = False,
    store: str | Path | None = None,
    resume: bool = True,
    phenotype: str | Sequence[str] | None = None,
    transform: Transform | None = None,
    condition: Sequence[str] = (),
    interaction: str | None = None,
    samples: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    contigs: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    min_allele_count: float = 0,
    min_allele_frequency: float = 0.0,
    max_missing: float = 1.0,
    intercept: bool = True,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
) -> xr.Dataset:
    """Test every variant for association with a phenotype in a linear mixed model. Eager.

    Parameters
    ----------
    genotypes : path, URL, Dataset of `open_genotypes`, or its dosage as a DataArray
    phenotypes : DataFrame or Series indexed by sample id, DataArray (sample[, phenotype]), or path of a table
        One column or several. Each phenotype is analysed over the samples that have it, as if it were the
        only one; those of the same samples share the kinship and its decomposition, and all share one reading
        of the genotypes for the tests.
    covariates : DataFrame indexed by sample id, DataArray (sample, covariate), or path, optional
        Numbers, or categories (text, Categorical, truth values), which become 0/1 columns for every level but
        the first. Samples with a missing value are left out.
    kinship : {"rrm", "grm", "centered"}, DataArray (sample_0, sample_1), Dataset of `eigendecompose`, or path
        Computed over the analysed samples, or given with sample ids. A path holds a kinship, or a
        decomposition kept by ``eigendecompose(store=…)``, which must be of the analysed samples.
    loco : bool
        Leave-one-contig-out: a variant is tested with the kinship of all other contigs, so that it does not
        stand in its own null. Needs a computed kinship and at least two contigs.
    test : {"lrt", "wald", "score"}
    variance_ratio : {"null", "per_variant"}
        Test every variant at the null's variance ratio, or refit it for each, as GEMMA does: beta, its
        standard error and Wald's test at the REML optimum, the likelihood ratio of the two ML optima.
    rank : int, optional
        Keep only this many leading eigenpairs of the kinship (a low-rank model). Default: all.
    truncated : bool
        Find those pairs by passes over the genotypes, without forming the kinship: for cohorts whose n^2 does
        not fit. Needs `rank` and a kinship's method.
    precision : {"single", "double"}
        Of the products of genotypes; the eigendecomposition, the null fit and sums over eigenvectors are
        float64 in any case.
    whiten : bool
        The same tests, but for rounding, in a quarter to a third less time where variants are many: genotypes are
        rotated by the triangular factor of the null's inverse covariance instead of the kinship's eigenvectors,
        half the product. Of one phenotype, whose own it is, at the null's variance ratio and full rank. The
        factor, one a contig with LOCO, is paid back from some 10 variants a sample on, with 22 contigs from
        some 100. Memory is planned as for double precision, which ill-conditioned kinships get.
    store : path or URL, optional
        Write the results there as a Zarr group when they are complete. Until then finished work is kept
        beside it (`store` with ".work" behind its name), and the same call goes on from there after any
        interruption. Give one that all workers see.
    resume : bool
        Take up finished work of the same inputs and options; results that are complete are opened instead of
        computed anew. False refuses a store that holds any.
    phenotype : str or sequence of str, optional
        The column, or columns, of `phenotypes` to analyse. Default: all (of a .fam, the sixth column).
    transform : {None, "inverse_normal", "standardise"}
        Of each phenotype over its analysed samples: the rank-based inverse normal transformation, or mean 0
        and standard deviation 1.
    condition : sequence of str
        Ids of variants that join the covariates, so that what is left beside them is tested. They themselves
        then have no test.
    interaction : str, optional
        A column among the covariates: the product of each variant with it is tested, the variant itself in
        the model (its own effect in beta_main), at the null's variance ratio.
    samples : sequence of str, optional
        Ids of the samples to analyse. Default: all that have values.
    variants, contigs, regions : sequence of str, optional
        Ids, names, and "contig:start-end": only the variants in all that are given are tested and in the
        results. The kinship is of all variants in any case.
    min_allele_count, min_allele_frequency, max_missing : float
        A variant whose rarer allele stands fewer times, or has a lower frequency, among the analysed samples
        of a phenotype, or with a larger share of missing calls, is not tested; its status says which. All
        are off by default, and the kinship is of all variants.
    intercept : bool
        Put a column of ones before the covariates.
    overwrite : bool
        Replace what `store` holds.
    progress : callable (stage, done, total), or bool, optional
        True draws a bar for each stage, in a notebook or a terminal, with an estimate once there is a rate.
        Default: the setting dasklmm.progress, which is False.

    Returns
    -------
    Dataset (variant), or (variant, phenotype) of several phenotypes
        n, effect_allele_frequency, beta, standard_error (per copy of the effect allele, in units of the
        phenotype), sigma_sq, chi_sq, p_value, neg_log10_p_value, status; coordinates of the variants;
        with variance_ratio="per_variant" log_gamma (REML), log_gamma_ml, log_likelihood (ML) and at_boundary;
        attributes with the null model of each contig, options, counts and versions. A null at a bound of
        the variance ratio is flagged there (at_boundary), and does not end the run. `resumed` counts what was
        taken from a former run and what was computed. Of several phenotypes, attrs["phenotypes"] holds what
        belongs to each; :func:`phenotype_results` gives one as if it were the only one. A phenotype that
        cannot be analysed has its reason there, status "no_null_model", and does not end the run.

    Raises
    ------
    SampleError, PhenotypeError, CovariateError, NotFiniteError, KinshipError, LocoError, OptionError
        Before any genotype is read.
    StoreError
        `store` holds results or work of other inputs or options (which is said), or another run writes there;
        or the genotypes changed while they were read.

    Notes
    -----
    Cost: sample^2 variant flop for the kinship, an eigendecomposition (a contig, with LOCO), and
    2 sample^2 variant flop for the tests (half of it with `whiten`, and 4/3 sample^3 beside each decomposition).
    Runs on the active Dask client, or on threads.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> results["p_value"].dims, bool(results["p_value"].min() < 1e-5)
    (('variant',), True)
    """
    return prepared(
        genotypes,
        phenotypes,
        covariates,
        kinship=kinship,
        loco=loco,
        test=test,
        variance_ratio=variance_ratio,
        rank=rank,
        truncated=truncated,
        precision=precision,
        whiten=whiten,
        store=store,
        resume=resume,
        phenotype=phenotype,
        transform=transform,
        condition=condition,
        interaction=interaction,
        samples=samples,
        variants=variants,
        contigs=contigs,
        regions=regions,
        min_allele_count=min_allele_count,
        min_allele_frequency=min_allele_frequency,
        max_missing=max_missing,
        intercept=intercept,
        overwrite=overwrite,
    ).run(progress)


def prepared(
    genotypes: Any,
    phenotypes: Any,
    covariates: Any = None,
    *,
    kinship: Any = "rrm",
    loco: bool = True,
    test: alternatives.Test = "lrt",
    variance_ratio: str = "null",
    rank: int | None = None,
    truncated: bool = False,
    precision: str = "single",
    whiten: bool = False,
    store: str | Path | None = None,
    resume: bool = True,
    phenotype: str | Sequence[str] | None = None,
    transform: Transform | None = None,
    condition: Sequence[str] = (),
    interaction: str | None = None,
    samples: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    contigs: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    min_allele_count: float = 0,
    min_allele_frequency: float = 0.0,
    max_missing: float = 1.0,
    intercept: bool = True,
    overwrite: bool = False,
) -> Prepared:
    """Open, join and check all that a scan is given, as :func:`gwas` does, before there is a cluster. Eager."""
    settings.check()
    check_options(test, variance_ratio, kinship, loco, interaction, whiten)
    dtype = lazy_kinship.working_dtype(precision)
    ds = genotypes.to_dataset(name="dosage") if isinstance(genotypes, xr.DataArray) else genotypes
    ds = ds if isinstance(ds, xr.Dataset) else open_genotypes(ds)
    ds = schema.with_text(ds)
    store = None if store is None else absolute(store)
    if store is not None:
        _check_apart(store, str(ds.attrs.get("source", "")))
        check_place(store)  # before the genotypes are read for their digest
    selection = selected_variants(ds, variants, contigs, regions)
    condition = [condition] if isinstance(condition, str) else list(condition)
    cohorts = join_each(
        ds,
        phenotypes,
        covariates,
        phenotype=phenotype,
        intercept=intercept,
        transform=transform,
        samples=samples,
        condition=condition,
    )
    filters = chosen_filters(min_allele_count, min_allele_frequency, max_missing)

    def check(cohort: Cohort) -> None:
        spectrum.check_rank(rank, cohort.y.size)
        if interaction is not None:
            check_interaction(interaction, cohort)

    cohorts = cohorts.checked(check)
    first = [group[0] for group in cohorts.groups]
    largest = max(cohort.y.size for cohort in first)
    ranges = contig_ranges(ds, loco)
    given = None
    computed = is_method(kinship) and not truncated
    if not is_method(kinship):
        opened = arrays.open_kinship_or_spectrum(kinship) if isinstance(kinship, (str, Path)) else kinship
        if not isinstance(opened, xr.Dataset):
            budget.check_matrices(largest, len(first), len(first) if store is None else 1)
        given = [leading(given_kinship(opened, cohort), rank) for cohort in first]
    if store is None and computed:
        budget.check_matrices(largest, budget.matrices_held(len(ranges), len(first)), len(first))
    if truncated and (given is not None or rank is None):
        raise OptionError(
            "truncated=True (--truncated) finds the leading pairs of a kinship that is computed here: give rank "
            f"(--rank), and one of {', '.join(lazy_kinship.METHODS)} as kinship (--kinship)."
        )
    if not truncated and not (given and all(isinstance(pairs, xr.Dataset) for pairs in given)):
        budget.check_eigendecomposition(largest)
    if truncated and rank is not None:
        budget.check_leading_pairs(largest, min(largest, rank + OVERSAMPLING))
    rows = schema.dosage_rows(ds)
    columns = (*associate.VARIANCE_RATIOS[variance_ratio], *associate.INTERACTION_COLUMNS)
    budget.check_results(rows.shape[0], len(cohorts.names), len(columns) + 1)
    options: dict[str, Any] = {
        "test": test,
        "variance_ratio": variance_ratio,
        "kinship": kinship if given is None else "given",
        "loco": loco,
        "precision": precision,
        "truncated": truncated,
        "whiten": bool(whiten),
        "transform": transform or "none",
        "condition": condition,
        "interaction": interaction or "",
        "min_allele_count": float(min_allele_count),
        "min_allele_frequency": float(min_allele_frequency),
        "max_missing": float(max_missing),
    }
    ranks = [
        pairs.sizes["eigen"] if isinstance(pairs, xr.Dataset) else int(rank or cohort.y.size)
        for cohort, pairs in zip(first, given or [None] * len(first), strict=True)
    ]
    low_rank = any(r < cohort.y.size for r, cohort in zip(ranks, first, strict=True))
    if whiten:
        check_whitening(cohorts, low_rank)
        budget.check_whitening(largest)
    shape = budget.Shape(
        rows.shape[1],
        largest,
        max(ranks),
        max(cohort.x.shape[1] for cohort in first),
        rows.dtype.itemsize,
        8 if low_rank or whiten else np.dtype(dtype).itemsize,
        len(cohorts.names),
        len(first),
        NODES if variance_ratio == "per_variant" else 0,
        max(ranks) + OVERSAMPLING if truncated else 0,
        computed and store is not None,
    )
    return Prepared(
        ds,
        rows,
        cohorts,
        ranges,
        given,
        options,
        ranks,
        dtype,
        shape,
        selection,
        filters,
        store,
        resume,
        overwrite,
    )


def _check_apart(store: str, source: str) -> None:
    """Refuse to keep work and results within the genotypes' own store."""
    inside = source and f"{os.path.abspath(store)}/".startswith(f"{os.path.abspath(source)}/")
    if inside and is_local(store):
        raise StoreError(
            f"{store!r} lies within the genotypes at {source!r}, which a scan must not change. Give another place."
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan whose input was checked, and that has done no work yet."""

    ds: xr.Dataset
    rows: da.Array
    cohorts: Cohorts
    contigs: dict[str, np.ndarray]
    given: list[np.ndarray | xr.Dataset] | None
    options: dict[str, Any]
    ranks: list[int]
    dtype: Any
    shape: budget.Shape
    selection: Selection | None
    filters: Filters | None
    store: str | None
    resume: bool
    overwrite: bool

    def run(self, progress: Progress | bool | None = None) -> xr.Dataset:
        """Scan on the active Dask client, or on threads. Eager: see :func:`gwas`."""
        computed = self.given is None and not self.options["truncated"]
        client = run.active_client()
        room = budget.Room.of(client)
        if client is None and self.shape.columns:
            room = room.beside(budget.krylov_bytes(self.shape.samples, self.shape.columns))
        matrices = 0
        if self.store is None and computed:
            matrices = budget.matrices_held(len(self.contigs), self.shape.groups)
        to_decompose = room.beside(matrices * 8 * self.shape.samples**2)
        most, streamed = self.shape.fitting_rows(room, kinship=computed)
        if streamed and self.store is None and client is not None:
            raise MemoryBudgetError(
                f"the eigenvectors are {self.shape.p_bytes / 1e6:,.0f} MB and a worker has "
                f"{room.limit / 1e6:,.0f} MB: they must be read piece by piece from a store. Give store= (a path "
                "that all workers see, or a URL)."
            )
        logger.info(
            "samples %d, phenotypes %d, groups of these %d, variants %d; variants in a block %d at most; "
            "P %.0f MB, %s; tasks side by side %d, in processes of %.0f MB",
            self.shape.file_samples,
            self.shape.phenotypes,
            self.shape.groups,
            self.rows.shape[0],
            min(most, self.rows.shape[0]),
            self.shape.p_bytes / 1e6,
            "read piece by piece" if streamed else "held by each process",
            run.parallelism(),
            room.limit / 1e6,
        )
        with _watcher(progress) as watcher:
            scan = Scan(
                self.ds,
                self.rows,
                self.cohorts,
                self.contigs,
                self.given,
                self.options,
                self.ranks,
                self.dtype,
                most,
                streamed,
                self.shape.groups_per_read(room, most),
                budget.decompositions_at_once(self.shape.samples, to_decompose, run.parallelism()),
                Clock(watcher),
                self.selection,
                self.filters,
            )
            if self.store is None:
                return scan.run(Memory())
            return run_kept(scan, self.store, self.resume, self.overwrite)


@contextmanager
def _watcher(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """Who is told of progress: the caller's own, or bars that end with the run."""
    if progress is None:
        progress = settings.progress()
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    client = run.active_client()
    drawn = bars(None if client is None else page_url(client))
    try:
        yield drawn
        drawn.complete()
    finally:
        drawn.close()


def phenotype_results(results: xr.Dataset, phenotype: str) -> xr.Dataset:
    """Results of one phenotype of several, as if it had been analysed alone.

    Parameters
    ----------
    results : Dataset (variant, phenotype)
        From :func:`gwas` or `open_results`.
    phenotype : str

    Returns
    -------
    Dataset (variant)

    Raises
    ------
    PhenotypeError
        There is no such phenotype.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> traits = cohort["phenotype"].to_series().to_frame("height").set_axis(cohort["sample_id"].values)
    >>> both = dasklmm.gwas(cohort, traits.assign(weight=traits["height"] ** 2))
    >>> dasklmm.phenotype_results(both, "weight")["beta"].dims
    ('variant',)
    """
    if schema.PHENOTYPE not in results.dims:
        names = [results.attrs.get("phenotype")]
    else:
        names = list(results["phenotype"].values)
    if phenotype not in names:
        raise PhenotypeError(
            f"there is no phenotype {phenotype!r} in the results; they are of {', '.join(map(str, names))}."
        )
    if schema.PHENOTYPE not in results.dims:
        return results
    one = results.isel({schema.PHENOTYPE: names.index(phenotype)}).drop_vars("phenotype")
    attrs = {k: v for k, v in results.attrs.items() if k not in ("phenotype", "phenotypes")}
    one.attrs = {**attrs, "phenotype": phenotype, **results.attrs["phenotypes"][phenotype]}
    return one
