"""A genome-wide scan, from genotypes and phenotypes to results: joins, kinship, null fits, tests."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import dasklmm
from dasklmm import schema
from dasklmm.errors import (
    CovariateError,
    KinshipError,
    LocoError,
    NotFiniteError,
    OptionError,
    PhenotypeError,
    SampleError,
    StoreError,
)
from dasklmm.lazy import associate, blocks, budget, run
from dasklmm.lazy import kinship as lazy_kinship
from dasklmm.lazy.project import operand
from dasklmm.numerics import alternatives, design, reml, spectrum
from dasklmm.numerics.genotypes import Gram
from dasklmm.numerics.records import STATUS_LABELS, NullFit, RotatedData
from dasklmm.numerics.tails import lambda_gc
from dasklmm.readers.genotypes import open_genotypes
from dasklmm.readers.tables import read_table
from dasklmm.store import arrays
from dasklmm.store.results import differences, fingerprint, open_results, write_results

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
ALL = "all"


@dataclass(frozen=True, eq=False)
class Cohort:
    """The analysed samples: response and design, and where each sample stands among the genotypes.

    Attributes
    ----------
    sample_id : ndarray (sample) of str
    y : ndarray (sample)
    x : ndarray (sample, covariate)
    phenotype : str
    covariates : list of str
        Names of the columns of x.
    columns : ndarray (sample) of int
        Position of each sample among the genotypes.
    counts : dict
        What matched.
    """

    sample_id: np.ndarray
    y: np.ndarray
    x: np.ndarray
    phenotype: str
    covariates: list[str]
    columns: np.ndarray
    counts: dict[str, int]


@dataclass
class Clock:
    """Seconds of each stage, and a word to whoever watches."""

    watcher: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time a stage; yields the callable that reports its progress."""
        start = time.perf_counter()
        yield lambda done, total: self._tell(name, done, total)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _tell(self, name: str, done: int, total: int) -> None:
        if self.watcher is not None:
            self.watcher(name, done, total)


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
    precision: str = "single",
    store: str | Path | None = None,
    resume: bool = True,
    phenotype: str | None = None,
    intercept: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Test every variant for association with a phenotype in a linear mixed model. Eager.

    Parameters
    ----------
    genotypes : path, URL or Dataset of `open_genotypes`
    phenotypes : DataFrame or Series indexed by sample id, or path of a table
        One column, or several of which `phenotype` names one (of a .fam, the sixth column serves where none
        is named). Samples without a value are left out.
    covariates : DataFrame indexed by sample id, or path, optional
        Numeric columns. Samples with a missing value are left out.
    kinship : {"rrm", "grm", "centered"}, DataArray (sample_0, sample_1), or path
        Computed over the analysed samples, or given with sample ids.
    loco : bool
        Leave-one-contig-out: a variant is tested with the kinship of all other contigs, so that it does not
        stand in its own null. Needs a computed kinship and at least two contigs.
    test : {"lrt", "wald", "score"}
    variance_ratio : {"null"}
        The null's variance ratio is used for every variant.
    rank : int, optional
        Keep only this many leading eigenpairs of the kinship (a low-rank model). Default: all.
    precision : {"single", "double"}
        Of the products of genotypes; the eigendecomposition, the null fit and sums over eigenvectors are
        float64 in any case.
    store : path or URL, optional
        Write the results there as a Zarr group, when they are complete.
    resume : bool
        A store that holds the results of the same inputs and options is opened instead of computed anew.
    phenotype : str, optional
        The column of `phenotypes` to analyse.
    intercept : bool
        Put a column of ones before the covariates.
    overwrite : bool
        Replace what `store` holds.
    progress : callable (stage, done, total), optional

    Returns
    -------
    Dataset (variant)
        n, effect_allele_frequency, beta, standard_error (per copy of the effect allele, in units of the
        phenotype), sigma_sq, chi_sq, p_value, neg_log10_p_value, status; coordinates of the variants;
        attributes with the null model of each contig, options, counts and versions. A null at a bound of
        the variance ratio is flagged there (at_boundary), and does not end the run.

    Raises
    ------
    SampleError, PhenotypeError, CovariateError, NotFiniteError, KinshipError, LocoError, OptionError
        Before any genotype is read.
    StoreError
        `store` holds something else.

    Notes
    -----
    Cost: sample^2 variant flop for the kinship, an eigendecomposition (a contig, with LOCO), and
    2 sample^2 variant flop for the tests. Runs on the active Dask client, or on threads.
    """
    _check_options(test, variance_ratio, kinship, loco)
    dtype = lazy_kinship.working_dtype(precision)
    clock = Clock(progress)
    ds = genotypes if isinstance(genotypes, xr.Dataset) else open_genotypes(genotypes)
    cohort = join(ds, phenotypes, covariates, phenotype=phenotype, intercept=intercept)
    spectrum.check_rank(rank, cohort.y.size)
    contigs = contig_ranges(ds, loco)
    given = None if _is_method(kinship) else _given_kinship(kinship, cohort)
    budget.check_eigendecomposition(cohort.y.size)

    options: dict[str, Any] = {
        "phenotype": cohort.phenotype,
        "test": test,
        "variance_ratio": variance_ratio,
        "kinship": kinship if given is None else "given",
        "loco": loco,
        "precision": precision,
        "intercept": bool(design.has_intercept(cohort.x)),
        "covariates": cohort.covariates,
        "n": int(cohort.y.size),
        "n_covariates": int(cohort.x.shape[1]),
        "rank": int(rank or cohort.y.size),
    }
    inputs = {
        **options,
        "genotypes": _source_fingerprint(ds),
        "samples": fingerprint(cohort.sample_id),
        "phenotype values": fingerprint(cohort.y),
        "covariate values": fingerprint(cohort.x),
        "kinship values": None if given is None else fingerprint(given),
    }
    if store is not None:
        found = _finished(store, inputs, resume, overwrite)
        if found is not None:
            return found
    rows = schema.as_rows(ds["dosage"], "dosage", (schema.VARIANT, schema.SAMPLE), None).data
    grams: Mapping[str, Gram] = {}
    if given is None:
        with clock.stage("kinship") as tell:
            grams = _gram_matrices(rows, contigs, str(kinship), cohort, dtype, tell)
    nulls: list[dict[str, Any]] = []
    parts: list[np.ndarray] = []
    with arrays.scratch(store) as scratch:
        for contig, ranges in contigs.items():
            with clock.stage("null model"):
                k = _kinship_without(contig, grams, given, loco)
                null = _null(k, cohort, rank, test)
            nulls.append({"contig": contig, **null.summary()})
            with clock.stage("test") as tell:
                p = _shared_rotation(null.p.astype(dtype, copy=False), scratch)
                parts.append(_scan(rows, ranges, null, p, cohort, tell))
    columns = np.empty((rows.shape[0], len(associate.SCAN_COLUMNS) + 1))
    for ranges, part in zip(contigs.values(), parts, strict=True):
        columns[ranges] = part
    out = _results(ds, columns, cohort, options, nulls, grams, clock)
    if store is not None:
        write_results(out, store, inputs, overwrite=overwrite)
    return out


def _source_fingerprint(ds: xr.Dataset) -> str:
    """Digest of what can be known of the genotypes without reading them: variants, samples, source."""
    known = [np.asarray(ds[name].values) for name in schema.VARIANT_COORDS if name in ds.variables]
    source = str(ds.attrs.get("source", ""))
    files = [file for file in (Path(source), Path(f"{source}.bed")) if source and file.is_file()]
    stamp = [[file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return fingerprint(np.asarray(ds["sample_id"].values), *known, source, stamp, dict(ds.sizes))


def _finished(store: str | Path, inputs: dict[str, Any], resume: bool, overwrite: bool) -> xr.Dataset | None:
    """Results of the same inputs already in the store; StoreError where it holds others."""
    if overwrite:
        return None
    differing = differences(store, inputs)
    if differing is None:
        return None
    if differing:
        raise StoreError(
            f"{str(store)!r} holds results of another run, which differs in: {', '.join(differing)}. Give "
            "another store, or overwrite=True (--overwrite)."
        )
    if not resume:
        raise StoreError(f"{str(store)!r} holds results already, and resume is False. Give overwrite=True.")
    return open_results(store)


def _check_options(test: str, variance_ratio: str, kinship: Any, loco: bool) -> None:
    if test not in alternatives.TESTS:
        raise OptionError(f"test is {test!r}; it is one of {', '.join(map(repr, alternatives.TESTS))}.")
    if variance_ratio != "null":
        raise OptionError(
            f"variance_ratio is {variance_ratio!r}; 'null' (the null's ratio for every variant) is needed."
        )
    if isinstance(kinship, str) and "/" not in kinship and not arrays.exists(kinship):
        lazy_kinship.check_method(kinship)
    if loco and not _is_method(kinship):
        raise LocoError(
            "loco=True with a kinship of your own: leaving a contig out needs the genotypes' own Gram "
            "matrices. Give a method (kinship='rrm'), or loco=False."
        )


def _is_method(kinship: Any) -> bool:
    return isinstance(kinship, str) and kinship in lazy_kinship.METHODS


# joining ----------------------------------------------------------------------------------------


def join(
    ds: xr.Dataset,
    phenotypes: Any,
    covariates: Any = None,
    *,
    phenotype: str | None = None,
    intercept: bool = True,
) -> Cohort:
    """Join genotypes, phenotypes and covariates by sample id, in the genotypes' order.

    Raises
    ------
    SampleError
        Duplicate ids, or no sample in common; with counts.
    PhenotypeError, CovariateError, NotFiniteError
        Values that cannot be analysed, named.
    """
    ids = schema.sample_ids(ds)
    if ids is None:
        raise SampleError(
            "the genotypes carry no sample_id, so phenotypes cannot be joined to them. Assign the "
            "coordinate sample_id over the dim sample."
        )
    response = _phenotype(phenotypes, phenotype)
    table = _covariates(covariates)
    known = response.dropna()
    counts = {
        "samples_in_genotypes": int(ids.size),
        "samples_in_phenotypes": int(response.size),
        "samples_with_phenotype": int(known.size),
    }
    used = np.isin(ids, known.index.to_numpy(dtype=str))
    counts["samples_with_genotypes_and_phenotype"] = int(used.sum())
    if table is not None:
        complete = table.dropna()
        counts["samples_in_covariates"] = len(table)
        counts["samples_with_covariates"] = len(complete)
        used &= np.isin(ids, complete.index.to_numpy(dtype=str))
    counts["samples_used"] = int(used.sum())
    if not used.any():
        seen = [("genotypes", ids), ("phenotypes", known.index)]
        if table is not None:
            seen.append(("covariates", table.index))
        raise SampleError(
            "no sample is in all of "
            + ", ".join(f"the {name} ({len(v)} samples, such as {', '.join(map(repr, map(str, v[:2])))})"
                        for name, v in seen)
            + ". Check that the files use the same sample ids."
        )  # fmt: skip
    sample_id = ids[used]
    y = known.loc[sample_id].to_numpy(dtype=np.float64)
    design.check_finite(y, f"phenotype {response.name!r}")
    columns = [np.ones((y.size, 1))] if intercept else []
    names = ["intercept"] if intercept else []
    if table is not None:
        columns.append(table.loc[sample_id].to_numpy(dtype=np.float64))
        names += [str(c) for c in table.columns]
    if not columns:
        raise CovariateError("no covariate and intercept=False; at least one fixed effect is needed.")
    x = np.column_stack(columns)
    for j, name in enumerate(names):
        design.check_finite(x[:, j], f"covariate {name!r}")
    design.check_design(x, y.size, names, "the covariates")
    design.check_response(y, x, f"phenotype {response.name!r}")
    if not design.has_intercept(x):
        logger.info("no intercept: no constant lies in the span of the covariates")
    return Cohort(sample_id, y, x, str(response.name), names, np.flatnonzero(used), counts)


def _phenotype(phenotypes: Any, name: str | None) -> pd.Series:
    if isinstance(phenotypes, (str, Path)):
        own_column = str(phenotypes).endswith(".fam")
        phenotypes = read_table(phenotypes)
        if own_column and name is None:
            name = str(phenotypes.columns[0])  # the phenotype that PLINK itself knows
    if isinstance(phenotypes, xr.DataArray):
        phenotypes = pd.Series(phenotypes.values, index=phenotypes["sample_id"].values, name=phenotypes.name)
    frame = phenotypes.to_frame() if isinstance(phenotypes, pd.Series) else phenotypes
    if not isinstance(frame, pd.DataFrame):
        raise PhenotypeError(
            f"phenotypes are a {type(phenotypes).__name__}; a path, or a pandas DataFrame or Series indexed "
            "by sample id is needed."
        )
    names = [str(c) for c in frame.columns]
    if name is None:
        if len(names) != 1:
            raise PhenotypeError(
                f"phenotypes have {len(names)} columns ({', '.join(names[:8])}); name one: phenotype='…' "
                "(--pheno-col on the command line)."
            )
        name = names[0]
    if name not in names:
        raise PhenotypeError(f"there is no phenotype {name!r}; the columns are {', '.join(names)}.")
    column = frame.iloc[:, names.index(name)]
    if not pd.api.types.is_numeric_dtype(column.dtype):
        raise PhenotypeError(
            f"phenotype {name!r} is not numeric (for example {column.dropna().iloc[0]!r}); numbers are "
            "needed, with NA for missing."
        )
    column = pd.Series(column.to_numpy(dtype=np.float64), index=_index(frame), name=name)
    schema.check_unique(column.index.to_numpy(dtype=str), "the phenotypes")
    if np.isinf(column).any():
        raise NotFiniteError(
            f"phenotype {name!r} has {int(np.isinf(column).sum())} infinite values. Set them to NA or mend them."
        )
    return column


def _covariates(covariates: Any) -> pd.DataFrame | None:
    if covariates is None:
        return None
    table = read_table(covariates) if isinstance(covariates, (str, Path)) else covariates
    if isinstance(table, pd.Series):
        table = table.to_frame()
    table = table.set_axis(_index(table), axis=0)
    schema.check_unique(table.index.to_numpy(dtype=str), "the covariates")
    wrong = [str(c) for c in table.columns if not pd.api.types.is_numeric_dtype(table[c].dtype)]
    if wrong:
        raise CovariateError(
            f"covariates {', '.join(map(repr, wrong))} are not numeric; numbers are needed. Code categories "
            "as 0/1 columns."
        )
    return table.astype(np.float64)


def _index(frame: pd.DataFrame) -> pd.Index:
    return pd.Index(frame.index.astype(str).to_numpy(dtype=object), name="sample_id", dtype=object)


def contig_ranges(ds: xr.Dataset, loco: bool) -> dict[str, np.ndarray]:
    """Variants of each group that is scanned with one null model: of each contig with LOCO, or all.

    Raises
    ------
    LocoError
        Fewer than two contigs.
    """
    if not loco:
        return {ALL: np.arange(ds.sizes[schema.VARIANT])}
    if "variant_contig" not in ds.coords and "variant_contig" not in ds:
        raise LocoError(
            "the genotypes carry no variant_contig, which leaving a contig out needs. Assign it over the dim "
            "variant, or give loco=False (--no-loco)."
        )
    names = np.asarray(ds["variant_contig"].values, dtype=str)
    contigs = list(dict.fromkeys(names.tolist()))
    if len(contigs) < 2:
        raise LocoError(
            f"leave-one-contig-out needs variants on at least two contigs; all {names.size} are on "
            f"{contigs[0]!r}. Give loco=False (--no-loco), or a kinship from other variants."
        )
    return {contig: np.flatnonzero(names == contig) for contig in contigs}


# kinship and null -------------------------------------------------------------------------------


def _given_kinship(kinship: Any, cohort: Cohort) -> np.ndarray:
    """Kinship of the analysed samples from a DataArray or store with sample ids."""
    if isinstance(kinship, (str, Path)):
        kinship = arrays.open_kinship(kinship)
    if not isinstance(kinship, xr.DataArray):
        raise KinshipError(
            f"kinship is a {type(kinship).__name__}; a method ({', '.join(lazy_kinship.METHODS)}), a path, or "
            "an xarray.DataArray with coordinates sample_id_0 and sample_id_1 is needed, so that it can be "
            "joined by id."
        )
    if kinship.ndim != 2 or kinship.shape[0] != kinship.shape[1]:
        spectrum.check_kinship(np.empty(kinship.shape))
    ids = schema.kinship_ids(kinship)
    if ids is None:
        raise KinshipError(
            "the kinship carries no sample ids, so its order cannot be checked. Assign sample_id_0 over its "
            "first dim and sample_id_1 over its second."
        )
    index = schema.positions(cohort.sample_id, ids, "the kinship")
    k = np.asarray(kinship.data[index][:, index], dtype=np.float64)
    spectrum.check_kinship(k)
    return k


def _gram_matrices(
    rows: Any,
    contigs: Mapping[str, np.ndarray],
    method: str,
    cohort: Cohort,
    dtype: Any,
    tell: Callable[[int, int], None],
) -> dict[str, Gram]:
    lazily = [
        lazy_kinship.gram_matrix(
            schema.take(rows, ranges),
            method,
            samples=cohort.columns,
            dtype=dtype,  # type: ignore[arg-type]
        )
        for ranges in contigs.values()
    ]
    return dict(zip(contigs, run.run_blocks(lazily, tell), strict=True))


def _kinship_without(
    contig: str, grams: Mapping[str, Gram], given: np.ndarray | None, loco: bool
) -> np.ndarray:
    if given is not None:
        return given
    if not loco:
        return lazy_kinship.scaled(grams[contig])
    others = [gram for name, gram in grams.items() if name != contig]
    total = others[0]
    for gram in others[1:]:
        total = total + gram
    return lazy_kinship.scaled(total)


@dataclass(frozen=True, eq=False)
class Null:
    """Null model of one group of variants: its rotation, its fit, and the test prepared from both."""

    p: np.ndarray
    data: RotatedData
    fit: NullFit
    pve: float
    test: alternatives.AlternativeTest

    def summary(self) -> dict[str, Any]:
        """What is kept of it with the results."""
        fit = self.fit
        return {
            "h_sq": fit.h_sq,
            "h_sq_standard_error": fit.h_sq_standard_error,
            "pve": self.pve,
            "log_gamma": fit.log_gamma,
            "gamma": fit.gamma,
            "sigma_sq": fit.sigma_sq,
            "tau_sq": fit.tau_sq,
            "beta": [float(b) for b in fit.beta],
            "log_likelihood": fit.log_likelihood,
            "n": self.data.n,
            "rank": self.data.r,
            "at_boundary": fit.at_boundary,
        }


def _null(k: np.ndarray, cohort: Cohort, rank: int | None, test: alternatives.Test) -> Null:
    y, x = cohort.y, cohort.x
    if design.has_intercept(x):
        # leaves REML as it is; the plain likelihood of the score test and PVE are then GEMMA's
        k = spectrum.double_centered(k)
    pairs = spectrum.eigendecompose(k, rank)
    low_rank = rank is not None and rank < y.size
    unrotated = (y, x) if low_rank else (None, None)
    data = design.rotated_data(pairs.p @ y, pairs.p @ x, pairs.s, *unrotated, cohort.covariates)
    fit = reml.fit_null(data, on_boundary="clamp")
    if fit.at_boundary:
        logger.warning("the variance ratio lies at a bound: log_gamma %.3g", fit.log_gamma)
    pve = reml.proportion_of_variance(fit, float(np.trace(k)) / y.size)
    log_gamma = fit.log_gamma
    if test == "score":
        log_gamma = reml.fit_null(data, criterion="ml", on_boundary="clamp").log_gamma
    return Null(pairs.p, data, fit, pve, alternatives.alternative_test(data, log_gamma, test))


# tests ------------------------------------------------------------------------------------------


def _shared_rotation(p: np.ndarray, scratch: Path | None) -> Any:
    """P as the blocks will find it: in memory for threads, stored or scattered for a cluster."""
    client = run.active_client()
    if client is None:
        return p
    if scratch is not None:
        path = scratch / f"p-{uuid.uuid4().hex}.zarr"
        return operand(arrays.write_array(path, p, (schema.EIGEN, schema.SAMPLE)))
    return client.scatter(p, broadcast=True, hash=False)


def _scan(
    rows: Any,
    ranges: np.ndarray,
    null: Null,
    p: Any,
    cohort: Cohort,
    tell: Callable[[int, int], None],
) -> np.ndarray:
    lazily = associate.scan(
        null.test,
        p,
        schema.take(rows, ranges),
        samples=cohort.columns,
        intercept=bool(design.has_intercept(cohort.x)),
    )
    return np.concatenate(run.run_blocks(blocks.delayed_blocks(lazily), tell))


def _results(
    ds: xr.Dataset,
    columns: np.ndarray,
    cohort: Cohort,
    options: dict[str, Any],
    nulls: list[dict[str, Any]],
    grams: Mapping[str, Gram],
    clock: Clock,
) -> xr.Dataset:
    coords = {name: ds[name] for name in schema.VARIANT_COORDS if name in ds.coords or name in ds}
    out = associate.dataset(columns, associate.SCAN_COLUMNS, coords)
    codes = columns[:, -1].astype(np.int64)
    counts = dict(cohort.counts, variants=int(codes.size))
    if grams:
        counts["variants_in_kinship"] = int(sum(g.n_variants for g in grams.values()))
    for code, label in enumerate(STATUS_LABELS):
        if (codes == code).any():
            counts[f"status_{label}"] = int((codes == code).sum())
    out.attrs = {
        **options,
        "lambda_gc": lambda_gc(out["neg_log10_p_value"].values),
        "dasklmm_version": dasklmm.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": counts,
        "null": nulls,
        "seconds": {k: round(v, 3) for k, v in clock.seconds.items()},
    }
    return out
