"""The directory of a run: what is there before it, and what former runs left."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from click.testing import CliRunner

import dasklmm
from dasklmm import outputs
from dasklmm.cli import main
from dasklmm.export import directories
from dasklmm.store.genotypes import write_genotypes
from dasklmm.store.results import open_results


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    ds = dasklmm.simulate(40, 44, n_contigs=2, seed=1)
    write_genotypes(ds, folder / "g.zarr")
    y = pd.Series(ds["phenotype"].values)
    table = pd.DataFrame({"sample_id": ds["sample_id"].values, "height": y, "weight": y**2, "run.json": y**3})
    table["results.zarr"] = y**4
    table["phenotypes.tsv"] = y**5
    table["x" * 300] = y**2 - y
    table.to_csv(folder / "y.tsv", sep="\t", index=False)
    return folder


def gwas(cohort, out, *more, code=0):
    command = [
        "gwas",
        cohort / "g.zarr",
        "--pheno",
        cohort / "y.tsv",
        "--no-loco",
        "--quiet",
        "--out",
        out,
        *more,
    ]
    done = CliRunner().invoke(main, list(map(str, command)))
    assert done.exit_code == code, done.output
    return done.output


def names(folder):
    return {p.name for p in folder.iterdir()}


HEIGHT, WEIGHT = ("--pheno-col", "height"), ("--pheno-col", "weight")
TABLE = {"results.zarr", "results.tsv.gz", "run.json"}


def test_files_of_a_former_run_do_not_stay(cohort, tmp_path):
    """Beside the results of one scan there is nothing of another's, and nothing of anybody else is gone."""
    formats = ("--format", "regenie", "--format", "parquet")
    gwas(cohort, tmp_path, *HEIGHT, *formats, "--clump")
    (tmp_path / "notes.txt").write_text("mine")
    drawn = {"manhattan.png", "qq.png", "report.html", "clumps.tsv", "results.regenie", "results.parquet"}
    assert names(tmp_path) == TABLE | drawn | {"notes.txt"}
    gwas(cohort, tmp_path, *HEIGHT, "--no-plots")  # the same results, to which all belongs
    assert names(tmp_path) == TABLE | drawn | {"notes.txt"}
    gwas(cohort, tmp_path, *WEIGHT, "--no-plots", "--overwrite")
    assert names(tmp_path) == TABLE | {"notes.txt"}
    both = gwas(cohort, tmp_path, *HEIGHT, *WEIGHT, "--no-plots", "--overwrite")
    assert "phenotypes.tsv" in both
    assert names(tmp_path) == {"results.zarr", "run.json", "phenotypes.tsv", "height", "weight", "notes.txt"}
    (tmp_path / "weight" / "notes.txt").write_text("mine")
    gwas(cohort, tmp_path, *HEIGHT, "--no-plots", "--overwrite")
    assert names(tmp_path) == TABLE | {"notes.txt", "weight"}
    assert names(tmp_path / "weight") == {"notes.txt"}


def test_the_record_is_of_the_results_that_lie_there(cohort, tmp_path):
    """Results that were complete already take the directory of others."""
    for phenotype in (HEIGHT, WEIGHT, HEIGHT):
        gwas(cohort, tmp_path / "o", *phenotype, "--no-plots", "--store", tmp_path / f"{phenotype[1]}.zarr")
        record = json.loads((tmp_path / "o" / "run.json").read_text())
        assert record["options"]["phenotype"] == phenotype[1]


def test_only_the_directory_of_a_run_is_tidied(cohort, tmp_path):
    other = json.dumps({"options": {}, "results": {}, "versions": {}})
    for name in ("run.json", "report.html", "phenotypes.tsv"):
        (tmp_path / name).write_text(other)
    gwas(cohort, tmp_path, *HEIGHT, "--no-plots")
    assert (tmp_path / "report.html").read_text() == other
    gwas(cohort, tmp_path, *WEIGHT, "--no-plots", "--overwrite")
    assert (tmp_path / "phenotypes.tsv").read_text() == other


def test_names_of_phenotypes_that_are_names_of_files(cohort, tmp_path):
    gwas(cohort, tmp_path, "--no-plots")
    found = open_results(tmp_path).attrs["phenotype"]
    assert len(found) == 6
    told = pd.read_csv(tmp_path / "phenotypes.tsv", sep="\t").set_index("phenotype")["directory"]
    for name in found:
        assert names(tmp_path / told[name]) == {"results.tsv.gz"}
    record = (tmp_path / "run.json").read_bytes()
    assert json.loads(record)["summary"].keys() == set(found)
    (tmp_path / told["height"] / "qq.png").write_text("of these results")
    assert "complete already" in gwas(cohort, tmp_path, "--no-plots")
    assert (tmp_path / told["height"] / "qq.png").exists()
    assert (tmp_path / "run.json").read_bytes() == record


def test_directories():
    given = [
        "a/b",
        "a_b",
        "A_B",
        "..",
        "",
        "RESULTS.zarr",
        "results.tsv.gz",
        "é",
        "x" * 300,
        "x" * 299,
        "é" * 150,
    ]
    places = directories(given)
    assert places[:8] == [
        "a_b",
        "a_b_",
        "A_B__",
        "phenotype",
        "phenotype_",
        "_RESULTS.zarr",
        "_results.tsv.gz",
        "é",
    ]
    assert len(set(places)) == len(given)
    assert max(len(place.encode()) for place in places) < 220


@pytest.mark.parametrize(
    ("place", "more", "message"),
    [
        ("height", [*HEIGHT, *WEIGHT], "is a file"),
        ("phenotypes.tsv", [*HEIGHT, *WEIGHT], "is another table"),
        ("results.parquet", [*HEIGHT, "--format", "parquet"], "not what this program wrote"),
        ("report.html/", HEIGHT, "is a directory"),
    ],
)
def test_what_is_in_the_way_is_said_before_the_scan(cohort, tmp_path, monkeypatch, place, more, message):
    if place.endswith("/"):
        (tmp_path / place).mkdir()
    else:
        (tmp_path / place).write_text("sample_id\tage\n")
    monkeypatch.setattr("dasklmm.association.Prepared.run", lambda *_: pytest.fail("it ran"))
    assert message in gwas(cohort, tmp_path, *more, code=1)
    assert names(tmp_path) == {place.rstrip("/")}


def test_outputs_by_hand(cohort, tmp_path):
    """The same results written again add to what is there."""
    results = dasklmm.gwas(cohort / "g.zarr", cohort / "y.tsv", phenotype="height", loco=False)
    outputs.write_outputs(results, tmp_path, formats=["gemma"], drawn=False)
    outputs.write_outputs(results, tmp_path, formats=["regenie"], drawn=False)
    assert names(tmp_path) == {"results.tsv.gz", "results.assoc.txt", "results.regenie", "run.json"}
