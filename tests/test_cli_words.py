"""What the commands say and refuse, in this process: options that do nothing, and errors that teach."""

from __future__ import annotations

import importlib.util
import re
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dasklmm
from dasklmm.cli import main
from dasklmm.store.genotypes import write_genotypes


def run(*arguments, code=0):
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Genotypes, a table of two phenotypes, and a scan of both."""
    folder = tmp_path_factory.mktemp("cohort")
    ds = dasklmm.simulate(40, 44, n_contigs=2, seed=1)
    write_genotypes(ds, folder / "g.zarr")
    y = pd.DataFrame({"sample_id": ds["sample_id"].values, "height": ds["phenotype"].values})
    y.assign(a_long_name_of_a_weight=y["height"] ** 2).to_csv(folder / "y.tsv", sep="\t", index=False)
    told = run(
        "gwas", folder / "g.zarr", "--pheno", folder / "y.tsv", "--no-loco", "--quiet", "--no-plots",
        "--out", folder / "both",
    )  # fmt: skip
    (folder / "told.txt").write_text(told)
    return folder


def test_help_has_whole_lines():
    told = run("--help")
    assert "..." not in told.split("Commands:")[1]
    assert re.search(r"^  gwas +Scan genotypes for phenotypes\.$", told, flags=re.M)


def test_what_was_found_of_several_phenotypes(cohort):
    lines = (cohort / "told.txt").read_text().splitlines()
    assert re.fullmatch(
        r"height: 40 samples, h_sq [\d.]+, lambda_GC [\d.]+, 0 variants of p < 5e-8", lines[0]
    )
    places = {line.index(str(cohort)) for line in lines if line.startswith("  ")}
    assert len(places) == 1, lines
    assert f"  {lines[0]}\n" in run("info", cohort / "both")


def test_options_without_effect_are_refused(cohort):
    scan = ["gwas", cohort / "g.zarr", "--pheno", cohort / "y.tsv", "--out", cohort / "none"]
    assert "--worker-timeout is for --gateway and --scheduler" in run(*scan, "--worker-timeout", 5, code=2)
    assert "--window is for --region" in run("plot", cohort / "both", "--window", 5, code=2)
    asked = ["export", cohort / "both", "--format", "tsv", "--genome-assembly", "GRCh38"]
    assert "--genome-assembly is for --format ssf" in run(*asked, code=2)
    assert not (cohort / "none").exists()


def test_a_region_is_checked_before_anything_is_drawn(cohort, tmp_path):
    asked = ["plot", cohort / "both", "--out", tmp_path / "plots", "--region", "top", "--region", "nosuch"]
    assert "lead (--region) is 'nosuch'" in run(*asked, code=1)
    other = dasklmm.simulate(40, 44, n_contigs=2, seed=2)
    write_genotypes(other, tmp_path / "other.zarr")
    asked = ["plot", cohort / "both", "--out", tmp_path / "plots", "--region", "top", "--genotypes"]
    assert "of other variants" in run(*asked, tmp_path / "other.zarr", code=1)
    assert not (tmp_path / "plots").exists()


def test_export_tells_each_file(cohort, tmp_path):
    told = run("export", cohort / "both", "--out", tmp_path, "--pheno-col", "height", "--format", "ssf")
    written = {str(p) for p in (tmp_path / "height").iterdir()}
    assert set(told.split("\n")) - {""} == written
    assert {name.rsplit("/", 1)[1] for name in written} == {
        "results.ssf.tsv.gz",
        "results.ssf.tsv.gz-meta.yaml",
    }
    for place in (tmp_path, cohort / "y.tsv", tmp_path / "height" / "results.ssf.tsv.gz"):
        assert "no complete results" in run("export", place, "--format", "ssf", code=1)


@pytest.mark.parametrize(
    ("kinship", "said"),
    [
        (
            ["k.zarr"],
            "kinship (--kinship) is 'k.zarr': there is neither a kinship nor a decomposition at this path",
        ),
        (["ibs"], "the methods are 'rrm', 'grm', 'centered'"),
        (["STORED"], "Give loco=False (--no-loco)"),
    ],
)
def test_a_kinship_that_is_not_there(cohort, tmp_path, monkeypatch, kinship, said):
    monkeypatch.chdir(tmp_path)
    if kinship == ["STORED"]:
        run("kinship", cohort / "g.zarr", "--out", "stored", "--quiet")
        kinship = ["stored"]
    scan = ["gwas", cohort / "g.zarr", "--pheno", cohort / "y.tsv", "--out", "new/out", "--kinship", *kinship]
    assert said in run(*scan, code=1)
    assert not (tmp_path / "new").exists()


def test_a_refused_run_leaves_what_was_there(cohort, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run(
        "gwas",
        cohort / "g.zarr",
        "--pheno",
        cohort / "y.tsv",
        "--contigs",
        "X",
        "--out",
        tmp_path / "out",
        code=1,
    )
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.txt"]
    run("simulate", "--seed", "-1", "--out", tmp_path / "a" / "b", code=1)
    assert not (tmp_path / "a").exists()


def test_a_fam_without_phenotypes_is_named(tmp_path):
    (tmp_path / "c.bed").write_bytes(bytes([0x6C, 0x1B, 0x01, 0b11100100, 0b00011011]))
    (tmp_path / "c.bim").write_text("1 a 0 5 A C\n2 b 0 5 A C\n")
    (tmp_path / "c.fam").write_text("".join(f"0 s{i} 0 0 0 1\n" for i in range(4)))
    told = run("gwas", tmp_path / "c.bed", "--out", tmp_path / "o", code=1)
    assert f"It is that of {str(tmp_path / 'c.fam')!r}" in told
    assert "give --pheno FILE" in told


def test_without_matplotlib_it_is_said_once(cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    scan = ["gwas", cohort / "g.zarr", "--pheno", cohort / "y.tsv", "--no-loco", "--quiet", "--out"]
    assert run(*scan, tmp_path / "a").count("pip install 'dasklmm[plot]'") == 1
    assert "pip install" not in run(*scan, tmp_path / "b", "--no-plots")
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name", ["c.bed", "c.bim", "c.nc", "c.pgen", "c.pvar", "c.bgen"])
def test_info_of_genotypes_by_any_of_their_files(tmp_path, name):
    """Whatever open_genotypes takes is described, with its own words where it is none."""
    end = name.split(".")[1]
    needed = {"bed": "bed_reader", "bim": "bed_reader", "nc": "h5netcdf", "bgen": "bgen"}
    if importlib.util.find_spec(needed.get(end, "pgenlib")) is None:
        pytest.skip("its library is not installed")
    path = tmp_path / name
    if end in ("bed", "bim"):
        (tmp_path / "c.bed").write_bytes(bytes([0x6C, 0x1B, 0x01, 0b11100100, 0b00011011]))
        (tmp_path / "c.bim").write_text("1 a 0 5 A C\n2 b 0 5 A C\n")
        (tmp_path / "c.fam").write_text("".join(f"0 s{i} 0 0 0 1\n" for i in range(4)))
        assert "table of 4 samples" in run("info", tmp_path / "c.fam")
    elif end == "nc":
        ds = (
            dasklmm.simulate(4, 2, n_contigs=1, seed=1)[["dosage"]]
            .load()
            .drop_vars("covariate", errors="ignore")
        )
        ds.to_netcdf(path, engine="h5netcdf")
    else:
        path.write_text("no such thing")
        with pytest.raises(dasklmm.errors.DaskLMMError) as error:
            dasklmm.open_genotypes(path)
        assert str(error.value) in run("info", path, code=1)
        return
    assert "genotypes: 2 variants, 4 samples" in run("info", path)


@pytest.mark.parametrize("name", ["c.vcf", "c.vcf.gz", "c.VCF", "c.bcf", "X.BED", "x.h5"])
def test_info_answers_as_gwas(tmp_path, name):
    (tmp_path / name).write_text("##fileformat=VCFv4.3\n")
    with pytest.raises(dasklmm.errors.DaskLMMError) as error:
        dasklmm.open_genotypes(tmp_path / name)
    assert str(error.value) in run("info", tmp_path / name, code=1)


def test_a_model_counts_its_fixed_effects():
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal((20, 30)), rng.standard_normal(20)
    for f, words in ((1, "1 fixed effect, "), (2, "2 fixed effects, ")):
        x = np.column_stack([np.ones(20), rng.standard_normal(20)])[:, :f]
        assert words in repr(dasklmm.LinearMixedModel.from_random_effects(y, x, z)[0])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--truncated"], "give rank (--rank)"),
        (["--variance-ratio", "per-variant", "--test", "score"], "variance_ratio='null' (--variance-ratio)"),
        (
            ["--variance-ratio", "per-variant", "--interaction", "x"],
            "variance_ratio='null' (--variance-ratio)",
        ),
        (["--condition", "none"], "there they are like '"),
    ],
)
def test_errors_name_the_option(cohort, tmp_path, asked, said):
    scan = ["gwas", cohort / "g.zarr", "--pheno", cohort / "y.tsv", "--out", tmp_path / "o"]
    assert said in run(*scan, *asked, code=1)
