"""PLINK 1 files: values against what was written, laziness, and files that do not belong together."""

from __future__ import annotations

import re

import numpy as np
import pytest
from bed_reader import to_bed

import dasklmm
from dasklmm.datasets import write_cohort
from dasklmm.errors import GenotypeFormatError, MissingExtraError, OptionError, SampleError
from dasklmm.readers.dataset import KNOWN

M, N = 37, 23


def write(folder, calls, fid=None, iid=None, name="c"):
    values = calls.T.astype(np.int8)
    values[values == -1] = -127
    n, m = values.shape
    properties = {
        "fid": fid or ["f"] * n,
        "iid": iid or [f"s{i}" for i in range(n)],
        "chromosome": [str(1 + j // 20) for j in range(m)],
        "sid": [f"rs{j}" for j in range(m)],
        "bp_position": list(range(100, 100 + m)),
        "allele_1": ["A"] * m,
        "allele_2": ["G"] * m,
    }
    path = folder / f"{name}.bed"
    to_bed(path, values, properties=properties, count_A1=True, num_threads=1)
    return path


@pytest.fixture
def calls():
    return np.random.default_rng(0).integers(-1, 3, (M, N)).astype(np.int8)


@pytest.mark.parametrize("form", ["bed", "prefix", "str", "bim", "fam"])
@pytest.mark.parametrize("chunks", ["auto", 1, 10, 1000])
def test_values(tmp_path, calls, form, chunks, no_compute):
    bed = write(tmp_path, calls)
    path = {"bed": bed, "prefix": bed.with_suffix(""), "str": str(bed)}.get(form, bed.with_suffix(f".{form}"))
    with no_compute():
        ds = dasklmm.open_genotypes(path, chunks=chunks)
    assert ds["dosage"].dims == ("variant", "sample")
    assert ds["dosage"].dtype == np.int8
    np.testing.assert_array_equal(ds["dosage"].values, calls)
    np.testing.assert_array_equal(ds["dosage"][5:9, 2:20:3].values, calls[5:9, 2:20:3])
    np.testing.assert_array_equal(ds["dosage"][[1, 30, 31]].values, calls[[1, 30, 31]])
    np.testing.assert_array_equal(ds["dosage"][11].values, calls[11])
    assert ds["dosage"][11, 3].values == calls[11, 3]
    assert ds["variant_contig"].values.tolist() == ["1"] * 20 + ["2"] * 17
    assert ds["variant_position"].values[[0, -1]].tolist() == [100, 136]
    assert set(ds["variant_effect_allele"].values) == {"A"}
    assert set(ds["variant_other_allele"].values) == {"G"}
    assert ds["sample_id"].values[3] == "s3"
    assert ds.attrs["source"] == str(bed)
    assert (ds.attrs["ploidy"], ds.attrs["field"]) == (2, "genotype")
    assert "sample_ids_have_family" not in ds.attrs
    assert all(v.dtype.kind in "Ui" for v in ds.coords.values())
    if isinstance(chunks, int):
        assert ds["dosage"].data.chunksize == (min(chunks, M), N)


def test_one_task_a_block(tmp_path, calls):
    ds = dasklmm.open_genotypes(write(tmp_path, calls), chunks=10)
    assert len(ds["dosage"].data.__dask_graph__()) <= 4 + 1


def test_repeated_iid_become_fid_iid(tmp_path, calls):
    iid = ["a", "a", *[f"s{i}" for i in range(N - 2)]]
    fid = ["f1", "f2", *["f"] * (N - 2)]
    ds = dasklmm.open_genotypes(write(tmp_path, calls, fid, iid))
    assert ds["sample_id"].values[:3].tolist() == ["f1:a", "f2:a", "f:s0"]
    assert ds.attrs["sample_ids_have_family"] is True
    table = dasklmm.read_table(tmp_path / "c.fam")
    assert table.index[:3].tolist() == ["f1:a", "f2:a", "f:s0"]
    with pytest.raises(SampleError, match="'f:a'"):
        dasklmm.open_genotypes(write(tmp_path, calls, ["f"] * N, iid))


def test_files_that_do_not_belong_together(tmp_path, calls):
    bed = write(tmp_path, calls)
    whole = bed.read_bytes()
    bed.write_bytes(whole[:-1])
    with pytest.raises(GenotypeFormatError, match=r"has 224 bytes; 37 variants .* need 225"):
        dasklmm.open_genotypes(bed)
    bed.write_bytes(b"\x6c\x1b\x00" + whole[3:])
    with pytest.raises(GenotypeFormatError, match=r"6c1b00.*variant-major"):
        dasklmm.open_genotypes(bed)
    bed.write_bytes(b"")
    with pytest.raises(GenotypeFormatError, match=r"c\.bed' is empty"):
        dasklmm.open_genotypes(bed)
    bed.write_bytes(whole)
    (tmp_path / "c.bim").rename(tmp_path / "d.bim")
    with pytest.raises(GenotypeFormatError, match=r"c\.bim' is missing"):
        dasklmm.open_genotypes(bed)


def test_nothing_there_and_other_files(tmp_path):
    with pytest.raises(GenotypeFormatError, match="there is nothing at"):
        dasklmm.open_genotypes(tmp_path / "none")
    (tmp_path / "x.txt").write_text("##fileformat=VCFv4.2\n")
    with pytest.raises(GenotypeFormatError, match="file of no format"):
        dasklmm.open_genotypes(tmp_path / "x.txt")
    (tmp_path / "empty").mkdir()
    for name in ("none", "x.txt", "empty"):  # one list of formats in all
        with pytest.raises(GenotypeFormatError, match=re.escape(f" Give {KNOWN}.")):
            dasklmm.open_genotypes(tmp_path / name)
    with pytest.raises(GenotypeFormatError, match="not a Zarr group"):
        dasklmm.open_genotypes(tmp_path / "empty")
    write_cohort(dasklmm.simulate(20, 10), tmp_path / "cohort")
    with pytest.raises(GenotypeFormatError, match=r"Give '.*cohort/genotypes\.zarr', which lies in it"):
        dasklmm.open_genotypes(tmp_path / "cohort")
    with pytest.raises(OptionError, match="chunks is 0"):
        dasklmm.open_genotypes(tmp_path, chunks=0)
    with pytest.raises(OptionError, match="field is 'gp'"):
        dasklmm.open_genotypes(tmp_path, field="gp")


def test_what_is_no_path_is_refused(tmp_path, calls):
    ds = dasklmm.open_genotypes(write(tmp_path, calls))
    for given, name in [(ds["dosage"], "DataArray"), (calls, "ndarray"), (ds, "Dataset"), (None, "NoneType")]:
        with pytest.raises(GenotypeFormatError, match=f"are a {name}; a path, .* and sample_id is needed"):
            dasklmm.open_genotypes(given)
    with pytest.raises(GenotypeFormatError, match=r"d\.bed' is missing"):
        dasklmm.open_genotypes(tmp_path / "d.fam")


def test_missing_extra_says_its_command(tmp_path, calls, monkeypatch):
    import sys

    bed = write(tmp_path, calls)
    monkeypatch.setitem(sys.modules, "bed_reader", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dasklmm\[plink\]'"):
        dasklmm.open_genotypes(bed)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("c.bim", "1\trs0\t0\t100\tA\n", r"5 columns; at least 6"),
        ("c.bim", "1\trs0\t0\t100\tA\tG\n1\trs1\t0\n", "row 2 has fewer columns than the 6"),
        ("c.bim", "1\trs0\t0\tx\tA\tG\n" * M, "column 4 holds positions"),
        ("c.bim", "", "is empty"),
        ("c.fam", "f s0 0 0 1 -9\n", r"has 225 bytes; 37 variants .* and 1 samples .* need 40"),
    ],
)
def test_bim_and_fam_that_are_wrong(tmp_path, calls, file, text, message):
    bed = write(tmp_path, calls)
    (tmp_path / file).write_text(text)
    with pytest.raises(GenotypeFormatError, match=message):
        dasklmm.open_genotypes(bed)


@pytest.mark.parametrize("separator", [" ", "\t", "   "])
def test_white_space_and_quotes_of_bim_and_fam(tmp_path, calls, separator):
    bed = write(tmp_path, calls)
    for name in ("c.bim", "c.fam"):
        lines = (tmp_path / name).read_text().splitlines()
        lines[0] = lines[0].replace("rs0", '"rs0').replace("s0", "5'")
        (tmp_path / name).write_text("".join(f"{separator.join(line.split())}\n" for line in lines))
    ds = dasklmm.open_genotypes(bed)
    np.testing.assert_array_equal(ds["dosage"].values, calls)
    assert ds["variant_id"].values[0] == "\"r5'"
    assert ds["sample_id"].values[0] == dasklmm.read_table(tmp_path / "c.fam").index[0] == "5'"


def test_chunks_as_a_numpy_integer_and_no_rows(tmp_path, calls):
    ds = dasklmm.open_genotypes(write(tmp_path, calls), chunks=np.int64(8))
    assert ds["dosage"].data.chunksize == (8, N)
    for part in (slice(0, 0), slice(None, None, -1), [5, 2, 2]):
        np.testing.assert_array_equal(ds["dosage"][part].values, calls[part])
    with pytest.raises(OptionError, match="chunks is True"):
        dasklmm.open_genotypes(tmp_path / "c", chunks=True)


def decoded(bed, m, n, rows):
    """The format's own table of two bits, without bed-reader: copies of allele 1; 01 is missing."""
    stored = np.memmap(bed, np.uint8, "r", 3, (m, (n + 3) // 4))[rows]
    pairs = (stored[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    return np.array([2, -1, 1, 0])[pairs.reshape(len(rows), -1)[:, :n]]


def test_variants_without_an_id_are_named(tmp_path, calls):
    bed = write(tmp_path, calls)
    lines = (tmp_path / "c.bim").read_text().replace("rs3\t", ".\t").splitlines(keepends=True)
    (tmp_path / "c.bim").write_text("".join(lines))
    contig, _, _, position, first, second = lines[3].split()
    ids = dasklmm.open_genotypes(bed)["variant_id"].values
    assert ids[2:4].tolist() == ["rs2", f"{contig}:{position}:{second}:{first}"]


def test_bytes_decoded_by_hand(tmp_path, calls):
    bed = write(tmp_path, calls)
    want = decoded(bed, M, N, range(M))
    assert set(np.unique(want)) == {-1, 0, 1, 2}
    np.testing.assert_array_equal(dasklmm.open_genotypes(bed)["dosage"].values, want)


def test_mouse_bytes_decoded_by_hand(mouse_prefix):
    rows = [0, 1, 5000, 12_225]
    got = dasklmm.open_genotypes(mouse_prefix)["dosage"][rows].values
    np.testing.assert_array_equal(got, decoded(f"{mouse_prefix}.bed", 12_226, 1_940, rows))


def test_mouse(mouse_prefix):
    ds = dasklmm.open_genotypes(mouse_prefix)
    assert dict(ds.sizes) == {"variant": 12_226, "sample": 1_940}
    block = ds["dosage"][:50].values
    assert block.min() >= -1
    assert block.max() == 2
    assert ds["variant_id"].values[0] == "rs3683945"
    table = dasklmm.read_table(f"{mouse_prefix}.fam")
    assert table.shape == (1_940, 6)
    assert int(table["phenotype_1"].notna().sum()) == 1_410
