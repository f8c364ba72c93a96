"""The same numbers on a cluster of processes as in this one."""

from __future__ import annotations

import os
import signal
import time

import dask
import numpy as np
import pandas as pd
import pytest
from bed_reader import to_bed
from distributed import get_task_stream

import dasklmm
from dasklmm import LinearMixedModel, errors
from dasklmm.cluster import WORKER_ENVIRONMENT


@pytest.fixture(scope="module")
def client():
    with dasklmm.local_cluster(n_workers=2, memory_limit="1GB") as cluster, cluster.get_client() as client:
        yield client


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A cohort on disk as PLINK 1, so that workers read it themselves."""
    ds = dasklmm.simulate(80, 300, n_contigs=2, seed=4)
    path = tmp_path_factory.mktemp("cohort") / "c.bed"
    calls = ds["dosage"].values.T.copy()
    calls[calls < 0] = -127
    properties = {
        "iid": ds["sample_id"].values,
        "chromosome": ds["variant_contig"].values,
        "sid": ds["variant_id"].values,
        "bp_position": ds["variant_position"].values,
    }
    to_bed(path, calls, properties=properties, num_threads=1)
    y = pd.DataFrame({"trait": ds["phenotype"].values}, index=ds["sample_id"].values)
    return path, y


def test_workers_have_their_environment(client):
    def environment():
        import os

        return {k: os.environ.get(k) for k in WORKER_ENVIRONMENT}

    assert all(seen == WORKER_ENVIRONMENT for seen in client.run(environment).values())


def test_a_worker_started_anew_keeps_its_settings():
    """A worker that its nanny restarts does not pause, as those of the start."""

    def settings(dask_worker):
        import os

        return os.getpid(), dask_worker.memory_manager.memory_pause_fraction

    with dasklmm.local_cluster(n_workers=1, memory_limit="1GB") as cluster, cluster.get_client() as client:
        [(first, pause)] = client.run(settings).values()
        os.kill(first, signal.SIGKILL)
        again = client.submit(os.getpid).result(timeout=60)
        [(second, pause_again)] = client.run(settings).values()
    assert again == second != first
    assert pause is False
    assert pause_again is False


@pytest.mark.parametrize("stored", [False, True])
def test_scan(client, cohort, tmp_path, stored):
    path, y = cohort
    genotypes = dasklmm.open_genotypes(path, chunks=64)
    seen = []
    got = dasklmm.gwas(
        genotypes, y, store=tmp_path / "r.zarr" if stored else None, progress=lambda *a: seen.append(a)
    )
    assert ("test", 6, 6) in seen
    with client.as_current():
        import dask

        with dask.config.set(scheduler="synchronous"):
            want = dasklmm.gwas(genotypes, y)
    for name in ("beta", "standard_error", "neg_log10_p_value"):
        np.testing.assert_array_equal(got[name], want[name])


def test_lazy_alternatives(client, problem, tmp_path):
    model, p = LinearMixedModel.from_kinship(problem.y, problem.x, problem.k, p_path=tmp_path / "p.zarr")
    model.fit()
    pa = (p @ problem.a).T.copy()
    want = model.fit_alternatives_numpy(pa.T)
    got = model.fit_alternatives(pa, partition_size=7).compute()
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-10)
    assert got["status"].values.tolist() == want["status"].tolist()
    rows = dasklmm.linear_mixed_regression_rows(problem.a.T, model, partition_size=7).compute()
    np.testing.assert_allclose(rows["p_value"], want["p_value"], rtol=1e-8)
    stored = dasklmm.project(tmp_path / "p.zarr", problem.a.T, partition_size=7).compute()
    np.testing.assert_allclose(stored, pa, atol=1e-12)


def test_a_heartbeat_that_meets_the_end_is_not_told(client):
    """It would show a traceback after a run that went well; whatever else a worker says is told."""

    def told():
        import io
        import logging

        text, logger = io.StringIO(), logging.getLogger("distributed.worker")
        handler = logging.StreamHandler(text)
        logger.addHandler(handler)
        logger.error("Failed to communicate with scheduler during heartbeat.")
        logger.error("another")
        logger.removeHandler(handler)
        return text.getvalue()

    assert set(client.run(told).values()) == {"another\n"}


def _fails(error):
    raise error


def test_an_error_is_said_once(client):
    """Where it is raised, which is in the process that asked; a worker's log tells of errors that are not ours."""

    def listen(dask_worker):
        import io
        import logging

        dask_worker.told = io.StringIO()
        logging.getLogger("distributed.worker").addHandler(logging.StreamHandler(dask_worker.told))

    client.run(listen)
    for error in (
        errors.StoreError("the disk's full"),
        errors.StoreError('a "place"'),
        ValueError("unknown"),
    ):
        with pytest.raises(type(error)):
            client.submit(_fails, error, pure=False).result()
    told = "".join(client.run(lambda dask_worker: dask_worker.told.getvalue()).values())
    assert told.count("Compute Failed") == 1
    assert "unknown" in told


def test_kinship(client, cohort):
    genotypes = dasklmm.open_genotypes(cohort[0], chunks=64)
    got = dasklmm.kinship(genotypes).compute()
    want = dasklmm.kinship(genotypes).compute(scheduler="synchronous")
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("samples", [None, np.arange(1, 70)])
def test_lanes_of_a_sum_are_on_different_workers(client, cohort, samples):
    """They would all stay where they begin, and begin where the first operand is."""
    from dasklmm.lazy import run
    from dasklmm.lazy.kinship import gram_matrices

    dosage = dasklmm.open_genotypes(cohort[0], chunks=16)["dosage"].data
    with get_task_stream() as stream:
        run.run_blocks([gram_matrices(dosage, "rrm", samples=[samples])])
    workers = {task["worker"] for task in stream.data if str(task["key"]).startswith("kinship")}
    assert len(workers) == 2


class Questioned:
    """What a watcher asks of a client: the answers that follow each other, the last for ever."""

    def __init__(self, *answers):
        self.answers, self.status, self.cancelled = list(answers), "running", False

    def nthreads(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, futures):
        self.cancelled = True


@pytest.mark.parametrize(
    ("answers", "given_up"),
    [
        ([OSError("no answer"), {}], True),  # one question that fails does not end the watch
        ([{}, {}, {"a worker": 1}], False),
        ([{"a worker": 1}], False),
    ],
)
def test_the_absence_of_workers_is_watched(answers, given_up):
    from dasklmm.lazy import run

    client = Questioned(*answers)
    with dask.config.set({"dasklmm.worker-timeout": "800ms"}), run._workers_watched(client, []):
        time.sleep(2.0)
    assert client.cancelled == given_up


def test_progress_of_sums(client, cohort, tmp_path):
    """Workers tell of each block of a sum, which is one value of many."""
    seen = []
    genotypes = dasklmm.open_genotypes(cohort[0], chunks=16)
    dasklmm.kinship(genotypes, store=tmp_path / "k.zarr", progress=lambda *said: seen.append(said))
    assert seen[-1] == ("kinship", 19, 19)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert len(seen) > 5  # words of a worker may come after the end


def test_a_closed_client_is_said():
    """One that gave up on its scheduler, and is still the current one."""
    ds = dasklmm.simulate(40, 60, n_contigs=2, seed=1)
    with dasklmm.local_cluster(n_workers=1) as cluster:
        client = cluster.get_client()
        client.close()
    with client.as_current(), pytest.raises(errors.ClusterError, match="its client is closed"):
        dasklmm.gwas(ds, ds["phenotype"].rename("trait"), loco=False)
