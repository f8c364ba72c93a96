"""Time of the refit a variant, beside GEMMA's and JAMMA's, on the mouse data: python -m benchmarks.refit_peers

Needs the folder of shared data (DASKLMM_DATA), `gemma` on PATH (Debian package gemma), and `jamma` on PATH or as
JAMMA (PyPI package jamma, in an environment of its own). A peer that is not there is named and left out.

GEMMA's is the "time on optimization" of its log. JAMMA's is the "lmm time" of its log, which takes in the
rotation. Ours is `refit_block` on the rotated variants, in two threads of one BLAS thread each.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

import dasklmm
from dasklmm.numerics import design, refit, reml, spectrum
from dasklmm.numerics.scan import project_block

ROUNDS, THREADS = 3, 2


def prepared(folder: Path, variants: pd.Index) -> tuple[refit.RefitTest, np.ndarray]:
    """The null with GEMMA's kinship, and the rotated variants (variant, eigen)."""
    ds = dasklmm.open_genotypes(folder / "mouse.bed")
    ds = ds.isel(variant=np.isin(ds["variant_id"].values, variants.to_numpy(dtype=str)))
    y = dasklmm.read_table(folder / "mouse.fam").iloc[:, 0].dropna()
    kept = np.isin(ds["sample_id"].values, y.index.to_numpy(dtype=str))
    k = spectrum.double_centered(dasklmm.kinship(ds, "centered").values[np.ix_(kept, kept)])
    pairs = spectrum.eigendecompose(k)
    y = y.loc[ds["sample_id"].values[kept]].to_numpy()
    data = design.rotated_data(pairs.p @ y, pairs.p @ np.ones((y.size, 1)), pairs.s)
    calls = ds["dosage"].values[:, kept]
    return refit.refit_test(data, reml.fit_null(data), "wald"), project_block(calls, pairs.p)


def ours(null: refit.RefitTest, pa: np.ndarray) -> tuple[float, np.ndarray]:
    """Wall seconds, and -log10 p."""
    parts = np.array_split(pa, THREADS)
    with threadpool_limits(1), ThreadPoolExecutor(THREADS) as pool:
        start = time.perf_counter()
        stats = list(pool.map(lambda part: refit.refit_block(null, part), parts))
        seconds = time.perf_counter() - start
    return seconds, np.concatenate([-s.log_p for s in stats]) / np.log(10)


def of_log(path: Path, pattern: str, unit: float) -> float:
    """Seconds that a program's log names."""
    found = re.search(pattern, path.read_text())
    assert found is not None, f"{path} says nothing of {pattern}"
    return float(found.group(1)) * unit


def main() -> None:
    """Alternate the programs and print microseconds a variant."""
    data = Path(os.environ.get("DASKLMM_DATA", "../shared/data")).resolve() / "mouse_hs1940" / "mouse_hs1940"
    jamma = os.environ.get("JAMMA") or shutil.which("jamma")
    if shutil.which("gemma") is None or not data.with_suffix(".bed").exists():
        sys.exit(f"gemma is not on PATH, or {data}.bed is not there (DASKLMM_DATA)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".bed", ".bim", ".fam"):
            shutil.copy(data.with_suffix(suffix), folder / f"mouse{suffix}")

        def run(*command: str) -> None:
            subprocess.run(command, cwd=folder, check=True, capture_output=True)

        run("gemma", "-bfile", "mouse", "-gk", "1", "-o", "k")
        if jamma:
            run(jamma, "-bfile", "mouse", "-gk", "1", "-o", "j")
        seconds: dict[str, list[float]] = {"dasklmm": [], "gemma": [], "jamma": []}
        null, pa, log_p = None, np.empty(0), np.empty(0)
        for _ in range(ROUNDS):
            run("gemma", "-bfile", "mouse", "-k", "output/k.cXX.txt", "-lmm", "4", "-o", "g")
            text = r"time on optimization = ([\d.e+-]+) min"
            seconds["gemma"].append(of_log(folder / "output" / "g.log.txt", text, 60.0))
            table = pd.read_csv(folder / "output" / "g.assoc.txt", sep="\t").set_index("rs")
            if null is None:
                null, pa = prepared(folder, table.index)
            took, log_p = ours(null, pa)
            seconds["dasklmm"].append(took)
            if jamma:
                run(jamma, "-bfile", "mouse", "-k", "output/j.cXX.npy", "-lmm", "4", "-o", "l")
                log = folder / "output" / "l.log.txt"
                seconds["jamma"].append(of_log(log, r"lmm time = ([\d.]+) seconds", 1.0))
        m = len(pa)
        base = statistics.median(seconds["dasklmm"])
        for program, values in seconds.items():
            if not values:
                print(f"{program:<8} is not there: pip install jamma, in an environment of its own")
                continue
            median = statistics.median(values)
            spread = ", ".join(f"{1e6 * v / m:.1f}" for v in values)
            print(f"{program:<8} {1e6 * median / m:8.1f} µs a variant ({spread}), ratio {median / base:.0f}")
        gap = np.abs(log_p + np.log10(table["p_wald"].to_numpy()))
        print(f"{m:,} variants; log10 p_wald against GEMMA's: largest gap {gap.max():.1e}")


if __name__ == "__main__":
    main()
