"""What a run that is taken up may believe, and what it must not."""

from __future__ import annotations

import json
import shutil

import dask
import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from fault_tools import Rows, contents, records_of

import dasklmm
from dasklmm import errors, scanning, schema
from dasklmm.lazy import blocks, budget, project
from dasklmm.lazy.budget import Shape
from dasklmm.numerics import spectrum
from dasklmm.store import arrays, places, records
from dasklmm.store.results import fingerprint, open_results


class Stop(Exception):
    pass


def stopped_at(stage, done):
    def stop(name, now, total):
        if (name, now) == (stage, done):
            raise Stop

    return stop


def test_work_of_genotypes_that_changed_is_dropped(cohort, wanted, tmp_path, monkeypatch):
    """The change is found at the end; the same run over the former genotypes begins anew."""
    store, calls = tmp_path / "r.zarr", []
    real = scanning.Scan._content

    def content(self):
        calls.append(1)
        return real(self) if len(calls) == 1 else "changed"

    with monkeypatch.context() as patch:
        patch.setattr(scanning.Scan, "_content", content)
        with pytest.raises(errors.StoreError, match="changed while they were read"):
            cohort.scan(store)
    assert not records_of(store, "test")
    got = cohort.scan(store)
    assert got.attrs["resumed"]["kinship"]["kept"] == 0
    assert contents(store) == wanted


def test_a_table_never_meets_the_eigenvectors_of_another_decomposition(cohort, wanted, tmp_path, monkeypatch):
    """Eigenvectors are computed anew with other signs, and the run dies before their table is written."""
    store, work = tmp_path / "r.zarr", tmp_path / "r.zarr.work"
    monkeypatch.setattr(budget, "decompositions_at_once", lambda n, room, threads: 1)  # contig by contig
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(Stop):
            cohort.scan(store, progress=stopped_at("null model", 2))
        (work / "test" / "00000" / "000000").write_bytes(b"damaged")
        real, write = spectrum.eigendecompose, records.Records.write

        def flipped(*args, **options):
            pairs = real(*args, **options)
            pairs.p[...] *= -1.0
            return pairs

        def fail(self, name, array, **meta):
            if name.startswith("null/"):
                raise Stop
            write(self, name, array, **meta)

        with monkeypatch.context() as patch:
            patch.setattr(spectrum, "eigendecompose", flipped)
            patch.setattr(records.Records, "write", fail)
            with pytest.raises(Stop):
                cohort.scan(store)
        cohort.scan(store)
    assert contents(store) == wanted


@pytest.mark.parametrize("late", ["before", "while"])
def test_eigenvectors_of_a_task_that_outlived_its_client(cohort, wanted, tmp_path, monkeypatch, late):
    """Its decomposition has other signs: found before P is used, that is computed anew; while, it is refused."""
    store = tmp_path / "r.zarr"
    monkeypatch.setattr(budget, "STREAM_BYTES", 20_000)  # P has five blocks
    blocks_of = records.Records.write_rows

    def write_late(kept):
        rows = kept.stored_rows("p/00001", fingerprint(kept.read("null/00001")[0]))
        with monkeypatch.context() as patch:
            patch.setattr(records, "put", lambda path, *parts: path.endswith("rows") or put(path, *parts))
            blocks_of(kept, "p/00001", -rows[...], 20_000, "another")

    def stop(name, done, total):
        if (name, done) == ("null model", 2):
            text = json.loads((tmp_path / "r.zarr.work" / "inputs.json").read_text())
            write_late(records.Records(f"{store}.work", fingerprint(text)))
            if late == "before":
                raise Stop

    put = records.put
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(Stop if late == "before" else errors.StoreError):
            cohort.scan(store, progress=stop)
        cohort.scan(store)
    assert contents(store) == wanted


def test_other_memory_takes_up_the_same_blocks(cohort, wanted, tmp_path, monkeypatch):
    """Blocks are those of the run that is taken up; too little memory for them is said."""
    store = tmp_path / "r.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(Shape, "fitting_rows", lambda self, room, kinship: (32, False))
        with pytest.raises(Stop):
            cohort.scan(store, progress=stopped_at("test", 3))
    kept = len(records_of(store, "test"))
    with monkeypatch.context() as patch:
        patch.setattr(Shape, "fitting_rows", lambda self, room, kinship: (16, False))
        with pytest.raises(
            errors.MemoryBudgetError, match="blocks of 32 variants, and there is memory for 16"
        ):
            cohort.scan(store)
    got = cohort.scan(store)
    assert got.attrs["resumed"]["test"]["kept"] >= kept >= 3
    want = cohort.scan(tmp_path / "other.zarr")
    np.testing.assert_allclose(got["chi_sq"], want["chi_sq"], rtol=1e-4, atol=1e-4)


def test_results_half_written_to_a_url_are_written_anew(cohort, monkeypatch):
    """The same command after a kill between the first array and the manifest."""
    store = "memory://bucket/results.zarr"
    real = places.put

    def put(path, *parts):
        if str(path).endswith("_SUCCESS"):
            raise KeyboardInterrupt
        real(path, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(places, "put", put)
        with pytest.raises(KeyboardInterrupt):
            cohort.scan(store)
    got = cohort.scan(store)
    assert got.drop_attrs().identical(open_results(store).drop_attrs())
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize("name", ["kinship", "decomposition"])
def test_a_kinship_half_written_is_written_anew(cohort, tmp_path, monkeypatch, name, url):
    """It is never opened, and the same call replaces it."""
    monkeypatch.setattr(records, "SETTLE_SECONDS", 0.0)
    ds, path = cohort.genotypes(), f"memory:/{tmp_path}/k.zarr" if url else str(tmp_path / "k.zarr")

    def write():
        if name == "kinship":
            return dasklmm.kinship(ds, store=path)["sample_id_0"].size
        return dasklmm.eigendecompose(ds, rank=3, store=path)["s"].size

    def stop(*given, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "_fill", stop)
        with pytest.raises(KeyboardInterrupt):
            write()
    with pytest.raises(errors.StoreError):
        arrays.open_kinship_or_spectrum(path)
    assert list(tmp_path.iterdir()) == []
    assert write() == (ds.sizes["sample"] if name == "kinship" else 3)


def test_a_decomposition_with_a_chunk_gone_is_refused(cohort, tmp_path):
    """It would read as NaN."""
    path = tmp_path / "k.zarr"
    dasklmm.eigendecompose(cohort.genotypes(), rank=3, store=path)
    next(f for f in (path / "p" / "c").rglob("*") if f.is_file()).unlink()
    with pytest.raises(errors.StoreError, match="not whole"):
        dasklmm.eigendecompose(cohort.genotypes(), rank=3, store=path)


def test_reading_is_within_its_task_however_the_genotypes_are_cut(cohort):
    """Slices, concatenations and choices of samples leave no task of reading beside the work."""
    rows = cohort.genotypes(Rows(cohort.npy))["dosage"].data
    small = schema.blocks_of_at_most(rows, 40)
    for array in (rows, rows[100:900], small, small[100:900], rows[:, 5:50]):
        parts = blocks.delayed_blocks(array)
        call = blocks.delayed_call(np.sum, "work")
        tasks = [call(part) for part in parts]
        graph = dask.base.collections_to_expr(tasks).optimize().__dask_graph__()
        reading = [key for key in graph if "getitem" in str(key) or "concatenate" in str(key)]
        assert reading == []
        assert sum(dask.compute(*tasks)) == int(array.sum().compute())


def test_genotypes_that_lie_on_the_cluster(cohort):
    """Persisted blocks are taken as they are."""
    ds = cohort.genotypes()
    want = dasklmm.gwas(ds, cohort.y, loco=False, precision="double")
    with dasklmm.local_cluster(n_workers=2, memory_limit="1GB") as cluster, cluster.get_client():
        there = ds.assign(dosage=ds["dosage"].persist())
        got = dasklmm.gwas(there, cohort.y, loco=False, precision="double")
        k = dasklmm.kinship(there).compute()
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-9)
    np.testing.assert_allclose(k, dasklmm.kinship(ds), rtol=1e-12, atol=1e-12)


def test_coordinates_and_calls_of_other_dtypes(cohort, tmp_path):
    """Text as objects, and calls as wide integers whose missing is negative, are what they are as int8."""
    ds = cohort.genotypes().load()
    calls = ds["dosage"].values.copy()
    calls[3, :4] = -1
    ds = ds.assign(dosage=(("variant", "sample"), calls))
    want = dasklmm.gwas(ds, cohort.y, loco=False)
    wide = ds.assign(dosage=ds["dosage"].astype(np.int16)).assign_coords(
        {n: (ds[n].dims, ds[n].values.astype(object)) for n in ("variant_id", "variant_contig", "sample_id")}
    )
    assert isinstance(wide, xr.Dataset)
    got = dasklmm.gwas(wide, cohort.y, loco=False, store=tmp_path / "r.zarr")
    np.testing.assert_array_equal(got["n"], want["n"])
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-4, atol=1e-5)
    assert open_results(tmp_path / "r.zarr")["variant_id"].values.tolist() == ds["variant_id"].values.tolist()


@pytest.mark.parametrize("stage", ["kinship", "test"])
def test_genotypes_that_are_gone_for_a_while(cohort, tmp_path, stage):
    """A Zarr store that vanishes reads as fill values: no block of them is kept, and the run goes on after."""
    place, away = tmp_path / "g.zarr", tmp_path / "away"
    shutil.copytree(cohort.folder / "g.zarr", place)
    want = dasklmm.gwas(dasklmm.open_genotypes(place, chunks=64), cohort.y, store=tmp_path / "want.zarr")

    store = tmp_path / "r.zarr"

    def vanish(name, done, total):
        if name == stage and place.exists() and records_of(store, "gram/00000"):
            place.rename(away)

    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(errors.StoreError, match="finds no array"),
    ):
        dasklmm.gwas(dasklmm.open_genotypes(place, chunks=64), cohort.y, store=store, progress=vanish)
    kept = len(records_of(store, "gram/0")), len(records_of(store, "test"))
    away.rename(place)
    got = dasklmm.gwas(dasklmm.open_genotypes(place, chunks=64), cohort.y, store=store)
    assert (got.attrs["resumed"]["kinship"]["kept"], got.attrs["resumed"]["test"]["kept"]) == kept
    assert sum(kept) > 0
    assert got.drop_attrs().identical(want.drop_attrs())
    assert contents(store) == contents(tmp_path / "want.zarr")


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_rotation_to_a_store_goes_on(cohort, tmp_path, damage):
    """What was written before an interruption is not computed again; other inputs, and a damaged block, are."""
    ds, store, seen = cohort.genotypes(), tmp_path / "pa.zarr", []
    vectors = np.random.default_rng(4).standard_normal((20, ds.sizes["sample"]))
    p = xr.DataArray(vectors, dims=("eigen", "sample"), coords={"sample_id": ds["sample_id"].variable})

    def stop(*said):
        seen.append(said)
        if said[1] >= 3:
            raise Stop

    with pytest.raises(Stop), dask.config.set(scheduler="synchronous"):
        dasklmm.project(p, ds, store=store, progress=stop)
    total = seen[0][2]
    assert [s[1] for s in seen] == [1, 2, 3]
    with pytest.raises(errors.StoreError, match="no Zarr array"):
        arrays.open_array(store)
    with pytest.raises(errors.StoreError, match="is not whole: 3 of"):
        arrays.open_array(f"{store}.partial")
    chunk = next(path for path in (tmp_path / "pa.zarr.partial" / "c").rglob("*") if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[7] ^= 1
    chunk.write_bytes(data)
    if damage == "gone":
        chunk.unlink()
    seen.clear()
    got = dasklmm.project(p, ds, store=store, progress=lambda *said: seen.append(said))
    assert [s[1] for s in seen] == list(range(3, total + 1))  # one of three was damaged
    np.testing.assert_array_equal(got.values, dasklmm.project(p, ds).values)
    assert [path.name for path in tmp_path.iterdir()] == ["pa.zarr"]
    seen.clear()
    again = dasklmm.project(p, ds, store=store, progress=lambda *said: seen.append(said))
    assert not seen
    np.testing.assert_array_equal(again.values, got.values)
    with pytest.raises(errors.StoreError, match="exists already"):
        dasklmm.project(2 * p, ds, store=store)
    other = dasklmm.project(2 * p, ds, store=store, overwrite=True)
    np.testing.assert_array_equal(other.values, dasklmm.project(2 * p, ds).values)


def test_rows_of_a_model_to_a_store_go_on(cohort, tmp_path, monkeypatch):
    """linear_mixed_regression_rows(pa_path=, a_path=) goes on where it was; what is complete is opened."""
    ds = cohort.genotypes()
    features = ds["dosage"].values[:40].T.astype(float)
    rng = np.random.default_rng(1)
    y = features @ rng.standard_normal(40) / 5 + rng.standard_normal(len(features))
    model, _ = dasklmm.linear_mixed_model(y, np.ones((y.size, 1)), features)
    model.fit()
    paths = {"pa_path": tmp_path / "pa.zarr", "a_path": tmp_path / "a.zarr"}
    real, kept = records.Records.write, []

    def fail(self, name, *given, **meta):
        if len(kept) >= 5:
            raise Stop
        real(self, name, *given, **meta)
        kept.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(records.Records, "write", fail)
        with pytest.raises(Stop), dask.config.set(scheduler="synchronous"):
            dasklmm.linear_mixed_regression_rows(ds, model, **paths)
    assert (tmp_path / "a.zarr.partial").exists()
    got = dasklmm.linear_mixed_regression_rows(ds, model, **paths).compute()
    want = dasklmm.linear_mixed_regression_rows(ds, model).compute()
    np.testing.assert_allclose(got["chi_sq"], want["chi_sq"], rtol=1e-9, atol=1e-9)
    before = contents_of(tmp_path)
    again = dasklmm.linear_mixed_regression_rows(ds, model, **paths).compute()
    np.testing.assert_array_equal(again["chi_sq"], got["chi_sq"])
    assert contents_of(tmp_path) == before
    with monkeypatch.context() as patch:  # nothing is done where one of the two is refused
        patch.setattr(project, "keep_rows", fail)
        for other, asked in ((paths["a_path"], "exists already"), (tmp_path / "A.zarr", "place of its own")):
            pair = {"pa_path": other, "a_path": tmp_path / "A.zarr"}
            with pytest.raises((errors.StoreError, errors.OptionError), match=asked):
                dasklmm.linear_mixed_regression_rows(ds, model, **pair)
    assert contents_of(tmp_path) == before
    stored = dasklmm.LinearMixedModel.from_kinship(
        y, np.ones((y.size, 1)), dasklmm.kinship(ds).compute(), p_path=tmp_path / "p.zarr"
    )[0]
    stored.fit(on_boundary="clamp")
    with pytest.raises(errors.OptionError, match="holds the eigenvectors"):
        dasklmm.linear_mixed_regression_rows(ds, stored, pa_path=tmp_path / "p.zarr", overwrite=True)
    for p in (tmp_path / "p.zarr", zarr.open_array(tmp_path / "p.zarr")):
        for place in (tmp_path / "p.zarr", tmp_path / "away" / ".." / "p.zarr"):
            with pytest.raises(errors.OptionError, match="holds the eigenvectors"):
                dasklmm.project(p, ds, store=place, overwrite=True)
    half = ds.isel(variant=slice(100))
    with pytest.raises(errors.StoreError, match="exists already"):
        dasklmm.linear_mixed_regression_rows(half, model, **paths)
    replaced = dasklmm.linear_mixed_regression_rows(half, model, **paths, overwrite=True).compute()
    np.testing.assert_allclose(replaced["chi_sq"], want["chi_sq"][:100], rtol=1e-9, atol=1e-9)


def contents_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
