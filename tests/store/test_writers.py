"""One writer at a place: a lock on a local disk, a lease on an object store and where a disk has no locks."""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import threading
import time
from pathlib import Path

import dask
import fsspec
import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm import errors
from dasklmm.lazy import project
from dasklmm.store import arrays, places, records
from dasklmm.store.genotypes import write_genotypes
from dasklmm.store.records import one_writer

ANOTHER = b'{"owner": "another", "time": 0}'


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A place in an object store."""
    monkeypatch.setattr(records, "SETTLE_SECONDS", 0.0)
    yield f"memory:/{tmp_path}/w"
    fsspec.filesystem("memory").store.clear()


def fail(number):
    def flock(*_):
        raise OSError(number, "no")

    return flock


def test_a_local_place_has_one_writer(tmp_path):
    said = r"another run is writing at .*\(process \d+\)"
    with one_writer(tmp_path / "w"):
        for _ in range(2):  # the refused one does not take the lock away
            with pytest.raises(errors.StoreError, match=said), one_writer(tmp_path / "w"):
                pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_another_opens_as_it_is_left(tmp_path, monkeypatch):
    """The run that ended ends well."""
    real = Path.rmdir

    def rmdir(self):
        records._opened(self).close()
        real(self)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    with one_writer(tmp_path / "w"):
        pass
    monkeypatch.undo()
    with one_writer(tmp_path / "w"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_locks_has_a_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(fcntl, "flock", fail(errno.ENOSYS))
    with one_writer(tmp_path / "w") as still_ours:
        with pytest.raises(errors.StoreError, match="its lease was renewed"), one_writer(tmp_path / "w"):
            pass
        still_ours()
        places.put(f"{tmp_path}/w/lock", ANOTHER)
        with pytest.raises(errors.StoreError, match="took the lease over"):
            still_ours()
        (tmp_path / "w" / "lock").unlink()
    assert list((tmp_path / "w").iterdir()) == []


def test_a_lock_that_fails_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fail(errno.EIO))
    with pytest.raises(errors.StoreError, match="cannot be written"), one_writer(tmp_path / "w"):
        pass


@pytest.mark.parametrize("held", [b"", b"x", b"[1]", b'{"time": 1e99}'])
def test_what_is_no_lease_holds_nobody_up(url, held):
    places.put(f"{url}/lock", held)
    with one_writer(url) as still_ours:
        still_ours()


def lease(url, clock, age):
    """A lease whose holder's clock is wrong, renewed some seconds ago."""
    places.put(f"{url}/lock", json.dumps({"owner": "another", "time": time.time() + clock}).encode())
    (held,) = (f for name, f in fsspec.filesystem("memory").store.items() if name.endswith("w/lock"))
    held.modified -= datetime.timedelta(seconds=age)


@pytest.mark.parametrize("clock", [-7200, 7200])
def test_a_lease_ends_by_the_clock_of_its_file_system(url, clock):
    lease(url, clock, 30)
    with pytest.raises(errors.StoreError, match=r"renewed 30 s ago.*free in 30 s"), one_writer(url):
        pass
    lease(url, clock, 90)
    with one_writer(url):
        pass


def test_a_lease_ends_by_its_holders_clock_where_no_other_is_told(url, monkeypatch):
    monkeypatch.setattr(records, "modified", lambda path: None)
    lease(url, 7200, 0)
    with pytest.raises(errors.StoreError, match="renewed 0 s ago"), one_writer(url):
        pass
    lease(url, -7200, 0)
    with one_writer(url):
        pass


def test_a_lease_is_renewed_after_an_error_of_the_file_system(url, monkeypatch):
    """Whatever it raises: the thread lives on."""
    monkeypatch.setattr(records, "LEASE_SECONDS", 0.04)
    real, failed, renewed = records.put, threading.Event(), threading.Event()

    def put(path, *parts):
        if not failed.is_set():
            failed.set()
            raise RuntimeError("EndpointConnectionError")
        real(path, *parts)
        renewed.set()

    with one_writer(url):
        monkeypatch.setattr(records, "put", put)
        assert failed.wait(10)
        assert renewed.wait(10)


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(40, 200, n_contigs=2, seed=3)
    return ds.assign(dosage=ds["dosage"].chunk({"variant": 50}))


def calls(ds, act):
    """Writers of everything that is kept, which call `act` while they are at work."""
    y = pd.Series(ds["phenotype"].values, index=ds["sample_id"].values, name="trait")

    def meanwhile(*_):
        act()

    def acting(block):
        act()
        return block

    dosage = ds["dosage"].data.map_blocks(acting, meta=np.empty((0, 0), np.int8))
    watched = ds.assign(dosage=ds["dosage"].copy(data=dosage))
    vectors = np.eye(40)[:5]
    return {
        "results": lambda path: dasklmm.gwas(ds, y, store=path, progress=meanwhile),
        "kinship": lambda path: dasklmm.kinship(ds, store=path, progress=meanwhile),
        "pairs": lambda path: dasklmm.eigendecompose(ds, 3, store=path, progress=meanwhile),
        "rotation": lambda path: dasklmm.project(vectors, ds, store=path, progress=meanwhile),
        "genotypes": lambda path: write_genotypes(watched, path),
    }


WRITERS = ["results", "kinship", "pairs", "rotation", "genotypes"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_second_writer_is_refused(cohort, tmp_path, writer):
    """And the first one's is there."""
    path, refused = tmp_path / "s.zarr", []

    def second():
        if not refused:
            refused.append(1)
            with pytest.raises(errors.StoreError, match="another run is writing"):
                calls(cohort, lambda: None)[writer](path)

    with dask.config.set(scheduler="synchronous"):
        calls(cohort, second)[writer](path)
    assert refused
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_a_second_writer_of_eigenvectors_is_refused(cohort, tmp_path):
    pairs = dasklmm.eigendecompose(cohort, 3)
    with one_writer(tmp_path / "p.zarr.work"), pytest.raises(errors.StoreError, match="another run"):
        project.write_rows(pairs["p"], tmp_path / "p.zarr")
    project.write_rows(pairs["p"], tmp_path / "p.zarr")


@pytest.mark.parametrize("writer", WRITERS[:-1])
def test_nothing_is_published_under_a_lease_that_was_lost(cohort, url, writer):
    """The object store is told another writer's after this one's had lapsed."""
    with pytest.raises(errors.StoreError, match="took the lease over"):
        calls(cohort, lambda: places.put(f"{url}.work/lock", ANOTHER))[writer](url)
    if writer == "rotation":  # written in place, and not finished
        assert arrays.unfinished(url)
    else:
        assert not places.present(url)
