"""The steps of a scan, each of which leaves its work in records: kinship, null models, tests."""

from __future__ import annotations

import functools
import logging
import operator
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

import dasklmm
from dasklmm import schema
from dasklmm.clock import Clock
from dasklmm.cohort import Cohort, Cohorts
from dasklmm.errors import DaskLMMError, MemoryBudgetError
from dasklmm.lazy import associate, blocks, budget, run
from dasklmm.lazy import kinship as lazy_kinship
from dasklmm.lazy.eigen import leading_pairs
from dasklmm.lazy.inputs import files_stamp, genotype_stamp
from dasklmm.live import reporting
from dasklmm.null_models import Null, fitted_null, tested_together
from dasklmm.numerics import design, spectrum
from dasklmm.numerics.records import (
    STATUS_LABELS,
    Filters,
    Status,
)
from dasklmm.readers.dataset import in_blocks_of_at_most
from dasklmm.rotations import (
    Rotation,
    decompose_kept,
    decomposed,
    has_rotation,
    keep_grams,
    keep_rotation,
    kept_gram,
    lanes_of,
    operand_of,
    or_why_not,
    release_on_workers,
    rotated_table,
    rounded,
    whitened,
)
from dasklmm.scan_results import ScanResults
from dasklmm.selection import Selection
from dasklmm.store.arrays import StoredArray
from dasklmm.store.records import Memory, Records, damaged
from dasklmm.store.results import fingerprint
from dasklmm.store.unfinished import block_name, keep_layout

logger = logging.getLogger(__name__)


class Scan:
    """One run: what it reads, and the steps that leave their work in records.

    Phenotypes of the same samples and covariates are a group, which shares Gram matrices and decompositions;
    a unit is a group and a contig that is left out (or none). One pass over the genotypes tests all groups.

    Parameters
    ----------
    ds : Dataset
        Genotypes and the coordinates of their variants.
    rows : dask.array.Array (variant, sample)
        The dosages, in the blocks that were given.
    cohorts : Cohorts
    contigs : dict
        Variants of each contig that is left out in turn, or all.
    given : list, or None
        A kinship or its eigenpairs for each group, where the kinship is not computed.
    options : dict
        Common to all phenotypes.
    ranks : list of int
        Eigenpairs of each group.
    dtype : float32 or float64
    most : int
        Variants of a task, at most.
    streamed : bool
        P is read piece by piece.
    per_read : int
        Groups whose Gram matrices one task adds to.
    side_by_side : int
        Decompositions of kinships that there is room for at once.
    clock : Clock
    selection : Selection, optional
        Which variants are tested; the kinship is of all. Default: all.
    filters : Filters, optional
    """

    def __init__(
        self,
        ds: xr.Dataset,
        rows: da.Array,
        cohorts: Cohorts,
        contigs: dict[str, np.ndarray],
        given: list[np.ndarray | xr.Dataset] | None,
        options: dict[str, Any],
        ranks: list[int],
        dtype: Any,
        most: int,
        streamed: bool,
        per_read: int,
        side_by_side: int,
        clock: Clock,
        selection: Selection | None = None,
        filters: Filters | None = None,
    ) -> None:
        self.ds, self.rows, self.cohorts, self.contigs = ds, rows, cohorts, contigs
        self.given, self.options, self.ranks, self.dtype = given, options, ranks, dtype
        self.most, self.streamed, self.per_read, self.clock = most, streamed, per_read, clock
        large = any(cohort.y.size >= spectrum.MANY_SAMPLES for cohort in cohorts.all)
        alone = large or given is not None or options["truncated"]
        self.side_by_side = 1 if alone else side_by_side
        # units decomposed in this run, and why there is no rotation
        self.decomposed: dict[tuple[int, int], DaskLMMError | None] = {}
        self.columns = associate.VARIANCE_RATIOS[options["variance_ratio"]]
        if options["interaction"]:
            self.columns = (*self.columns, *associate.INTERACTION_COLUMNS)
        self.results = ScanResults(ds, cohorts, ranks, options, self.columns, selection)
        self._ploidy = schema.ploidy(ds)
        self.selection, self.filters = selection, filters
        self.chosen = chosen = None if selection is None else selection.chosen
        self.indexes = [i if chosen is None else i[chosen[i]] for i in contigs.values()]
        self.chunks = rows.chunks[0]
        self.slices: list[da.Array] = []
        self.to_scan: list[da.Array] = []
        self.tested, self.to_test = 0, 0
        self.variants_in_kinship = [0] * len(cohorts.groups)
        # of the contig that is tested, the table of each group
        self.tables: dict[int, np.ndarray] = {}
        self._digest, self._files = "", ""
        self._given_digest = None
        if given is not None:
            parts = [[g[v].values for v in "ps"] if isinstance(g, xr.Dataset) else [g] for g in given]
            self._given_digest = fingerprint(*(value for part in parts for value in part))

    def inputs(self) -> dict[str, Any]:
        """Every input and option by name, as a value or a digest; equal ones give equal results."""
        known = [np.asarray(self.ds[n].values) for n in schema.VARIANT_COORDS if n in self.ds.variables]
        cohorts = self.cohorts.all
        each = list(self.results.said_of_each().values())
        return {
            **self.options,
            **(each[0] if not self.cohorts.several else {k: [e[k] for e in each] for k in each[0]}),
            "phenotype": self.cohorts.names if self.cohorts.several else self.cohorts.names[0],
            "genotypes": fingerprint(
                np.asarray(self.ds["sample_id"].values),
                *known,
                {**{str(k): v for k, v in self.ds.sizes.items()}, "ploidy": self._ploidy},
                str(self.ds["dosage"].dtype),
                self._content(),
            ),
            "blocks": fingerprint(list(self.chunks)),
            "chosen variants": None if self.chosen is None else fingerprint(self.chosen),
            "samples": fingerprint(*(cohort.sample_id for cohort in cohorts)),
            "phenotype values": fingerprint(*(cohort.y for cohort in cohorts)),
            "covariate values": fingerprint(*(cohort.x for cohort in cohorts)),
            "kinship values": self._given_digest,
            "version": dasklmm.__version__,
        }

    def _content(self) -> str:
        """Digest of the genotypes; what had to be read for it is read again unless its files are as they were."""
        files = files_stamp(self.ds["dosage"].data)
        if not self._digest or not files:
            self._digest, self._files = genotype_stamp(self.ds), files
        # files that were edited and then restored may have been read between
        return self._digest if files == self._files else fingerprint(self._digest, files)

    def bytes_kept(self) -> int:
        """Bytes on disk at a time, at most: Gram matrices, P of the contigs at work, tests and their results."""
        computed = self.given is None and not self.options["truncated"]
        matrices = budget.matrices_held(len(self.contigs), 1) if computed else 0
        together = min(-(-self.side_by_side // len(self.cohorts.groups)), len(self.contigs))
        size = 2 * self.rows.shape[0] * len(self.cohorts.names) * (len(self.columns) + 1) * 8
        for g, (group, rank) in enumerate(zip(self.cohorts.groups, self.ranks, strict=True)):
            n = group[0].y.size
            # W is float64 where float32 would not do
            itemsize = 8 if self.options["whiten"] else np.dtype(self._dtype_of_p(g)).itemsize
            size += matrices * 8 * n * n + together * rank * n * itemsize
        return size

    def _cut(self, kept: Records | Memory) -> None:
        """Cut the genotypes into blocks: those of the run that is taken up, whatever memory there is now."""
        found = kept.read("rows")
        if found is None:
            found = np.array([min(self.most, max(self.chunks))]), {}
            kept.write("rows", found[0])
        most = int(found[0][0])
        if most > self.most:
            raise MemoryBudgetError(
                f"the unfinished work is in blocks of {most:,} variants, and there is memory for {self.most:,} "
                "now. Give the workers as much memory as before, or overwrite=True (--overwrite) to begin anew."
            )
        rows = in_blocks_of_at_most(self.rows, most)
        self.slices = [schema.take(rows, index) for index in self.contigs.values()]
        self.to_scan = (
            self.slices if self.chosen is None else [schema.take(rows, index) for index in self.indexes]
        )
        self.to_test = sum(self._n_blocks(i) for i in range(len(self.contigs)))

    def run(self, kept: Records | Memory) -> xr.Dataset:
        """All steps; what `kept` holds already is not computed again."""
        self._cut(kept)
        if isinstance(kept, Records):
            self._lay_out(kept)
        try:
            with reporting(run.active_client(), self.cohorts.names, *self._places()) as self.clock.live:
                done = self._run(kept)
            release_on_workers()
            return done
        finally:
            StoredArray.release()

    def _lay_out(self, kept: Records) -> None:
        """Leave what the blocks of tests will be of, so that those that are done can be looked at."""
        unit = np.full(self.rows.shape[0], -1)
        for i, index in enumerate(self.indexes):
            unit[index] = i
        chosen = slice(None) if self.chosen is None else self.chosen
        lengths = [
            part.chunks[0] if index.size else ()
            for part, index in zip(self.to_scan, self.indexes, strict=True)
        ]
        empty, coords = self.results.empty(), self.results.coords()
        keep_layout(kept, empty, coords, unit[chosen], lengths, STATUS_LABELS)

    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Contig, position (0: unknown) and id of each variant."""
        known, n = self.ds.variables, self.rows.shape[0]
        contig = known["variant_contig"].values if "variant_contig" in known else np.full(n, "")
        position = known["variant_position"].values if "variant_position" in known else np.zeros(n)
        position = np.maximum(np.nan_to_num(position), 0).astype(np.int64)
        return contig, position, known["variant_id"].values if "variant_id" in known else None

    def _run(self, kept: Records | Memory) -> xr.Dataset:
        if self.given is None and not self.options["truncated"]:
            logger.info("kinship: %d variants, %d contigs", self.rows.shape[0], len(self.contigs))
            with self.clock.stage("kinship"):
                self._grams(kept)
            logger.info("kinship: done in %.1f s", self.clock.seconds["kinship"])
        columns = np.full((self.rows.shape[0], len(self.cohorts.names), len(self.columns) + 1), np.nan)
        for j, name in enumerate(self.columns):
            if name in associate.INTEGERS + associate.TRUTH_VALUES:
                columns[..., j] = 0.0
        columns[..., -1] = Status.NO_NULL_MODEL
        summaries: dict[str, list[dict[str, Any]]] = {cohort.phenotype: [] for cohort in self.cohorts.all}
        place = {name: k for k, name in enumerate(self.cohorts.names)}
        for i, contig in enumerate(self.contigs):
            index = self.indexes[i]
            if not index.size:
                continue
            start = time.perf_counter()
            with self.clock.stage("null model"):
                self._decompose_from(kept, i)
            nulls: list[list[Null | str]] = []
            for g, group in enumerate(self.cohorts.groups):
                with self.clock.stage("null model"):
                    nulls.append(self._nulls(kept, g, i))
                self.clock.tell(
                    "null model",
                    i * len(self.cohorts.groups) + g + 1,
                    len(self.contigs) * len(self.cohorts.groups),
                )
                for cohort, null in zip(group, nulls[g], strict=True):
                    told = {"error": null} if isinstance(null, str) else null.summary()
                    summaries[cohort.phenotype].append({"contig": contig, **told})
            with self.clock.stage("test"):
                found = self._test(kept, i, nulls)
            logger.info(
                "%s: %d variants tested in %.1f s, with h_sq %s",
                f"{contig} left out" if self.options["loco"] else "all contigs",
                index.size,
                time.perf_counter() - start,
                ", ".join(
                    "none" if isinstance(null, str) else f"{null.fit.h_sq:.4f}"
                    for own in nulls
                    for null in own
                ),
            )
            for cohort, null in zip(
                self.cohorts.all, [null for group in nulls for null in group], strict=True
            ):
                if not isinstance(null, str):
                    columns[index, place[cohort.phenotype]] = found[:, 0]
                    found = found[:, 1:]
        logger.info(
            "in all: %s", ", ".join(f"{name} {took:.1f} s" for name, took in self.clock.seconds.items())
        )
        in_kinship = self.variants_in_kinship if self.given is None else None
        out = self.results.complete(columns, summaries, in_kinship)
        out.attrs.update(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds={k: round(v, 3) for k, v in self.clock.seconds.items()},
            resumed=self.clock.resumed,
        )
        return out

    def _unit(self, g: int, i: int) -> str:
        return f"{g * len(self.contigs) + i:05d}"

    def _grams(self, kept: Records | Memory) -> None:
        """One Gram matrix a unit, and the sum of each group."""
        groups = range(len(self.cohorts.groups))
        lanes = lanes_of(kept, len(self.slices))
        where = kept if isinstance(kept, Records) else None
        keep = blocks.delayed_call(keep_grams, "kinship")
        wanted: list[tuple[da.Array, list[int], list[str]]] = []
        there = 0
        for start in groups[:: self.per_read]:
            batch = groups[start : start + self.per_read]
            for i, part in enumerate(self.slices):
                absent = [g for g in batch if kept.read(f"gram/{self._unit(g, i)}") is None]
                self.clock.count("kinship", len(batch) - len(absent), len(absent))
                if absent:
                    wanted.append((part, absent, [f"gram/{self._unit(g, i)}" for g in absent]))
                else:
                    there += part.numblocks[0]
        names = [own for _, _, own in wanted]
        to_do = sum(part.numblocks[0] for part, _, _ in wanted)
        if wanted:
            self.clock.begin("kinship", there, there + to_do)

        def tell(done: int, total: int) -> None:
            self.clock.tell("kinship", there + done, there + total)

        with run.counted(to_do, tell if wanted else None) as report:
            tasks = []
            for part, absent, own in wanted:
                grams = lazy_kinship.gram_matrices(
                    part,
                    self.options["kinship"],
                    samples=[self.cohorts.groups[g][0].selected for g in absent],
                    dtype=self.dtype,
                    lanes=lanes,
                    report=report,
                )
                tasks.append(keep(grams, where, own))
            found = run.run_blocks(tasks)
        if where is None:
            for grams, own in zip(found, names, strict=True):
                keep_grams(grams, kept, own)
        for g in groups:
            units = [f"gram/{self._unit(g, i)}" for i in range(len(self.slices))]
            found = kept.read(self._total(g))
            if found is None:
                total = functools.reduce(operator.add, (kept_gram(kept, name) for name in units))
                keep_grams([total], kept, [self._total(g)])
                self.variants_in_kinship[g] = total.n_variants
            else:
                self.variants_in_kinship[g] = int(found[1]["n_variants"])

    def _total(self, g: int) -> str:
        """Record of the Gram matrix of all contigs of group g."""
        return f"gram/total/{g:03d}" if len(self.slices) > 1 else f"gram/{self._unit(g, 0)}"

    def _decompose_from(self, kept: Records | Memory, i: int) -> None:
        """Leave the rotations of contig i in `kept`, and of the next contigs what fits beside them."""
        units, later = self._undecomposed(kept, i), i + 1
        while units and len(units) < self.side_by_side and later < len(self.contigs):
            units += self._undecomposed(kept, later)
            later += 1
        for start in range(0, len(units), self.side_by_side):
            together = units[start : start + self.side_by_side]
            self.decomposed.update(zip(together, self._decompose(kept, together), strict=True))

    def _undecomposed(self, kept: Records | Memory, i: int) -> list[tuple[int, int]]:
        """Group and contig of the rotations that contig i still needs."""
        if not self.indexes[i].size:
            return []
        needed = any(kept.read(name) is None for name in self._tests(i))
        units = [(g, i) for g in range(len(self.cohorts.groups)) if (g, i) not in self.decomposed]
        tables = [kept.read(f"null/{self._unit(*unit)}") for unit in units]
        return [
            unit
            for unit, table in zip(units, tables, strict=True)
            if table is None or (needed and not has_rotation(kept, self._unit(*unit), table[0]))
        ]

    def _nulls(self, kept: Records | Memory, g: int, i: int) -> list[Null | str]:
        """Null model of each phenotype of a unit, or why there is none."""
        computed = (g, i) in self.decomposed
        self.clock.count("null model", int(not computed), int(computed))
        if (error := self.decomposed.get((g, i))) is not None:
            if not self.cohorts.several:
                raise error
            return [self._failed(cohort, error) for cohort in self.cohorts.groups[g]]
        name = f"null/{self._unit(g, i)}"
        found = kept.read(name)
        if found is None:
            raise damaged(kept.path, name)
        table, meta = found
        self.tables[g] = table
        self.variants_in_kinship[g] = max(self.variants_in_kinship[g], meta["n_variants"])
        nulls: list[Null | str] = []
        for t, cohort in enumerate(self.cohorts.groups[g]):
            try:
                with blocks.one_blas_thread():
                    nulls.append(fitted_null(table, t, meta["mean_diagonal"], cohort, self.options))
            except DaskLMMError as error:
                if not self.cohorts.several:
                    raise
                nulls.append(self._failed(cohort, error))
        return nulls

    @staticmethod
    def _failed(cohort: Cohort, error: DaskLMMError) -> str:
        logger.warning("phenotype %r has no null model: %s", cohort.phenotype, error)
        return str(error)

    def _decompose(
        self, kept: Records | Memory, units: Sequence[tuple[int, int]]
    ) -> list[DaskLMMError | None]:
        """Leave the rotations of some units in `kept`, side by side; why there is none of a unit."""
        if self.given is not None or self.options["truncated"]:
            return [or_why_not(self._decompose_here, kept, *unit) for unit in units]
        if isinstance(kept, Memory) and run.active_client() is not None:
            return [or_why_not(decompose_kept, kept, *self._of_unit(*unit)) for unit in units]
        # where the Gram matrices lie: on workers
        rotate = blocks.delayed_call(or_why_not, "rotate")
        return run.run_blocks([rotate(decompose_kept, kept, *self._of_unit(*unit)) for unit in units])

    def _of_unit(self, g: int, i: int) -> tuple[Any, ...]:
        """What `decompose_kept` is told of a unit."""
        group, unit = self.cohorts.groups[g], self._unit(g, i)
        y = np.column_stack([cohort.y for cohort in group])
        left_out = list(self.contigs)[i] if self.options["loco"] else None
        finish = functools.partial(rounded, dtype=self._dtype_of_p(g))
        if self.options["whiten"]:
            (cohort,) = group
            finish = functools.partial(whitened, cohort=cohort, test=self.options["test"], dtype=self.dtype)
        return unit, self._total(g), left_out, y, group[0].x, self.ranks[g], finish

    def _dtype_of_p(self, g: int) -> Any:
        # a low-rank inner product is a difference of large terms; float32 would lose 1e-3 of log10 p where
        # one eigenvalue is thousands of times the rest
        return np.float64 if self.ranks[g] < self.cohorts.groups[g][0].y.size else self.dtype

    def _decompose_here(self, kept: Records | Memory, g: int, i: int) -> None:
        """Leave the rotation of a given kinship, or of leading pairs, in `kept`."""
        unit, _, left_out, y, x, rank, finish = self._of_unit(g, i)
        if self.given is None:
            others = [part for j, part in enumerate(self.slices) if left_out is None or j != i]
            pairs = leading_pairs(
                others,
                rank,
                self.options["kinship"],
                samples=self.cohorts.groups[g][0].selected,
                dtype=self.dtype,
                lanes=lanes_of(kept, 1),
                left_out=left_out,
                tell=functools.partial(self.clock.tell, "leading pairs"),
            )
            rotation = Rotation(
                pairs.p, rotated_table(pairs.p, pairs.s, y, x), pairs.mean_diagonal, pairs.n_variants
            )
        elif isinstance(given := self.given[g], xr.Dataset):
            p, s = np.asarray(given["p"].values), np.asarray(given["s"].values)
            # what a truncated decomposition leaves out is not known, so neither is the kinship's trace
            mean_diagonal = float(s.sum()) / x.shape[0] if s.size == x.shape[0] else float("nan")
            rotation = Rotation(p, rotated_table(p, s, y, x), mean_diagonal)
        else:
            rotation = decomposed(np.array(given), y, x, rank)
        keep_rotation(kept, unit, finish(rotation))

    def _n_blocks(self, i: int) -> int:
        return int(self.to_scan[i].numblocks[0]) if self.indexes[i].size else 0

    def _tests(self, i: int) -> list[str]:
        return [block_name(i, j) for j in range(self._n_blocks(i))]

    def _test(self, kept: Records | Memory, i: int, nulls: list[list[Null | str]]) -> np.ndarray:
        """Tests of the variants of contig i, (variant, phenotype with a null model, column)."""
        names = self._tests(i)
        found = [kept.read(name) for name in names]
        wanted = [j for j, block in enumerate(found) if block is None]
        self.clock.count("test", len(names) - len(wanted), len(wanted))
        out = [None if block is None else block[0] for block in found]
        tested = [
            cohort.phenotype
            for group, own in zip(self.cohorts.groups, nulls, strict=True)
            for cohort, null in zip(group, own, strict=True)
            if not isinstance(null, str)
        ]
        for j, block in enumerate(out):
            if block is not None:
                self._show(i, j, tested, block)
        groups = []
        for g, (group, own) in enumerate(zip(self.cohorts.groups, nulls, strict=True)):
            tests = [null.test for null in own if not isinstance(null, str)]
            if tests and wanted:
                operand = operand_of(kept, self._unit(g, i), self.tables[g], self.streamed, len(nulls))
                samples, intercept = group[0].selected, bool(design.has_intercept(group[0].x))
                together = tested_together(tests, group[0], self.options["interaction"])
                groups.append(associate.Group(together, operand, samples, intercept))
        if wanted and groups:
            label = "test"
            lazily = associate.scan(
                groups,
                self.to_scan[i],
                label=label,
                columns=self.columns,
                ploidy=self._ploidy,
                filters=self.filters,
            )
            lazy_blocks = blocks.delayed_blocks(lazily)
            keep = blocks.delayed_call(_keep_block, label)
            where = kept if isinstance(kept, Records) else None
            of = [self.cohorts.names.index(name) for name in tested]
            parts = [keep(lazy_blocks[j], where, names[j], of) for j in wanted]
            before = self.tested + len(names) - len(wanted)
            self.clock.begin("test", before, self.to_test)

            def tell(done: int, total: int) -> None:
                self.clock.tell("test", before + done, self.to_test)

            def show(place: int, block: np.ndarray) -> None:
                self._show(i, wanted[place], tested, block)

            for j, block in zip(wanted, run.run_blocks(parts, tell, show), strict=True):
                out[j] = block
        self.tested += len(names)
        for g in range(len(self.cohorts.groups)):
            kept.drop(f"p/{self._unit(g, i)}")
        width = len(self.columns) + 1
        n_tested = sum(not isinstance(null, str) for own in nulls for null in own)
        if not n_tested:
            return np.empty((self.indexes[i].size, 0, width))
        return np.concatenate([block for block in out if block is not None]).reshape(-1, n_tested, width)

    def _show(self, i: int, j: int, tested: list[str], block: np.ndarray) -> None:
        """Give the p-values of block j of contig i to whoever watches."""
        if self.clock.live is None or not tested:
            return
        ends = np.cumsum(self.to_scan[i].chunks[0])
        rows = self.indexes[i][ends[j] - len(block) : ends[j]]
        width, at = len(self.columns) + 1, self.columns.index("neg_log10_p_value")
        self.clock.live.add(rows, {name: block[:, k * width + at] for k, name in enumerate(tested)})


def _keep_block(block: np.ndarray, kept: Records | None, name: str, phenotypes: list[int]) -> np.ndarray:
    if kept is not None:
        kept.write(name, block, phenotypes=phenotypes)
    return block
