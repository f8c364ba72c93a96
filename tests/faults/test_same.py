"""Fault 16: retries, worker counts and chunkings change nothing."""

from __future__ import annotations

import threading

import dask
import numpy as np
import pytest
import threadpoolctl
from fault_tools import contents, records_of

import dasklmm
from dasklmm.lazy import blocks

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
    """Fault 16: every block is worked on and written twice (a straggler and its copy): the same bytes."""
    from dasklmm import scanning

    real = scanning._keep_block
    seen = []

    def twice(block, kept, name):
        real(block, kept, name)
        first = (tmp_path / "r.zarr.work" / name).read_bytes()
        real(block, kept, name)
        seen.append((tmp_path / "r.zarr.work" / name).read_bytes() == first)
        return block

    monkeypatch.setattr(scanning, "_keep_block", twice)
    cohort.scan(tmp_path / "r.zarr")
    assert len(seen) == 21
    assert all(seen)
    assert contents(tmp_path / "r.zarr") == wanted


def test_a_stopped_run_resumed_with_other_workers(cohort, wanted, tmp_path):
    """Fault 16: taken up by a cluster of another size, a run ends with the same bytes."""

    class Stop(Exception):
        pass

    def stop(stage, done, total):
        if stage == "kinship":
            raise Stop

    with pytest.raises(Stop):
        cohort.scan(tmp_path / "r.zarr", progress=stop)
    assert len(records_of(tmp_path / "r.zarr", "gram/0")) < 4
    with dasklmm.local_cluster(n_workers=4, memory_limit="700MB") as cluster, cluster.get_client():
        cohort.scan(tmp_path / "r.zarr")
    assert contents(tmp_path / "r.zarr") == wanted


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
