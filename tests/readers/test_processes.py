"""Every reader on a cluster of two processes."""

from __future__ import annotations

import numpy as np
from bed_reader import to_bed

import dasklmm
from dasklmm.store.genotypes import write_genotypes


def test_readers_on_two_processes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    calls = rng.integers(-1, 3, (50, 20)).astype(np.int8)
    values = np.where(calls == -1, np.int8(-127), calls).T
    to_bed(tmp_path / "c.bed", values, num_threads=1)
    monkeypatch.chdir(tmp_path)
    plink = dasklmm.open_genotypes("c", chunks=10)
    write_genotypes(plink, "c.zarr")
    own = dasklmm.open_genotypes("c.zarr", chunks=10)
    monkeypatch.chdir("/")  # where the workers start: relative paths were resolved at open
    with dasklmm.local_cluster(n_workers=2) as cluster, cluster.get_client() as client:
        got = {
            "plink": plink["dosage"].compute(),
            "own": own["dosage"].compute(),
            "slice": own["dosage"][13:37:3, 4:].compute(),
        }
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2
    np.testing.assert_array_equal(got["plink"], calls)
    np.testing.assert_array_equal(got["own"], calls)
    np.testing.assert_array_equal(got["slice"], calls[13:37:3, 4:])
