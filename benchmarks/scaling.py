"""Time of a scan's stages against its sizes: python -m benchmarks scaling [--quick] [--figure PATH] [--json PATH]

One size grows at a time: variants (1e4 to 1e6), samples (500 to 8,000), phenotypes, workers. The exponent of a
stage is the slope of log seconds over log size, over all sizes and between the two largest, where what a stage
costs once weighs least.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import dasklmm
from benchmarks.measure import machine, write_json
from benchmarks.table import cluster_of
from benchmarks.work import Work

STAGES = ("kinship", "null model", "test", "whole")


@dataclass(frozen=True)
class Sizes:
    """What grows, and what the others are meanwhile."""

    variants: tuple[int, ...] = (10_000, 30_000, 100_000, 300_000, 1_000_000)
    samples: tuple[int, ...] = (500, 1000, 2000, 4000, 8000)
    phenotypes: tuple[int, ...] = (1, 3, 10, 30, 100)
    workers: tuple[int, ...] = (1, 2)
    # samples of the growing variants; variants of the growing samples; (samples, variants) of the other two
    samples_then: int = 500
    variants_then: int = 16_384
    both_then: tuple[int, int] = (1000, 50_000)
    rounds: int = 2


QUICK = Sizes(
    (5000, 15_000, 50_000, 150_000),
    (250, 500, 1000, 2000),
    (1, 4, 16, 64),
    (1, 2),
    300,
    8192,
    (600, 16_384),
    1,
)


@dataclass
class Series:
    """Least seconds of each stage at each size."""

    name: str
    fixed: str
    sizes: list[int] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def sort(self) -> None:
        """Rising sizes."""
        order = np.argsort(self.sizes)
        self.sizes = [self.sizes[i] for i in order]
        self.seconds = {stage: [t[i] for i in order] for stage, t in self.seconds.items()}

    def exponents(self) -> dict[str, tuple[float, float]]:
        """Of each stage: over all sizes, and between the two largest."""
        return {
            stage: (exponent(self.sizes, t), exponent(self.sizes[-2:], t[-2:]))
            for stage, t in self.seconds.items()
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "fixed": self.fixed,
            "sizes": self.sizes,
            "seconds": self.seconds,
            "exponents": {k: {"all": a, "largest": b} for k, (a, b) in self.exponents().items()},
        }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log seconds over log size by least squares; NaN of fewer than two sizes, or seconds of 0."""
    if len(sizes) < 2 or min(seconds) <= 0:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def scanned(work: Work, phenotypes: int = 1, rounds: int = 1) -> dict[str, float]:
    """Least seconds of the stages of a whole `gwas` without LOCO, into a store."""
    rng = np.random.default_rng(5)
    y = work.y.to_numpy()[:, None] + rng.standard_normal((work.samples, phenotypes))
    table = pd.DataFrame(y, index=work.y.index, columns=[f"t{k}" for k in range(phenotypes)])
    runs = []
    for _ in range(rounds):
        path, start = work.fresh(), time.perf_counter()
        found = dasklmm.gwas(work.open(), table, loco=False, store=path)
        whole = time.perf_counter() - start
        shutil.rmtree(path)
        runs.append({**found.attrs["seconds"], "whole": whole})
    return {stage: min(run[stage] for run in runs) for stage in STAGES}


def points(sizes: Sizes) -> list[tuple[Series, list[tuple[int, int, int, int, int]]]]:
    """Each series with its points: the size, then samples, variants, phenotypes, workers."""
    n, m = sizes.both_then
    most = max(sizes.workers)
    both = f"{n:,} samples x {m:,} variants"
    return [
        (
            Series("variants", f"{sizes.samples_then:,} samples, {most} workers"),
            [(v, sizes.samples_then, v, 1, most) for v in sizes.variants],
        ),
        (
            Series("samples", f"{sizes.variants_then:,} variants, {most} workers"),
            [(v, v, sizes.variants_then, 1, most) for v in sizes.samples],
        ),
        (Series("phenotypes", f"{both}, {most} workers"), [(v, n, m, v, most) for v in sizes.phenotypes]),
        (Series("workers", both), [(v, n, m, 1, v) for v in sizes.workers]),
    ]


def measured(sizes: Sizes, tell: Callable[[str], None] = print) -> list[Series]:
    """Every series."""
    every = points(sizes)
    works: dict[tuple[int, int], Work] = {}
    with tempfile.TemporaryDirectory() as folder:
        for workers in sorted(set(sizes.workers), reverse=True):
            with cluster_of(workers):
                _small(folder)  # what is slow the first time only
                for series, plan in every:
                    for i, (size, samples, variants, phenotypes, wanted) in enumerate(plan):
                        if wanted != workers:
                            continue
                        key = samples, variants
                        if key not in works:
                            where = Path(folder) / f"{samples}-{variants}"
                            where.mkdir()
                            works[key] = Work(where, samples, variants, (1, 1))
                        add(series, size, scanned(works[key], phenotypes, sizes.rounds), tell)
                        if not any(
                            key == (p[1], p[2]) for _, other in every for p in other if p is not plan[i]
                        ):
                            shutil.rmtree(works.pop(key).folder)
    for series, _ in every:
        series.sort()
    return [series for series, _ in every]


def _small(folder: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as where:
        scanned(Work(Path(where), 50, 200, (1, 1)))


def add(series: Series, size: int, seconds: dict[str, float], tell: Callable[[str], None]) -> None:
    """Take one point."""
    series.sizes.append(size)
    for stage, value in seconds.items():
        series.seconds[stage].append(value)
    tell(f"{series.name:<10} {size:>9,} | " + " | ".join(f"{seconds[stage]:9.2f} s" for stage in STAGES))


def short(size: float) -> str:
    """Label of a size: 8,000, 15k, 1M."""
    if size >= 1e6:
        return f"{size / 1e6:g}M"
    return f"{size / 1e3:g}k" if size >= 1e4 else f"{size:,.0f}"


def draw(series: Sequence[Series], path: str | Path) -> None:
    """Seconds against each size, both in logarithms."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, axes = plt.subplots(
        1, len(series), figsize=(3.6 * len(series), 3.6), sharey=True, layout="constrained"
    )
    for axis, one in zip(np.atleast_1d(axes), series, strict=True):
        for stage, (_, last) in one.exponents().items():
            label = stage if np.isnan(last) else f"{stage}, {last:.2f}"
            axis.loglog(one.sizes, one.seconds[stage], marker="o", markersize=4, linewidth=1.5, label=label)
        axis.set_xlabel(one.name)
        axis.set_title(one.fixed, fontsize=8)
        axis.xaxis.set_major_locator(FixedLocator(one.sizes))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, title="exponent at the largest", title_fontsize=7)
    np.atleast_1d(axes)[0].set_ylabel("seconds")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Print each point and the exponents; keep figure and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, two minutes")
    parser.add_argument("--figure", metavar="PATH", help="needs matplotlib")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args()
    facts = machine()
    print(f"{'':<20} | " + " | ".join(f"{stage:>11}" for stage in STAGES))
    series = measured(QUICK if options.quick else Sizes(), lambda text: print(text, flush=True))
    print("\nexponents, all sizes (the two largest)")
    for one in series:
        shown = ", ".join(f"{stage} {a:.2f} ({b:.2f})" for stage, (a, b) in one.exponents().items())
        print(f"{one.name:<10} {shown}; {one.fixed}")
    if options.figure:
        draw(series, options.figure)
    write_json(options.json, {"machine": facts, "series": {one.name: one.as_json() for one in series}})


if __name__ == "__main__":
    main()
