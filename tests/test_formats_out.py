"""Results as other programs write them, read back; GWAS-SSF by the catalogue's own validator."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet
import pytest
import yaml
from click.testing import CliRunner

import dasklmm
from dasklmm.cli import main
from dasklmm.errors import OptionError, StoreError
from dasklmm.formats_out import FORMATS, write_format

# What runs in the validator's own environment.
VALIDATE = """
import sys, yaml
from pathlib import Path
from gwas_sumstats_tools.validate import validate
from gwas_sumstats_tools.schema.metadata import SumStatsMetadata
SumStatsMetadata.parse_obj(yaml.safe_load(open(sys.argv[1] + "-meta.yaml")))
valid, message, *_ = validate(Path(sys.argv[1]), minimum_rows=50)
print(message)
sys.exit(not valid)
"""


@pytest.fixture(scope="module")
def results():
    """A scan of 22 contigs; row 5 has no test, row 7 is on a contig that GWAS-SSF has not."""
    ds = dasklmm.simulate(60, 110, n_contigs=22, seed=2, missing_rate=0.02, n_causal=1).load()
    ds["dosage"][5] = 0
    ids = ds["variant_id"].values.astype(object)
    ids[:2] = ["rs12", "odd name"]
    ds["variant_id"] = "variant", ids.astype(str)
    return dasklmm.gwas(ds, ds["phenotype"].rename("height"), kinship="grm", loco=False)


def beyond(results, log_p=412.5):
    """The same, with a p-value that no float holds."""
    out = results.copy(deep=True)
    out["neg_log10_p_value"][3] = log_p
    out["p_value"][3] = 0.0
    return out


def test_gemma(results, tmp_path):
    path, left_out = write_format(beyond(results), "gemma", tmp_path)
    table = pd.read_csv(path, sep="\t", dtype={"chr": str, "p_lrt": str})
    names = "chr rs ps n_miss allele1 allele0 af beta se p_lrt"
    assert table.columns.tolist() == names.split()
    assert left_out == 1
    kept = np.delete(np.arange(110), 5)
    assert table["rs"].tolist() == results["variant_id"].values[kept].tolist()
    assert table["allele1"].tolist() == results["variant_effect_allele"].values[kept].tolist()
    assert table["n_miss"].tolist() == (60 - results["n"].values[kept]).tolist()
    np.testing.assert_allclose(table["beta"], results["beta"].values[kept], rtol=1e-9)
    assert table["p_lrt"][3] == "3.16227766e-413"
    p = table["p_lrt"].drop(3).astype(float)
    np.testing.assert_allclose(p, np.delete(results["p_value"].values[kept], 3), rtol=1e-8)


def test_gemma_has_the_columns_of_a_refit(results, tmp_path):
    refit = results.assign(
        {k: ("variant", np.full(110, 0.5)) for k in ("log_likelihood", "log_gamma", "log_gamma_ml")}
    )
    refit.attrs["test"] = "wald"
    table = pd.read_csv(write_format(refit, "gemma", tmp_path)[0], sep="\t")
    assert table.columns.tolist()[-4:] == ["logl_H1", "l_remle", "l_mle", "p_wald"]
    np.testing.assert_allclose(table["l_remle"], np.exp(0.5))
    np.testing.assert_allclose(table["logl_H1"], 0.5)


def test_regenie(results, tmp_path):
    path, left_out = write_format(beyond(results), "regenie", tmp_path)
    table = pd.read_csv(path, sep=" ", dtype={"CHROM": str})
    names = "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA"
    assert table.columns.tolist() == names.split()
    assert left_out == 0
    assert table["ALLELE1"].tolist() == results["variant_effect_allele"].values.tolist()
    assert table["ALLELE0"].tolist() == results["variant_other_allele"].values.tolist()
    assert table["ID"][1] == "odd_name"
    assert table["LOG10P"][3] == 412.5
    np.testing.assert_allclose(table["BETA"], results["beta"].values, rtol=1e-9)
    assert np.isnan(table["BETA"][5])
    assert table["EXTRA"][5] == "TEST_FAIL"
    assert set(table["TEST"]) == {"ADD"}
    one = results.copy()
    one.attrs["interaction"] = "sex"
    assert set(pd.read_csv(write_format(one, "regenie", tmp_path)[0], sep=" ")["TEST"]) == {"ADD-INT_SNPxsex"}


@pytest.mark.parametrize("case", ["plain", "underflow", "interaction"])
def test_gwas_ssf(results, tmp_path, case):
    given = results.copy(deep=True)
    contig = given["variant_contig"].values.astype("<U10")
    contig[contig == "4"] = "chr4"
    contig[7] = "scaffold_9"
    contig[-1] = "chrX"
    allele = given["variant_effect_allele"].values.astype("<U10")
    allele[9] = "<DEL>"
    given["variant_contig"], given["variant_effect_allele"] = ("variant", contig), ("variant", allele)
    if case == "underflow":
        given = beyond(given)
    if case == "interaction":
        given["beta_main"] = "variant", np.arange(110.0)
        given.attrs["interaction"] = "sex"
    path, left_out = write_format(
        given[{"variant": slice(None, None, -1)}], "ssf", tmp_path, genome_assembly="GRCh38"
    )
    assert left_out == 3
    table = pd.read_csv(path, sep="\t", na_values="#NA")
    p = "neg_log_10_p_value" if case == "underflow" else "p_value"
    first = ["chromosome", "base_pair_location", "effect_allele", "other_allele", "beta", "standard_error"]
    assert table.columns.tolist()[:9] == [*first, "effect_allele_frequency", p, "variant_id"]
    assert table.columns.tolist()[9:11] == ["rsid", "n"]
    kept = np.delete(np.arange(110), [5, 7, 9])
    np.testing.assert_allclose(table["beta"], given["beta"].values[kept], rtol=1e-9)  # sorted again
    assert table["chromosome"].tolist()[-1] == 23
    assert 4 in table["chromosome"].tolist()
    assert table["rsid"][0] == "rs12"
    assert table["rsid"].notna().sum() == 1
    named = table[table["variant_id"].notna()]
    assert named.index.tolist() == list(
        range(2, 106)
    )  # not of rs12, of "odd name", and of the contig that is X
    of = ["chromosome", "base_pair_location", "other_allele", "effect_allele"]
    assert ["_".join(map(str, row)) for row in named[of].values.tolist()] == named["variant_id"].tolist()
    if case == "underflow":
        assert table[p].max() == 412.5
    if case == "interaction":
        assert table["beta_main"].tolist() == kept.tolist()
    meta = yaml.safe_load((tmp_path / f"{path.name}-meta.yaml").read_text())
    assert meta["data_file_name"] == path.name
    assert meta["data_file_md5sum"] == hashlib.md5(path.read_bytes()).hexdigest()
    assert meta["genome_assembly"] == "GRCh38"
    assert meta["samples"] == [{"sample_size": 60}]
    covariate = given.attrs.get("interaction")
    assert meta["trait_description"] == [f"height, variant × {covariate}" if covariate else "height"]
    python = os.environ.get("DASKLMM_SSF_PYTHON")
    if not python:
        pytest.skip("the validator is not there: set DASKLMM_SSF_PYTHON to a Python with gwas-sumstats-tools")
    done = subprocess.run([python, "-c", VALIDATE, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_gwas_ssf_without_a_row(results, tmp_path):
    given = results.assign_coords(variant_contig=("variant", np.full(110, "scaffold")))
    with pytest.raises(StoreError, match="no variant can be a row"):
        write_format(given, "ssf", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("contig", "position", "number"),
    [
        ("01", 5, 1), ("chr09", 5, 9), ("22", 5, 22), ("X", 5, 23), ("chr23", 5, 23), ("XY", 5, 23),
        ("PAR1", 5, 23), ("Y", 5, 24), ("24", 5, 24), ("MT", 5, 25), ("chrM", 5, 25), ("26", 5, 25),
        ("25", 16_570, 23), ("25", 16_569, None), ("0", 5, None), ("27", 5, None), ("chr", 5, None),
    ],
)  # fmt: skip
def test_contigs_of_gwas_ssf(results, tmp_path, contig, position, number):
    """PLINK's 25 is the X and its 26 MT, where GWAS-SSF's 25 is MT: what may be either has no row."""
    given = results.isel(variant=[10, 11]).assign_coords(
        variant_contig=("variant", ["2", contig]), variant_position=("variant", [9, position])
    )
    path, left_out = write_format(given, "ssf", tmp_path)
    rows = pd.read_csv(path, sep="\t", na_values="#NA").set_index("effect_allele_frequency")["chromosome"]
    assert sorted(rows) == sorted([2] if number is None else [2, number])
    assert left_out == (number is None)


@pytest.mark.parametrize("name", ["beta", "standard_error", "effect_allele_frequency"])
def test_gwas_ssf_has_no_row_of_what_is_missing(results, tmp_path, name):
    given = results.copy(deep=True)
    given[name][20] = np.nan
    path, left_out = write_format(given, "ssf", tmp_path)
    assert left_out == 2
    assert not pd.read_csv(path, sep="\t", na_values="#NA")[name].isna().any()


@pytest.mark.parametrize(
    ("name", "rsid", "variant_id"),
    [
        ("rs77", "rs77", ""), ("rs77:T:C", "rs77", ""), ("rs77x", "", ""), ("17:9:A:C", "", "17_9_A_C"),
        ("chr17_9_C_A", "", "17_9_C_A"), ("17:8:A:C", "", ""), ("18:9:A:C", "", ""), ("17:9:A:G", "", ""),
        ("17:9", "", ""), ("Affx_9", "", ""), ("", "", ""),
    ],
)  # fmt: skip
def test_ids_of_gwas_ssf(results, tmp_path, name, rsid, variant_id):
    given = results.isel(variant=[10]).assign_coords(
        variant_id=("variant", [name]), variant_contig=("variant", ["17"]), variant_position=("variant", [9]),
        variant_effect_allele=("variant", ["A"]), variant_other_allele=("variant", ["C"]),
    )  # fmt: skip
    path, _ = write_format(given, "ssf", tmp_path)
    row = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).replace("#NA", "").iloc[0]
    assert (row["rsid"], row["variant_id"]) == (rsid, variant_id)


@pytest.mark.parametrize("name", ["tsv", "gemma", "regenie", "parquet"])
def test_no_variants(results, tmp_path, name):
    path, left_out = write_format(results.isel(variant=slice(0)), name, tmp_path)
    assert left_out == 0
    table = pyarrow.dataset.dataset(path).to_table() if name == "parquet" else pd.read_csv(path, sep="\t")
    assert "beta" in str(table).lower()
    assert len(table) == 0


@pytest.mark.parametrize("foreign", ["file", "thesis", "parquet", "link", "beside"])
def test_no_foreign_parquet_is_replaced(results, tmp_path, foreign):
    place = tmp_path / "results.parquet"
    if foreign == "file":
        place.write_text("years of work")
    elif foreign in ("link", "beside"):
        write_format(results, "parquet", tmp_path)
        if foreign == "link":
            place.rename(tmp_path / "elsewhere")
            place.symlink_to(tmp_path / "elsewhere")
        else:
            (place / "notes.txt").write_text("years of work")
    else:
        place.mkdir()
        if foreign == "thesis":
            (place / "thesis.txt").write_text("years of work")
        else:
            pyarrow.parquet.write_table(pyarrow.table({"mine": [1, 2]}), place / "part-0.parquet")
    before = sorted((p, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(StoreError, match="not what this program wrote"):
        write_format(results, "parquet", tmp_path)
    assert sorted((p, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()) == before


def test_parquet(results, tmp_path):
    for _ in range(2):  # the second replaces the first
        path, left_out = write_format(beyond(results), "parquet", tmp_path)
    assert left_out == 0
    assert [p.name for p in tmp_path.iterdir()] == ["results.parquet"]
    assert len(list(path.glob("variant_contig=*/*.parquet"))) == 22
    schema = pyarrow.dataset.partitioning(
        pyarrow.schema([("variant_contig", pyarrow.string())]), flavor="hive"
    )
    data = pyarrow.dataset.dataset(path, partitioning=schema)
    table = data.to_table().to_pandas().set_index("variant_id").loc[results["variant_id"].values]
    for name in ("beta", "standard_error", "effect_allele_frequency", "n", "status", "variant_contig"):
        np.testing.assert_array_equal(table[name].values, results[name].values, err_msg=name)
    assert table["neg_log10_p_value"].iloc[3] == 412.5
    assert data.to_table(columns=["beta"]).column("beta").null_count == 1
    first = next(path.glob("variant_contig=2/*.parquet"))
    told = json.loads(pyarrow.parquet.read_schema(first).metadata[b"dasklmm"])
    assert told["phenotype"] == "height"


def test_command_line(tmp_path):
    ds = dasklmm.simulate(40, 44, n_contigs=22, seed=1)
    from dasklmm.datasets import write_cohort

    paths = write_cohort(ds, tmp_path / "c")
    out = tmp_path / "o"
    args = [
        "gwas",
        str(paths["genotypes"]),
        "--pheno",
        str(paths["phenotypes"]),
        "--out",
        str(out),
        "--quiet",
    ]
    run = CliRunner().invoke(main, [*args, "--no-loco", "--format", "gemma", "--format", "regenie"])
    assert run.exit_code == 0, run.output
    assert {"results.tsv.gz", "results.assoc.txt", "results.regenie"} <= {p.name for p in out.iterdir()}
    run = CliRunner().invoke(main, ["export", str(out), "--format", "ssf", "--format", "parquet"])
    assert run.exit_code == 0, run.output
    assert {"results.ssf.tsv.gz", "results.ssf.tsv.gz-meta.yaml", "results.parquet"} <= {
        p.name for p in out.iterdir()
    }
    other = tmp_path / "p"
    run = CliRunner().invoke(main, ["export", str(out), "--format", "tsv", "--out", str(other)])
    assert run.exit_code == 0, run.output
    with gzip.open(other / "results.tsv.gz", "rt") as one, gzip.open(out / "results.tsv.gz", "rt") as two:
        assert one.read() == two.read()


def test_unknown_format_and_missing_extra(results, tmp_path):
    with pytest.raises(OptionError, match=f"'csv'; it is one of {', '.join(FORMATS)}"):
        write_format(results, "csv", tmp_path)
    code = """
import sys
sys.modules["pyarrow"] = sys.modules["pyarrow.dataset"] = None
from dasklmm.cli import main
main(["gwas", "none", "--format", "parquet", "--pheno", "none", "--out", sys.argv[1]])
"""
    (tmp_path / "none").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "o")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "pip install 'dasklmm[parquet]'" in done.stderr
