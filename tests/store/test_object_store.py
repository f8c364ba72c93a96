"""Every path may be a URL: genotypes, P, PA, decompositions and results on an S3 server on loopback."""

from __future__ import annotations

import gzip
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm import errors
from dasklmm.store import places, records
from dasklmm.store.genotypes import write_genotypes
from dasklmm.store.results import open_results


@pytest.fixture(scope="module")
def bucket():
    """A bucket of moto's S3 server, a real process that speaks the protocol."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    patch = pytest.MonkeyPatch()
    for name, value in {
        "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://127.0.0.1:{port}"})
    try:
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.1)
        fs = fsspec.filesystem("s3")
        fs.mkdir("cohorts")
        yield "s3://cohorts"
    finally:
        patch.undo()
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture(scope="module")
def cohort(bucket):
    ds = dasklmm.simulate(100, 600, n_contigs=3, seed=6)
    write_genotypes(ds, f"{bucket}/genotypes.zarr")
    y = pd.DataFrame({"trait": ds["phenotype"].values}, index=ds["sample_id"].values)
    return ds, dasklmm.open_genotypes(f"{bucket}/genotypes.zarr", chunks=64), y


def test_genotypes(cohort):
    made, opened, _ = cohort
    np.testing.assert_array_equal(opened["dosage"].values, made["dosage"].values)


def test_scan_interrupted_and_resumed(cohort, bucket):
    made, opened, y = cohort
    store = f"{bucket}/results.zarr"
    want = dasklmm.gwas(made.assign(dosage=made["dosage"].chunk({"variant": 64})), y, precision="double")

    class Stop(Exception):
        pass

    def stop(stage, done, total):
        if stage == "test" and done == total // 2:
            raise Stop

    with pytest.raises(Stop):
        dasklmm.gwas(opened, y, store=store, precision="double", progress=stop)
    with pytest.raises(errors.StoreError, match="no complete results"):
        open_results(store)
    with pytest.raises(errors.StoreError, match="unfinished work of another run, which differs in: test"):
        dasklmm.gwas(opened, y, store=store, precision="double", test="wald")
    got = dasklmm.gwas(opened, y, store=store, precision="double")
    resumed = got.attrs["resumed"]
    assert resumed["kinship"] == {"kept": 3, "computed": 0}
    assert resumed["test"]["kept"] > 0
    assert resumed["test"]["computed"] > 0
    again = open_results(store)
    for name in ("beta", "neg_log10_p_value"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-9)
        np.testing.assert_array_equal(again[name], got[name])
    assert not fsspec.filesystem("s3").exists(f"{store}.work")


def test_a_second_run_is_refused_while_the_first_lives(cohort, bucket):
    _, opened, y = cohort
    store = f"{bucket}/second.zarr"
    seen = []

    def second(stage, done, total):
        if not seen:
            seen.append(stage)
            with pytest.raises(errors.StoreError, match="another run is writing"):
                dasklmm.gwas(opened, y, store=store)

    dasklmm.gwas(opened, y, store=store, progress=second)
    assert seen == ["kinship"]


def test_model_with_p_and_pa(cohort, bucket):
    _, opened, y = cohort
    model, _ = dasklmm.linear_mixed_model(y["trait"], np.ones((100, 1)), z=opened, p_path=f"{bucket}/p.zarr")
    model.fit()
    lazy = dasklmm.linear_mixed_regression_rows(opened, model, pa_path=f"{bucket}/pa.zarr")
    pa = dasklmm.project(f"{bucket}/p.zarr", opened)
    want = model.fit_alternatives(pa).compute()
    np.testing.assert_allclose(lazy["beta"], want["beta"], rtol=1e-9)
    np.testing.assert_allclose(model.fit_alternatives(f"{bucket}/pa.zarr")["beta"], want["beta"], rtol=1e-9)
    with pytest.raises(errors.StoreError, match="exists already"):
        dasklmm.linear_mixed_regression_rows(
            opened.isel(variant=slice(50)), model, pa_path=f"{bucket}/pa.zarr"
        )
    again = dasklmm.linear_mixed_regression_rows(opened, model, pa_path=f"{bucket}/pa.zarr")
    np.testing.assert_array_equal(again["beta"], lazy["beta"])


def test_on_a_cluster_of_processes(cohort, bucket):
    _, opened, y = cohort
    want = dasklmm.gwas(opened, y, precision="double")
    with dasklmm.local_cluster(n_workers=2) as cluster, cluster.get_client():
        got = dasklmm.gwas(opened, y, store=f"{bucket}/cluster.zarr", precision="double")
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-9)


def test_kept_decomposition(cohort, bucket):
    _, opened, y = cohort
    store = f"{bucket}/pairs.zarr"
    made = dasklmm.eigendecompose(opened, rank=10, store=store)
    got = dasklmm.gwas(opened, y, kinship=store, loco=False)
    assert got.attrs["rank"] == 10
    np.testing.assert_array_equal(dasklmm.eigendecompose(opened, rank=10, store=store)["s"], made["s"])


def test_two_writers_at_the_same_moment(monkeypatch):
    """Both find no lease: one has it, the other is refused; one that was lost is not published under."""
    met, ended, found = threading.Barrier(2), threading.Barrier(2), []
    first, real = threading.local(), records.get

    def get(path):
        held = real(path)
        if not hasattr(first, "asked"):
            first.asked = True
            met.wait(10)
        return held

    def write():
        try:
            with records.one_writer("memory://two/r.work") as still_ours:
                still_ours()
                found.append("held")
                ended.wait(10)
        except errors.StoreError as error:
            found.append(str(error))
            ended.wait(10)

    monkeypatch.setattr(records, "get", get)
    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(f == "held" for f in found) == [False, True]
    assert any("began at the same moment" in f for f in found)

    first.asked = True
    with records.one_writer("memory://two/r.work") as still_ours:
        places.put("memory://two/r.work/lock", b'{"owner": "another", "time": 0}')
        with pytest.raises(errors.StoreError, match="took the lease over"):
            still_ours()


def test_tables_and_a_kinship(cohort, bucket):
    """Tables are read from a bucket, gzipped or not; a kinship is kept there and opened by the same call."""
    _, opened, y = cohort
    fs = fsspec.filesystem("s3")
    text = y.rename_axis("sample_id").to_csv(sep="\t").encode()
    fs.pipe_file("cohorts/traits.tsv", text)
    fs.pipe_file("cohorts/traits.tsv.gz", gzip.compress(text))
    for name in ("traits.tsv", "traits.tsv.gz"):
        pd.testing.assert_frame_equal(dasklmm.read_table(f"{bucket}/{name}"), y.rename_axis("sample_id"))
    with pytest.raises(errors.TableError, match=r"there is no table at 's3://cohorts/other\.tsv'"):
        dasklmm.read_table(f"{bucket}/other.tsv")
    made = dasklmm.kinship(opened, store=f"{bucket}/k.zarr")
    np.testing.assert_array_equal(made.values, dasklmm.kinship(opened).values)
    before = fs.modified("cohorts/k.zarr/kinship/c/0/0")
    np.testing.assert_array_equal(dasklmm.kinship(opened, store=f"{bucket}/k.zarr").values, made.values)
    assert fs.modified("cohorts/k.zarr/kinship/c/0/0") == before


ENTRANCES = {
    "genotypes": lambda ds, url: dasklmm.open_genotypes(url),
    "results": lambda ds, url: open_results(url),
    "table": lambda ds, url: dasklmm.read_table(url),
    "kinship": lambda ds, url: dasklmm.gwas(ds, ds["phenotype"].rename("t"), kinship=url, loco=False),
    "store": lambda ds, url: dasklmm.gwas(ds, ds["phenotype"].rename("t"), store=url),
    "write kinship": lambda ds, url: dasklmm.kinship(ds, store=url),
    "pairs": lambda ds, url: dasklmm.eigendecompose(ds, 5, store=url),
    "P": lambda ds, url: dasklmm.LinearMixedModel.from_kinship(
        ds["phenotype"].values, np.ones((100, 1)), np.eye(100), p_path=url
    ),
}


def test_without_credentials(bucket):
    """Said before any genotype is read, in one error that tells what to do; never botocore's own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") or k == "AWS_ENDPOINT_URL"}
    environment |= dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/nowhere")
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(  # a process of its own: a file system keeps the credentials that it was made with
        [sys.executable, "-c", "import test_object_store as here; here.try_entrances()"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = dict(line.split("\t") for line in done.stdout.splitlines())
    assert found.keys() == ENTRANCES.keys(), done.stderr
    for name, said in found.items():
        wanted = (
            rf"StoreError 's3://cohorts/{name}' cannot be reached \(NoCredentialsError.*AWS_ACCESS_KEY_ID"
        )
        assert re.match(wanted, said), said


def try_entrances():
    """Print what each entrance of a bucket raises."""
    ds = _unreadable(dasklmm.simulate(100, 600, n_contigs=3, seed=6))
    for name, enter in ENTRANCES.items():
        try:
            enter(ds, f"s3://cohorts/{name}")
        except Exception as error:  # noqa: BLE001
            print(name, f"{type(error).__name__} {error}", sep="\t")


@pytest.mark.parametrize("entrance", ["store", "write kinship", "pairs", "P"])
def test_without_a_bucket(cohort, bucket, entrance):
    """Said before any genotype is read."""
    with pytest.raises(
        errors.StoreError, match=r"'s3://nowhere/x' cannot be written: .*bucket does not exist"
    ):
        ENTRANCES[entrance](_unreadable(cohort[0]), "s3://nowhere/x")


def _unreadable(ds):
    """Genotypes of which no block may be read."""

    def read(block):
        raise AssertionError("a block was read")

    dosage = ds["dosage"].copy(data=ds["dosage"].data.map_blocks(read, dtype=ds["dosage"].dtype))
    return ds.assign(dosage=dosage)
