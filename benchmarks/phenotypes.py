"""One phenotype against a hundred, in one pass over the mouse data: python -m benchmarks phenotypes

Needs the folder of shared data (DASKLMM_DATA). The phenotypes are CD8 with noise of their own, of the same mice.
Printed are medians of three alternating runs, and one run where each variant's ratio is refitted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

import dasklmm

ROUNDS, MANY = 3, 100


def main() -> None:
    """Alternate, and print the median seconds and their ratio."""
    argparse.ArgumentParser(
        prog="python -m benchmarks phenotypes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    data = Path(os.environ.get("DASKLMM_DATA", "../shared/data")).resolve() / "mouse_hs1940" / "mouse_hs1940"
    if not data.with_suffix(".bed").exists():
        sys.exit(f"{data}.bed is not there (DASKLMM_DATA)")
    ds = dasklmm.open_genotypes(data.with_suffix(".bed"))
    y = dasklmm.read_table(data.with_suffix(".fam")).iloc[:, 0].dropna()
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((y.size, MANY))
    many = pd.DataFrame(
        y.to_numpy()[:, None] + noise, index=y.index, columns=[f"phenotype {k + 1}" for k in range(MANY)]
    )
    for ratio in ("null", "per_variant"):
        for loco in (False, True):
            seconds: dict[int, list[float]] = {1: [], MANY: []}
            for _ in range(ROUNDS if ratio == "null" else 1):
                for count in seconds:
                    start = time.perf_counter()
                    dasklmm.gwas(ds, many.iloc[:, :count], loco=loco, variance_ratio=ratio)
                    seconds[count].append(time.perf_counter() - start)
            one, hundred = (statistics.median(seconds[count]) for count in seconds)
            print(
                f"variance ratio {ratio}, {'LOCO' if loco else 'no LOCO'}: one phenotype {one:.1f} s, "
                f"{MANY} phenotypes {hundred:.1f} s, ratio {hundred / one:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
