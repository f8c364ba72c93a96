"""Genotypes that this package writes: read back as they were, whole or not at all."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr

import dasklmm
from dasklmm.errors import GenotypeFormatError, StoreError
from dasklmm.store import genotypes
from dasklmm.store.genotypes import write_genotypes


@pytest.fixture
def cohort():
    return dasklmm.simulate(30, 200, seed=3)


@pytest.mark.parametrize("dtype", [np.int8, np.float32, np.float64])
def test_round_trip(tmp_path, cohort, dtype, no_compute):
    if dtype != np.int8:
        cohort["dosage"] = cohort["dosage"].where(cohort["dosage"] >= 0).astype(dtype)
    write_genotypes(cohort, tmp_path / "g.zarr")
    kept = zarr.open_group(str(tmp_path / "g.zarr"), mode="r")["dosage"].dtype
    assert kept == (np.int8 if dtype == np.int8 else np.float32)
    with no_compute():
        back = dasklmm.open_genotypes(tmp_path / "g.zarr", chunks=64)
    assert back["dosage"].dtype == (np.int8 if dtype == np.int8 else np.float32)
    np.testing.assert_array_equal(back["dosage"].values, cohort["dosage"].values.astype(back["dosage"].dtype))
    for name in back.coords:
        assert back[name].values.tolist() == cohort[name].values.tolist()
        assert back[name].dtype.kind in "Ui"


@pytest.mark.parametrize(
    ("samples", "itemsize", "rows"),
    [
        (30, 1, 100_000),
        (400, 1, 10_240),
        (2000, 1, 2048),
        (2048, 1, 2048),
        (2000, 4, 512),
        (9000, 2, 233),
        (10**8, 1, 1),
    ],
)
def test_a_chunk_holds_whole_tiles(samples, itemsize, rows):
    assert genotypes.chunk_rows(100_000, samples, itemsize) == rows


def test_layout(tmp_path, cohort, monkeypatch):
    stored = []

    def store(data, array, **options):
        stored.append(data.chunks[0])
        da.store(data, array, **options)

    monkeypatch.setattr(genotypes, "CHUNK_BYTES", 30 * 4)
    monkeypatch.setattr(genotypes, "da", SimpleNamespace(store=store, asarray=da.asarray))
    cohort["dosage"][:4] = -1
    write_genotypes(cohort.transpose("sample", "variant", ...), tmp_path / "g.zarr")
    array = zarr.open_group(str(tmp_path / "g.zarr"), mode="r")["dosage"]
    assert array.metadata.zarr_format == 3
    assert array.metadata.dimension_names == ("variant", "sample")
    assert array.chunks == (4, 30)
    # two tasks that wrote the same chunk could undo each other
    assert stored == [(64, 64, 64, 8)]
    # a chunk of nothing but missing calls is there too: one that is absent got lost
    assert array.nchunks_initialized == array.nchunks == 50
    assert array.fill_value == -1
    back = dasklmm.open_genotypes(tmp_path / "g.zarr")
    assert all(rows % 4 == 0 for rows in back["dosage"].data.chunks[0][:-1])
    np.testing.assert_array_equal(back["dosage"].values, cohort["dosage"].values)


def test_nothing_is_replaced_unasked(tmp_path, cohort):
    write_genotypes(cohort, tmp_path / "g.zarr")
    with pytest.raises(StoreError, match="overwrite=True"):
        write_genotypes(cohort, tmp_path / "g.zarr")
    write_genotypes(cohort.isel(variant=slice(50)), tmp_path / "g.zarr", overwrite=True)
    assert dasklmm.open_genotypes(tmp_path / "g.zarr").sizes["variant"] == 50


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_files_are_never_deleted(tmp_path, cohort, overwrite):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not of this package"):
        write_genotypes(cohort, tmp_path / "data", overwrite=overwrite)
    assert (tmp_path / "data" / "thesis.tex").read_text() == "x"


def test_a_store_may_be_written_over_itself(tmp_path, cohort):
    write_genotypes(cohort, tmp_path / "g.zarr")
    opened = dasklmm.open_genotypes(tmp_path / "g.zarr")
    write_genotypes(opened.isel(variant=slice(100, None)), tmp_path / "g.zarr", overwrite=True)
    back = dasklmm.open_genotypes(tmp_path / "g.zarr")
    np.testing.assert_array_equal(back["dosage"].values, cohort["dosage"].values[100:])


@pytest.mark.parametrize("url", [False, True])
def test_a_write_that_fails_leaves_nothing_to_read(tmp_path, cohort, url):
    def fail(block):
        raise RuntimeError("the disk is gone")

    bad = da.from_array(cohort["dosage"].values, chunks=(50, -1)).map_blocks(fail, dtype=np.int8)
    path = f"memory:/{tmp_path}/g.zarr" if url else str(tmp_path / "g.zarr")
    with pytest.raises(RuntimeError, match="the disk is gone"):
        write_genotypes(cohort.assign(dosage=(("variant", "sample"), bad)), path)
    message = "not complete" if url else "nothing at"
    with pytest.raises(GenotypeFormatError, match=message):
        dasklmm.open_genotypes(path)
    if not url:
        assert list(tmp_path.iterdir()) == []
    write_genotypes(cohort, path, overwrite=True)
    np.testing.assert_array_equal(dasklmm.open_genotypes(path)["dosage"].values, cohort["dosage"].values)


def test_a_url_is_not_written_over_itself(tmp_path, cohort):
    url = f"memory:/{tmp_path}/g.zarr"
    write_genotypes(cohort, url)
    with pytest.raises(StoreError, match="read from"):
        write_genotypes(dasklmm.open_genotypes(url), f"{url}/", overwrite=True)
    np.testing.assert_array_equal(dasklmm.open_genotypes(url)["dosage"].values, cohort["dosage"].values)


def test_what_is_no_genotypes_is_refused(tmp_path, cohort):
    with pytest.raises(GenotypeFormatError, match="lacks variant_id"):
        write_genotypes(cohort.drop_vars("variant_id"), tmp_path / "g.zarr")
    with pytest.raises(GenotypeFormatError, match="dtype int64"):
        write_genotypes(cohort.assign(dosage=cohort["dosage"].astype(int)), tmp_path / "g.zarr")
    write_genotypes(cohort, tmp_path / "g.zarr")
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="a")
    values = group["dosage"][...]
    for wrong, names, message in [
        (values.T, ["sample", "variant"], r"dims \('sample', 'variant'\)"),
        (values[:, 1:], ["variant", "sample"], r"shape \(200, 29\), with 200 variants and 30 samples"),
        (values.astype(np.int32), ["variant", "sample"], "dtype int32"),
    ]:
        del group["dosage"]
        group.create_array("dosage", data=np.ascontiguousarray(wrong), dimension_names=names)
        with pytest.raises(GenotypeFormatError, match=message):
            dasklmm.open_genotypes(tmp_path / "g.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_xarray_writes(tmp_path, cohort, zarr_format):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr's, on text of fixed width
        cohort.to_zarr(tmp_path / "g.zarr", zarr_format=zarr_format)
    back = dasklmm.open_genotypes(tmp_path / "g.zarr")
    np.testing.assert_array_equal(back["dosage"].values, cohort["dosage"].values)
    assert back["variant_contig"].values.tolist() == cohort["variant_contig"].values.tolist()


def test_attributes_of_a_store(tmp_path, cohort):
    write_genotypes(cohort, tmp_path / "g.zarr")
    ds = dasklmm.open_genotypes(tmp_path / "g.zarr")
    np.testing.assert_array_equal(ds["dosage"][7].values, cohort["dosage"][7].values)
    assert (ds.attrs["ploidy"], ds.attrs["field"]) == (2, "genotype")
    assert "sample_ids_have_family" not in ds.attrs
    write_genotypes(cohort.assign(dosage=cohort["dosage"].astype(float)), tmp_path / "f.zarr")
    assert dasklmm.open_genotypes(tmp_path / "f.zarr").attrs["field"] == "dosage"
    write_genotypes(cohort.assign_attrs(ploidy=1), tmp_path / "h.zarr")
    assert dasklmm.open_genotypes(tmp_path / "h.zarr").attrs["ploidy"] == 1
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="a")
    group.update_attributes({"ploidy": 1, "sample_ids_have_family": True})
    ds = dasklmm.open_genotypes(tmp_path / "g.zarr")
    assert ds.attrs["ploidy"] == 1
    assert ds.attrs["sample_ids_have_family"] is True
    group.update_attributes({"ploidy": 4})
    with pytest.raises(GenotypeFormatError, match=r"ploidy 4.*allele frequencies"):
        dasklmm.open_genotypes(tmp_path / "g.zarr")
