"""Faults 1 to 3: workers, scheduler and client die by SIGKILL."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import dask
import pytest
from dask import delayed
from distributed import Client
from distributed.comm import CommClosedError
from fault_tools import (
    DeadlyRows,
    Rows,
    Scheduler,
    answer,
    contents,
    end,
    kill_worker,
    meanwhile,
    records_of,
    start_client,
    wait_until,
)

import dasklmm
from dasklmm import errors
from dasklmm.lazy import run
from dasklmm.store.results import open_results

# A record that is there when a stage begins or is under way, and the name of its tasks
STAGES = {
    "kinship": ("gram/0", "kinship"),
    "tests": ("p/00000/rows", "test"),
    "tests of the last contig": ("p/00002/rows", "test"),
}


@pytest.fixture
def cluster():
    """A cluster of the test's own: two worker processes, whose nannies start a killed one anew."""
    with dasklmm.local_cluster(n_workers=2, memory_limit="1GB") as cluster, cluster.get_client():
        yield cluster


def no_litter(tmp_path):
    assert [p.name for p in tmp_path.iterdir()] == ["r.zarr"]


@pytest.mark.parametrize("stage", STAGES)
def test_worker_killed(cohort, wanted, cluster, tmp_path, stage):
    """Fault 1: SIGKILL of a worker in the stages of many tasks."""
    store = tmp_path / "r.zarr"

    def kill():
        record, task = STAGES[stage]
        wait_until(lambda: records_of(store, record))
        kill_worker(cluster, task)

    with meanwhile(kill):
        cohort.scan(store, Rows(cohort.npy, 0.1))
    assert contents(store) == wanted
    no_litter(tmp_path)


def test_worker_killed_before_its_first_record(cohort, wanted, cluster, tmp_path):
    """Fault 1: SIGKILL of a worker while it sums the first Gram matrix."""
    store = tmp_path / "r.zarr"
    with meanwhile(lambda: kill_worker(cluster, "kinship")):
        cohort.scan(store, Rows(cohort.npy, 0.02))
    assert contents(store) == wanted


@pytest.mark.parametrize("record", ["gram/0", "null/00000", "test/00001"])
def test_worker_killed_in_a_whitened_scan(cohort, cluster, tmp_path, record):
    """Fault 1: with triangular matrices, too, what is kept and what is done again are one run's."""
    store = tmp_path / "r.zarr"
    uninterrupted = tmp_path / "uninterrupted"
    uninterrupted.mkdir()
    cohort.scan(uninterrupted / "r.zarr", whiten=True)

    def kill():
        wait_until(lambda: records_of(store, record))
        kill_worker(cluster, "kinship" if record == "gram/0" else "")

    with meanwhile(kill):
        cohort.scan(store, Rows(cohort.npy, 0.1), whiten=True)
    assert contents(store) == contents(uninterrupted / "r.zarr")


def test_worker_killed_in_the_eigendecomposition(large, wanted_large, cluster, tmp_path):
    """Fault 1: SIGKILL of the worker that decomposes a kinship."""
    store = tmp_path / "r.zarr"
    with meanwhile(lambda: kill_worker(cluster, "rotate")):
        large.scan(store)
    assert contents(store) == wanted_large


def test_workers_killed_repeatedly(cohort, wanted, cluster, tmp_path):
    """Fault 1: a worker is killed in every stage of one run, five times in all."""
    store = tmp_path / "r.zarr"
    killed = []

    def kill():
        for record in ("inputs", "gram/0", "p/00000/rows", "p/00001/rows", "p/00002/rows"):
            wait_until(lambda record=record: records_of(store, record))
            killed.append(kill_worker(cluster, "test" if record[0] == "p" else "kinship"))

    with meanwhile(kill):
        cohort.scan(store, Rows(cohort.npy, 0.1))
    assert len(set(killed)) == 5
    assert contents(store) == wanted


def test_block_that_kills_every_worker(cohort, wanted, cluster, tmp_path):
    """Fault 1: a block kills each worker that takes it up: a typed error, and what is done is kept."""
    store, flag = tmp_path / "r.zarr", tmp_path / "flag"
    flag.touch()
    with pytest.raises(errors.ClusterError, match="run the same command again"):
        cohort.scan(store, DeadlyRows(cohort.npy, str(flag), str(store)))
    assert not store.exists()
    kept = records_of(store, "gram/0")
    assert kept
    flag.unlink()
    got = cohort.scan(store)
    assert got.attrs["resumed"]["kinship"] == {"kept": len(kept), "computed": 3 - len(kept)}
    assert contents(store) == wanted


@pytest.mark.parametrize("record", ["gram/0", "test/00001"])
def test_scheduler_killed(cohort, wanted, tmp_path, record):
    """Fault 2: SIGKILL of the scheduler; a new cluster takes up, and computes just what was not kept."""
    store = tmp_path / "r.zarr"
    with Scheduler(tmp_path) as first:
        client = start_client(cohort, store, first.address, delay=0.05)
        wait_until(lambda: records_of(store, record))
        first.scheduler.kill()
        name, message = answer(client)
    assert name == "ClusterError"
    assert "same command again" in message
    assert not store.exists()
    with pytest.raises(errors.StoreError, match="no complete results"):
        open_results(store)
    kept = {stage: len(records_of(store, stage)) for stage in ("gram/0", "test")}
    with Scheduler(tmp_path) as second:
        resumed = answer(start_client(cohort, store, second.address))
    grams = kept["gram/0"]
    assert resumed["kinship"] == {"kept": grams, "computed": 3 - grams}
    assert resumed["test"] == {"kept": kept["test"], "computed": 21 - kept["test"]}
    assert grams >= 1
    assert contents(store) == wanted


@pytest.mark.parametrize("when", ["before the call", "blocks made", "task made"])
def test_scheduler_killed_between_two_stages(tmp_path, monkeypatch, when):
    """Fault 2: futures made while the client tries to connect again would be waited for without end."""
    with Scheduler(tmp_path) as cluster, Client(cluster.address, timeout=5) as client:

        def kill(*_):
            cluster.scheduler.kill()
            wait_until(lambda: client.status != "running")

        if when == "before the call":
            client.wait_for_workers(1)
            kill()
        else:
            monkeypatch.setattr(run, "need_workers", kill)
        with pytest.raises(
            errors.ClusterError, match=r"lost \(its client is connecting\).*same command again"
        ):
            run.call("one", int) if when == "task made" else run.run_blocks([delayed(int)(3)])


def test_scheduler_killed_after_the_last_block(cohort, tmp_path):
    """Fault 2: without a store too, what is all computed is returned."""
    with Scheduler(tmp_path) as cluster, Client(cluster.address, timeout=5) as client:

        def kill(stage, done, total):
            if stage == "test" and done == total:
                cluster.scheduler.kill()
                wait_until(lambda: client.status != "running")

        got = cohort.scan(None, progress=kill, loco=False)
    assert (got["status"] == "ok").any()


@pytest.mark.parametrize("one", ["blocks", "a task"])
def test_scheduler_killed_before_a_result_is_fetched(tmp_path, monkeypatch, one):
    """Fault 2: a task is done, and where its result is asked for nobody answers: distributed tells nobody."""
    with Scheduler(tmp_path) as cluster, Client(cluster.address, timeout=5) as client:

        async def fetch(*_, **__):
            cluster.scheduler.kill()
            while client.status == "running":
                await asyncio.sleep(0.01)
            raise CommClosedError("nobody answers")

        monkeypatch.setattr(client, "_gather", fetch)
        with pytest.raises(errors.ClusterError, match=r"lost \(its (scheduler|client) is"):
            run.call("one", int) if one == "a task" else run.run_blocks([delayed(int)(3)])


@pytest.mark.parametrize("one", ["blocks", "a task"])
def test_all_workers_killed_and_none_comes(tmp_path, one):
    """Fault 1: the scheduler lives, and would keep the tasks for ever; it is said after the time given."""
    with Scheduler(tmp_path) as cluster, Client(cluster.address, timeout=5) as client:
        client.wait_for_workers(2)
        begun = tmp_path / "begun"

        def kill():
            wait_until(begun.exists)
            for worker in cluster.workers:
                worker.kill()

        with (
            meanwhile(kill),
            dask.config.set({"dasklmm.worker-timeout": "500ms"}),
            pytest.raises(errors.ClusterError, match=r"has no workers, and none came in 0.5 s"),
        ):
            run.call("one", touch, begun) if one == "a task" else run.run_blocks([delayed(touch)(begun)])


def touch(path):
    path.touch()
    time.sleep(60)


def test_client_killed(cohort, wanted, tmp_path):
    """Fault 3: SIGKILL of the client at random moments of one run, then resume."""
    store = tmp_path / "r.zarr"
    chance = random.Random(11)
    for moment in sorted(chance.sample(range(1, 31), 4)):
        client = start_client(cohort, store)
        wait_until(lambda m=moment: len(records_of(store)) >= m, every=0.0005)
        time.sleep(0.02 * chance.random())
        end(client)
        assert client.returncode == -signal.SIGKILL
        assert not store.exists()
    grams, tests = (len(records_of(store, stage)) for stage in ("gram/0", "test"))
    resumed = answer(start_client(cohort, store))
    assert resumed["kinship"] == {"kept": grams, "computed": 3 - grams}
    assert resumed["test"] == {"kept": tests, "computed": 21 - tests}
    assert tests > 0
    assert contents(store) == wanted
    no_litter(tmp_path)


def test_client_of_a_cluster_killed(cohort, wanted, cluster, tmp_path):
    """Fault 3: SIGKILL of the client while workers work on; the next one resumes on the same cluster."""
    store = tmp_path / "r.zarr"
    for record in ("gram/0", "test/00001"):
        client = start_client(cohort, store, cluster.scheduler_address, delay=0.03)
        wait_until(lambda record=record: records_of(store, record))
        end(client)
        assert not store.exists()
    resumed = answer(start_client(cohort, store, cluster.scheduler_address))
    assert resumed["kinship"]["kept"] == 3
    assert resumed["test"]["kept"] >= 7
    assert contents(store) == wanted


def test_client_killed_while_it_publishes(cohort, wanted, tmp_path):
    """Fault 3: SIGKILL while the results are written beside their place: nothing false is published."""
    store = tmp_path / "r.zarr"
    client = start_client(cohort, store, delay=0.0)
    wait_until(lambda: any((p / "zarr.json").exists() for p in tmp_path.glob("r.zarr.*.partial")), every=0.0)
    os.kill(client.pid, signal.SIGKILL)
    end(client)
    if store.exists():  # it was whole by then
        assert contents(store) == wanted
        open_results(store)
    else:
        with pytest.raises(errors.StoreError, match="no complete results"):
            open_results(store)
    cohort.scan(store)
    assert contents(store) == wanted
    no_litter(tmp_path)


def test_client_killed_after_it_published(cohort, wanted, tmp_path):
    """Fault 3: work that outlived its results is removed, and they are opened."""
    store = tmp_path / "r.zarr"
    cohort.scan(store)
    (tmp_path / "r.zarr.work" / "test").mkdir(parents=True)
    (tmp_path / "r.zarr.work" / "test" / "00000").write_bytes(b"x")
    cohort.scan(store)
    assert contents(store) == wanted
    no_litter(tmp_path)
