"""Clumps of a scan: by distance, and by r² read from genotypes."""

from __future__ import annotations

import importlib

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

import dasklmm
from dasklmm import clump, errors, export, open_genotypes
from dasklmm.cli import main
from dasklmm.readers.dataset import genotype_dataset
from dasklmm.store.genotypes import write_genotypes
from dasklmm.store.results import open_results, write_results

module = importlib.import_module(clump.__module__)

COLUMNS = [
    "variant_contig", "variant_position", "variant_id", "variant_effect_allele", "variant_other_allele",
    "effect_allele_frequency", "beta", "standard_error", "p_value", "neg_log10_p_value",
    "n_clumped", "clump_start", "clump_end", "clumped_id",
]  # fmt: skip


class Rows:
    """Source of genotype rows that notes which are read."""

    ndim = 2

    def __init__(self, calls):
        self.calls, self.shape, self.dtype, self.read = calls, calls.shape, calls.dtype, []

    def __getitem__(self, index):
        rows = index[0]
        self.read.append(np.arange(self.shape[0])[rows])
        return self.calls[index]


def scan(score, position, contig="1", ids=None):
    m = len(score)
    score = np.asarray(score, dtype=float)
    return xr.Dataset(
        {
            "effect_allele_frequency": ("variant", np.full(m, 0.3)),
            "beta": ("variant", np.linspace(-1, 1, m)),
            "standard_error": ("variant", np.full(m, 0.1)),
            "p_value": ("variant", 10.0**-score),
            "neg_log10_p_value": ("variant", score),
        },
        coords={
            "variant_contig": ("variant", np.resize(np.asarray(contig, dtype=str), m)),
            "variant_position": ("variant", np.asarray(position)),
            "variant_id": ("variant", np.array([f"rs{i}" for i in range(m)]) if ids is None else ids),
            "variant_effect_allele": ("variant", np.full(m, "A")),
            "variant_other_allele": ("variant", np.full(m, "G")),
        },
    )


def genotypes(results, calls, chunks=7):
    source = Rows(calls)
    ds = genotype_dataset(
        source,
        chunks=chunks,
        stored_chunk=1,
        sample_id=np.array([f"s{i}" for i in range(calls.shape[1])]),
        contig=results["variant_contig"].values,
        position=results["variant_position"].values,
        variant_id=results["variant_id"].values,
        effect_allele=results["variant_effect_allele"].values,
        other_allele=results["variant_other_allele"].values,
        path="",
        file_format="test",
    )
    return ds, source


def linked_calls(rng, m, n, missing=0.05):
    """Neighbours share most calls."""
    calls = rng.binomial(2, 0.4, (m, n))
    for i in range(1, m):
        same = rng.uniform(size=n) < rng.choice([0.5, 0.9, 0.99])
        calls[i, same] = calls[i - 1, same]
    return np.where(rng.uniform(size=calls.shape) < missing, -1, calls).astype(np.int8)


def linked_scan(seed=0, m=90, n=80):
    rng = np.random.default_rng(seed)
    results = scan(
        np.where(rng.uniform(size=m) < 0.05, np.nan, rng.exponential(3.5, m)),
        np.sort(rng.integers(1, 2_000_000, m)),
        np.sort(rng.choice(["1", "2", "X"], m)),
    )
    return results, linked_calls(rng, m, n)


def test_by_distance_by_hand():
    score = [2.5, 8.0, 9.0, 1.0, 7.5, 7.4, 8.5]
    position = [749_000, 1_000_000, 1_000_500, 1_000_600, 1_250_500, 1_250_501, 900]
    table = clump(scan(score, position, ["1"] * 6 + ["2"]))
    assert table.columns.tolist() == COLUMNS
    assert table.index.tolist() == [2, 6, 5]
    assert table["n_clumped"].tolist() == [2, 0, 0]
    assert table["clumped_id"].tolist() == [["rs1", "rs4"], [], []]
    assert table["clump_start"].tolist() == [1_000_000, 900, 1_250_501]
    assert table["clump_end"].tolist() == [1_250_500, 900, 1_250_501]
    assert table["variant_contig"].tolist() == ["1", "2", "1"]
    wider = clump(scan(score, position, ["1"] * 6 + ["2"]), distance=251_500)
    assert wider["clumped_id"].tolist() == [["rs0", "rs1", "rs4", "rs5"], []]


def test_r_squared_by_hand():
    rng = np.random.default_rng(1)
    calls = rng.integers(0, 3, (4, 400)).astype(np.int8)
    calls[2] = 2 - calls[0]  # the other allele counted: r² = 1
    results = scan([9.0, 8.0, 7.6, 7.5], [100, 200, 300, 100 + 250_001])
    calls[3] = calls[0]
    ds, _ = genotypes(results, calls)
    table = clump(results, ds)
    # rs1 is near and unlinked, rs3 linked and too far
    assert table["clumped_id"].tolist() == [["rs2"], [], []]
    assert table["variant_id"].tolist() == ["rs0", "rs1", "rs3"]
    assert (
        clump(results, ds, r_squared=0.0)
        .drop(columns="clumped_id")
        .equals(clump(results).drop(columns="clumped_id"))
    )


@pytest.mark.parametrize("seed", range(3))
def test_clumps_are_what_corrcoef_says(seed):
    results, calls = linked_scan(seed)
    ds, _ = genotypes(results, calls)
    table = clump(results, ds, p_value=1e-3, r_squared=0.6, distance=200_000)
    assert len(table) > 3
    assert table["n_clumped"].sum() > 3
    floats = np.where(calls < 0, np.nan, calls)

    def r2(i, j):
        both = ~np.isnan(floats[i] + floats[j])
        return np.corrcoef(floats[i, both], floats[j, both])[0, 1] ** 2

    contig, position, score = (
        results[k].values for k in ("variant_contig", "variant_position", "neg_log10_p_value")
    )
    left = [i for i in np.argsort(-score, kind="stable").tolist() if score[i] >= 2]
    for index, row in zip(table.index, table.to_dict("records"), strict=True):
        assert index == left[0]
        members = [
            i
            for i in left
            if contig[i] == contig[index]
            and abs(position[i] - position[index]) <= 200_000
            and r2(i, index) >= 0.6
        ]
        assert sorted(row["clumped_id"]) == sorted(f"rs{i}" for i in members if i != index)
        assert (row["clump_start"], row["clump_end"]) == (min(position[members]), max(position[members]))
        left = [i for i in left if i not in members]
    assert all(score[i] < 3 for i in left)


def test_samples_of_the_scan():
    results, calls = linked_scan()
    ds, _ = genotypes(results, calls)
    some = [f"s{i}" for i in range(79, 40, -1)]
    got = clump(results, ds, p_value=1e-3, samples=some)
    want = clump(results, ds.isel(sample=slice(41, 80)), p_value=1e-3)
    assert got.equals(want)
    assert not got.equals(clump(results, ds, p_value=1e-3))


def test_only_rows_near_an_index_are_read():
    score = np.full(3000, 0.5)
    score[[100, 104, 106, 2000, 2001, 2900, 2950]] = [8.0, 3.0, 3.0, 2.5, 9.0, 7.0, 6.0]
    results = scan(score, np.arange(1, 3001) * 1000)
    ds, source = genotypes(results, linked_calls(np.random.default_rng(0), 3000, 30), chunks=500)
    clump(results, ds)
    assert set(np.concatenate(source.read).tolist()) == {100, 104, 105, 106, 2000, 2001}
    source.read.clear()
    clump(results, ds, p_value=1e-10)
    assert source.read == []


@pytest.mark.parametrize(("piece", "gap"), [(1, 256), (90, 256), (1 << 24, 0)])
def test_pieces_leave_no_trace(monkeypatch, piece, gap):
    results, calls = linked_scan()
    ds, source = genotypes(results, calls)
    whole = clump(results, ds, p_value=1e-3)
    monkeypatch.setattr(module, "_PIECE_BYTES", piece)
    monkeypatch.setattr(module, "_GAP", gap)
    source.read.clear()
    assert clump(results, ds, p_value=1e-3).equals(whole)
    if piece < 100:
        assert max(rows.size for rows in source.read) == 1


def test_pieces_are_bounded_and_whole():
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(0, 5000, 300))
    rows = rows[(rows < 2000) | (rows > 2600)]
    pieces = list(module._pieces(rows, 50))
    assert np.concatenate(pieces).tolist() == rows.tolist()
    assert max(piece[-1] - piece[0] for piece in pieces) < 50
    assert len(list(module._pieces(rows, 10_000))) == 2


def test_order_of_rows_does_not_matter():
    results, calls = linked_scan(1)
    ds, _ = genotypes(results, calls)
    order = np.random.default_rng(5).permutation(len(calls))
    moved = results.isel(variant=order)
    got = clump(moved, genotypes(moved, calls[order])[0], p_value=1e-3)
    assert got.reset_index(drop=True).equals(clump(results, ds, p_value=1e-3).reset_index(drop=True))


@pytest.mark.parametrize("kind", ["array", "double", "dosage", "path", "results"])
def test_what_genotypes_and_results_may_be(tmp_path, kind):
    results, calls = linked_scan()
    ds, _ = genotypes(results, calls)
    want = clump(results, ds, p_value=1e-3)
    given = results
    if kind == "array":
        ds = ds["dosage"]
    elif kind == "double":
        ds["dosage"] = (
            ("variant", "sample"),
            da.from_array(np.where(calls < 0, np.nan, calls), chunks=(40, 9)),
        )
    elif kind == "dosage":
        ds = ds["dosage"].transpose("sample", "variant").compute()
    elif kind == "path":
        from bed_reader import to_bed

        fam = {"iid": ds["sample_id"].values}
        bim = {
            "chromosome": ds["variant_contig"].values,
            "bp_position": ds["variant_position"].values.astype(np.int32),
            "sid": ds["variant_id"].values,
        }
        to_bed(tmp_path / "c.bed", np.where(calls < 0, -127, calls).T, properties=fam | bim)
        ds = tmp_path / "c.bed"
    else:
        write_results(results, tmp_path / "r.zarr", {})
        given = open_results(tmp_path / "r.zarr")
    assert clump(given, ds, p_value=1e-3).equals(want)


def test_no_variant_reaches_the_threshold():
    results, calls = linked_scan()
    full = clump(results, p_value=0.01)
    for given in (results, results.isel(variant=slice(0))):
        empty = clump(given, p_value=1e-300)
        assert len(empty) == 0
        assert empty.columns.tolist() == COLUMNS
        assert (empty.dtypes.drop(COLUMNS[:5]) == full.dtypes.drop(COLUMNS[:5])).all()
        assert empty.attrs["p_value"] == 1e-300
    assert len(clump(results, genotypes(results, calls)[0], p_value=1e-300)) == 0


def test_thresholds_are_inclusive_and_kept():
    results = scan([8.0, 7.0, 5.0, 2.0, 1.9, 1.0], np.arange(1, 7))
    assert clump(results, p_value=1e-8)["n_clumped"].tolist() == [3]
    table = clump(results, p_value=0.1)
    assert table["n_clumped"].tolist() == [5]
    assert table.attrs == {
        "p_value": 0.1,
        "secondary_p_value": 0.1,
        "distance": 250_000,
        "r_squared": None,
    }
    assert clump(results, secondary_p_value=1e-5)["n_clumped"].tolist() == [2]


def test_columns_are_those_of_the_results():
    results, calls = linked_scan()
    table = clump(results, genotypes(results, calls)[0], p_value=1e-3)
    pd.testing.assert_frame_equal(
        table[COLUMNS[:10]], export.variant_table(results, table.index.to_numpy()), check_like=False
    )
    for name in COLUMNS[:10]:
        assert table[name].tolist() == results[name].values[table.index].tolist()


def test_results_without_ids():
    table = clump(scan([9.0, 8.0], [1, 2]).drop_vars("variant_id"))
    assert table["clumped_id"].tolist() == [[""]]


def test_unknown_positions_count_as_one_place():
    table = clump(scan([9.0, 8.0, 7.9, 8.5], [0, -1, 5, 0], ["1", "1", "1", "2"]))
    assert table["n_clumped"].tolist() == [1, 0, 0]
    assert table["clump_end"].tolist() == [0, 0, 5]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"p_value": 0.0}, "p_value is 0.0"),
        ({"p_value": "5e-8"}, "such as 5e-8"),
        ({"p_value": float("nan")}, "p_value is nan"),
        ({"p_value": 0.5, "secondary_p_value": 0.1}, "from p_value"),
        ({"r_squared": 50}, "r_squared is 50"),
        ({"distance": -1}, "whole number of base pairs"),
        ({"distance": 250.5}, "250 kb"),
        ({"samples": ["s1"]}, "needs genotypes"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(errors.OptionError, match=said):
        clump(scan([9.0], [1]), **options)


def test_results_that_cannot_be_clumped():
    with pytest.raises(errors.OptionError, match="no variant_contig, variant_position"):
        clump(scan([9.0], [1]).drop_vars(["variant_contig", "variant_position"]))
    with pytest.raises(errors.OptionError, match="results are a DataFrame"):
        clump(pd.DataFrame())
    with pytest.raises(errors.OptionError, match="one phenotype at a time"):
        clump(xr.concat([scan([9.0], [1])] * 2, "phenotype"))


def test_genotypes_of_other_variants():
    results, calls = linked_scan()
    ds, source = genotypes(results, calls)
    with pytest.raises(errors.ShapeError, match="90 variants and the genotypes 89"):
        clump(results, ds.isel(variant=slice(1, None)))
    other = ds.assign_coords(variant_id=("variant", [f"rs{i + (i > 5)}" for i in range(90)]))
    with pytest.raises(errors.GenotypeFormatError, match=r"variant_id differs in 84 .* row 6 \('rs6' in"):
        clump(results, other)
    other = ds.assign_coords(variant_position=("variant", ds["variant_position"].values + 1))
    with pytest.raises(errors.GenotypeFormatError, match="variant_position differs in 90"):
        clump(results, other)
    with pytest.raises(errors.GenotypeFormatError, match="hold beta"):
        clump(results, results[["beta"]])
    assert source.read == []


@pytest.mark.parametrize(
    ("samples", "said"), [(["s1", "sam"], "'sam'"), (["s1", "s1"], "stand more than once")]
)
def test_samples_that_do_not_meet(samples, said):
    results, calls = linked_scan()
    ds, _ = genotypes(results, calls)
    with pytest.raises(errors.SampleError, match=said):
        clump(results, ds, samples=samples)
    with pytest.raises(errors.SampleError, match="no sample_id"):
        clump(results, ds.drop_vars("sample_id"), samples=["s1"])


def test_mice(mouse_prefix):
    """Strong linkage, and a sixth of the positions unknown."""
    ds = open_genotypes(mouse_prefix)
    rng = np.random.default_rng(0)
    m = ds.sizes["variant"]
    results = scan(rng.exponential(1.2, m), ds["variant_position"].values, ids=ds["variant_id"].values)
    results["variant_contig"] = ds["variant_contig"]
    options = {"p_value": 1e-4, "distance": 5_000_000}
    table, by_distance = clump(results, ds, **options), clump(results, **options)
    assert 0 < len(by_distance) < len(table) < (results["neg_log10_p_value"] >= 4).sum()
    # two near indexes are not linked; some are constant
    floats = ds["dosage"].values[table.index].astype(float)
    floats[floats < 0] = np.nan
    r2 = np.asarray(pd.DataFrame(floats.T).corr()) ** 2
    contig, position = table["variant_contig"].to_numpy(), table["variant_position"].to_numpy()
    near = (contig[:, None] == contig) & ((position[:, None] > 0) == (position > 0))
    near &= np.abs(position[:, None] - position) <= 5_000_000
    np.fill_diagonal(near, False)
    assert near.any()
    assert np.nanmax(r2[near]) < 0.5


@pytest.mark.parametrize("command", ["gwas", "plot"])
def test_clumps_of_chosen_variants_whose_ids_repeat(tmp_path, command):
    """Chosen variants are found again in the genotypes where an id, or a place, is that of several."""
    ds = dasklmm.simulate(60, 300, n_contigs=3, n_causal=3, causal_variance=0.6, seed=3)
    ids, place = ds["variant_id"].values.copy(), ds["variant_position"].values.copy()
    ids[::2] = "."
    place[1:101:2], ids[1:101:2] = place[0:100:2], "."  # two of one place and id, whose alleles differ
    ds = ds.assign_coords(variant_id=("variant", ids), variant_position=("variant", place))
    write_genotypes(ds, tmp_path / "g.zarr")
    y = pd.DataFrame({"sample_id": ds["sample_id"].values, "y": ds["phenotype"].values})
    y.to_csv(tmp_path / "y.tsv", sep="\t", index=False)
    out, contig = tmp_path / "o", str(ds["variant_contig"].values[150])
    scan = [
        "gwas",
        tmp_path / "g.zarr",
        "--pheno",
        tmp_path / "y.tsv",
        "--contigs",
        contig,
        "--no-loco",
        "--quiet",
    ]
    scan += ["--quiet", "--out", out, "--no-plots"]
    scan += ["--clump"] if command == "gwas" else []
    done = CliRunner().invoke(main, list(map(str, scan)))
    assert done.exit_code == 0, done.output
    results = dasklmm.open_results(out)
    chosen = ds.isel(variant=(ds["variant_contig"] == contig).values)
    if command == "gwas":
        want = dasklmm.clump(results, chosen, p_value=1e-4)
        got = pd.read_csv(out / "clumps.tsv", sep="\t")
        assert got["variant_position"].tolist() == want["variant_position"].tolist()
        assert got["n_clumped"].tolist() == want["n_clumped"].tolist()
    else:
        ask = ["plot", out, "--region", "top", "--genotypes", tmp_path / "g.zarr"]
        done = CliRunner().invoke(main, list(map(str, ask)))
        assert done.exit_code == 0, done.output
