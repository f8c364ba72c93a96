"""A genome-wide scan, from genotypes and phenotypes to results: kinship, null models, tests, resumable."""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

import dasklmm
from dasklmm import schema
from dasklmm.cohort import Cohort, contig_ranges, join
from dasklmm.errors import (
    KinshipError,
    LocoError,
    MemoryBudgetError,
    OptionError,
    SampleError,
    StoreError,
)
from dasklmm.lazy import associate, blocks, budget, run
from dasklmm.lazy import kinship as lazy_kinship
from dasklmm.lazy.eigen import genotype_stamp, leading_pairs
from dasklmm.numerics import alternatives, design, reml, spectrum
from dasklmm.numerics.genotypes import Gram
from dasklmm.numerics.records import STATUS_LABELS, NullFit, RotatedData
from dasklmm.numerics.tails import lambda_gc
from dasklmm.readers.dataset import is_readers_own
from dasklmm.readers.genotypes import open_genotypes
from dasklmm.store import arrays
from dasklmm.store.records import Memory, Records, damaged, get, one_writer, put, remove, vacant
from dasklmm.store.results import (
    differences,
    differing,
    fingerprint,
    open_results,
    write_results,
)

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
TOTAL = "gram/total"

# Samples from which an eigendecomposition on a worker takes all cores. Below it a second thread gains little,
# and loses tenfold where another process holds its core: OpenBLAS's threads wait by spinning.
ALL_CORES_FROM = 2048


@dataclass
class Clock:
    """Seconds of each stage, what was kept from a former run, and a word to whoever watches."""

    watcher: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: dict[str, dict[str, int]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def tell(self, name: str, done: int, total: int) -> None:
        """Report progress."""
        if self.watcher is not None:
            self.watcher(name, done, total)

    def count(self, name: str, kept: int, computed: int) -> None:
        """Count what was taken from a former run, and what was computed."""
        counts = self.resumed.setdefault(name, {"kept": 0, "computed": 0})
        counts["kept"] += kept
        counts["computed"] += computed


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
    genotypes : path, URL, Dataset of `open_genotypes`, or its dosage as a DataArray
    phenotypes : DataFrame or Series indexed by sample id, DataArray (sample), or path of a table
        One column, or several of which `phenotype` names one (of a .fam, the sixth column serves where none
        is named). Samples without a value are left out.
    covariates : DataFrame indexed by sample id, DataArray (sample, covariate), or path, optional
        Numeric columns. Samples with a missing value are left out.
    kinship : {"rrm", "grm", "centered"}, DataArray (sample_0, sample_1), Dataset of `eigendecompose`, or path
        Computed over the analysed samples, or given with sample ids. A path holds a kinship, or a
        decomposition kept by ``eigendecompose(store=…)``, which must be of the analysed samples.
    loco : bool
        Leave-one-contig-out: a variant is tested with the kinship of all other contigs, so that it does not
        stand in its own null. Needs a computed kinship and at least two contigs.
    test : {"lrt", "wald", "score"}
    variance_ratio : {"null"}
        The null's variance ratio is used for every variant.
    rank : int, optional
        Keep only this many leading eigenpairs of the kinship (a low-rank model). Default: all.
    truncated : bool
        Find those pairs by passes over the genotypes, without forming the kinship: for cohorts whose n^2 does
        not fit. Needs `rank` and a kinship's method.
    precision : {"single", "double"}
        Of the products of genotypes; the eigendecomposition, the null fit and sums over eigenvectors are
        float64 in any case.
    store : path or URL, optional
        Write the results there as a Zarr group when they are complete. Until then finished work is kept
        beside it (`store` with ".work" behind its name), and the same call goes on from there after any
        interruption. Give one that all workers see.
    resume : bool
        Take up finished work of the same inputs and options; results that are complete are opened instead of
        computed anew. False refuses a store that holds any.
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
        the variance ratio is flagged there (at_boundary), and does not end the run. `resumed` counts what was
        taken from a former run and what was computed.

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
    2 sample^2 variant flop for the tests. Runs on the active Dask client, or on threads.
    """
    _check_options(test, variance_ratio, kinship, loco)
    dtype = lazy_kinship.working_dtype(precision)
    ds = genotypes.to_dataset(name="dosage") if isinstance(genotypes, xr.DataArray) else genotypes
    ds = ds if isinstance(ds, xr.Dataset) else open_genotypes(ds)
    store = None if store is None else str(store).removeprefix("file://").rstrip("/")
    cohort = join(ds, phenotypes, covariates, phenotype=phenotype, intercept=intercept)
    spectrum.check_rank(rank, cohort.y.size)
    contigs = contig_ranges(ds, loco)
    given = None if _is_method(kinship) else _given(kinship, cohort)
    if store is None and given is None and not truncated and len(contigs) > 1:
        budget.check_gram_matrices(cohort.y.size, len(contigs))
    if truncated and (given is not None or rank is None):
        raise OptionError(
            "truncated=True finds the leading pairs of a kinship that is computed here: give rank, and one of "
            f"{', '.join(lazy_kinship.METHODS)} as kinship."
        )
    if not truncated and not isinstance(given, xr.Dataset):
        budget.check_eigendecomposition(cohort.y.size)
    rows = schema.as_rows(ds["dosage"], "dosage", (schema.VARIANT, schema.SAMPLE), None).data
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
        "rank": given.sizes["eigen"] if isinstance(given, xr.Dataset) else int(rank or cohort.y.size),
        "truncated": truncated,
    }
    shape = budget.Shape(
        rows.shape[1],
        cohort.y.size,
        options["rank"],
        cohort.x.shape[1],
        rows.dtype.itemsize,
        8 if options["rank"] < cohort.y.size else np.dtype(dtype).itemsize,
    )
    room = budget.Room.of(run.active_client())
    most, streamed = shape.fitting_rows(room, kinship=given is None and not truncated)
    if streamed and store is None and run.active_client() is not None:
        raise MemoryBudgetError(
            f"the eigenvectors are {shape.p_bytes / 1e6:,.0f} MB and a worker has {room.limit / 1e6:,.0f} MB: "
            "they must be read piece by piece from a store. Give store= (a path that all workers see, or a URL)."
        )
    rows = schema.blocks_of_at_most(rows, most)
    clock = Clock(progress)
    scan = _Scan(ds, rows, cohort, contigs, given, options, dtype, streamed, clock)
    if store is None:
        return scan.run(Memory())

    inputs = scan.inputs()
    if differences(store, inputs) is None or overwrite:
        vacant(store, overwrite)
    work = f"{store}.work"
    with one_writer(work):
        done = _finished(store, inputs, resume, overwrite)
        if done is None:
            kept = _records(work, inputs, resume, overwrite)
            done = scan.run(kept)
            if scan.inputs() != inputs:
                changed = ", ".join(differing(scan.inputs(), inputs))
                raise StoreError(
                    f"the {changed} changed while they were read, so nothing is published. Run again with "
                    "overwrite=True (--overwrite) when the files are at rest."
                )
            write_results(done, store, inputs, overwrite=overwrite)
        remove(work)
    return done


def _finished(store: str | Path, inputs: dict[str, Any], resume: bool, overwrite: bool) -> xr.Dataset | None:
    """Results of the same inputs already in the store; StoreError where it holds others."""
    if overwrite:
        return None
    names = differences(store, inputs)
    if names is None:
        return None
    if names:
        raise StoreError(
            f"{str(store)!r} holds results of another run, which differs in: {', '.join(names)}. Give another "
            "store, or overwrite=True (--overwrite)."
        )
    if not resume:
        raise StoreError(f"{str(store)!r} holds results already, and resume is False. Give overwrite=True.")
    return open_results(store)


def _records(work: str, inputs: dict[str, Any], resume: bool, overwrite: bool) -> Records:
    """Records of the run at `work`, after a check that what is there is of the same inputs."""
    text = get(f"{work}/inputs.json")
    if text is None and Records(work, "").names():
        raise StoreError(
            f"{work!r} is where unfinished work is kept, and holds something else. Give another store."
        )
    try:
        held = None if text is None else json.loads(text)
    except ValueError:
        held = {}  # damaged: nothing there can be believed
    names = [] if held is None else differing(held, inputs)
    if held is not None and not overwrite:
        if names:
            raise StoreError(
                f"{work!r} holds the unfinished work of another run, which differs in: {', '.join(names)}. "
                "Give another store, or overwrite=True (--overwrite) to drop that work."
            )
        if not resume:
            raise StoreError(f"{work!r} holds unfinished work, and resume is False. Give overwrite=True.")
    kept = Records(work, fingerprint(inputs))
    if names:
        for name in kept.names():
            remove(f"{work}/{name}")
    put(f"{work}/inputs.json", json.dumps(inputs, sort_keys=True, indent=1).encode())
    client = run.active_client()
    if client is not None and not all(client.run(_sees, work).values()):
        raise StoreError(
            f"not every worker sees {work!r}. Give a store on a file system that all workers share, or a URL."
        )
    return kept


def _sees(work: str) -> bool:
    return get(f"{work}/inputs.json") is not None


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


def _given(kinship: Any, cohort: Cohort) -> np.ndarray | xr.Dataset:
    """A kinship of the analysed samples, or the eigenpairs of one, in their order."""
    if isinstance(kinship, (str, Path)):
        kinship = arrays.open_kinship_or_spectrum(kinship)
    if isinstance(kinship, xr.Dataset):
        return _given_spectrum(kinship, cohort)
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


def _given_spectrum(pairs: xr.Dataset, cohort: Cohort) -> xr.Dataset:
    ids = schema.sample_ids(pairs)
    if ids is None or not {"p", "s"} <= set(pairs.variables):
        raise KinshipError(
            "a decomposition needs p (eigen, sample), s (eigen) and sample_id, as eigendecompose returns them."
        )
    if ids.size != cohort.sample_id.size or set(ids) != set(cohort.sample_id):
        raise SampleError(
            f"the decomposition is of {ids.size} samples and {cohort.sample_id.size} are analysed "
            f"({np.isin(cohort.sample_id, ids).sum()} in both). Eigenvectors cannot be restricted: decompose "
            "the kinship of the analysed samples, or give the kinship."
        )
    return pairs.isel(sample=schema.positions(cohort.sample_id, ids, "the decomposition"))


@dataclass(frozen=True, eq=False)
class Null:
    """Null model of one group of variants: its fit, the fit that the test uses (ML for score), and the test."""

    data: RotatedData
    fit: NullFit
    tested: NullFit
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
            "log_gamma_tested": self.tested.log_gamma,
            "at_boundary": fit.at_boundary or self.tested.at_boundary,
        }


class _Scan:
    """One run: what it reads, and the steps that leave their work in records."""

    def __init__(
        self,
        ds: xr.Dataset,
        rows: da.Array,
        cohort: Cohort,
        contigs: dict[str, np.ndarray],
        given: np.ndarray | xr.Dataset | None,
        options: dict[str, Any],
        dtype: Any,
        streamed: bool,
        clock: Clock,
    ) -> None:
        self.ds, self.rows, self.cohort, self.contigs = ds, rows, cohort, contigs
        self.given, self.options, self.dtype, self.clock = given, options, dtype, clock
        # a low-rank inner product is a difference of large terms; float32 would lose 1e-3 of log10 p where
        # one eigenvalue is thousands of times the rest
        self.p_dtype = np.float64 if options["rank"] < cohort.y.size else dtype
        self.streamed = streamed
        self.slices = [schema.take(rows, index) for index in contigs.values()]
        self.tested, self.to_test = 0, sum(part.numblocks[0] for part in self.slices)
        self.variants_in_kinship = 0
        self._content_digest: str | None = None
        self._given_digest = None
        if given is not None:
            values = [given[v].values for v in "ps"] if isinstance(given, xr.Dataset) else [given]
            self._given_digest = fingerprint(*values)

    def inputs(self) -> dict[str, Any]:
        """Every input and option by name, as a value or a digest; equal ones give equal results."""
        known = [np.asarray(self.ds[n].values) for n in schema.VARIANT_COORDS if n in self.ds.variables]
        cohort = self.cohort
        return {
            **self.options,
            "genotypes": fingerprint(
                np.asarray(self.ds["sample_id"].values),
                *known,
                {str(k): v for k, v in self.ds.sizes.items()},
                str(self.ds["dosage"].dtype),
                self._content(),
            ),
            "blocks": fingerprint([list(part.chunks[0]) for part in self.slices]),
            "samples": fingerprint(cohort.sample_id),
            "phenotype values": fingerprint(cohort.y),
            "covariate values": fingerprint(cohort.x),
            "kinship values": self._given_digest,
            "version": dasklmm.__version__,
        }

    def _content(self) -> str:
        """Digest of the genotypes; what had to be read for it is read once."""
        if not is_readers_own(self.ds["dosage"].data) and self._content_digest is not None:
            return self._content_digest
        self._content_digest = genotype_stamp(self.ds)
        return self._content_digest

    def run(self, kept: Records | Memory) -> xr.Dataset:
        """All steps; what `kept` holds already is not computed again."""
        if self.given is None and not self.options["truncated"]:
            with self.clock.stage("kinship"):
                self._grams(kept)
        nulls = []
        columns = np.empty((self.rows.shape[0], len(associate.SCAN_COLUMNS) + 1))
        for i, (contig, index) in enumerate(self.contigs.items()):
            with self.clock.stage("null model"):
                null = self._null(kept, i)
            self.clock.tell("null model", i + 1, len(self.contigs))
            nulls.append({"contig": contig, **null.summary()})
            with self.clock.stage("test"):
                columns[index] = self._test(kept, i, null)
        return self._results(columns, nulls)

    def _grams(self, kept: Records | Memory) -> None:
        """One Gram matrix a contig, and their sum."""
        names = [f"gram/{i:05d}" for i in range(len(self.slices))]
        wanted = [i for i, name in enumerate(names) if kept.read(name) is None]
        self.clock.count("kinship", len(names) - len(wanted), len(wanted))
        method = self.options["kinship"]
        lanes = _lanes(kept, len(names))
        parts = [
            lazy_kinship.gram_matrix(
                self.slices[i], method, samples=self.cohort.columns, dtype=self.dtype, lanes=lanes
            )
            for i in wanted
        ]
        keep = blocks.delayed_call(_keep_gram, "kinship-keep")
        where = kept if isinstance(kept, Records) else None
        tasks = [keep(part, where, names[i]) for i, part in zip(wanted, parts, strict=True)]
        grams = run.run_blocks(tasks, functools.partial(self.clock.tell, "kinship"))
        for i, gram in zip(wanted, grams, strict=True):
            if gram is not None:
                kept.write(names[i], gram.matrix, n_variants=gram.n_variants)
        if kept.read(TOTAL) is None:
            total = _gram(kept, names[0])
            for name in names[1:]:
                total = total + _gram(kept, name)
            kept.write(TOTAL, total.matrix, n_variants=total.n_variants)
        self.variants_in_kinship = _gram(kept, TOTAL).n_variants

    def _null(self, kept: Records | Memory, i: int) -> Null:
        """Null model of the group i; its rotation is left in `kept` if it is needed."""
        needed = any(kept.read(name) is None for name in self._tests(i))
        found = kept.read(f"null/{i:05d}")
        if found is None or (needed and not _has_rotation(kept, i)):
            self._decompose(kept, i)
            found = kept.read(f"null/{i:05d}")
            self.clock.count("null model", 0, 1)
        else:
            self.clock.count("null model", 1, 0)
        if found is None:
            raise damaged(kept.path, f"null/{i:05d}")
        table, meta = found
        return _fit(table, meta["mean_diagonal"], self.cohort, self.options)

    def _decompose(self, kept: Records | Memory, i: int) -> None:
        """Leave the rotation of group i in `kept`."""
        y, x, rank = self.cohort.y, self.cohort.x, self.options["rank"]
        without = f"gram/{i:05d}" if self.options["loco"] else None
        if self.options["truncated"]:
            others = [part for j, part in enumerate(self.slices) if without is None or j != i]
            pairs = leading_pairs(
                others, rank, self.options["kinship"], samples=self.cohort.columns, dtype=self.dtype
            )
            self.variants_in_kinship = max(self.variants_in_kinship, pairs.n_variants)
            rotation = _Rotation(pairs.p, _table(pairs.p, pairs.s, y, x), pairs.mean_diagonal)
        elif isinstance(self.given, xr.Dataset):
            p, s = np.asarray(self.given["p"].values), np.asarray(self.given["s"].values)
            # what a truncated decomposition leaves out is not known, so neither is the kinship's trace
            mean_diagonal = float(s.sum()) / y.size if s.size == y.size else float("nan")
            rotation = _Rotation(p, _table(p, s, y, x), mean_diagonal)
        elif self.given is not None:
            rotation = _rotation(np.array(self.given), y, x, rank)
        elif isinstance(kept, Records):
            # where the Gram matrices lie: on a worker, with all of its machine's cores
            run.call(_decompose_kept, kept, i, without, y, x, rank, self.p_dtype)
            return
        else:
            rotation = _rotation(_kinship(kept, without), y, x, rank)
        _keep_rotation(kept, i, rotation, self.p_dtype)

    def _tests(self, i: int) -> list[str]:
        return [f"test/{i:05d}/{j:06d}" for j in range(self.slices[i].numblocks[0])]

    def _test(self, kept: Records | Memory, i: int, null: Null) -> np.ndarray:
        """Tests of the variants of group i, (variant, column)."""
        names = self._tests(i)
        found = [kept.read(name) for name in names]
        wanted = [j for j, block in enumerate(found) if block is None]
        self.clock.count("test", len(names) - len(wanted), len(wanted))
        out = [None if block is None else block[0] for block in found]
        if wanted:
            lazily = associate.scan(
                null.test,
                _operand(kept, i, self.streamed),
                self.slices[i],
                samples=self.cohort.columns,
                intercept=self.options["intercept"],
                ploidy=int(self.ds.attrs.get("ploidy", 2)),
            )
            lazy_blocks = blocks.delayed_blocks(lazily)
            keep = blocks.delayed_call(_keep_block, f"scan-{self.options['test']}")
            where = kept if isinstance(kept, Records) else None
            parts = [keep(lazy_blocks[j], where, names[j]) for j in wanted]
            before = self.tested + len(names) - len(wanted)

            def tell(done: int, total: int) -> None:
                self.clock.tell("test", before + done, self.to_test)

            for j, block in zip(wanted, run.run_blocks(parts, tell), strict=True):
                out[j] = block
        self.tested += len(names)
        kept.drop(f"p/{i:05d}")
        return np.concatenate([block for block in out if block is not None])

    def _results(self, columns: np.ndarray, nulls: list[dict[str, Any]]) -> xr.Dataset:
        coords = {n: self.ds[n] for n in schema.VARIANT_COORDS if n in self.ds.variables}
        out = associate.dataset(columns, associate.SCAN_COLUMNS, coords)
        codes = columns[:, -1].astype(np.int64)
        counts = dict(self.cohort.counts, variants=int(codes.size))
        if self.given is None:
            counts["variants_in_kinship"] = self.variants_in_kinship
        for code, label in enumerate(STATUS_LABELS):
            if (codes == code).any():
                counts[f"status_{label}"] = int((codes == code).sum())
        out.attrs = {
            **self.options,
            "lambda_gc": lambda_gc(out["neg_log10_p_value"].values),
            "dasklmm_version": dasklmm.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": counts,
            "null": nulls,
            "seconds": {k: round(v, 3) for k, v in self.clock.seconds.items()},
            "resumed": self.clock.resumed,
        }
        return out


# what tasks do -----------------------------------------------------------------------------------


def _keep_gram(gram: Gram, kept: Records | None, name: str) -> Gram | None:
    if kept is None:
        return gram
    kept.write(name, gram.matrix, n_variants=gram.n_variants)
    return None


def _keep_block(block: np.ndarray, kept: Records | None, name: str) -> np.ndarray:
    if kept is not None:
        kept.write(name, block)
    return block


def _lanes(kept: Records | Memory, contigs: int) -> int:
    """Sums of a contig's blocks side by side; kept, so that a run taken up elsewhere adds in the same order."""
    found = kept.read("gram/lanes")
    if found is None:
        found = np.array([-(-run.parallelism() // contigs)]), {}
        kept.write("gram/lanes", found[0])
    return int(found[0][0])


def _gram(kept: Records | Memory, name: str) -> Gram:
    found = kept.read(name)
    if found is None:
        raise damaged(kept.path, name)
    return Gram(found[0], int(found[1]["n_variants"]))


def _kinship(kept: Records | Memory, without: str | None) -> np.ndarray:
    """Kinship of all contigs, or of all but one."""
    return lazy_kinship.scaled(_gram(kept, TOTAL), None if without is None else _gram(kept, without))


@dataclass(frozen=True, eq=False)
class _Rotation:
    """Eigenvectors (eigen, sample), and a table (eigen, 2 + covariate) of s, Py and PX."""

    p: np.ndarray
    table: np.ndarray
    mean_diagonal: float


def _rotation(k: np.ndarray, y: np.ndarray, x: np.ndarray, rank: int) -> _Rotation:
    """Of a kinship that is given up: its memory serves the eigenvectors."""
    if design.has_intercept(x):
        # leaves REML as it is; the plain likelihood of the score test and PVE are then GEMMA's
        k = spectrum.double_centered(k, overwrite=True)
    mean_diagonal = spectrum.mean_diagonal(k)
    pairs = spectrum.eigendecompose(k, rank, overwrite=True)
    return _Rotation(pairs.p, _table(pairs.p, pairs.s, y, x), mean_diagonal)


def _table(p: np.ndarray, s: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.column_stack([s, p @ y, p @ x])


def _keep_rotation(kept: Records | Memory, i: int, rotation: _Rotation, dtype: Any) -> None:
    p = rotation.p.astype(dtype, copy=False)
    if isinstance(kept, Records):
        kept.write_rows(f"p/{i:05d}", p, budget.STREAM_BYTES)
    else:
        kept.write(f"p/{i:05d}", p)
    kept.write(f"null/{i:05d}", rotation.table, mean_diagonal=rotation.mean_diagonal)


def _decompose_kept(
    kept: Records, i: int, without: str | None, y: np.ndarray, x: np.ndarray, rank: int, dtype: Any
) -> None:
    budget.return_free_memory()
    budget.check_eigendecomposition(y.size)
    with blocks.all_blas_threads() if y.size >= ALL_CORES_FROM else blocks.one_blas_thread():
        _keep_rotation(kept, i, _rotation(_kinship(kept, without), y, x, rank), dtype)
    budget.return_free_memory()


def _fit(table: np.ndarray, mean_diagonal: float, cohort: Cohort, options: dict[str, Any]) -> Null:
    y, x, test = cohort.y, cohort.x, options["test"]
    unrotated = (y, x) if table.shape[0] < y.size else (None, None)
    data = design.rotated_data(table[:, 1], table[:, 2:], table[:, 0], *unrotated, cohort.covariates)
    fit = reml.fit_null(data, on_boundary="clamp")
    if fit.at_boundary:
        logger.warning("the variance ratio lies at a bound: log_gamma %.3g", fit.log_gamma)
    tested = fit
    if test == "score":
        tested = reml.fit_null(data, criterion="ml", on_boundary="clamp")
        if tested.at_boundary:
            logger.warning("the ML variance ratio lies at a bound: log_gamma %.3g", tested.log_gamma)
    pve = reml.proportion_of_variance(fit, mean_diagonal)
    return Null(data, fit, tested, pve, alternatives.alternative_test(data, tested.log_gamma, test))


def _has_rotation(kept: Records | Memory, i: int) -> bool:
    if isinstance(kept, Memory):
        return kept.read(f"p/{i:05d}") is not None
    rows = kept.stored_rows(f"p/{i:05d}")
    return rows is not None and rows.whole()


def _operand(kept: Records | Memory, i: int, streamed: bool) -> Any:
    """P as the blocks find it: in its records, in memory for threads, or scattered over a cluster."""
    name = f"p/{i:05d}"
    if isinstance(kept, Records):
        rows = kept.stored_rows(name)
        if rows is None:
            raise damaged(kept.path, name)
        return rows if streamed else arrays.StoredArray(rows)
    found = kept.read(name)
    assert found is not None  # left by _null
    client = run.active_client()
    return found[0] if client is None else client.scatter(found[0], broadcast=True, hash=False)
