"""Faults 5, 6, 10, 14 and 17: damaged, lost, foreign and changed data, and odd names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import dask
import dask.array as da
import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from fault_tools import Cohort, Rows, contents, edit_rows, records_of

import dasklmm
from dasklmm import errors, schema
from dasklmm.lazy import budget
from dasklmm.store.genotypes import write_genotypes
from dasklmm.store.results import open_results, source_stamp


def flip(path, at=0.6):
    """Turn one bit of a file."""
    data = bytearray(Path(path).read_bytes())
    data[int(at * len(data))] ^= 4
    Path(path).write_bytes(bytes(data))


def cut(path):
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])


def empty(path):
    Path(path).write_bytes(b"")


def lose(path):
    Path(path).unlink()


DAMAGE = {"bit flip": flip, "truncated": cut, "empty": empty, "missing": lose}
every_damage = pytest.mark.parametrize("damage", DAMAGE)


class Stop(Exception):
    pass


def interrupted(cohort, store):
    """Work of a run that was stopped in the tests of the second contig, whose P is there, and not the third's."""

    def stop(name, done, total):
        if "test/00001/000001" in records_of(store):
            raise Stop

    with pytest.raises(Stop):
        cohort.scan(store, progress=stop)


@every_damage
@pytest.mark.parametrize(
    "name",
    # the second contig's Gram matrix is not needed again, the third's is
    [
        "gram/00001",
        "gram/00002",
        "gram/total/000",
        "null/00001",
        "p/00001/00000",
        "p/00001/rows",
        "test/00000/000002",
    ],
)
def test_damaged_record(cohort, wanted, tmp_path, monkeypatch, name, damage):
    """Faults 5 and 6: a record of the unfinished work is damaged: it is computed anew, the rest is kept."""
    store = tmp_path / "r.zarr"
    monkeypatch.setattr(budget, "decompositions_at_once", lambda n, room, threads: 1)
    interrupted(cohort, store)
    assert name in records_of(store)
    DAMAGE[damage](f"{store}.work/{name}")
    cohort.scan(store)
    assert contents(store) == wanted


@every_damage
def test_record_damaged_while_it_is_used(cohort, wanted, tmp_path, monkeypatch, damage):
    """Faults 5 and 6: a Gram matrix is damaged in the run that wrote it: a typed error, and a resume."""
    store = tmp_path / "r.zarr"
    # the second contig's is still to be read when the first one's null model is there
    monkeypatch.setattr(budget, "decompositions_at_once", lambda n, room, threads: 1)

    def watch(name, done, total):
        if (name, done) == ("null model", 1):
            DAMAGE[damage](f"{store}.work/gram/00001")

    with pytest.raises(errors.StoreError, match=r"gram/00001.*gone or damaged"):
        cohort.scan(store, progress=watch)
    assert not store.exists()
    cohort.scan(store)
    assert contents(store) == wanted


@every_damage
@pytest.mark.parametrize("name", ["beta/c/0", "variant_id/c/0", "zarr.json", "beta/zarr.json", "_SUCCESS"])
def test_damaged_results(cohort, tmp_path, name, damage):
    """Faults 5 and 6: damaged results are refused, and what they say is not believed."""
    store = tmp_path / "r.zarr"
    cohort.scan(store)
    DAMAGE[damage](store / name)
    with pytest.raises(errors.StoreError):
        open_results(store)


@every_damage
def test_damaged_genotypes(cohort, tmp_path, damage):
    """Faults 5 and 6: a chunk of stored genotypes is damaged: an error, and nothing is published."""
    shutil.copytree(cohort.folder / "g.zarr", tmp_path / "g.zarr")
    chunk = next(
        p for p in (tmp_path / "g.zarr" / "dosage").rglob("*") if p.is_file() and p.name != "zarr.json"
    )
    DAMAGE[damage](chunk)
    with pytest.raises((errors.GenotypeFormatError, errors.StoreError)):
        dasklmm.gwas(tmp_path / "g.zarr", cohort.y, store=tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory, problem):
    folder = tmp_path_factory.mktemp("model")
    model, _ = dasklmm.LinearMixedModel.from_kinship(
        problem.y, problem.x, problem.k, p_path=folder / "p.zarr"
    )
    model.fit()
    dasklmm.linear_mixed_regression_rows(problem.a.T, model, pa_path=folder / "pa.zarr", partition_size=7)
    return model, folder


@every_damage
@pytest.mark.parametrize("name", ["p.zarr", "pa.zarr"])
def test_damaged_p_and_pa(model, problem, tmp_path, name, damage):
    """Faults 5 and 6: a chunk of P or PA is damaged: an error, never a number."""
    model, folder = model
    shutil.copytree(folder / name, tmp_path / name)
    DAMAGE[damage](next(p for p in (tmp_path / name / "c").rglob("*") if p.is_file()))

    def read():
        if name == "p.zarr":
            return dasklmm.project(tmp_path / name, problem.a.T, partition_size=7).compute()
        return model.fit_alternatives(tmp_path / name).compute()

    with pytest.raises(errors.StoreError, match=r"damaged|not whole"):
        read()


@every_damage
@pytest.mark.parametrize(("made", "array"), [("kinship", "kinship"), ("pairs", "p"), ("pairs", "s")])
def test_damaged_kinship_and_pairs(cohort, tmp_path, made, array, damage):
    """Faults 5 and 6: what a scan is given of them is what was written, or an error."""
    store = tmp_path / "kept.zarr"
    MADE[made](cohort.genotypes(), store)
    DAMAGE[damage](next(p for p in (store / array / "c").rglob("*") if p.is_file()))
    with pytest.raises(errors.StoreError, match=r"damaged|not whole"):
        dasklmm.gwas(cohort.genotypes(), cohort.y, kinship=store, loco=False)


@pytest.mark.parametrize("form", ["path", "array", "rows", "precision"])
def test_pa_of_another_model(problem, tmp_path, form):
    """Fault 10: alternatives rotated by another model's P are refused; by this one's in single precision taken."""
    one, two = (
        dasklmm.LinearMixedModel.from_kinship(problem.y, problem.x, k, p_path=path)[0].fit(0.0)
        for k, path in ((problem.k, None), (problem.k + np.diag(problem.y**2), tmp_path / "p.zarr"))
    )
    a = xr.DataArray(problem.a.T, dims=("variant", "sample"))
    single = dasklmm.project(one.rotation.astype(np.float32), a, store=tmp_path / "single.zarr")
    if form == "precision":
        for model, path in ((two, tmp_path / "single.zarr"), (two, single)):
            with pytest.raises(errors.StoreError, match="other eigenvectors"):
                model.fit_alternatives(path)
        want = one.fit_alternatives(one.rotation @ problem.a, dims=("eigen", "variant")).compute()
        got = one.fit_alternatives(tmp_path / "single.zarr").compute()
        np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-3, atol=1e-4)
        return
    if form == "rows":
        dasklmm.linear_mixed_regression_rows(a, two, pa_path=tmp_path / "pa.zarr")
        pa = tmp_path / "pa.zarr"
    else:
        pa = dasklmm.project(tmp_path / "p.zarr", a, store=tmp_path / "pa.zarr")
    pa = pa if form == "array" else tmp_path / "pa.zarr"
    two.fit_alternatives(pa)
    with pytest.raises(errors.StoreError, match="other eigenvectors"):
        one.fit_alternatives(pa)
    foreign = zarr.create_array(str(tmp_path / "own.zarr"), data=zarr.open_array(tmp_path / "pa.zarr")[...])
    one.fit_alternatives(foreign, dims=("variant", "eigen"))  # it says nothing of its P


@pytest.mark.parametrize("form", ["pieces", "rows", "zarr", "array"])
def test_pa_written_anew(problem, tmp_path, monkeypatch, form):
    """Fault 10: PA replaced under a lazy result is noticed when the result is computed, however it is read."""
    a = xr.DataArray(problem.a.T, dims=("variant", "sample"))
    pa = dasklmm.project(problem.p, a, store=tmp_path / "pa.zarr")
    with monkeypatch.context() as patch:
        if form == "zarr":
            patch.setattr(schema, "chunk_files", lambda array: None)
        source = pa if form == "array" else tmp_path / "pa.zarr"
        rows = schema.as_rows(source, "pa", ("variant", "eigen"), 60, in_pieces=form == "pieces").data
    before = rows
    if form == "pieces":
        before = rows.map_blocks(lambda block: np.concatenate([piece.copy() for piece in block]), dtype=float)
    np.testing.assert_allclose(before.compute(), (problem.p @ problem.a).T)
    dasklmm.project(-problem.p, a, store=tmp_path / "pa.zarr", overwrite=True)
    with pytest.raises(errors.StoreError, match="written anew"):
        before.compute()
    shutil.rmtree(tmp_path / "pa.zarr")
    with pytest.raises(errors.StoreError, match="written anew"):
        before.compute()


def test_pa_of_other_chunks(model, problem):
    """Fault 10: PA and A in other chunks are the same alternatives."""
    model, folder = model
    want = model.fit_alternatives(folder / "pa.zarr").compute()
    got = model.fit_alternatives(folder / "pa.zarr", partition_size=4).compute()
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-12)


def test_pa_and_a_of_other_lengths(problem):
    """Fault 10: PA and A that do not match in a low-rank model are refused with both lengths."""
    model, p = dasklmm.LinearMixedModel.from_random_effects(problem.y, problem.x, problem.z[:, :20])
    model.fit(0.0)
    pa = (p @ problem.a).T.copy()
    with pytest.raises(errors.ShapeError, match=r"25.*24|24.*25"):
        model.fit_alternatives(pa, problem.a.T[:24])
    with pytest.raises(errors.ShapeError):
        model.fit_alternatives(pa[:, :10], problem.a.T)


def test_decomposition_of_other_samples(cohort, tmp_path, no_compute):
    """Fault 10: P of another cohort is refused by its ids, before any work."""
    ds = cohort.genotypes()
    dasklmm.eigendecompose(dasklmm.kinship(ds.isel(sample=slice(140))), store=tmp_path / "p.zarr")
    with no_compute(), pytest.raises(errors.SampleError, match="140 samples and 150 are analysed"):
        dasklmm.gwas(ds, cohort.y, kinship=tmp_path / "p.zarr", loco=False, store=tmp_path / "r.zarr")


def test_work_of_another_kinship(cohort, tmp_path):
    """Fault 10: work with one P is not gone on with by another: refused by its fingerprint."""
    ds, store = cohort.genotypes(), tmp_path / "r.zarr"
    for method in ("rrm", "grm"):
        dasklmm.eigendecompose(dasklmm.kinship(ds, method), store=tmp_path / f"{method}.zarr")

    def stop(name, done, total):
        raise Stop

    with pytest.raises(Stop):
        dasklmm.gwas(ds, cohort.y, kinship=tmp_path / "rrm.zarr", loco=False, store=store, progress=stop)
    with pytest.raises(errors.StoreError, match="differs in: kinship values"):
        dasklmm.gwas(ds, cohort.y, kinship=tmp_path / "grm.zarr", loco=False, store=store)
    assert not store.exists()


def test_p_written_anew(problem, tmp_path):
    """Fault 10: P replaced under a lazy result is noticed when the result is computed."""
    model, _ = dasklmm.LinearMixedModel.from_kinship(
        problem.y, problem.x, problem.k, p_path=tmp_path / "p.zarr"
    )
    lazy = dasklmm.linear_mixed_regression_rows(problem.a.T, model.fit())
    dasklmm.LinearMixedModel.from_kinship(
        problem.y, problem.x, problem.k + np.eye(60), p_path=tmp_path / "p.zarr", overwrite=True
    )
    with pytest.raises(errors.StoreError, match="written anew"):
        lazy.compute()


@pytest.mark.parametrize("chosen", [{"variant": slice(1, None)}, {"sample": slice(140)}])
@pytest.mark.parametrize("restored", [False, True])
def test_a_choice_of_genotypes_changed_while_it_is_read(cohort, tmp_path, chosen, restored):
    """Fault 14: of a choice of variants or samples an edit is noticed too, also one that was undone at the end."""
    own = Cohort(tmp_path / "own")
    shutil.copytree(cohort.folder, own.folder)
    calls, store = np.load(own.npy), tmp_path / "r.zarr"

    def edit(name, done, total):
        if (name, done) == ("kinship", 1):
            edit_rows(own.npy, 2 - calls)
        if restored and done == total and name == "test":
            edit_rows(own.npy, calls)

    ds = own.genotypes().isel(chosen)
    with pytest.raises(errors.StoreError, match="genotypes changed while they were read"):
        dasklmm.gwas(ds, own.y, store=store, progress=edit)
    assert not store.exists()


def test_genotypes_from_elsewhere_changed_while_they_are_read(cohort, tmp_path):
    """Fault 14: an array that no reader made is read once more at the end."""
    calls = np.load(cohort.npy)
    here = {"calls": calls}
    blocks = da.map_blocks(
        lambda block_info: here["calls"][slice(*block_info[None]["array-location"][0])],
        chunks=((400, 400, 400), (150,)),
        dtype=np.int8,
        meta=np.empty((0, 0), np.int8),
    )
    ds = cohort.genotypes().assign(dosage=(("variant", "sample"), blocks))

    def edit(name, done, total):
        here["calls"] = 2 - calls

    with pytest.raises(errors.StoreError, match="genotypes changed while they were read"):
        dasklmm.gwas(ds, cohort.y, store=tmp_path / "r.zarr", progress=edit)


def test_dosages_of_another_file(cohort, tmp_path):
    """Fault 10: dosages put into another file's Dataset are known by the file that they are of."""
    turned = cohort.genotypes().load()
    write_genotypes(turned.assign(dosage=2 - turned["dosage"]), tmp_path / "b.zarr")
    a, b = dasklmm.open_genotypes(cohort.folder / "g.zarr"), dasklmm.open_genotypes(tmp_path / "b.zarr")
    dasklmm.gwas(a, cohort.y, store=tmp_path / "r.zarr", loco=False)
    with pytest.raises(errors.StoreError, match="differs in: genotypes"):
        dasklmm.gwas(a.assign(dosage=b["dosage"]), cohort.y, store=tmp_path / "r.zarr", loco=False)


def test_blocks_persisted_before_an_edit(cohort, tmp_path):
    """Fault 10: they are known by their content, not by the file as it is now."""
    own = Cohort(tmp_path / "own")
    shutil.copytree(cohort.folder, own.folder)
    former = own.genotypes().persist()
    edit_rows(own.npy, 2 - np.load(own.npy))
    dasklmm.gwas(former, own.y, store=tmp_path / "r.zarr", loco=False)
    with pytest.raises(errors.StoreError, match="differs in: genotypes"):
        own.scan(tmp_path / "r.zarr", loco=False)


def test_a_file_system_without_times(tmp_path):
    """Fault 14: names and sizes alone tell no edit."""
    place = fsspec.filesystem("memory")
    place.pipe_file("/stamped/a", b"12345")
    assert source_stamp("memory://stamped") == ""
    place.rm("/stamped", recursive=True)
    (tmp_path / "a").write_bytes(b"12345")
    assert source_stamp(str(tmp_path)) != ""


def test_the_folder_of_the_process_changes(cohort, tmp_path, monkeypatch):
    """Fault 14: genotypes opened by a relative path stay the same genotypes, and can be read."""
    monkeypatch.chdir(cohort.folder)
    ds = dasklmm.open_genotypes("g.zarr")
    dasklmm.gwas(ds, cohort.y, store=tmp_path / "r.zarr", loco=False)
    monkeypatch.chdir(tmp_path)
    dasklmm.gwas(ds, cohort.y, store=tmp_path / "r.zarr", loco=False)
    assert ds["dosage"][:3].compute().shape == (3, 150)


def test_work_of_another_version(cohort, tmp_path, monkeypatch):
    """Fault 10: what another version of this package made is not gone on with, nor taken for this one's."""
    ds, k = cohort.genotypes(), dasklmm.kinship(cohort.genotypes())
    p = dasklmm.eigendecompose(ds, rank=2)

    makers = {
        "r": lambda path: cohort.scan(path, loco=False),
        "k": lambda path: dasklmm.kinship(ds, store=path),
        "e": lambda path: dasklmm.eigendecompose(k, store=path),
        "g": lambda path: dasklmm.eigendecompose(ds, rank=2, store=path),
        "p": lambda path: dasklmm.project(p, ds, store=path),
    }
    for name, make in makers.items():
        make(tmp_path / name)
        make(tmp_path / name)
    monkeypatch.setattr(dasklmm, "__version__", "0.0")
    for name, make in makers.items():
        with pytest.raises(errors.StoreError, match="version" if name != "p" else "exists already"):
            make(tmp_path / name)


@pytest.mark.parametrize("stage", ["kinship", "test"])
def test_genotypes_changed_while_they_are_read(cohort, tmp_path, stage):
    """Fault 14: the genotypes are edited in the middle of a run: refused, nothing published."""
    own = Cohort(tmp_path / "own")
    shutil.copytree(cohort.folder, own.folder)
    store, seen = tmp_path / "r.zarr", []

    def edit(name, done, total):
        if name == stage and not seen:
            seen.append(name)
            calls = np.load(own.npy)
            calls[0] = 2 - calls[0]
            edit_rows(own.npy, calls)

    with pytest.raises(errors.StoreError, match="genotypes changed while they were read"):
        own.scan(store, progress=edit)
    assert not store.exists()
    assert not records_of(store)
    own.scan(store)
    fresh = tmp_path / "fresh.zarr"
    own.scan(fresh)
    assert contents(store) == contents(fresh)


MADE = {
    "kinship": lambda ds, path, **o: dasklmm.kinship(ds, store=path, **o).values,
    "pairs": lambda ds, path, **o: dasklmm.eigendecompose(ds, 3, store=path, **o)["s"].values,
    "rotation": lambda ds, path, **o: dasklmm.project(np.eye(150)[:5], ds, store=path, **o).values,
}


@pytest.mark.parametrize("made", MADE)
def test_genotypes_changed_while_something_is_made_of_them(cohort, tmp_path, made):
    """Fault 14: what was made of an edited file would be believed when the former one, times kept, is back."""
    own = Cohort(tmp_path / "own")
    shutil.copytree(cohort.folder, own.folder)
    store, times, calls = tmp_path / "kept.zarr", os.stat(own.npy), np.load(own.npy)

    def edit(name, done, total):
        if os.stat(own.npy).st_mtime_ns == times.st_mtime_ns:
            edit_rows(own.npy, 2 - calls[::-1])

    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(errors.StoreError, match="changed while they were read"),
    ):
        MADE[made](own.genotypes(), store, progress=edit)
    assert [p.name for p in tmp_path.iterdir()] == ["own"]
    edit_rows(own.npy, calls)
    os.utime(own.npy, ns=(times.st_atime_ns, times.st_mtime_ns))
    got = MADE[made](own.genotypes(), store)
    np.testing.assert_array_equal(got, MADE[made](own.genotypes(), tmp_path / "fresh.zarr"))


COORDINATES = ["variant_position", "variant_id", "variant_effect_allele", "sample_id"]


@every_damage
@pytest.mark.parametrize("name", COORDINATES)
def test_damaged_coordinates_of_genotypes(cohort, tmp_path, name, damage):
    """Faults 5 and 6: another id, allele or position would be another's result."""
    shutil.copytree(cohort.folder / "g.zarr", tmp_path / "g.zarr")
    DAMAGE[damage](tmp_path / "g.zarr" / name / "c" / "0")
    with pytest.raises(errors.GenotypeFormatError, match=rf"chunks of {name} are there|{name} is damaged"):
        dasklmm.open_genotypes(tmp_path / "g.zarr")


@every_damage
@pytest.mark.parametrize("made", ["kinship", "pairs"])
def test_damaged_sample_ids(cohort, tmp_path, made, damage):
    """Faults 5 and 6: the ids that a kinship and a decomposition are joined by."""
    store = tmp_path / "kept.zarr"
    MADE[made](cohort.genotypes(), store)
    DAMAGE[damage](store / "sample_id" / "c" / "0")
    with pytest.raises(errors.StoreError, match=r"not whole|sample ids at .* are damaged"):
        MADE[made](cohort.genotypes(), store)


class Stumbling(Rows):
    """Rows that a reader stumbles over once the file is another, as over a file that is cut short."""

    def __init__(self, path):
        super().__init__(path)
        self.written = os.stat(path).st_mtime_ns

    def __getitem__(self, index):
        if os.stat(self.path).st_mtime_ns != self.written:
            raise ValueError("mmap length is greater than file size")
        return super().__getitem__(index)


def test_genotypes_that_cannot_be_read_since_they_changed(cohort, tmp_path):
    """Fault 14: a reader fails on edited genotypes: the edit is what is said, and no work is kept."""
    own = Cohort(tmp_path / "own")
    shutil.copytree(cohort.folder, own.folder)
    store, seen = tmp_path / "r.zarr", []

    def edit(name, done, total):
        if name == "test" and not seen:
            seen.append(name)
            edit_rows(own.npy, np.load(own.npy))

    with pytest.raises(errors.StoreError, match="genotypes changed while they were read") as caught:
        own.scan(store, Stumbling(own.npy), progress=edit)
    assert isinstance(caught.value.__context__, ValueError)
    assert not records_of(store)


def test_phenotype_changed_between_runs(cohort, tmp_path):
    """Fault 14: resumed with another phenotype: refused by name."""
    store = tmp_path / "r.zarr"
    interrupted(cohort, store)
    with pytest.raises(errors.StoreError, match="differs in: phenotype values"):
        dasklmm.gwas(cohort.genotypes(), cohort.y * 2, store=store)
    assert not store.exists()


ODD = [
    "../../etc/passwd",
    "a/b",
    "a b",
    "é",
    "$x$",
    "<script>",
    "'; drop",
    "NA\u00a0",
    "..",
    "\u2028",
    "-1",
    "%2e%2e",
]


def test_odd_names(cohort, tmp_path):
    """Fault 17: ids, contigs and a phenotype with .. and odd characters stay text, and make no path."""
    ds = cohort.genotypes()
    ids = ds["sample_id"].values.astype("U40")
    ids[: len(ODD)] = ODD
    contigs = np.array(["../x", "a/../b", "chr\u00fc"])[
        np.unique(ds["variant_contig"].values, return_inverse=True)[1]
    ]
    variants = ds["variant_id"].values.astype("U40")
    variants[: len(ODD)] = ODD
    ds = ds.assign_coords(
        sample_id=("sample", ids), variant_contig=("variant", contigs), variant_id=("variant", variants)
    )
    y = pd.DataFrame({"../../y": cohort.y["trait"].values}, index=ids)
    folder = tmp_path / "only here"
    got = dasklmm.gwas(ds, y, store=folder / "r.zarr", progress=lambda *a: None)
    assert [p.name for p in tmp_path.iterdir()] == ["only here"]
    assert [p.name for p in folder.iterdir()] == ["r.zarr"]
    again = open_results(folder / "r.zarr")
    assert again["variant_id"].values[: len(ODD)].tolist() == ODD
    assert again.attrs["phenotype"] == "../../y"
    np.testing.assert_array_equal(again["beta"], got["beta"])


def test_no_object_is_loaded(cohort, tmp_path):
    """Fault 17: pickled objects in a store of genotypes, results or work are never loaded."""
    group = zarr.open_group(tmp_path / "g.zarr", mode="w", zarr_format=2)
    array = group.create_array("sample_id", shape=(2,), dtype="i8")
    array[...] = 1
    meta = tmp_path / "g.zarr" / "sample_id" / ".zarray"
    fields = json.loads(meta.read_text()) | {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 4}]}
    meta.write_text(json.dumps(fields))
    with pytest.raises(errors.GenotypeFormatError):
        dasklmm.open_genotypes(tmp_path / "g.zarr")
    store = tmp_path / "r.zarr"
    cohort.scan(store)
    shutil.rmtree(store / "beta")
    shutil.copytree(tmp_path / "g.zarr" / "sample_id", store / "beta")
    with pytest.raises(errors.StoreError, match="damaged"):
        open_results(store)


def test_no_object_in_records(tmp_path):
    """Fault 17: a record that says it holds objects is none."""
    from dasklmm.store.records import Records

    kept = Records(tmp_path, "f")
    kept.write("r", np.array([os.sep], dtype=object))
    assert kept.read("r") is None


def test_source_that_is_lost(cohort, tmp_path):
    """Fault 6: the genotypes disappear in the middle of a run."""
    own = Cohort(tmp_path / "own")
    shutil.copytree(cohort.folder, own.folder)

    def remove(name, done, total):
        if (name, done) == ("test", 1):
            os.unlink(own.npy)

    with pytest.raises(errors.GenotypeReadError, match="where they were"):
        own.scan(tmp_path / "r.zarr", Rows(own.npy, 0.01), progress=remove)
    assert not (tmp_path / "r.zarr").exists()
