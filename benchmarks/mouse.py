"""The whole mouse scan, process start to files, beside GEMMA's two commands: python -m benchmarks.mouse

Needs `gemma` on PATH (Debian package gemma) and the folder of shared data (DASKLMM_DATA).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from dasklmm.store.results import open_results

ROUNDS = 3


def timed(command: list[str], folder: Path) -> float:
    """Wall seconds of a command."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Alternate the programs, print the median seconds and the ratio, and check that they agree."""
    data = Path(os.environ.get("DASKLMM_DATA", "../shared/data")).resolve() / "mouse_hs1940" / "mouse_hs1940"
    if shutil.which("gemma") is None or not data.with_suffix(".bed").exists():
        sys.exit(f"gemma is not on PATH, or {data}.bed is not there (DASKLMM_DATA)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".bed", ".bim", ".fam"):  # GEMMA writes beside its input
            shutil.copy(data.with_suffix(suffix), folder / f"mouse{suffix}")
        scan = [sys.executable, "-m", "dasklmm.cli", "gwas", "mouse", "--pheno", "mouse.fam"]
        scan += ["--pheno-col", "phenotype_1", "--no-loco", "--quiet", "--overwrite", "--out", "out"]
        programs = {
            "dasklmm gwas": [scan],
            "gemma -gk 1; gemma -lmm 4": [
                ["gemma", "-bfile", "mouse", "-gk", "1", "-o", "k"],
                ["gemma", "-bfile", "mouse", "-k", "output/k.cXX.txt", "-lmm", "4", "-o", "lmm"],
            ],
        }
        seconds: dict[str, list[float]] = {k: [] for k in programs}
        for _ in range(ROUNDS):
            for program, commands in programs.items():
                seconds[program].append(sum(timed(c, folder) for c in commands))
        median = {k: statistics.median(v) for k, v in seconds.items()}
        ours, theirs = median.values()
        for program, value in median.items():
            spread = ", ".join(f"{v:.1f}" for v in seconds[program])
            print(f"{program:<28} {value:6.1f} s   ({spread})")
        print(f"ratio {theirs / ours:.1f}")
        table = pd.read_csv(folder / "output" / "lmm.assoc.txt", sep="\t").set_index("rs")
        results = open_results(folder / "out" / "results.zarr").to_dataframe().set_index("variant_id")
        both = results.loc[table.index]
        gap = np.abs(both["neg_log10_p_value"] + np.log10(table["p_lrt"]))
        print(
            f"log10 p against GEMMA's p_lrt (another kinship, gamma refitted for each variant): median gap "
            f"{gap.median():.3f}, correlation {both['neg_log10_p_value'].corr(-np.log10(table['p_lrt'])):.5f}"
        )


if __name__ == "__main__":
    main()
