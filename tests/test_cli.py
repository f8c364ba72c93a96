"""The command line as a person uses it: real processes, real files."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm.store.results import open_results

FILES = {"results.zarr", "results.tsv.gz", "manhattan.png", "qq.png", "report.html", "run.json"}


def run(*arguments, expect=0):
    done = subprocess.run(
        [sys.executable, "-m", "dasklmm.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "cohort"
    done = run("simulate", "--samples", 150, "--variants", 600, "--seed", 3, "--out", folder)
    assert "scan it with: dasklmm gwas" in done.stdout
    return folder


@pytest.fixture(scope="module")
def scan(cohort):
    out = cohort / "scan"
    done = run(
        "gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv",
        "--covar", cohort / "covariates.tsv", "--out", out,
    )  # fmt: skip
    return out, done


def test_simulate_is_seeded_and_refuses_to_overwrite(cohort, tmp_path):
    run("simulate", "--samples", 150, "--variants", 600, "--seed", 3, "--out", tmp_path)
    for name in ("phenotypes.tsv", "covariates.tsv", "effects.tsv"):
        assert (tmp_path / name).read_bytes() == (cohort / name).read_bytes()
    again = run("simulate", "--out", tmp_path, expect=1)
    assert "exists already" in again.stderr
    effects = pd.read_csv(cohort / "effects.tsv", sep="\t")
    assert (effects["true_beta"] != 0).all()


def test_a_run_leaves_its_files(scan):
    out, done = scan
    assert {p.name for p in out.iterdir()} == FILES
    assert "lambda_GC" in done.stdout
    assert "150 of 150 samples, 600 variants" in done.stdout
    for stage in ("kinship", "test"):
        assert stage in done.stderr
    results = open_results(out / "results.zarr")
    table = pd.read_csv(out / "results.tsv.gz", sep="\t", na_values="#NA", dtype={"chromosome": str})
    assert table.columns[:8].tolist() == [
        "chromosome", "base_pair_location", "effect_allele", "other_allele",
        "beta", "standard_error", "effect_allele_frequency", "p_value",
    ]  # fmt: skip
    np.testing.assert_allclose(table["beta"], results["beta"], rtol=1e-8)
    assert table["chromosome"].tolist() == results["variant_contig"].values.tolist()
    record = json.loads((out / "run.json").read_text())
    assert record["versions"]["dasklmm"] == dasklmm.__version__
    assert record["options"]["loco"] is True
    assert len(record["options"]["null"]) == 22
    assert "trait" in (out / "report.html").read_text()
    assert (out / "manhattan.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_again_opens_what_is_there(scan, cohort):
    out, _ = scan
    before = (out / "results.zarr" / "zarr.json").stat().st_mtime_ns
    arguments = [
        "gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv",
        "--covar", cohort / "covariates.tsv", "--out", out,
    ]  # fmt: skip
    record = (out / "run.json").read_bytes()
    assert "complete already" in run(*arguments).stdout
    assert (out / "results.zarr" / "zarr.json").stat().st_mtime_ns == before
    assert (out / "run.json").read_bytes() == record
    other = run(*arguments, "--test", "wald", expect=1)
    assert "differs in: test" in other.stderr
    run(*arguments, "--test", "wald", "--overwrite", "--quiet")
    assert open_results(out / "results.zarr").attrs["test"] == "wald"


def test_workers_give_the_same(cohort, scan, tmp_path):
    done = run(
        "gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv", "--workers", 2,
        "--covar", cohort / "covariates.tsv", "--test", "wald", "--out", tmp_path / "w",
    )  # fmt: skip
    assert "2 workers" in done.stderr
    run(
        "gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv",
        "--covar", cohort / "covariates.tsv", "--test", "wald", "--out", tmp_path / "t",
    )  # fmt: skip
    one, two = (open_results(tmp_path / n / "results.zarr") for n in "wt")
    np.testing.assert_allclose(one["beta"], two["beta"], rtol=1e-10)


def test_plot_and_info(scan, cohort, tmp_path):
    out, _ = scan
    done = run("plot", out, "--out", tmp_path)
    assert (tmp_path / "qq.png").exists()
    assert str(tmp_path / "manhattan.png") in done.stdout
    for path in (out, out / "results.zarr"):
        assert "results of trait: 600 variants" in run("info", path).stdout
    assert "600 variants, 150 samples" in run("info", cohort / "genotypes.zarr").stdout
    assert "trait: float64, 0 missing" in run("info", cohort / "phenotypes.tsv").stdout
    assert f"dasklmm {dasklmm.__version__}" in run("info").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gwas", "none.bed", "--pheno", "none.tsv", "--out", "OUT"], 1, "no genotypes at 'none.bed'"),
        (
            ["gwas", ".", "--pheno", "x", "--out", "OUT", "--scheduler", "tcp://127.0.0.1:1"],
            1,
            "no Dask scheduler",
        ),
        (["gwas", ".", "--pheno", "x", "--out", "/dev/null"], 1, "cannot be a directory"),
        (["gwas", ".", "--pheno", "y", "--out", "OUT", "--workers", "1", "--scheduler", "z"], 2, "not both"),
        (["gwas", "x"], 2, "Missing option '--out'"),
        (["gwas", "x", "--out", "OUT"], 1, "no genotypes at 'x', nor at 'x.bed'"),
        (["gwas", ".", "--out", "OUT"], 2, "give --pheno"),
        (["info", "none"], 1, "there is nothing at"),
        (["nothing"], 2, "No such command"),
    ],
)
def test_errors_are_one_message(arguments, code, message, tmp_path):
    arguments = [str(tmp_path / "o") if a == "OUT" else a for a in arguments]
    done = run(*arguments, expect=code)
    assert message in done.stderr


@pytest.mark.parametrize("command", [(), ("gwas",), ("demo",), ("simulate",), ("plot",), ("info",)])
def test_help(command):
    assert "Usage:" in run(*command, "--help").stdout


def test_version():
    assert dasklmm.__version__ in run("--version").stdout


@pytest.mark.slow
def test_demo(tmp_path):
    done = run("demo", "--out", tmp_path / "d", "--samples", 200, "--variants", 1500)
    assert {p.name for p in (tmp_path / "d").iterdir()} == FILES | {"cohort"}
    assert "report.html in a browser" in done.stdout


@pytest.mark.slow
def test_mouse(mouse_prefix, tmp_path):
    run("gwas", mouse_prefix, "--no-loco", "--out", tmp_path / "m")
    results = open_results(tmp_path / "m" / "results.zarr")
    assert results.attrs["null"][0]["h_sq"] == pytest.approx(0.596629, abs=1e-5)
