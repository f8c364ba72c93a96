"""Each stage beside what the machine can do: python -m benchmarks [--only STAGE,…] [--full] [--json PATH]

Stages run as a user runs them: real stores, worker processes of `dasklmm.local_cluster`, public calls. The limit
is the same work in bare loops (limits.py), in turn with the stage. The ratio is of the least of each: other work
on the machine only ever adds time, so the least run is nearest to what either can do; medians and largest are
shown beside it, and every run is in the JSON.

The default takes about three minutes on two cores, at sizes where what a stage costs once still shows; --full
takes half an hour. Targets are for stages that last seconds: 2,000 samples x 131,072 variants, say.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

import dasklmm
from benchmarks import limits
from benchmarks.measure import Spread, alternate, machine, seconds, write_json
from benchmarks.work import PRECISION, Work
from dasklmm import settings


@dataclass(frozen=True)
class Sizes:
    """Samples and variants of the stages, rows and columns of a stored rotation, and of the memory stage."""

    samples: int
    variants: int
    pa: tuple[int, int]
    memory: tuple[int, int]
    rounds: int
    precisions: tuple[str, ...] = ("float32", "float64")
    workers: tuple[int, ...] = (1, 2)


DEFAULT = Sizes(800, 16_384, (98_304, 2000), (1000, 30_000), 3)
FULL = Sizes(3000, 32_768, (200_000, 2000), (2000, 500_000), 3)


@dataclass(frozen=True)
class Row:
    """One line: the program beside its limit. Where less is better the ratio is program / limit."""

    stage: str
    precision: str
    workers: int | None
    limit: Spread
    dasklmm: Spread
    unit: str
    target: float
    at_least: bool = True
    note: str = ""
    more: dict[str, Any] | None = None

    @property
    def ratio(self) -> float:
        limit, program = self.limit.least, self.dasklmm.least
        return limit / program if self.at_least else program / limit

    @property
    def met(self) -> bool:
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "precision": self.precision,
            "workers": self.workers,
            "limit": self.limit.as_json(),
            "dasklmm": self.dasklmm.as_json(),
            "unit": self.unit,
            "ratio": self.ratio,
            "target": self.target,
            "at_least": self.at_least,
            "met": self.met,
            "note": self.note,
            **(self.more or {}),
        }


@dataclass(frozen=True)
class Bench:
    """What a stage is given: the inputs, the sizes, and the client of a cluster of so many workers."""

    work: Work
    sizes: Sizes
    workers: int
    client: Any

    def row(
        self, stage: str, precision: str, limit: Callable[[], float | None],
        program: Callable[[], float | None], target: float, note: str, **more: Any,
    ) -> Row:  # fmt: skip
        """Measure one line in seconds: those that a step returns, or of its whole call."""
        steps = {"limit": limit, "dasklmm": program}
        runs = alternate(steps, self.sizes.rounds)
        return Row(
            stage, precision, self.workers, runs["limit"], runs["dasklmm"], "s", target, note=note, more=more
        )


# stages ------------------------------------------------------------------------------------------


def stored_pa(bench: Bench, precision: str) -> Iterator[Row]:
    """`fit_alternatives` on a stored rotation; limit: readinto of its chunk files and the kernel's sums."""
    work, (m, r) = bench.work, bench.sizes.pa
    path, model = work.stored_rotation(precision), work.rotation_model()
    null = model.alternative_test()
    chunks = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")
    rows = json.loads((path / "zarr.json").read_text())["chunk_grid"]["configuration"]["chunk_shape"][0]
    size = m * r * np.dtype(precision).itemsize

    def program() -> None:
        model.fit_alternatives(path).compute()

    with limits.Readers(bench.workers) as read_and_sum:
        yield bench.row(
            "test on stored PA", precision, lambda: read_and_sum(chunks, (rows, r), precision, null), program, 0.6,
            f"{m:,} x {r:,}, {size / 1e9:.2f} GB", variants=m, eigen=r, bytes=size,
        )  # fmt: skip


def fused(bench: Bench, precision: str) -> Iterator[Row]:
    """The test stage of `gwas` with eigenpairs given; limit: the rotation's product."""
    n, m = bench.sizes.samples, bench.sizes.variants

    yield bench.row(
        "rotate + test", precision, lambda: limits.gemm(m, n, n, precision, bench.workers),
        lambda: bench.work.scan(precision).attrs["seconds"]["test"], 0.9, f"{n:,} x {m:,} int8",
        variants=m, samples=n,
    )  # fmt: skip


def whitened(bench: Bench, precision: str) -> Iterator[Row]:
    """The null model and the test stage of `gwas(whiten=True)` with eigenpairs given; limit: the whole product.

    A triangular product is half of it, so that the ratio can be above 1.
    """
    n, m = bench.sizes.samples, bench.sizes.variants

    def program() -> float:
        took = bench.work.scan(precision, whiten=True).attrs["seconds"]
        return float(took["null model"] + took["test"])

    yield bench.row(
        "rotate + test, whitened", precision, lambda: limits.gemm(m, n, n, precision, bench.workers), program,
        0.9, f"{n:,} x {m:,} int8; with the null model", variants=m, samples=n,
    )  # fmt: skip


def rotate(bench: Bench, precision: str) -> Iterator[Row]:
    """`linear_mixed_regression_rows(pa_path=)`, which stores; limit: the product, then a plain write."""
    n, m, work = bench.sizes.samples, bench.sizes.variants, bench.work
    size = m * n * np.dtype(precision).itemsize
    files = [size // 16] * 16

    def limit() -> float:
        folder = work.fresh()
        folder.mkdir()

        def written() -> None:
            limits.gemm(m, n, n, precision, bench.workers)
            limits.write(folder, files, bench.workers)

        took = seconds(written)
        _remove(folder)
        return took

    def program() -> float:
        path = work.fresh()
        ds, model = work.open(), work.model(precision)
        took = seconds(lambda: dasklmm.linear_mixed_regression_rows(ds, model, pa_path=path))
        _remove(path)
        return took

    yield bench.row(
        "rotate to a store", precision, limit, program, 0.9, f"{n:,} x {m:,} int8, {size / 1e9:.2f} GB written",
        variants=m, samples=n,
    )  # fmt: skip


def kinship(bench: Bench, precision: str) -> Iterator[Row]:
    """`kinship(ds).compute()`; limit: rank-k updates of the same shapes."""
    n, m = bench.sizes.samples, bench.sizes.variants

    def program() -> float:
        ds = bench.work.open()
        return seconds(lambda: dasklmm.kinship(ds, precision=PRECISION[precision]).compute())

    yield bench.row(
        "kinship", precision, lambda: limits.syrk(m, n, precision, bench.workers), program, 0.8,
        f"{n:,} x {m:,} int8", variants=m, samples=n,
    )  # fmt: skip


def eigen(bench: Bench, precision: str) -> Iterator[Row]:
    """`eigendecompose(k)`, always float64; limit: `numpy.linalg.eigh` of the same matrix."""
    if precision != "float64":
        return
    k = bench.work.kinship.values

    def program() -> None:
        with threadpool_limits(bench.workers, user_api="blas"):
            dasklmm.eigendecompose(k)

    yield bench.row(
        "eigendecomposition", precision, lambda: limits.eigh(k, bench.workers), program, 0.95,
        f"n = {k.shape[0]:,}, BLAS threads as workers", samples=k.shape[0],
    )  # fmt: skip


def refit(bench: Bench, precision: str) -> Iterator[Row]:
    """What `variance_ratio="per_variant"` adds to the test stage of `gwas`; limit: the products at the nodes."""
    n, m, work = bench.sizes.samples, bench.sizes.variants, bench.work
    nodes = work.refit_nodes()
    steps = {
        "limit": lambda: seconds(lambda: limits.gemm(m, n, nodes, "float64", bench.workers)),
        "rotation": lambda: seconds(lambda: limits.gemm(m, n, n, precision, bench.workers)),
        "null": lambda: work.scan(precision).attrs["seconds"]["test"],
        "per variant": lambda: work.scan(precision, variance_ratio="per_variant").attrs["seconds"]["test"],
    }
    runs = alternate(steps, bench.sizes.rounds)
    added = [b - a for a, b in zip(runs["null"].runs, runs["per variant"].runs, strict=True)]
    # of the least of each: a difference of single runs takes the noise of both
    least = runs["per variant"].least - runs["null"].least
    what = "per variant less null" if least > 0 else "not measurable: the noise is larger than what is added"
    yield Row(
        "refit", precision, bench.workers, runs["limit"],
        Spread.of([least, *(max(v, least) for v in added)] if least > 0 else [float("nan")]), "s", 0.5,
        note=f"{n:,} x {m:,}, {nodes} columns; {what}", more={
            "variants": m, "samples": n, "added_runs": added,
            "null_runs": runs["null"].runs, "per_variant_runs": runs["per variant"].runs,
        },
    )  # fmt: skip
    both = [a + b for a, b in zip(runs["limit"].runs, runs["rotation"].runs, strict=True)]
    yield Row(
        "rotate + refit", precision, bench.workers, Spread.of(both), runs["per variant"], "s",
        0.5, note=f"{n:,} x {m:,}, the whole test stage", more={"variants": m, "samples": n},
    )  # fmt: skip


def whole(bench: Bench, precision: str) -> Iterator[Row]:
    """A whole `gwas`, from the call to the results in their store; limit: SYRK, eigh and GEMM in turn."""
    if precision != bench.sizes.precisions[0]:
        return
    n, m, work = bench.sizes.samples, bench.sizes.variants, bench.work
    k, last = work.kinship.values, {}

    def limit() -> None:
        limits.syrk(m, n, precision, bench.workers)
        limits.eigh(k, bench.workers)
        limits.gemm(m, n, n, precision, bench.workers)

    def program() -> float:
        path, ds = work.fresh(), work.open()

        def scan() -> None:
            found = dasklmm.gwas(ds, work.y, loco=False, precision=PRECISION[precision], store=path)
            last.update(found.attrs["seconds"])

        took = seconds(scan)
        last["outside stages"] = round(took - sum(v for key, v in last.items() if key != "outside stages"), 3)
        _remove(path)
        return took

    row = bench.row("whole scan", precision, limit, program, 0.75, "", variants=m, samples=n, stages=last)
    parts = ", ".join(f"{key} {value:.2f}" for key, value in last.items())
    yield Row(**{**vars(row), "note": f"{n:,} x {m:,}; last run: {parts} s"})


def scheduler(bench: Bench, precision: str) -> Iterator[Row]:
    """Share of a test stage that is not inside tasks, here and at 1,000,000 variants.

    distributed's own task durations are summed. The stage runs in the blocks that it chooses, and in few and in
    many, of which run time - busy / workers = a + b tasks is solved; small blocks read stored chunks more than
    once, so their busy time says nothing.
    """
    if precision != "float32":
        return
    n, m, w = bench.sizes.samples, bench.sizes.variants, bench.workers
    found: dict[str, list[tuple[float, float, int]]] = {"own": [], "few": [], "many": []}
    chunks: dict[str, Any] = {"own": "auto", "few": max(1, m // 16), "many": max(1, m // 128)}
    for _ in range(bench.sizes.rounds):
        for name, runs in found.items():
            ds = bench.work.open(chunks=chunks[name])
            runs.append(watched(bench.client, lambda ds=ds: bench.work.scan(precision, ds=ds)))
    best = {name: min(runs, key=lambda run: run[0] - run[1] / w) for name, runs in found.items()}
    rest = {name: run - busy / w for name, (run, busy, _) in best.items()}
    more_tasks = max(1, best["many"][2] - best["few"][2])
    a_task = max(0.0, (rest["many"] - rest["few"]) / more_tasks)
    start = max(0.0, rest["few"] - a_task * best["few"][2])
    run, busy, count = best["own"]
    at_million = projected_share(start, a_task, busy / w / m, n)
    yield Row(
        "scheduler share", precision, w, Spread.of([1.0]), Spread.of([1 - busy / w / run]), "share", 0.02,
        at_least=False, note=f"{n:,} x {m:,}: {count} tasks, {run:.2f} s, busy {busy:.2f} s",
    )  # fmt: skip
    yield Row(
        "  at 1e6 variants", precision, w, Spread.of([1.0]), Spread.of([at_million]), "share", 0.02,
        at_least=False, note=f"projected: {1e3 * start:.0f} ms a stage and {1e3 * a_task:.2f} ms a task",
        more={"seconds_a_task": a_task, "seconds_a_stage": start},
    )  # fmt: skip


def projected_share(
    start: float, a_task: float, a_variant: float, samples: int, variants: float = 1e6
) -> float:
    """Share of a stage outside its tasks, from seconds a stage, a task, and (busy) a variant."""
    tasks = max(16.0, -(-variants // max(1, settings.block_size() // (4 * samples))))
    outside = start + a_task * tasks
    return outside / (outside + a_variant * variants)


def watched(client: Any, scan: Callable[[], xr.Dataset]) -> tuple[float, float, int]:
    """Seconds of a scan's test stage, seconds inside its tasks, and their number."""
    from distributed import get_task_stream

    with get_task_stream(client=client) as stream:
        took = scan().attrs["seconds"]["test"]
    tests = [task for task in stream.data if str(task["key"]).startswith(("test-", "('test-"))]
    busy = sum(
        part["stop"] - part["start"]
        for task in tests
        for part in task["startstops"]
        if part["action"] == "compute"
    )
    return took, busy, len(tests)


def memory(sizes: Sizes) -> Iterator[Row]:
    """Largest memory of a worker over a whole scan, beside what the budget projected."""
    from benchmarks.memory import scanned

    n, m = sizes.memory
    found = scanned(n, m)
    yield Row(
        "peak memory", "float32", 2, Spread.of([found.projected / 1e6]), Spread.of([found.most / 1e6]),
        "MB", 1.0, at_least=False, note=f"{n:,} x {m:,}, workers of {found.limit / 1e6:,.0f} MB",
        more={"peaks_mb": [v / 1e6 for v in found.peaks]},
    )  # fmt: skip


def start_up(sizes: Sizes) -> Iterator[Row]:
    """A fresh interpreter to the package's names, to --help, and to a cluster, beside what they stand on."""

    def python(*arguments: str) -> Callable[[], float]:
        command = [sys.executable, *arguments]
        return lambda: seconds(lambda: subprocess.run(command, check=True, capture_output=True))

    names = "import dasklmm; [getattr(dasklmm, name) for name in dasklmm.__all__]"
    runs = alternate(
        {
            "libraries": python("-c", "import xarray, distributed"),
            "bare": python("-c", "import dasklmm"),
            "names": python("-c", names),
            "python": python("-c", "pass"),
            "help": python("-m", "dasklmm.cli", "--help"),
        },
        max(3, sizes.rounds),
    )
    base = runs["libraries"]
    yield Row(
        "import dasklmm",
        "",
        None,
        base,
        runs["bare"],
        "s",
        1.5,
        at_least=False,
        note="import xarray, distributed",
    )
    yield Row("  and all its names", "", None, base, runs["names"], "s", 1.5, at_least=False, note="the same")
    half = Spread.of([0.5])
    yield Row("dasklmm --help", "", None, half, runs["help"], "s", 1.0, at_least=False,
              note=f"half a second; a bare interpreter {runs['python'].least:.2f} s")  # fmt: skip

    def plain() -> float:
        from distributed import LocalCluster

        start = time.perf_counter()
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"):
            return time.perf_counter() - start

    def ours() -> float:
        start = time.perf_counter()
        with dasklmm.local_cluster(2):
            return time.perf_counter() - start

    runs = alternate({"limit": plain, "dasklmm": ours}, max(2, sizes.rounds))
    yield Row("cluster of 2", "", 2, runs["limit"], runs["dasklmm"], "s", 1.5, at_least=False,
              note="distributed.LocalCluster")  # fmt: skip


ON_A_CLUSTER: dict[str, Callable[[Bench, str], Iterator[Row]]] = {
    "pa": stored_pa,
    "fused": fused,
    "whitened": whitened,
    "rotate": rotate,
    "kinship": kinship,
    "eigen": eigen,
    "refit": refit,
    "whole": whole,
    "scheduler": scheduler,
}
ALONE: dict[str, Callable[[Sizes], Iterator[Row]]] = {"startup": start_up, "memory": memory}
STAGES = (*ON_A_CLUSTER, *ALONE)


# running -----------------------------------------------------------------------------------------


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def cluster_of(workers: int) -> Iterator[Any]:
    """Client of a cluster whose workers have imported what tasks need."""
    with dasklmm.local_cluster(n_workers=workers) as cluster, cluster.get_client() as client:
        client.run(_warm)
        yield client


def _warm() -> None:
    import dasklmm.association  # noqa: F401  # what a second run on a cluster finds


def measured(sizes: Sizes, only: tuple[str, ...], tell: Callable[[Row], None]) -> list[Row]:
    """Every row of the chosen stages; `tell` is called with each as it is there."""
    rows: list[Row] = []

    def take(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            tell(row)

    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), sizes.samples, sizes.variants, sizes.pa)
        chosen = [name for name in ON_A_CLUSTER if name in only]
        for workers in sizes.workers if chosen else ():
            with cluster_of(workers) as client:
                for name in chosen:
                    for precision in sizes.precisions:
                        take(ON_A_CLUSTER[name](Bench(work, sizes, workers, client), precision))
    for name in ALONE:
        if name in only:
            take(ALONE[name](sizes))
    return rows


COLUMNS = (f"{'limit here, now':>24}", f"{'dasklmm':>24}", f"{'ratio':>6} {'target':>7}", "note")
HEADER = " | ".join([f"{'stage':<23} {'':<8} w", *COLUMNS])


def line(row: Row) -> str:
    """Row of the table: least (median to most)."""

    def shown(spread: Spread) -> str:
        if math.isnan(spread.least):
            return "not measurable"
        digits = 0 if spread.most >= 100 else 3
        if len(set(spread.runs)) == 1:
            return f"{spread.least:.{digits}f} {row.unit}"
        return f"{spread.least:.{digits}f} ({spread.median:.{digits}f}-{spread.most:.{digits}f}) {row.unit}"

    sign = ">=" if row.at_least else "<="
    workers = "" if row.workers is None else str(row.workers)
    ratio = f"{'':6}" if math.isnan(row.ratio) else f"{row.ratio:6.2f}"
    missed = "*" if not row.met and not math.isnan(row.ratio) else " "
    return (
        f"{row.stage:<23} {row.precision:<8} {workers:>1} | {shown(row.limit):>24} | {shown(row.dasklmm):>24} | "
        f"{ratio} {sign}{row.target:<4g}{missed} | {row.note}"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(value) for value in text.split(","))


def main() -> None:
    """Print the table, and keep it as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="STAGE,…", help=f"of {', '.join(STAGES)}")
    parser.add_argument("--full", action="store_true", help="larger sizes, more rounds")
    parser.add_argument(
        "--samples",
        type=int,
        help=f"but of pa and memory, which have sizes of their own [default: {DEFAULT.samples}]",
    )
    parser.add_argument("--variants", type=int, help=f"likewise [default: {DEFAULT.variants}]")
    parser.add_argument("--rounds", type=int, help="alternating runs of each; start-up has three at least")
    parser.add_argument("--workers", help="[default: 1,2]", type=_numbers, metavar="N,…")
    parser.add_argument("--precision", help="[default: float32,float64]", metavar="DTYPE,…")
    parser.add_argument("--json", metavar="PATH", help="keep every run there")
    options = parser.parse_args()
    only = STAGES if options.only is None else tuple(options.only.split(","))
    if unknown := set(only) - set(STAGES):
        parser.error(f"no stage is called {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    chosen = vars(FULL if options.full else DEFAULT)
    for name in ("samples", "variants", "rounds"):
        if getattr(options, name):
            chosen = {**chosen, name: getattr(options, name)}
    if options.workers:
        chosen = {**chosen, "workers": options.workers}
    if options.precision:
        chosen = {**chosen, "precisions": tuple(options.precision.split(","))}
        if unknown := set(chosen["precisions"]) - set(PRECISION):
            parser.error(
                f"no precision is called {', '.join(sorted(unknown))}; there are {', '.join(PRECISION)}"
            )
    sizes = Sizes(**chosen)
    facts = machine()
    blas = " ".join(str(lib["version"]) for lib in facts["blas"])
    print(f"{facts['processor']}, {facts['cores']} cores, load {facts['load_before'][0]}, BLAS {blas}")
    print("least (median-most) of alternating runs; ratio of the least; * misses its target\n")
    print(HEADER)
    start = time.perf_counter()
    rows = measured(sizes, only, lambda row: print(line(row), flush=True))
    took = time.perf_counter() - start
    print(f"\n{took:.0f} s in all; {sum(row.met for row in rows)} of {len(rows)} meet their target")
    write_json(
        options.json,
        {"machine": facts, "sizes": vars(sizes), "seconds": took, "rows": [row.as_json() for row in rows]},
    )
