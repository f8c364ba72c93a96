"""Fault 16: retries, worker counts and chunkings change nothing."""

from __future__ import annotations

import pickle
import threading
from collections import Counter

import dask
import numpy as np
import pytest
import threadpoolctl
from fault_tools import contents, records_of

import dasklmm
from dasklmm.lazy import blocks, run

NUMBERS = ["beta", "standard_error", "sigma_sq", "chi_sq", "p_value", "neg_log10_p_value"]


def assert_close(got, want):
    # relative to each estimate's own scale: a beta beside zero is a difference of larger terms
    scale = want["standard_error"]
    assert float(np.abs((got["beta"] - want["beta"]) / scale).max()) < 1e-10
    for name in ("standard_error", "sigma_sq", "neg_log10_p_value"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-9 if name[0] == "n" else 1e-10, atol=1e-10)


@pytest.fixture(scope="module")
def double(cohort, tmp_path_factory):
    """Results in double precision of one thread."""
    with dask.config.set(scheduler="synchronous"):
        return cohort.scan(tmp_path_factory.mktemp("double") / "r.zarr", precision="double")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers(cohort, double, tmp_path, workers):
    """Fault 16: 1, 2 and 4 workers give the same to 1e-10, and the same workers twice the same bytes."""
    with dasklmm.local_cluster(n_workers=workers, memory_limit="700MB") as cluster, cluster.get_client():
        for name in ("a.zarr", "b.zarr"):
            got = cohort.scan(tmp_path / name, precision="double")
            assert_close(got, double)
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")


@pytest.mark.parametrize("chunks", [17, 100, 1200])
def test_any_chunking(cohort, double, tmp_path, chunks):
    """Fault 16: three chunkings give the same to 1e-10, and each twice the same bytes."""
    for name in ("a.zarr", "b.zarr"):
        got = cohort.scan(tmp_path / name, chunks=chunks, precision="double")
        assert_close(got, double)
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")


def test_tasks_run_twice(cohort, wanted, tmp_path, monkeypatch):
    """Fault 16: every task works and writes twice (a straggler and its copy): the same value and bytes."""
    real, seen = blocks._BlockCall.__call__, Counter()
    store = tmp_path / "r.zarr"

    def state(value):
        kept = {name: (tmp_path / "r.zarr.work" / name).read_bytes() for name in records_of(store)}
        return pickle.dumps(value), kept

    def twice(self, *args, **options):
        first = state(real(self, *args, **options))
        value = real(self, *args, **options)
        assert state(value) == first
        seen[self.__name__] += 1
        return value

    monkeypatch.setattr(blocks._BlockCall, "__call__", twice)
    with dask.config.set(scheduler="synchronous"):
        cohort.scan(store)
    # each contig: seven blocks, whose Gram matrix is kept; a rotation; seven blocks tested, and kept
    assert seen == {"kinship": 3 * (7 + 1), "rotate": 3, "_scan_block": 3 * 7, "test": 3 * 7}
    assert contents(store) == wanted


def test_a_stopped_run_resumed_with_other_workers(cohort, tmp_path, monkeypatch):
    """Fault 16: taken up by a cluster of another size, a run ends with the same bytes, in double precision too."""

    class Stop(Exception):
        pass

    def stop(stage, done, total):
        if records_of(tmp_path / "r.zarr", "gram/00000"):
            raise Stop

    with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(run, "parallelism", lambda: 1)  # one lane; four workers have two a contig
        cohort.scan(tmp_path / "want.zarr", precision="double")
        with pytest.raises(Stop):
            cohort.scan(tmp_path / "r.zarr", precision="double", progress=stop)
    assert len(records_of(tmp_path / "r.zarr", "gram/0")) < 3
    with dasklmm.local_cluster(n_workers=4, memory_limit="700MB") as cluster, cluster.get_client():
        cohort.scan(tmp_path / "r.zarr", precision="double")
    assert contents(tmp_path / "r.zarr") == contents(tmp_path / "want.zarr")


def test_blas_keeps_to_one_thread_in_tasks():
    """Fault 16: sums of two BLAS threads depend on timing; the limit holds on any thread of any pool."""
    seen, after = [], []

    def task():
        for _ in range(20):
            with blocks.one_blas_thread():
                seen.append(max(lib["num_threads"] for lib in threadpoolctl.threadpool_info()))

    with threadpoolctl.threadpool_limits(2):
        for _ in range(3):
            threads = [threading.Thread(target=task) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            after.append(max(lib["num_threads"] for lib in threadpoolctl.threadpool_info()))
    assert set(seen) == {1}
    assert min(after) > 1
