"""What lies at a path is whole, and what was there stays until the new one has its place."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

import dasklmm
from dasklmm import errors, kept_scan
from dasklmm.lazy import project
from dasklmm.store import arrays, places, publish, records
from dasklmm.store.genotypes import write_genotypes
from dasklmm.store.results import write_results


@pytest.fixture(scope="module")
def cohort():
    return dasklmm.simulate(40, 200, n_contigs=2, seed=3)


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A place in an object store."""
    monkeypatch.setattr(records, "SETTLE_SECONDS", 0.0)
    yield f"memory:/{tmp_path}/s.zarr"
    fsspec.filesystem("memory").store.clear()


def phenotype(ds):
    return pd.Series(ds["phenotype"].values, index=ds["sample_id"].values, name="trait")


def eigenvectors(scale):
    return xr.DataArray(scale * np.eye(40)[:5], dims=("eigen", "sample"))


# Each writes one of two, and gives a number of what is there.
WRITERS = {
    "results": lambda ds, path, which, **o: dasklmm.gwas(
        ds, phenotype(ds), store=path, test=("lrt", "wald")[which], **o
    )["chi_sq"].sum(),
    "kinship": lambda ds, path, which, **o: dasklmm.kinship(ds, ("rrm", "grm")[which], store=path, **o).sum(),
    "pairs": lambda ds, path, which, **o: dasklmm.eigendecompose(ds, 3 + which, store=path, **o)["s"].sum(),
    "rotation": lambda ds, path, which, **o: dasklmm.project(
        eigenvectors(1.0 + which), ds, store=path, **o
    ).sum(),
    "p": lambda ds, path, which, **o: project.write_rows(eigenvectors(1.0 + which), path, **o)[...].sum(),
    "genotypes": lambda ds, path, which, **o: (
        write_genotypes(ds.isel(variant=slice(50 + which)), path, **o)
        or dasklmm.open_genotypes(path)["dosage"].values.sum()
    ),
}


def contents(folder):
    return sorted((str(p), p.read_bytes()) for p in Path(folder).rglob("*") if p.is_file())


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("at", ["metadata", "chunk", "renaming"])
def test_a_full_disk_leaves_what_was_there(cohort, tmp_path, monkeypatch, writer, at):
    """One error that says what to do; with room, the same call goes through."""
    write, path = WRITERS[writer], tmp_path / "s.zarr"
    write(cohort, path, 0)
    before = contents(path)
    full = OSError(errno.ENOSPC, "No space left on device")
    store_set, replace = LocalStore.set, os.replace

    async def set_(self, key, value):
        coordinate = key.startswith(("variant_", "sample_id"))
        if at == ("metadata" if key.endswith("zarr.json") else "chunk") and not coordinate:
            raise full
        await store_set(self, key, value)

    def renamed(source, target):
        if at == "renaming" and str(target) == str(path) and ".former" not in str(source):
            raise full
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", set_)
        patch.setattr(os, "replace", renamed)
        with pytest.raises(errors.StoreError, match=r"No space left.*Free space"):
            write(cohort, path, 1, overwrite=True)
    assert contents(path) == before
    left = {p.name for p in tmp_path.iterdir()} - {"s.zarr"}
    assert left <= {"s.zarr.work", "s.zarr.partial"}
    assert not left or writer in ("results", "rotation")  # what is finished of these is kept
    changed = write(cohort, path, 1, overwrite=True)
    assert changed == write(cohort, tmp_path / "fresh.zarr", 1)
    assert {p.name for p in tmp_path.iterdir()} == {"s.zarr", "fresh.zarr"}


def test_an_interruption_between_two_renamings(tmp_path, monkeypatch):
    """What was there is put back; in the removal of it, the new one is there already."""
    path, replace = str(tmp_path / "s"), os.replace

    def interrupted(source, target):
        if str(source).endswith(".partial"):
            raise KeyboardInterrupt
        replace(source, target)

    def write(text):
        with publish.published(path) as target:
            Path(target).mkdir()
            (Path(target) / "file").write_text(text)

    write("former")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write("new")
    assert (tmp_path / "s" / "file").read_text() == "former"
    assert [p.name for p in tmp_path.iterdir()] == ["s"]

    def kept(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kept)
        with pytest.raises(KeyboardInterrupt):
            write("new")
    assert (tmp_path / "s" / "file").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2
    write("newer")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_litter_of_killed_runs_goes_and_nothing_else(tmp_path):
    others = ["s.mine.partial", "s.partial", f"xs.{uuid.uuid4().hex}.partial", "s.former"]
    for name in (*others, f"s.{uuid.uuid4().hex}.partial", f"s.{uuid.uuid4().hex}.former"):
        (tmp_path / name).mkdir()
    with publish.published(str(tmp_path / "s")) as target:
        Path(target).mkdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["s", *others])


@pytest.mark.parametrize("writer", WRITERS)
def test_a_kill_in_the_removal_of_a_former_one(cohort, url, monkeypatch, writer):
    """On an object store its metadata goes last: the same call goes on, and what is half there is not opened."""
    write = WRITERS[writer]
    write(cohort, url, 0)

    def killed(path, **_):
        fs, root = fsspec.core.url_to_fs(path)
        parts = [p for p in fs.ls(root, detail=False) if not p.endswith("zarr.json")]
        if path == url:
            for part in parts[: len(parts) // 2 + 1]:
                fs.rm(part, recursive=True)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, "clear", killed)
        with pytest.raises(KeyboardInterrupt):
            write(cohort, url, 1, overwrite=True)
    opening = {
        "results": dasklmm.open_results,
        "genotypes": dasklmm.open_genotypes,
        "kinship": arrays.open_kinship_or_spectrum,
        "pairs": arrays.open_kinship_or_spectrum,
    }.get(writer, arrays.open_array)
    with pytest.raises((errors.StoreError, errors.GenotypeFormatError)):
        opening(url)
    assert write(cohort, url, 1, overwrite=True) == write(cohort, f"{url}.fresh", 1)


class Stop(Exception):
    pass


def stop(name, done, total):
    if name == "test":
        raise Stop


def test_a_kill_in_the_removal_of_work(cohort, tmp_path):
    """What says whose the work is goes first; the rest is known by itself, and removed. Others' files are not."""
    y, store, work = phenotype(cohort), tmp_path / "r.zarr", tmp_path / "r.zarr.work"
    seen = []
    for overwrite in (False, True):
        with pytest.raises(Stop):
            dasklmm.gwas(cohort, y, store=store, progress=stop, overwrite=overwrite)
        (work / "inputs.json").unlink()
        (work / "gram" / f"00000.{uuid.uuid4().hex}.partial").write_bytes(b"x")
        got = dasklmm.gwas(cohort, y, store=store, overwrite=overwrite, progress=lambda *a: seen.append(a[0]))
        assert got.attrs["resumed"]["kinship"]["kept"] == 0
        assert "kinship" in seen
        assert [p.name for p in tmp_path.iterdir()] == ["r.zarr"]
    for folder in (work, tmp_path / "pa.zarr.work"):
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(errors.StoreError, match=r"holds something else \(notes.txt\)"):
        dasklmm.gwas(cohort, y, store=store, overwrite=True)
    with pytest.raises(errors.StoreError, match=r"holds something else \(notes.txt\)"):
        dasklmm.project(np.eye(40), cohort, store=f"{tmp_path}/pa.zarr")
    assert [(p / "notes.txt").read_text() for p in tmp_path.glob("*.work")] == ["mine", "mine"]


def test_what_says_whose_work_it_is_goes_first(url, monkeypatch):
    """Or a part of work that is not to be believed would be, after a kill."""
    kept = records.Records(url, "f")
    for name in ("a", "inputs.json", "z"):
        kept.write(name, np.ones(1))
    gone = []
    kind = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(kind, "rm", lambda self, path, recursive: gone.append(Path(path).name))
    kept_scan._drop(url)
    assert gone == ["inputs.json", "a", "z"]


def test_what_lies_where_a_rotation_is_made(cohort, tmp_path):
    """A folder of somebody else is not replaced."""
    (tmp_path / "pa.zarr.partial").mkdir()
    (tmp_path / "pa.zarr.partial" / "notes.txt").write_text("mine")
    with pytest.raises(errors.StoreError, match="not of this package"):
        dasklmm.project(np.eye(40), cohort, store=tmp_path / "pa.zarr", overwrite=True)
    assert (tmp_path / "pa.zarr.partial" / "notes.txt").read_text() == "mine"


def test_a_rotation_that_was_whole_but_not_in_its_place(cohort, tmp_path, monkeypatch):
    """Nothing is computed again."""
    path, seen = tmp_path / "pa.zarr", []
    with monkeypatch.context() as patch:
        patch.setattr(project, "exchange", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            dasklmm.project(np.eye(40), cohort, store=path)
    dasklmm.project(np.eye(40), cohort, store=path, progress=lambda *a: seen.append(a))
    assert not seen
    assert [p.name for p in tmp_path.iterdir()] == ["pa.zarr"]


def test_a_url_of_a_file_is_a_path(cohort, tmp_path):
    for name, writer in WRITERS.items():
        writer(cohort, f"file://{tmp_path}/{name}", 0)
    assert {p.name for p in tmp_path.iterdir()} == set(WRITERS)


def test_a_record_of_other_inputs_is_none(tmp_path):
    records.Records(tmp_path, "these").write("r", np.ones(3))
    assert records.Records(tmp_path, "others").read("r") is None
    assert records.Records(tmp_path, "these").read("r") is not None


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        places.put(f"{tmp_path}/file", b"first part", object())
    assert list(tmp_path.iterdir()) == []


def test_blocks_of_nothing_but_fill_values_are_there(cohort, tmp_path):
    """A chunk that is absent got lost."""
    missing = cohort.assign(dosage=(("variant", "sample"), np.full((200, 40), -1, np.int8)))
    got = dasklmm.project(np.eye(40)[:2], missing, mean_impute=False, store=tmp_path / "pa.zarr")
    assert np.isnan(got).all()
    write_genotypes(
        cohort.assign_coords(variant_position=0 * cohort["variant_position"]), tmp_path / "g.zarr"
    )
    assert not dasklmm.open_genotypes(tmp_path / "g.zarr")["variant_position"].values.any()
    write_results(xr.Dataset({"beta": ("variant", np.zeros(3))}), tmp_path / "r.zarr", {})
    array = zarr.open_array(str(tmp_path / "r.zarr" / "beta"), mode="r")
    assert array.nchunks_initialized == array.nchunks == 1


def test_a_worker_that_does_not_see_the_store(cohort, tmp_path, monkeypatch):
    """Said before any work."""
    client = SimpleNamespace(run=lambda *_: {"tcp://here": True, "tcp://there": False})
    monkeypatch.setattr(kept_scan, "run", SimpleNamespace(active_client=lambda: client))
    with pytest.raises(errors.StoreError, match="not every worker sees"):
        dasklmm.gwas(cohort, phenotype(cohort), store=tmp_path / "r.zarr")


def test_workers_are_asked_whether_they_see_the_work(tmp_path):
    assert not kept_scan._sees(str(tmp_path))
    (tmp_path / "inputs.json").write_text("{}")
    assert kept_scan._sees(str(tmp_path))


def test_results_without_their_manifest(cohort, tmp_path):
    """The same command would find the same: the way out is said, and is one."""
    y, store = phenotype(cohort), tmp_path / "r.zarr"
    want = dasklmm.gwas(cohort, y, store=store)
    (store / "_SUCCESS").unlink()
    for call in (lambda: dasklmm.gwas(cohort, y, store=store), lambda: dasklmm.open_results(store)):
        with pytest.raises(errors.StoreError, match=r"'_SUCCESS'.*overwrite=True"):
            call()
    assert dasklmm.gwas(cohort, y, store=store, overwrite=True)["beta"].equals(want["beta"])
