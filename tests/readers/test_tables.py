"""Phenotype and covariate tables in every dialect that users have."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

import dasklmm
from dasklmm.errors import SampleError, TableError
from dasklmm.readers.tables import read_ids


def table(tmp_path, text, name="t.txt"):
    path = tmp_path / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return dasklmm.read_table(path)


@pytest.mark.parametrize(
    "header",
    ["FID IID h w", "#FID IID h w", "#IID h w", "IID h w", "sample_id h w", "fid iid h w", "SAMPLE_ID h w"],
)
@pytest.mark.parametrize("separator", [" ", "\t", ",", "   "])
@pytest.mark.parametrize("name", ["t.txt", "t.tsv.gz"])
def test_dialects(tmp_path, header, separator, name):
    family = header.lower().lstrip("#").startswith("fid")
    rows = [
        f"{'f1 ' if family else ''}{i} {h} {w}"
        for i, h, w in [("001", 1.5, "NA"), ("b", -9, 2), ("c", ".", 3)]
    ]
    got = table(tmp_path, "\n".join([header, *rows, ""]).replace(" ", separator), name)
    assert got.index.tolist() == ["001", "b", "c"]
    assert got.index.name == "sample_id"
    assert got.columns.tolist() == ["h", "w"]
    np.testing.assert_array_equal(got["h"], [1.5, -9.0, np.nan])
    np.testing.assert_array_equal(got["w"], [np.nan, 2.0, 3.0])
    assert (got.dtypes == np.float64).all()


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    got = table(tmp_path, "\ufeffIID\tx\r\na\t1\r\nb\t2\r\n")
    assert got["x"].tolist() == [1.0, 2.0]


def test_categories_stay_text(tmp_path):
    got = table(tmp_path, "IID\tsite\tx\na\tOslo\t1\nb\tNA\t2\nc\t3\t4\n")
    assert got["site"].isna().tolist() == [False, True, False]
    assert got["site"].iloc[0] == "Oslo"
    assert got["site"].dtype != np.dtype(object)


def test_spellings_of_missing(tmp_path):
    given = ("NAN", "n/a", "Null", "NA", "#N/A", "nan", ".", "NONE")
    rows = "".join(f"s{k}\t{value}\t{value}\n" for k, value in enumerate((*given, "3")))
    got = table(tmp_path, f"IID\tx\tsite\n{rows}b\t4\tOslo\n")
    np.testing.assert_array_equal(got["x"], [np.nan] * 8 + [3.0, 4.0])
    # among words, none is one
    assert got["site"].dropna().tolist() == ["NONE", "3", "Oslo"]


def test_a_name_says_nothing_of_compression_but_gz(tmp_path):
    for name in ("t.zip", "t.bz2", "t.tar"):
        assert table(tmp_path, "IID x\na 1\n", name)["x"].tolist() == [1.0]


def test_fam_minus_nine_is_missing_in_the_sixth_column_only(tmp_path):
    got = table(tmp_path, "f\ta\t0\t0\t1\t-9.0\t-9\nf\tb\t0\t0\t1\t2.5\tNA\n", "x.fam")
    assert got.columns.tolist() == ["phenotype_1", "phenotype_2"]
    np.testing.assert_array_equal(got["phenotype_1"], [np.nan, 2.5])
    np.testing.assert_array_equal(got["phenotype_2"], [-9.0, np.nan])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("name\tx\na\t1\n", TableError, "columns name, x; one named sample_id"),
        ("", TableError, "empty"),
        ("IID\tx\na\t1\na\t2\n", SampleError, "1 sample ids stand more than once, for example 'a'"),
        ("IID\tx\tx\na\t1\t2\n", TableError, "several columns|x.1"),
        ("IID\tx\na\t1\t2\t3\t4\nb\t1\n", TableError, "line 2, .* 'a', has 5 fields, and the header 2"),
        ("IID\tx\ty\na\t1\t2\nb\t1\n", TableError, "line 3, .* 'b', has 2 fields, and the header 3"),
        ("IID,x\n\na,1\nb\n", TableError, "line 4, .* 'b', has 1 fields, and the header 2"),
        ('IID,x\n"a, b",1\nc,1,\n', TableError, "line 3, .* 'c', has 3 fields, and the header 2"),
        ('IID,x\n"a, b","\nd"\nc\n', TableError, "line 4, .* 'c', has 1 fields, and the header 2"),
        ("FID IID x\nf a 1\nf\n", TableError, "line 3, .* 'f', has 1 fields, and the header 3"),
        ("FID IID x\nf a 1\n g  b 1\t2 \n", TableError, "line 3, .* 'g', has 4 fields, and the header 3"),
        ('IID x\n"a b" 1\nc\n', TableError, "line 3, .* 'c', has 1 fields, and the header 2"),
        ("FID\tIID\tx\nf a 1\n", TableError, "line 2, .* 'f a 1', has 1 fields, and the header 3"),
        ("IID,x\n,1\nb,2\n", TableError, "1 rows without an id in 'IID'"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        table(tmp_path, text)


def test_empty_last_fields_are_missing_not_short_rows(tmp_path):
    got = table(tmp_path, "\nIID\tx\ty\n\na\t1\t\nb\t\t2\n")
    np.testing.assert_array_equal(got, [[1.0, np.nan], [np.nan, 2.0]])
    got = table(tmp_path, '"IID","x"\n"a, b",""\nc,1\n')
    assert got.index.tolist() == ["a, b", "c"]
    np.testing.assert_array_equal(got["x"], [np.nan, 1.0])
    np.testing.assert_array_equal(table(tmp_path, 'IID x\n"a b" ""\nc 1\n')["x"], [np.nan, 1.0])
    np.testing.assert_array_equal(table(tmp_path, "IID,x\na,\n   \nc, 1\n")["x"], [np.nan, 1.0])


def test_what_is_no_text_is_refused(tmp_path):
    for name, data in {
        "a.txt": b"IID\tx\nr\xe9\t1\n",
        "b.txt": b"IID\tx\xe9\na\t1\n",
        "c.txt.gz": b"IID\tx\na\t1\n",
        "d.txt.gz": gzip.compress(b"IID\tx\na\t1\n" * 1000)[:-12],
        "e.fam.gz": b"f a 0 0 1 1\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TableError, match="cannot be read as text"):
            dasklmm.read_table(tmp_path / name)


def test_no_file_and_a_short_fam(tmp_path):
    with pytest.raises(TableError, match="there is no table"):
        dasklmm.read_table(tmp_path / "none.txt")
    with pytest.raises(TableError, match="is a directory; the file of a table is needed"):
        dasklmm.read_table(tmp_path)
    with pytest.raises(TableError, match=r"has 3 columns; a .fam has FID"):
        table(tmp_path, "a b c\n", "x.fam")
    with pytest.raises(TableError, match=r"line 2, .* 'f', has 2 fields, and the first line 6"):
        table(tmp_path, "f a 0 0 1 2\nf b\n", "x.fam")


def test_repeated_iid_with_families(tmp_path):
    got = table(tmp_path, "FID IID x\nf1 a 1\nf2 a 2\n")
    assert got.index.tolist() == ["f1:a", "f2:a"]
    assert got.attrs["alternate_ids"] == ["f1:a", "f2:a"]


def test_family_ids_are_kept_beside_the_ids(tmp_path):
    got = table(tmp_path, "FID,IID,x\n f1 ,a ,1\nf2,b,2\n")
    assert got.index.tolist() == ["a", "b"]
    assert got.attrs["alternate_ids"] == ["f1:a", "f2:b"]
    assert table(tmp_path, "f1 a 0 0 1 2\nf2 b 0 0 1 2\n", "x.fam").attrs["alternate_ids"] == ["f1:a", "f2:b"]
    assert "alternate_ids" not in table(tmp_path, "IID x\na 1\n").attrs


def test_minus_nine_is_a_number_and_warned_of(tmp_path, caplog):
    def column(nines):
        values = ["-9"] * nines + ["-9.0"] * nines + ["1"] * (1000 - 2 * nines)
        return table(tmp_path, "IID x\n" + "".join(f"s{i} {v}\n" for i, v in enumerate(values)))["x"]

    assert (column(4) == -9).sum() == 8
    assert caplog.text == ""
    assert (column(5) == -9).sum() == 10
    assert (
        "column 'x' holds -9 in 10 rows; it is read as a number. PLINK's missing code? Write NA."
        in caplog.text
    )
    caplog.clear()
    table(tmp_path, "f a 0 0 1 -9\nf b 0 0 1 2\n", "x.fam")
    table(tmp_path, "IID x\n")
    assert caplog.text == ""


def test_lists_of_ids(tmp_path):
    plain, table, wide = (tmp_path / name for name in ("plain.txt", "table.tsv", "wide.txt"))
    plain.write_text("\ufeffrs1\n\n001\u2028a\n", encoding="utf-8")
    assert read_ids(plain) == ["rs1", "001\u2028a"]
    table.write_text("FID\tIID\ty\na\t007\t1\na\t8\t2\n")
    assert read_ids(table) == ["007", "8"]
    wide.write_text("a 1\nb 2\n")
    with pytest.raises(TableError, match="lines of 2 columns; an id a line is needed"):
        read_ids(wide)
    wide.write_text("\n")
    with pytest.raises(TableError, match="is empty"):
        read_ids(wide)
    with pytest.raises(TableError, match="there is no list"):
        read_ids(tmp_path / "none")
