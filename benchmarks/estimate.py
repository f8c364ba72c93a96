"""What a biobank would cost, on paper: python -m benchmarks estimate TABLE.json [--samples N …]

From the rates that `python -m benchmarks --json TABLE.json` measured on this machine: seconds and memory of each
stage on so many cores, each with the memory given, and which of them cannot be done as things are. Cores are
taken to be as fast as those measured and to keep their rate when there are many, and each core to read
--disk bytes a second of what all of them share; the rest is arithmetic.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import write_json
from dasklmm import settings
from dasklmm.errors import MemoryBudgetError
from dasklmm.lazy.budget import BASE_BYTES, STREAM_BYTES, Room, Shape
from dasklmm.numerics.scan import TILE_VARIANTS
from dasklmm.numerics.subspace import OVERSAMPLING

# Krylov blocks before a restart, and passes: some ten where it was measured (docs/design.md, leading pairs).
KRYLOV_BLOCKS, PASSES = 8, 10
# Fivefold: int8 calls behind Zstandard and a bit shuffle (store/genotypes.py).
COMPRESSION = 5.0


@dataclass(frozen=True)
class Rates:
    """Of one core, as measured: flop a second in each precision, bytes of stored PA a second; seconds a task."""

    single: float
    double: float
    kinship: float
    stored_bytes: float
    eigen: float  # seconds a sample cubed, all cores of the machine
    task: float

    @classmethod
    def of(cls, table: dict[str, Any]) -> Rates:
        """From the rows of a table: the one with most workers of each kind."""

        def rate(stage: str, precision: str, flop: Any) -> float:
            row = _row(table, stage, precision)
            return float(flop(row) / row["dasklmm"]["min"] / row["workers"])

        def product(row: dict[str, Any]) -> float:
            return 2.0 * row["samples"] ** 2 * row["variants"]

        eigen = _row(table, "eigendecomposition", "float64")
        return cls(
            rate("rotate + test", "float32", product),
            rate("rotate + test", "float64", product),
            rate("kinship", "float64", lambda row: product(row) / 2),
            rate("test on stored PA", "float32", lambda row: row["bytes"]),
            eigen["dasklmm"]["min"] / eigen["samples"] ** 3,
            _row(table, "  at 1e6 variants", "float32")["seconds_a_task"],
        )


def _row(table: dict[str, Any], stage: str, precision: str) -> dict[str, Any]:
    found = [row for row in table["rows"] if row["stage"] == stage and row["precision"] == precision]
    if not found:
        raise SystemExit(f"the table has no row {stage!r} in {precision}: run it without --only")
    return dict(max(found, key=lambda row: row["workers"]))


@dataclass(frozen=True)
class Stage:
    """Seconds, and bytes needed by one process of those that there are."""

    name: str
    seconds: float
    memory: float
    room: float
    note: str

    @property
    def fits(self) -> bool:
        return self.memory <= self.room

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "fits": self.fits}


def estimate(
    rates: Rates, n: int, m: int, rank: int, cores: int, memory: float, client: float, disk: float
) -> list[Stage]:
    """Stages of a scan of n samples by m variants with `rank` leading pairs.

    Parameters
    ----------
    rates : Rates
    n, m, rank : int
    cores : int
        A worker process each.
    memory, client : float
        Bytes of a worker and of the process that starts the run.
    disk : float
        Bytes a second that one core reads while all do.
    """
    width = rank + OVERSAMPLING
    shape = Shape(n, n, rank, 2, 1, 8, columns=width)
    room = memory * settings.usable_memory() - BASE_BYTES
    read = n * m / COMPRESSION / (disk * cores)
    pass_flop = 4.0 * m * n * width
    basis = KRYLOV_BLOCKS * width
    half = basis / 2  # columns that a pass finds on average
    # a pass: the projected matrix twice; directions, pairs and two orthogonalisations of a block
    client_flop = PASSES * (4 * n * half**2 + 16 * n * half * width)
    try:
        rows, streamed = replace(shape, columns=0).fitting_rows(Room(int(memory), 1), kinship=False)
    except MemoryBudgetError:
        rows, streamed = TILE_VARIANTS, True
    tasks = -(-m // rows)
    of_p = tasks if streamed else cores
    held = shape.scan_bytes(rows) + (2 * STREAM_BYTES if streamed else shape.p_bytes)
    by = f"each of {of_p:,} {f'tasks of {rows:,} variants' if streamed else 'workers'}"
    columns = 9
    return [
        Stage(
            "kinship, exact", n * float(n) * m / (rates.kinship * cores) + read, shape._matrices_bytes, room,
            "what the leading pairs spare",
        ),
        Stage("eigh, exact", rates.eigen * float(n) ** 3, 4.0 * 8 * n * n, client, "on one machine; likewise"),
        Stage(
            "leading pairs", PASSES * (pass_flop / (rates.single * cores) + read),
            shape.product_bytes(TILE_VARIANTS), room,
            f"{PASSES} passes; vectors of {8e-9 * n * width:.0f} GB, five of them a task",
        ),
        Stage(
            "  its basis", client_flop / rates.double, 2.0 * 8 * n * basis, client,
            f"basis and image of {basis:,} columns, by one core of the process that starts the run",
        ),
        Stage(
            "rotate + test", 2.0 * rank * n * m / (rates.double * cores) + read, held, room,
            f"P is float64, {8e-9 * rank * n:.0f} GB, {'streamed' if streamed else 'held'}",
        ),
        Stage("  reading P", of_p * 8.0 * rank * n / (disk * cores), 0.0, room, f"by {by}"),
        Stage("  scheduler", rates.task * tasks, 0.0, room, f"{tasks:,} tasks, one after the other"),
        Stage("results", 0.0, m * (2.0 * 8 * columns + 100), client, "columns, their Dataset, texts of status"),
    ]  # fmt: skip


def breaks_first(stages: Sequence[Stage]) -> Stage:
    """Of the stages that such a run needs, the one furthest beyond its memory; else the longest."""
    needed = [stage for stage in stages if "exact" not in stage.name]
    worst = max(needed, key=lambda stage: stage.memory / stage.room)
    return worst if not worst.fits else max(needed, key=lambda stage: stage.seconds)


def duration(seconds: float) -> str:
    """Hours or days, in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 4 * 86400 else f"{seconds / 86400:,.0f} days"


def main() -> None:
    """Print the estimate for each number of cores."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks estimate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", help="JSON of `python -m benchmarks --json`")
    parser.add_argument("--samples", type=int, default=500_000)
    parser.add_argument("--variants", type=int, default=10_000_000)
    parser.add_argument("--rank", type=int, default=5000)
    parser.add_argument("--cores", default="100,1000")
    parser.add_argument("--memory", type=float, default=8e9, help="bytes a core  [default: 8e9]")
    parser.add_argument(
        "--client", type=float, default=256e9, help="bytes of the starting process  [default: 256e9]"
    )
    parser.add_argument(
        "--disk", type=float, default=1e8, help="bytes a second that each core reads  [default: 1e8]"
    )
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args()
    rates = Rates.of(json.loads(Path(options.table).read_text(encoding="utf-8")))
    n, m, rank = options.samples, options.variants, options.rank
    print(f"{n:,} samples x {m:,} variants, rank {rank:,}; genotypes {n * m / 1e12:.1f} TB as int8")
    print(
        f"a core, as measured: {rates.single / 1e9:.0f} Gflop/s float32, {rates.double / 1e9:.0f} float64, ",
        end="",
    )
    print(f"{rates.stored_bytes / 1e9:.2f} GB/s of stored PA, {1e3 * rates.task:.1f} ms a task")
    kept: dict[str, Any] = {}
    for cores in (int(v) for v in options.cores.split(",")):
        stages = estimate(rates, n, m, rank, cores, options.memory, options.client, options.disk)
        print(f"\n{cores:,} cores of {options.memory / 1e9:.0f} GB")
        print(f"{'stage':<16} | {'time':>10} | {'memory':>10} | {'there is':>10} |")
        for stage in stages:
            sign = " " if stage.fits else "*"
            print(
                f"{stage.name:<16} | {duration(stage.seconds):>10} | {stage.memory / 1e9:>8.1f}GB{sign}| "
                f"{stage.room / 1e9:>8.1f}GB | {stage.note}"
            )
        first = breaks_first(stages)
        print(f"breaks first: {first.name.strip()}" + ("" if first.fits else " (memory)"))
        kept[str(cores)] = {
            "stages": [stage.as_json() for stage in stages],
            "breaks_first": first.name.strip(),
        }
    write_json(options.json, {"rates": vars(rates), "samples": n, "variants": m, "rank": rank, "cores": kept})


if __name__ == "__main__":
    main()
