"""The table of summary statistics, read back as text and by pandas."""

from __future__ import annotations

import gzip
import json

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dasklmm import export

FIRST = [
    "chromosome", "base_pair_location", "effect_allele", "other_allele",
    "beta", "standard_error", "effect_allele_frequency",
]  # fmt: skip
REST = ["variant_id", "n", "chi_sq", "sigma_sq"]
NAMES = {
    "chromosome": "variant_contig",
    "base_pair_location": "variant_position",
    "effect_allele": "variant_effect_allele",
    "other_allele": "variant_other_allele",
    "neg_log_10_p_value": "neg_log10_p_value",
}
TESTED = ("beta", "standard_error", "sigma_sq", "chi_sq", "p_value", "neg_log10_p_value")


def scan(m=200, seed=0, **changed):
    """Results of `m` variants on two contigs; rows 3 and 5 have no test."""
    rng = np.random.default_rng(seed)
    log_p = -np.log10(rng.uniform(size=m))
    status = np.full(m, "ok", dtype="<U25")
    status[[3, 5]] = ["constant", "collinear_with_covariates"]
    values = {
        "n": np.full(m, 1410),
        "effect_allele_frequency": rng.uniform(size=m),
        "beta": rng.standard_normal(m),
        "standard_error": rng.uniform(0.1, 1, m),
        "sigma_sq": rng.uniform(size=m),
        "chi_sq": rng.chisquare(1, m),
        "p_value": 10.0**-log_p,
        "neg_log10_p_value": log_p,
    }
    for name in TESTED:
        values[name][[3, 5]] = np.nan
    for name, given in changed.items():
        if name in values:
            values[name] = np.asarray(given, dtype=float)
    half = m // 2
    coords = {
        "variant_contig": np.array(["1"] * half + ["X"] * (m - half)),
        "variant_position": np.concatenate([np.arange(1, half + 1), np.arange(1, m - half + 1)]) * 600_000,
        "variant_id": np.array([f"rs{i}" for i in range(m)]),
        "variant_effect_allele": rng.choice(list("AC"), m),
        "variant_other_allele": rng.choice(list("GT"), m),
    }
    coords |= {k: np.asarray(v) for k, v in changed.items() if k in coords}
    variables = {**values, "status": status}
    return xr.Dataset(
        {k: ("variant", v) for k, v in variables.items()},
        coords={k: ("variant", v) for k, v in coords.items()},
    )


def read(path):
    text = dict.fromkeys(("chromosome", "variant_id", "effect_allele", "other_allele", "status"), str)
    return pd.read_csv(path, sep="\t", na_values="#NA", keep_default_na=False, dtype=text)


# the table --------------------------------------------------------------------------------------


def test_columns_are_in_the_order_of_gwas_ssf(tmp_path):
    export.write_tsv(scan(), tmp_path / "r.tsv.gz")
    assert read(tmp_path / "r.tsv.gz").columns.tolist() == [
        *FIRST, "p_value", *REST, "neg_log_10_p_value", "status",
    ]  # fmt: skip


def test_round_trip(tmp_path):
    results = scan(beta=np.geomspace(1e-300, 1e300, 200) * np.resize([1, -1], 200))
    export.write_tsv(results, tmp_path / "r.tsv.gz")
    table = read(tmp_path / "r.tsv.gz")
    for column in table:
        values = results[NAMES.get(column, column)].values
        if values.dtype.kind == "f":
            np.testing.assert_allclose(table[column], values, rtol=5e-10, err_msg=column)
        else:
            assert table[column].tolist() == values.tolist(), column


def test_missing_values_are_na(tmp_path):
    results = scan(m=8, variant_position=[5, 0, -9, 4, 5, 6, 7, 8], variant_id=["", *"abcdefg"])
    export.write_tsv(results, tmp_path / "r.tsv.gz")
    lines = gzip.decompress((tmp_path / "r.tsv.gz").read_bytes()).decode().splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    assert {k for k, v in rows[3].items() if v == "#NA"} == {
        "beta", "standard_error", "p_value", "chi_sq", "sigma_sq", "neg_log_10_p_value",
    }  # fmt: skip
    assert rows[3]["status"] == "constant"
    assert [row["base_pair_location"] for row in rows[:4]] == ["5", "#NA", "#NA", "4"]
    assert rows[0]["variant_id"] == "#NA"
    assert "nan" not in "".join(lines)


@pytest.mark.parametrize("largest", [299.0, 301.0, 5000.0])
def test_p_values_that_underflow_give_their_place_to_the_logarithm(tmp_path, largest):
    log_p = np.linspace(0, largest, 200)
    with np.errstate(under="ignore"):
        results = scan(neg_log10_p_value=log_p, p_value=10.0**-log_p)
    export.write_tsv(results, tmp_path / "r.tsv.gz")
    table = read(tmp_path / "r.tsv.gz")
    eighth, other = ("p_value", "neg_log_10_p_value")[:: 1 if largest < 300 else -1]
    assert table.columns.tolist() == [*FIRST, eighth, *REST, other, "status"]
    assert table["neg_log_10_p_value"].iloc[-1] == largest


def test_same_results_give_the_same_bytes(tmp_path):
    export.write_tsv(scan(), tmp_path / "a.tsv.gz")
    export.write_tsv(scan(), tmp_path / "another_name.tsv.gz")
    first = (tmp_path / "a.tsv.gz").read_bytes()
    assert first == (tmp_path / "another_name.tsv.gz").read_bytes()
    # header of RFC 1952: no time stamp and no file name
    assert first[:4] == b"\x1f\x8b\x08\x00"
    assert first[4:8] == b"\0\0\0\0"


def test_pieces_leave_no_trace(tmp_path, monkeypatch):
    export.write_tsv(scan(), tmp_path / "whole.tsv.gz")
    monkeypatch.setattr(export, "ROWS", 7)
    export.write_tsv(scan(), tmp_path / "pieces.tsv.gz")
    whole, pieces = (gzip.decompress((tmp_path / f"{n}.tsv.gz").read_bytes()) for n in ("whole", "pieces"))
    assert whole == pieces
    assert whole.count(b"\n") == 201


def test_dask_backed_results(tmp_path):
    results = scan()
    lazy = results.assign({k: ("variant", da.from_array(v.values, chunks=60)) for k, v in results.items()})
    export.write_tsv(results, tmp_path / "a.gz")
    export.write_tsv(lazy, tmp_path / "b.gz")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_absent_columns_and_no_rows(tmp_path):
    export.write_tsv(scan().drop_vars(["variant_id", "n", "status"]), tmp_path / "a.gz")
    table = read(tmp_path / "a.gz")
    assert table[["variant_id", "n", "status"]].isna().to_numpy().all()
    assert table.shape == (200, 14)
    export.write_tsv(scan().isel(variant=slice(0)), tmp_path / "b.gz")
    assert read(tmp_path / "b.gz").shape == (0, 14)


def test_a_tab_in_a_name_does_not_shift_columns(tmp_path):
    results = scan(m=10, variant_id=["a\tb", "c\nd", *"efghijkl"])
    export.write_tsv(results, tmp_path / "r.gz")
    table = read(tmp_path / "r.gz")
    assert table["variant_id"].tolist()[:3] == ["a b", "c d", "e"]
    assert table["n"].eq(1410).all()


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.tsv.gz"
    export.write_tsv(scan(), path)
    before = path.read_bytes()

    def fail(_):
        raise OSError("no space")

    monkeypatch.setattr(export, "_float_texts", fail)
    with pytest.raises(OSError, match="no space"):
        export.write_tsv(scan(seed=1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.tsv.gz"]


# top hits ---------------------------------------------------------------------------------------


def greedy(log_p, contig, position, n, window):
    """The definition, variant by variant."""
    chosen, first = [], contig.tolist().index
    rank = {name: first(name) if name else -1 for name in set(contig.tolist())}
    keys = [(-log_p[i], rank[contig[i]], max(position[i], 0), i) for i in np.flatnonzero(~np.isnan(log_p))]
    for *_, i in sorted(keys):
        near = any(
            contig[i] == contig[j] and contig[i] and (position[i] > 0) == (position[j] > 0)
            and (position[i] <= 0 or abs(position[i] - position[j]) <= window)
            for j in chosen
        )  # fmt: skip
        if not near:
            chosen.append(int(i))
    return chosen[:n]


@pytest.mark.parametrize("seed", range(5))
def test_top_hits_are_the_greedy_clumps(seed):
    rng = np.random.default_rng(seed)
    results = scan(
        seed=seed,
        neg_log10_p_value=np.where(rng.uniform(size=200) < 0.1, np.nan, rng.integers(0, 30, 200)),
        variant_position=rng.integers(-3, 40, 200) * 100_000,
        variant_contig=rng.choice(["1", "2", ""], 200),
    )
    values = [results[k].values for k in ("neg_log10_p_value", "variant_contig", "variant_position")]
    for n, window in ((10, 1_000_000), (50, 300_000), (5, 0)):
        hits = export.top_hits(results, n=n, window=window)
        assert hits.index.tolist() == greedy(*values, n, window)


def test_top_hits_hold_what_people_need():
    results = scan()
    hits = export.top_hits(results, n=4)
    assert hits.columns.tolist() == [
        "variant_contig", "variant_position", "variant_id", "variant_effect_allele",
        "variant_other_allele", "effect_allele_frequency", "beta", "standard_error",
        "p_value", "neg_log10_p_value", "n_clumped",
    ]  # fmt: skip
    assert hits["neg_log10_p_value"].is_monotonic_decreasing
    best = int(np.nanargmax(results["neg_log10_p_value"]))
    for name in hits.columns.drop("n_clumped"):
        assert hits.iloc[0][name] == results[name].values[best]


def test_top_hits_count_what_is_clumped_under_them():
    # 600 kb apart: the neighbours of rows 10 and 60 alone are within 1 Mb
    log_p = np.full(200, 0.1)
    log_p[[9, 10, 11, 13, 59, 60, 61]] = [2.0, 9.0, 1.99, 2.5, 3.0, 8.0, 3.0]
    hits = export.top_hits(scan(neg_log10_p_value=log_p), n=3)
    assert hits.index.tolist() == [10, 60, 13]
    assert hits["n_clumped"].tolist() == [1, 2, 0]


def test_top_hits_of_nothing():
    assert len(export.top_hits(scan(neg_log10_p_value=np.full(200, np.nan)))) == 0
    assert len(export.top_hits(scan().isel(variant=slice(0)))) == 0
    assert len(export.top_hits(scan(), n=0)) == 0


def test_the_strongest_possible_hit_is_a_hit():
    log_p = np.ones(200)
    log_p[50] = np.inf
    assert export.top_hits(scan(neg_log10_p_value=log_p)).index[0] == 50


# summary ----------------------------------------------------------------------------------------


def test_summary_counts_and_is_json():
    log_p = np.full(200, 0.2)
    log_p[[10, 150]] = [7.4, 7.2]
    log_p[[3, 5]] = np.nan
    found = export.summary(scan(neg_log10_p_value=log_p))
    assert found["variants"] == 200
    assert found["tested"] == 198
    assert found["status"] == {"ok": 198, "collinear_with_covariates": 1, "constant": 1}
    # 5e-8 is 7.30 on this scale
    assert found["genome_wide_significant"] == 1
    assert [hit["variant_id"] for hit in found["top_hits"]][:2] == ["rs10", "rs150"]
    json.dumps(found, allow_nan=False)


def test_summary_of_uniform_p_values_is_uninflated():
    log_p = -np.log10((np.arange(200) + 0.5) / 200)
    assert export.summary(scan(neg_log10_p_value=log_p))["lambda_gc"] == pytest.approx(1.0, abs=0.02)
    assert export.summary(scan(neg_log10_p_value=log_p * 3))["lambda_gc"] > 1.5


def test_summary_without_a_test_is_json():
    found = export.summary(scan(neg_log10_p_value=np.full(200, np.nan)))
    assert found["lambda_gc"] is None
    assert found["tested"] == 0
    assert found["top_hits"] == []
    json.dumps(found, allow_nan=False)
