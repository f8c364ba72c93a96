"""Fault 11: data many times larger than the workers' memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fault_tools import records_of

import dasklmm
from dasklmm import errors
from dasklmm.lazy.budget import BASE_BYTES, Room, Shape
from dasklmm.readers.dataset import genotype_dataset

LIMIT = 512 * 10**6


class Made:
    """Genotypes made when they are read: rows of a small pool, each shifted by its number."""

    ndim = 2
    dtype = np.dtype(np.int8)

    def __init__(self, variants: int, samples: int) -> None:
        self.shape = (variants, samples)

    def __getitem__(self, index):
        rows, columns = index
        start, stop, _ = rows.indices(self.shape[0])
        rng = np.random.default_rng(start)
        pool = rng.binomial(2, 0.3, 3 * self.shape[1]).astype(np.int8)
        shift = rng.integers(0, 2 * self.shape[1], stop - start)
        out = np.empty((stop - start, self.shape[1]), np.int8)
        for i, at in enumerate(shift):
            out[i] = pool[at : at + self.shape[1]]
        return out[:, columns]


def made(variants, samples):
    text = np.arange(variants).astype("U8")
    ds = genotype_dataset(
        Made(variants, samples),
        chunks=8192,
        stored_chunk=1,
        sample_id=np.array([f"s{i}" for i in range(samples)]),
        contig=np.where(np.arange(variants) < variants // 2, "1", "2"),
        position=np.arange(variants) + 1,
        variant_id=text,
        effect_allele=np.full(variants, "A"),
        other_allele=np.full(variants, "G"),
        path="",
        file_format="made",
    )
    y = pd.Series(np.random.default_rng(1).standard_normal(samples), index=ds["sample_id"].values, name="y")
    return ds, y


def peak():
    """Most bytes that this process ever held."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def scanned(n, m, store):
    """Results, the workers' peaks, and what the budget projects for them."""
    ds, y = made(m, n)
    with dasklmm.local_cluster(n_workers=2, memory_limit=LIMIT) as cluster, cluster.get_client() as client:
        got = dasklmm.gwas(ds, y, loco=False, store=store)
        peaks = list(client.run(peak).values())
        room = Room.of(client)
    shape = Shape(n, n, n, 1, 1, 4)
    rows = min(8192, shape.fitting_rows(room, kinship=True)[0])
    held = max(shape.p_bytes + shape.scan_bytes(rows), shape.kinship_bytes(rows), 32 * n * n)
    return got, peaks, BASE_BYTES + held


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_two_gigabytes_on_two_small_workers(tmp_path):
    """Fault 11: 2 GB of int8 (8 GB as float32), two workers of 512 MB: it finishes, below their limit."""
    got, peaks, _ = scanned(1000, 2_000_000, tmp_path / "r.zarr")
    assert (got["status"].values == "ok").sum() > 0.99 * 2_000_000
    assert max(peaks) < LIMIT


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_peak_below_the_projection(tmp_path):
    """Fault 11: the peak is at most what the budget projects."""
    _, peaks, projected = scanned(1000, 400_000, tmp_path / "r.zarr")
    assert max(peaks) < projected


def test_samples_that_cannot_fit_are_refused(tmp_path, no_compute):
    """Fault 11: a task that cannot fit a worker of 400 MB is refused before anything runs."""
    ds, y = made(4000, 3000)
    with (
        dasklmm.local_cluster(n_workers=1, memory_limit="400MB") as cluster,
        cluster.get_client(),
        pytest.raises(errors.MemoryBudgetError, match=r"needs [\d,]+ MB for 3,000 samples"),
    ):
        dasklmm.gwas(ds, y, store=tmp_path / "r.zarr")
    assert not records_of(tmp_path / "r.zarr")
    assert list(tmp_path.iterdir()) == []


def test_p_that_cannot_fit_without_a_store(no_compute):
    """Fault 11: P that must be streamed needs a store; without one it is refused before anything runs."""
    n = 6000
    ds, y = made(2000, n)
    pairs = xr.Dataset(
        {"p": (("eigen", "sample"), np.zeros((n // 2, n))), "s": ("eigen", np.ones(n // 2))},
        coords={"sample_id": ds["sample_id"]},
    )
    with (
        dasklmm.local_cluster(n_workers=1, memory_limit="600MB") as cluster,
        cluster.get_client(),
        pytest.raises(errors.MemoryBudgetError, match="Give store="),
    ):
        dasklmm.gwas(ds, y, kinship=pairs, loco=False)
