"""The command line as a person uses it: real processes, real files."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
import logging
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import threadpoolctl
import xarray as xr
import zarr
from click.testing import CliRunner

import dasklmm
from dasklmm import cli, wording
from dasklmm import progress as progress_bars
from dasklmm.describe import findings, strongest
from dasklmm.errors import ClusterError, OptionError
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
    # no terminal: a line at a stage's start and one at its end, none a block
    lines = done.stderr.splitlines()
    for stage in ("kinship", "null model", "test"):
        of_stage = [line for line in lines if line.startswith(f"{stage}:")]
        assert [" done in " in line for line in of_stage] == [False, True], of_stage
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
    assert len(record["results"]["null"]) == 22
    assert not set(record["options"]) & {"null", "counts", "seconds"}
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
    assert ("dashboard" in done.stderr) == (importlib.util.find_spec("bokeh") is not None)
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
    for path in (cohort, cohort / "genotypes.zarr"):
        assert "600 variants, 150 samples" in run("info", path).stdout
    assert "trait: float64, 0 missing" in run("info", cohort / "phenotypes.tsv").stdout
    assert f"dasklmm {dasklmm.__version__}" in run("info").stdout


def test_a_scan_by_threads_without_plots_imports_no_more_than_it_needs(cohort, tmp_path):
    source = (
        "import sys; from dasklmm import cli; code = cli.main(sys.argv[1:], standalone_mode=False); "
        "sys.exit(', '.join({'distributed', 'matplotlib', 'bokeh'} & set(sys.modules)) or 0)"
    )
    command = [
        "gwas",
        cohort / "genotypes.zarr",
        "--pheno",
        cohort / "phenotypes.tsv",
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, command), "--no-plots"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    drawings = {"manhattan.png", "qq.png", "report.html"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES - drawings
    run(*command, "--no-plots", "--clump")
    assert {path.name for path in (tmp_path / "out").iterdir()} == (FILES | {"clumps.tsv"}) - drawings
    run(*command)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"clumps.tsv"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gwas", "none.bed", "--pheno", "none.tsv", "--out", "OUT"], 1, "no genotypes at 'none.bed'"),
        (
            ["gwas", "COHORT", "--pheno", "TABLE", "--out", "OUT", "--scheduler", "tcp://127.0.0.1:1"],
            1,
            "no Dask scheduler",
        ),
        (["gwas", ".", "--pheno", "x", "--out", "/dev/null"], 1, "cannot be a directory"),
        (["gwas", ".", "--pheno", "y", "--out", "OUT", "--workers", "1", "--scheduler", "z"], 2, "not both"),
        (["gwas", "x"], 2, "Missing option '--out'"),
        (["gwas", ".", "--pheno", "x", "--out", "s3://bucket/o"], 1, "'s3:/bucket/o' is a URL"),
        (["gwas", "x", "--out", "OUT"], 1, "no genotypes at 'x', nor at 'x.bed'"),
        (["gwas", ".", "--out", "OUT"], 2, "give --pheno"),
        (["gwas", "COHORT", "--pheno", "TABLE", "--out", "OUT", "--scheduler", "z"], 1, "no Dask scheduler"),
        (["simulate", "--out", "/dev/null/x"], 1, "cannot be a directory"),
        (["simulate", "--seed", "-1", "--out", "OUT"], 1, "seed is -1"),
        (["simulate", "--variants", "21", "--out", "OUT"], 2, "21"),
        (["info", "none"], 1, "there is nothing at"),
        (["nothing"], 2, "No such command"),
    ],
)
def test_errors_are_one_message(arguments, code, message, cohort, tmp_path):
    places = {
        "OUT": tmp_path / "o",
        "COHORT": cohort / "genotypes.zarr",
        "TABLE": cohort / "phenotypes.tsv",
    }
    done = run(*(places.get(a, a) for a in arguments), expect=code)
    assert message in done.stderr


@pytest.mark.parametrize("wrong", [["--pheno-col", "none"], ["--contigs", "none"], ["--rank", "151"]])
def test_bad_input_is_refused_before_a_cluster_starts(wrong, cohort, tmp_path):
    scan = ["gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv", "--out", tmp_path / "o"]
    done = run(*scan, *wrong, "--workers", "1", expect=1)
    assert "Error: " in done.stderr
    assert "workers" not in done.stderr


def test_an_interrupted_run_goes_on(cohort, tmp_path, monkeypatch):
    arguments = [
        "gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv", "--out", tmp_path / "o",
    ]  # fmt: skip
    real = progress_bars.Terminal.__call__

    def cut(self, stage, done, total):
        real(self, stage, done, total)
        if stage == "test" and done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress_bars.Terminal, "__call__", cut)
    stopped = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    assert stopped.exit_code == 130
    assert "interrupted; the same command goes on from here" in stopped.stderr
    assert not (tmp_path / "o" / "results.zarr").exists()
    done = run(*arguments)
    assert done.stderr.startswith("found the work of an unfinished run\n")
    assert "kept from a former run: kinship 22 of 22, " in done.stdout
    kept, total, rest = map(
        int, re.findall(r"^test: (\d+) of (\d+) kept, (\d+) to do$", done.stderr, re.M)[0]
    )
    assert kept + rest == total
    assert f"test {kept} of {total}" in done.stdout
    assert "complete already" not in done.stdout
    assert open_results(tmp_path / "o").identical(open_results(tmp_path / "o" / "results.zarr"))
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["seconds"]
    assert record["results"]["created"]


def test_the_last_commands_record_is_written_where_it_is_gone(cohort, scan, tmp_path):
    arguments = [
        "gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv", "--quiet",
        "--covar", cohort / "covariates.tsv", "--no-intercept", "--no-loco", "--out", tmp_path / "o",
    ]  # fmt: skip
    first = run(*arguments)
    assert " done in " not in first.stderr
    assert "no intercept among the covariates" in first.stdout
    (tmp_path / "o" / "run.json").unlink()
    assert "complete already" in run(*arguments).stdout
    assert "summary" in json.loads((tmp_path / "o" / "run.json").read_text())


def results_of(**attrs):
    null = {"contig": "1", "h_sq": 1e-6, "h_sq_standard_error": 0.1, "at_boundary": False}
    return xr.Dataset(
        {"neg_log10_p_value": ("variant", [9.0, 8.0]), "beta": ("variant", [1.0, 1.0])},
        coords={
            "variant_id": ("variant", ["a", "b"]),
            "variant_contig": ("variant", ["17", "2"]),
            "variant_position": ("variant", [0, 5]),
        },
        attrs={
            "counts": {"samples_used": 12, "samples_in_genotypes": 12, "variants": 2, "status_ok": 2},
            "null": [null], "n": 100, "n_covariates": 1, "intercept": True, "lambda_gc": 1.0, **attrs,
        },
    )  # fmt: skip


def test_findings():
    found = results_of()
    lines = "\n".join((*findings(found.attrs), *strongest(found)))
    assert "a at 17, position unknown: " in lines
    assert "b at 2:5: " in lines
    for absent in ("bound", "intercept", "with care"):
        assert absent not in lines
    null = results_of().attrs["null"][0] | {"at_boundary": True}
    odd = "\n".join(findings(results_of(null=[null], n=12, n_covariates=3, intercept=False).attrs))
    assert "variance ratio at a bound: h_sq is near 0; look at the profile" in odd
    assert "no intercept among the covariates" in odd
    assert "only 12 samples for 3 covariates" in odd
    loco = "\n".join(findings(results_of(null=[null, null | {"contig": "X"}]).attrs))
    assert "variance ratio at a bound (contig left out: 1, X)" in loco


def test_stages_that_alternate_share_a_line_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = progress_bars.Terminal(stream)
    for call in [
        ("kinship", 1, 2),
        ("kinship", 2, 2),
        ("null model", 1, 2),
        ("test", 4, 8),
        ("null model", 2, 2),
    ]:
        progress(*call)
    progress("test", 8, 8)
    progress.close()
    first, second, rest = stream.getvalue().split("\n")
    assert first.endswith("kinship [####################] 2/2\x1b[K")
    assert second.endswith("null model 2/2   test [####################] 8/8\x1b[K")
    assert rest == ""


def test_cluster_of_no_workers_is_refused():
    for n in (0, -1):
        with pytest.raises(OptionError, match="n_workers"):
            dasklmm.local_cluster(n_workers=n)


@pytest.mark.parametrize("limit", ["lots", "1MB", -5, [1]])
def test_workers_without_room_are_refused(limit):
    with pytest.raises(OptionError, match="320 MB or more"):
        dasklmm.local_cluster(n_workers=1, memory_limit=limit)
    with pytest.raises(OptionError, match="of 1000000 workers is a share of 0 MB"):
        dasklmm.local_cluster(n_workers=1_000_000)


def test_many_workers_are_warned_of(caplog, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with pytest.raises(OptionError):
        dasklmm.local_cluster(n_workers=3, memory_limit="1MB")
    assert "3 worker processes for 1 cores" in caplog.text


def test_memory_of_workers(cohort, tmp_path):
    kinship = ["kinship", cohort / "genotypes.zarr", "--out", tmp_path / "k"]
    done = run(*kinship, "--workers", 1, "--worker-memory", "100MB", expect=1)
    assert "workers is '100MB'" in done.stderr
    done = run(*kinship, "--worker-memory", "1GB", expect=2)
    assert "--worker-memory is for the processes of --workers" in done.stderr


def test_negative_seeds_are_refused():
    with pytest.raises(OptionError, match="seed is -1"):
        dasklmm.simulate(20, 30, seed=-1)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import dasklmm\ndasklmm.local_cluster(n_workers=1)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"dasklmm.errors.{ClusterError.__name__}: the cluster did not start")
    assert 'if __name__ == "__main__":' in last
    assert "a worker process came to local_cluster while it imported the script" in done.stderr


@pytest.mark.parametrize("command", [(), ("gwas",), ("demo",), ("simulate",), ("plot",), ("info",)])
def test_help(command):
    assert "Usage:" in run(*command, "--help").stdout


def test_version():
    lines = run("--version").stdout.splitlines()
    assert lines[0] == f"dasklmm {dasklmm.__version__}"
    names = [line.split()[0] for line in lines]
    assert {"python", "dask", "distributed", "numpy", "scipy", "xarray", "zarr"} < set(names)
    loaded = [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    assert names[-1] == "blas"
    assert all(f"{lib['internal_api']} {lib['version']}" in lines[-1] for lib in loaded)


def test_verbose(cohort, tmp_path):
    """The log takes the place of bars: each contig and stage with -v, each block with -vv."""
    scan = ["gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv", "--contigs", "1"]
    once = run(*scan, "--out", tmp_path / "a", "-v").stderr
    assert "dasklmm.scanning INFO 1 left out: " in once
    assert "INFO kinship: " in once
    assert "INFO in all: kinship " in once
    assert "DEBUG" not in once
    assert "started" not in once
    assert "dasklmm.clock DEBUG test: 1 of 1" in run(*scan, "--out", tmp_path / "b", "-vv").stderr


def test_verbose_of_a_kinship(cohort, tmp_path):
    kinship = ["kinship", cohort / "genotypes.zarr", "--out"]
    told = run(*kinship, tmp_path / "k", "-vv").stderr
    assert "dasklmm.lazy.kinship INFO kinship: 600 variants in 1 blocks, 150 samples" in told
    assert "DEBUG kinship: 1 of 1" in told
    assert "INFO kinship: done in " in told
    assert "INFO leading pairs: pass 1 in " in run(*kinship, tmp_path / "r", "--rank", 5, "-v").stderr


def test_the_log_ends_with_the_command(cohort, tmp_path):
    logger = logging.getLogger("dasklmm")
    before = logger.level, logger.propagate, list(logger.handlers)
    asked = ["kinship", str(cohort / "genotypes.zarr"), "--out", str(tmp_path / "k"), "-v"]
    assert CliRunner().invoke(cli.main, asked).exit_code == 0
    assert (logger.level, logger.propagate, logger.handlers) == before


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


@pytest.mark.parametrize("rank", [None, 20])
def test_kinship_once_for_many_scans(cohort, tmp_path, rank):
    """A kept kinship, or its leading pairs, gives what gwas finds when it makes them itself."""
    genotypes, table = cohort / "genotypes.zarr", cohort / "phenotypes.tsv"
    place, options = tmp_path / "k.zarr", [] if rank is None else ["--rank", rank]
    said = run("kinship", genotypes, "--samples", table, "--out", place, *options).stdout
    assert str(place) in said
    assert ("20 leading eigenpairs" in said) == (rank is not None)
    scan = ["gwas", genotypes, "--pheno", table, "--no-loco", "--precision", "double"]
    run(*scan, "--kinship", place, "--out", tmp_path / "kept")
    run(*scan, *options, "--out", tmp_path / "own")
    kept, own = (open_results(tmp_path / name / "results.zarr") for name in ("kept", "own"))
    tolerance = 1e-7 if rank is None else 1e-4
    np.testing.assert_allclose(kept["neg_log10_p_value"], own["neg_log10_p_value"], atol=tolerance, rtol=0)
    written = sorted((p, p.stat().st_mtime_ns) for p in place.rglob("*"))
    again = run("kinship", genotypes, "--samples", table, "--out", place, "--quiet", *options)
    assert "is there already" in again.stderr
    assert again.stdout == said
    assert sorted((p, p.stat().st_mtime_ns) for p in place.rglob("*")) == written
    other = ["--rank", 3] if rank is None else []
    assert "of another kind" in run("kinship", genotypes, "--out", place, *other, expect=1).stderr
    scan = ["kinship", genotypes, "--samples", table, "--out", place, "--method", "grm", *options]
    assert "differs in: method" in run(*scan, expect=1).stderr


def test_whitened_scan(cohort, tmp_path):
    """The same table but for the last digits, and every output says how it was made."""
    scan = ["gwas", cohort / "genotypes.zarr", "--pheno", cohort / "phenotypes.tsv", "--precision", "double"]
    run(*scan, "--out", tmp_path / "plain")
    said = run(*scan, "--whiten", "--out", tmp_path / "white").stdout
    assert "whitened: tests by a triangular factor" in said
    assert "tests by a triangular factor" in (tmp_path / "white" / "report.html").read_text()
    plain, white = (
        pd.read_csv(tmp_path / name / "results.tsv.gz", sep="\t", na_values="#NA")
        for name in ("plain", "white")
    )
    p_value = plain.columns[plain.columns.str.contains("p_value")][0]
    np.testing.assert_allclose(white[p_value], plain[p_value], rtol=1e-4)
    done = run(*scan, "--whiten", "--variance-ratio", "per-variant", "--out", tmp_path / "no", expect=1)
    assert "or whiten=False (no --whiten)" in done.stderr
    assert not (tmp_path / "no").exists()


def test_kinship_of_samples_that_are_not_there(cohort, tmp_path):
    table = tmp_path / "other.tsv"
    table.write_text("sample_id\ty\nnobody\t1\n")
    done = run(
        "kinship", cohort / "genotypes.zarr", "--samples", table, "--out", tmp_path / "k.zarr", expect=1
    )
    assert "none of the 1 samples" in done.stderr


def test_several_phenotypes(cohort, tmp_path):
    """Each has a directory with the files of a scan of its own, and one table tells of all."""
    table = pd.read_csv(cohort / "phenotypes.tsv", sep="\t", dtype={"sample_id": str})
    name = table.columns[-1]
    table = table.assign(**{"half of/it": table[name].where(table.index % 7 > 0), "flat": 1.0})
    table.to_csv(tmp_path / "y.tsv", sep="\t", index=False)
    out = tmp_path / "scan"
    scan = ["gwas", cohort / "genotypes.zarr", "--pheno", tmp_path / "y.tsv", "--out"]
    done = run(*scan, out, "--variance-ratio", "per-variant", "--test", "wald")
    assert f"{name}: 150 samples, " in done.stdout
    assert "flat: phenotype 'flat' is constant" in done.stdout
    told = pd.read_csv(out / "phenotypes.tsv", sep="\t", na_values="#NA").set_index("phenotype")
    assert told["n"].fillna(0).tolist() == [150, 128, 0]
    assert "constant" in told["error"]["flat"]
    assert {p.name for p in (out / "half_of_it").iterdir()} == FILES - {"results.zarr", "run.json"}
    record = json.loads((out / "run.json").read_text())
    assert set(record["summary"]) == {name, "half of/it"}
    alone = tmp_path / "alone"
    run(*scan, alone, "--variance-ratio", "per-variant", "--test", "wald", "--pheno-col", name)
    assert (alone / "results.tsv.gz").read_bytes() == (out / name / "results.tsv.gz").read_bytes()
    columns = pd.read_csv(alone / "results.tsv.gz", sep="\t").columns
    assert {"log_gamma", "log_gamma_ml", "log_likelihood"} <= set(columns)
    assert "half of/it: 128 samples" in run("info", out).stdout
    assert told["directory"].tolist() == [name, "half_of_it", np.nan]
    for place in (name, "half_of_it"):
        (out / place / "qq.png").unlink()
    drawn = run("plot", out, "--pheno-col", "half of/it").stdout.split()
    assert drawn == [str(out / "half_of_it" / f"{kind}.png") for kind in ("manhattan", "qq")]
    assert not (out / name / "qq.png").exists()
    assert "there is no phenotype 'third'" in run("plot", out, "--pheno-col", "third", expect=1).stderr
    assert "flat: phenotype 'flat' is constant" in run("plot", out, "--out", tmp_path / "plots").stdout
    assert {str(p.relative_to(tmp_path / "plots")) for p in (tmp_path / "plots").rglob("qq.png")} == {
        f"{name}/qq.png", "half_of_it/qq.png",
    }  # fmt: skip
    two = run(
        *scan,
        tmp_path / "two",
        "--pheno-col",
        name,
        "--pheno-col",
        "half of/it",
        "--transform",
        "inverse_normal",
    )
    assert "half of/it: 128 samples" in two.stdout


def test_what_is_tested_and_in_whom(cohort, tmp_path):
    """The options that choose are those of the library."""
    genotypes, table = cohort / "genotypes.zarr", cohort / "phenotypes.tsv"
    ds = dasklmm.open_genotypes(genotypes)
    ids = ds["variant_id"].values
    people = tmp_path / "people.txt"
    people.write_text("\n".join(ds["sample_id"].values[:120]))
    (tmp_path / "variants.txt").write_text("\n".join(ids[10:60]))
    done = run(
        "gwas", genotypes, "--pheno", table, "--covar", cohort / "covariates.tsv", "--out", tmp_path / "a",
        "--samples", people, "--variants", tmp_path / "variants.txt", "--condition", ids[3],
        "--interaction", "covariate_1", "--min-allele-count", 10, "--max-missing", 0.5, "--contigs", "1",
        "--no-loco", "--clump",
    )  # fmt: skip
    got = open_results(tmp_path / "a" / "results.zarr")
    want = dasklmm.gwas(
        genotypes, table, cohort / "covariates.tsv", samples=ds["sample_id"].values[:120], variants=ids[10:60],
        condition=[ids[3]], interaction="covariate_1", min_allele_count=10, max_missing=0.5,
        contigs=["1"], loco=False,
    )  # fmt: skip
    assert got.drop_attrs().identical(want.drop_attrs())
    assert set(got["variant_contig"].values) == {"1"}
    assert got.attrs["n"] == 120
    told = run("info", tmp_path / "a").stdout
    page = (tmp_path / "a" / "report.html").read_text()
    for note in (
        "tested effect: variant × covariate_1", f"conditioned on: {ids[3]}", "samples chosen: 120 ids",
        "allele count ≥ 10, missing calls ≤ 0.5", "variants chosen: contigs 1 and 50 ids", "it says little",
    ):  # fmt: skip
        assert note in done.stdout
        assert note in told
        assert note.partition(":")[2] in page
    assert "unit of covariate_1 (the product of both)" in page
    rows = pd.read_csv(tmp_path / "a" / "results.tsv.gz", sep="\t", na_values="#NA")
    assert set(rows["interaction"]) == {"covariate_1"}
    np.testing.assert_allclose(rows["beta_main"], got["beta_main"], rtol=1e-9)
    np.testing.assert_allclose(rows["standard_error_main"], got["standard_error_main"], rtol=1e-9)
    clumps = pd.read_csv(tmp_path / "a" / "clumps.tsv", sep="\t")
    assert (clumps["p_value"] <= 1e-4).all()
    want = dasklmm.clump(
        got, ds.isel(variant=ds["variant_id"].isin(got["variant_id"].values).values), p_value=1e-4
    )
    assert clumps["variant_id"].tolist() == want["variant_id"].tolist()


def test_what_was_analysed_in_words():
    attrs = {
        "phenotype": "height", "transform": "inverse_normal", "interaction": "sex", "condition": ["rs1", "rs2"],
        "variance_ratio": "per_variant", "min_allele_frequency": 0.01, "max_missing": 1.0,
        "categories": {"batch": {"reference": "A", "levels": ["A", "B", "C"]}},
        "selection": {"regions": [f"{i}:1-9" for i in range(8)]},
    }  # fmt: skip
    assert wording.title(attrs) == "height (by rank, inverse normal), variant × sex, given rs1, rs2"
    assert dict(wording.notes(attrs)) == {
        "phenotype": "by rank, inverse normal",
        "tested effect": "variant × sex: beta is the product's, beta_main the variant's own where sex is 0",
        "conditioned on": "rs1, rs2",
        "category batch": "B, C against A",
        "variance ratio": "each variant's own",
        "filters": "allele frequency ≥ 0.01",
        "variants chosen": "regions 0:1-9, 1:1-9, 2:1-9, 3:1-9, 4:1-9, 5:1-9 and 2 more",
    }
    assert "normal ranks" in wording.unit(attrs)
    plain = {"phenotype": "height", "transform": "none", "interaction": "", "condition": [], "selection": {}}
    assert wording.title(plain) == "height"
    assert dict(wording.notes(plain)) == {}
    assert wording.unit(plain) == "per copy of the effect allele, in units of the phenotype"


def test_region(scan, cohort, tmp_path):
    out, _ = scan
    name = open_results(out)["variant_id"].values[7]
    done = run(
        "plot",
        out,
        "--out",
        tmp_path,
        "--region",
        "top",
        "--region",
        name,
        "--genotypes",
        cohort / "genotypes.zarr",
    )
    written = {"manhattan.png", "qq.png", "region_top.png", f"region_{name.replace(':', '_')}.png"}
    assert {p.name for p in tmp_path.iterdir()} == written
    assert str(tmp_path / "region_top.png") in done.stdout
    assert "the id of no variant" in run("plot", out, "--out", tmp_path, "--region", "x", expect=1).stderr
    assert "for --region" in run("plot", out, "--genotypes", cohort / "genotypes.zarr", expect=2).stderr


def test_field(tmp_path):
    """A VCF-Zarr that holds calls and dosages gives the kinship of either."""
    rng, place = np.random.default_rng(2), tmp_path / "v.vcz"
    calls = rng.integers(0, 2, (60, 20, 2)).astype(np.int8)
    held = {
        "contig_id": np.array(["1"], dtype=np.dtypes.StringDType()),
        "sample_id": np.array([f"s{i}" for i in range(20)], dtype=np.dtypes.StringDType()),
        "variant_contig": np.zeros(60, np.int8),
        "variant_position": np.arange(60, dtype=np.int32),
        "variant_id": np.array([f"v{i}" for i in range(60)], dtype=np.dtypes.StringDType()),
        "variant_allele": np.array([["A", "C"]] * 60, dtype=np.dtypes.StringDType()),
        "call_genotype": calls,
        "call_DS": rng.uniform(0, 2, (60, 20)).astype(np.float32),
    }
    group = zarr.open_group(place, mode="w")
    for name, values in held.items():
        group.create_array(name, data=values)
    for field, wanted in (("auto", calls.sum(2)), ("genotype", calls.sum(2)), ("dosage", held["call_DS"])):
        out = tmp_path / f"{field}.zarr"
        run("kinship", place, "--method", "centered", "--field", field, "--out", out)
        z = wanted - wanted.mean(1, keepdims=True, dtype=np.float64)
        np.testing.assert_allclose(
            zarr.open_group(out, mode="r")["kinship"][...], z.T @ z / 60, rtol=1e-6, atol=1e-7
        )


def test_a_table_that_cannot_be_written_is_said_with_what_to_do(monkeypatch, tmp_path):
    from dasklmm import describe

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", "out/results.tsv.gz.partial")

    monkeypatch.setattr(describe, "describe", full)
    done = CliRunner().invoke(cli.main, ["info", str(tmp_path)])
    assert done.exit_code == 1
    assert (
        "'out/results.tsv.gz.partial' cannot be written: No space left on device. Free space" in done.output
    )
