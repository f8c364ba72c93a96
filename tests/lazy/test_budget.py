"""What a task holds is known before it runs: block sizes, streaming and refusals follow from it."""

from __future__ import annotations

import re
import tracemalloc

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dasklmm
from dasklmm import errors, schema, settings
from dasklmm.lazy import budget
from dasklmm.lazy.budget import Room, Shape
from dasklmm.numerics import design, refit, refit_scan, reml
from dasklmm.numerics.subspace import OVERSAMPLING, Krylov
from dasklmm.readers.dataset import Retried
from dasklmm.store.arrays import StoredArray
from dasklmm.store.genotypes import write_genotypes

MB = 10**6


@given(
    row_bytes=st.integers(1, 10**9),
    multiple=st.integers(1, 5000),
    rows=st.integers(1, 10**7),
)
def test_blocks_are_whole_chunks_within_the_target(row_bytes, multiple, rows):
    size = budget.rows_per_task(row_bytes, multiple, rows)
    assert 1 <= size <= rows
    assert size == rows or size % multiple == 0
    assert size * row_bytes <= settings.block_size() or size <= multiple


@given(
    samples=st.integers(10, 20_000),
    eigen=st.integers(1, 20_000),
    limit=st.integers(300 * MB, 10**11),
    threads=st.integers(1, 8),
    kinship=st.booleans(),
    decomposed=st.booleans(),
)
@example(samples=2099, eigen=1271, limit=426_811_580, threads=1, kinship=False, decomposed=False)
def test_fitting_rows_fit_or_are_refused(samples, eigen, limit, threads, kinship, decomposed):
    shape = Shape(samples + 5, samples, min(eigen, samples), 3, 1, 4, decomposed=decomposed)
    room = Room(limit, threads)
    free = limit * settings.usable_memory() - budget.BASE_BYTES
    try:
        rows, streamed = shape.fitting_rows(room, kinship)
    except errors.MemoryBudgetError as error:
        enough = int(re.search(r"Give each ([\d,]+) MB", str(error))[1].replace(",", ""))
        shape.fitting_rows(Room(enough * MB, threads), kinship)
        tight = min(shape.p_bytes, 2 * budget.STREAM_BYTES * threads) + threads * shape.scan_bytes(256) > free
        assert tight or kinship or decomposed
        return
    held = 2 * budget.STREAM_BYTES * threads if streamed else shape.p_bytes
    assert held + threads * shape.scan_bytes(rows) <= free
    assert streamed == (shape.p_bytes > max(free // 2, 2 * budget.STREAM_BYTES * threads))
    if kinship:
        assert threads * shape.kinship_bytes(rows) <= free
    if decomposed:
        assert budget.rotation_bytes(samples) <= free
        assert budget.decompositions_at_once(samples, room, threads) * budget.rotation_bytes(samples) <= free


@given(samples=st.integers(10, 50_000), limit=st.integers(200 * MB, 10**11), threads=st.integers(1, 8))
def test_decompositions_side_by_side_fit(samples, limit, threads):
    """As many as there are threads for where each process holds one a thread of it; else one process's worth."""
    at_once = budget.decompositions_at_once(samples, Room(limit, threads), 3 * threads)
    one = budget.decomposition_bytes(samples) + 8 * samples**2
    free = limit * settings.usable_memory() - budget.BASE_BYTES
    assert 1 <= at_once <= 3 * threads
    if at_once == 3 * threads:
        assert threads * one <= free
    else:
        assert at_once == 1 or at_once * one <= free


@given(
    chunks=st.lists(st.integers(1, 40), min_size=1, max_size=6).map(tuple),
    size=st.integers(1, 30),
)
def test_blocks_of_at_most(chunks, size):
    m = sum(chunks)
    values = np.arange(2 * m).reshape(m, 2)
    rows = da.from_array(values, chunks=(chunks, -1))
    cut = schema.blocks_of_at_most(rows, size)
    assert max(cut.chunks[0]) <= size or cut is rows
    np.testing.assert_array_equal(cut.compute(), values)


def test_a_block_that_memory_cuts_is_read_in_parts(cohort, tmp_path, monkeypatch):
    """However large the blocks that were asked for, no task reads more than it has room for."""
    ds, y = cohort
    write_genotypes(ds, tmp_path / "g.zarr")
    opened = dasklmm.open_genotypes(tmp_path / "g.zarr", chunks=ds.sizes["variant"])
    want = dasklmm.gwas(opened, y, precision="double")
    read, rows = Retried.__getitem__, []
    monkeypatch.setattr(Retried, "__getitem__", lambda self, i: [rows.append(i[0]), read(self, i)][1])
    monkeypatch.setattr(Shape, "fitting_rows", lambda *a, **k: (256, False))
    got = dasklmm.gwas(opened, y, precision="double")
    assert rows
    assert max(part.stop - part.start for part in rows) == 256
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-9)


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(150, 900, n_contigs=2, seed=1)
    y = pd.DataFrame({"trait": ds["phenotype"].values}, index=ds["sample_id"].values)
    return ds, y


def test_a_p_that_does_not_fit_is_streamed(cohort, tmp_path, monkeypatch):
    ds, y = cohort
    want = dasklmm.gwas(ds, y, precision="double")
    monkeypatch.setattr(budget, "STREAM_BYTES", 20_000)  # P, 180 kB, then has ten pieces
    monkeypatch.setattr(Shape, "fitting_rows", lambda *a, **k: (256, True))
    got = dasklmm.gwas(ds, y, precision="double", store=tmp_path / "r.zarr")
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-9)
    np.testing.assert_allclose(got["p_value"], want["p_value"], rtol=1e-8)


def test_what_cannot_fit_is_refused_before_it_runs(cohort, monkeypatch, no_compute):
    ds, y = cohort
    monkeypatch.setattr(Room, "of", classmethod(lambda cls, client: cls(300 * MB, 8)))
    monkeypatch.setattr(budget, "BASE_BYTES", 239 * MB)
    with no_compute(), pytest.raises(errors.MemoryBudgetError, match=r"needs \d+ MB for 150 samples"):
        dasklmm.gwas(ds, y)


@pytest.mark.parametrize("version", [1, 2])
def test_memory_that_a_control_group_uses_is_not_free(tmp_path, monkeypatch, version):
    """Its limit less its usage, of which files that were read do not count; without one, what is free."""
    _, limit, usage, cache = budget._CONTROL_GROUPS[2 - version]
    monkeypatch.setattr(budget, "_CONTROL_GROUPS", [(str(tmp_path), limit, usage, cache)])
    without = budget.available_memory()
    (tmp_path / limit).write_text("max\n")
    assert budget.available_memory() == pytest.approx(without, rel=0.2)
    (tmp_path / limit).write_text("100000000\n")
    assert budget.available_memory() == 100_000_000
    (tmp_path / usage).write_text("70000000\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\nxinactive_file 7\n{cache} 10000000\n")
    assert budget.available_memory() == 40_000_000
    (tmp_path / usage).write_text("170000000\n")
    assert budget.available_memory() == 0


def test_room_of_a_cluster():
    with dasklmm.local_cluster(n_workers=2, memory_limit="700MB") as cluster, cluster.get_client() as client:
        assert Room.of(client) == Room(700 * MB, 1)
    assert Room.of(None).limit > 0


def test_what_the_caller_holds_is_not_room(monkeypatch):
    """Of this process there is what is free, beside the libraries."""
    monkeypatch.setattr(budget, "available_memory", lambda: 12 * 10**9)
    assert Room.of(None).limit == 12 * 10**9 + budget.BASE_BYTES


def test_a_task_has_what_its_worker_has():
    """A decomposition on a worker is checked against the worker's limit, not the machine's memory."""
    with dasklmm.local_cluster(n_workers=1, memory_limit="700MB") as cluster, cluster.get_client() as client:
        free = client.submit(budget.available_memory).result()
    assert 0 < free < 650 * MB
    assert budget.available_memory() > 700 * MB


def test_decompositions_are_in_the_budget(cohort, tmp_path, monkeypatch, no_compute):
    """With a store they run where the tasks do, and are refused before any with what they need."""
    ds, y = cohort
    monkeypatch.setattr(Room, "of", classmethod(lambda cls, client: cls(600 * MB, 1)))
    monkeypatch.setattr(budget, "decomposition_bytes", lambda n: 300 * MB)
    with (
        no_compute(),
        pytest.raises(errors.MemoryBudgetError, match="an eigendecomposition needs 300 MB for 150"),
    ):
        dasklmm.gwas(ds, y, store=tmp_path / "r.zarr")
    monkeypatch.setattr(Room, "of", classmethod(lambda cls, client: cls(790 * MB, 1)))
    dasklmm.gwas(ds, y, store=tmp_path / "r.zarr")


def kept():
    return len(StoredArray._kept)


@pytest.mark.parametrize("cluster", [False, True])
def test_p_is_given_up(cohort, tmp_path, monkeypatch, cluster):
    """No process keeps one when it decomposes the next, nor after the run."""
    ds, y = cohort
    seen = []
    monkeypatch.setattr(budget, "decompositions_at_once", lambda *a: 1)
    monkeypatch.setattr(budget, "check_eigendecomposition", lambda n: seen.append(kept()))
    if cluster:
        with (
            dasklmm.local_cluster(n_workers=2, memory_limit="700MB") as workers,
            workers.get_client() as client,
        ):
            dasklmm.gwas(ds, y, store=tmp_path / "r.zarr")
            assert set(client.run(kept).values()) == {0}
    else:
        dasklmm.gwas(ds, y, store=tmp_path / "r.zarr")
        assert seen == [0, 0, 0]  # before any work, and at each contig
    assert kept() == 0


@pytest.mark.parametrize(
    ("options", "matrices"),
    [({"loco": False}, 3), ({}, 9), ({"loco": False, "kinship": "given"}, 3)],
)
def test_matrices_of_groups_are_counted(cohort, monkeypatch, no_compute, options, matrices):
    """Without a store: of each contig and in all, for each group, and P; of a given kinship a copy for each."""
    ds, y = cohort
    groups = pd.DataFrame({f"t{i}": y["trait"].where(np.arange(150) != i) for i in range(3)})
    if "kinship" in options:
        options = {**options, "kinship": dasklmm.kinship(ds).compute()}
    needed = (matrices + 3) * 8 * 149**2 + budget.decomposition_bytes(149)
    monkeypatch.setattr(budget, "available_memory", lambda: needed - 1)
    with (
        no_compute(),
        pytest.raises(errors.MemoryBudgetError, match=f"^{matrices} matrices of 149 samples, P of 3"),
    ):
        dasklmm.gwas(ds, groups, **options)


def test_the_basis_of_leading_pairs_is_counted(cohort, monkeypatch, no_compute):
    ds, y = cohort
    monkeypatch.setattr(budget, "available_memory", lambda: budget.krylov_bytes(150, 20) - 1)
    monkeypatch.setattr(budget, "check_results", lambda *a: None)
    with (
        no_compute(),
        pytest.raises(errors.MemoryBudgetError, match="leading pairs of 150 samples with 20 vectors"),
    ):
        dasklmm.gwas(ds, y, rank=10, truncated=True)
    with no_compute(), pytest.raises(errors.MemoryBudgetError, match="leading pairs of 150 samples"):
        dasklmm.eigendecompose(ds, rank=10)


def test_krylov_bytes_are_held():
    """What the basis and its image take at most, against what was allocated."""
    n, columns = 3000, 30
    k = np.ones(n)
    state = Krylov(n, columns - OVERSAMPLING)
    tracemalloc.start()
    for _ in range(12):
        state.extend(state.next * k[:, None] * np.arange(1, n + 1)[:, None])
        state.pairs()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.5 * budget.krylov_bytes(n, columns) < most < budget.krylov_bytes(n, columns)


def test_a_kinship_that_does_not_fit_is_refused_and_one_that_does_is_cut(cohort, tmp_path, monkeypatch):
    ds, _ = cohort
    write_genotypes(ds, tmp_path / "g.zarr")
    opened = dasklmm.open_genotypes(tmp_path / "g.zarr", chunks=ds.sizes["variant"])
    monkeypatch.setattr(Room, "of", classmethod(lambda cls, client: cls(300 * MB, 8)))
    monkeypatch.setattr(budget, "BASE_BYTES", 239 * MB)
    with pytest.raises(errors.MemoryBudgetError, match=r"kinship of 150 samples needs \d+ MB.*--rank R"):
        dasklmm.kinship(opened, store=tmp_path / "k.zarr")
    assert not (tmp_path / "k.zarr").exists()
    read, rows = Retried.__getitem__, []
    monkeypatch.setattr(Retried, "__getitem__", lambda self, i: [rows.append(i[0]), read(self, i)][1])
    monkeypatch.setattr(Shape, "kinship_rows", lambda self, room: 256)
    got = dasklmm.kinship(opened, store=tmp_path / "k.zarr")
    assert max(part.stop - part.start for part in rows) == 256
    np.testing.assert_allclose(got, dasklmm.kinship(ds), rtol=1e-12, atol=1e-12)


def test_a_refit_holds_no_more_than_is_foretold():
    rng = np.random.default_rng(2)
    n, f, rows = 300, 41, 512
    p, x = np.linalg.qr(rng.standard_normal((n, n)))[0], rng.standard_normal((n, f))
    s = np.sort(rng.exponential(size=n))[::-1]
    data = design.rotated_data(rng.standard_normal(n) * np.sqrt(1 + s), p @ x, s)
    null = refit.refit_test(data, reml.fit_null(data, on_boundary="clamp"))
    shape = Shape(n, n, n, f, 1, 4, nodes=null.window.log_gamma.size)
    block = rng.integers(-1, 3, (rows, n)).astype(np.int8)
    tracemalloc.start()
    try:
        refit_scan.refit_scan_block((null,), p.astype(np.float32), block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= shape.scan_bytes(rows) + shape.p_bytes
