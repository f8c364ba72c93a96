"""The wheel in an environment of its own, without any extra: it scans, and says what each extra needs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import xarray as xr

import dasklmm

PYTHON = os.environ.get("DASKLMM_BARE_PYTHON")
pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason="DASKLMM_BARE_PYTHON names no Python of an environment that holds the wheel and nothing else",
)


def run(*arguments, cwd, expect=0):
    command = [PYTHON, "-m", "dasklmm.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_it_is_the_wheel(tmp_path):
    where = "import dasklmm, pathlib; print(pathlib.Path(dasklmm.__file__).parent)"
    done = subprocess.run([PYTHON, "-c", where], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert Path(done.stdout.strip()) != Path(dasklmm.__file__).parent
    assert "site-packages" in done.stdout
    assert (Path(done.stdout.strip()) / "dasklmm.yaml").is_file()


def test_it_scans(tmp_path):
    run("simulate", "--samples", 120, "--variants", 400, "--out", "cohort", cwd=tmp_path)
    scan = ["gwas", "cohort/genotypes.zarr", "--pheno", "cohort/phenotypes.tsv", "--out"]
    for out, more in (("threads", []), ("workers", ["--workers", 1])):
        done = run(*scan, out, *more, cwd=tmp_path)
        assert done.stderr.count("pip install 'dasklmm[plot]'") == 1
        written = {p.name for p in (tmp_path / out).iterdir()}
        assert written == {"results.zarr", "results.tsv.gz", "report.html", "run.json"}
    assert "pip install 'dasklmm[plot]'" in (tmp_path / "threads" / "report.html").read_text()
    tables = [(tmp_path / out / "results.tsv.gz").read_bytes() for out in ("threads", "workers")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("plink", ["kinship", "c.bed", "--out", "k.zarr"]),
        ("pgen", ["kinship", "c.pgen", "--out", "k.zarr"]),
        ("bgen", ["kinship", "c.bgen", "--out", "k.zarr"]),
        ("netcdf", ["kinship", "c.nc", "--out", "k.zarr"]),
        ("cloud", ["kinship", "s3://bucket/c.vcz", "--out", "k.zarr"]),
        ("vcf", ["convert", "c.vcf", "c.vcz"]),
        ("plot", ["plot", "scan"]),
        ("parquet", ["export", "scan", "--format", "parquet"]),
        (
            "gateway",
            [
                "kinship",
                "cohort/genotypes.zarr",
                "--out",
                "k",
                "--gateway",
                "http://127.0.0.1:1",
                "--workers",
                "1",
            ],
        ),
    ],
)
def test_a_missing_extra_says_its_command(extra, arguments, scan):
    for end in ("bed", "bim", "fam", "pgen", "pvar", "psam", "bgen", "vcf"):
        (scan / f"c.{end}").touch()
    xr.Dataset({"dosage": (("variant", "sample"), [[0.0, 1.0]])}).to_netcdf(scan / "c.nc", engine="h5netcdf")
    assert f"pip install 'dasklmm[{extra}]'" in run(*arguments, cwd=scan, expect=1).stderr


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    run("simulate", "--samples", 60, "--variants", 200, "--out", "cohort", cwd=folder)
    run("gwas", "cohort/genotypes.zarr", "--pheno", "cohort/phenotypes.tsv", "--out", "scan", cwd=folder)
    return folder
