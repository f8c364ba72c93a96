"""The examples of docs/cloud_batch.md run: on a real gateway, and on S3, also when they are interrupted."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm.store.genotypes import write_genotypes
from dasklmm.store.results import open_results

ROOT = Path(__file__).resolve().parents[1]


def tables(ds, folder):
    """Two tables, of one trait each, and one that cannot be analysed."""
    rng = np.random.default_rng(2)
    for name in ("height", "weight"):
        y = ds["phenotype"].values + rng.standard_normal(ds.sizes["sample"])
        table = pd.DataFrame({"sample_id": ds["sample_id"].values, name: y})
        table.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    (folder / "flat.tsv").write_text(
        "sample_id\tflat\n" + "".join(f"{name}\t1\n" for name in ds["sample_id"].values)
    )


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_index(monkeypatch):
    for name in example("s3_batch").INDEX:
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_s3_batch_of_several_tables(tmp_path, capsys, no_index):
    """Bad tables do not end the others, and all files of several phenotypes arrive; places may be local too."""
    ds = dasklmm.simulate(60, 60, n_contigs=2, seed=4)
    write_genotypes(ds, tmp_path / "g.zarr")
    tables(ds, tmp_path)
    both = pd.read_csv(tmp_path / "height.tsv", sep="\t").assign(weight=np.arange(60) % 7)
    both.to_csv(tmp_path / "height.v2.tsv", sep="\t", index=False)
    asked = [str(tmp_path / f"{name}.tsv") for name in ("flat", "none", "height.v2", "height")]
    out = tmp_path / "out"
    done = example("s3_batch").main(
        ["--workers", "1", "--genotypes", str(tmp_path / "g.zarr"), "--results", str(out), *asked]
    )
    said = capsys.readouterr().out
    assert done == 1, said
    assert "flat: failed: phenotype 'flat' is constant" in said
    assert "none: failed: " in said
    files = {str(p.relative_to(out)) for p in out.rglob("*") if "results.zarr" not in str(p) and p.is_file()}
    own = ("results.tsv.gz", "manhattan.png", "qq.png", "report.html")
    assert files == {
        *(f"height/{name}" for name in (*own, "run.json")),
        *(f"height.v2/{place}/{name}" for name in own for place in ("height", "weight")),
        "height.v2/run.json",
        "height.v2/phenotypes.tsv",
    }
    assert open_results(out / "height.v2" / "results.zarr").sizes["phenotype"] == 2


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["a/height.tsv", "b/height.tsv.gz"], {}, "several tables are named height"),
        (["a.tsv", "b.tsv"], {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_ID is 1: give --parts"),
        (
            ["a.tsv", "b.tsv", "--parts", "2"],
            {"SLURM_ARRAY_TASK_ID": "2"},
            "part 2 of 2: parts are counted",
        ),
        (["a.tsv", "--part", "-1"], {}, "part -1 of 1"),
    ],
)
def test_s3_batch_loses_no_table(arguments, environment, said, monkeypatch, capsys, no_index):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        example("s3_batch").main([*arguments, "--genotypes", "g", "--results", "r"])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_tables_of_a_share():
    module = example("s3_batch")
    names = ["a/height.v1.tsv", "height.v2.tsv", "s3://b/x.tsv.gz", "y"]
    assert list(map(module.name_of, names)) == ["height.v1", "height.v2", "x", "y"]
    taken = []
    for k in range(3):
        asked = argparse.Namespace(phenotypes=names, part=k, parts=3)
        taken += module.share(asked, argparse.ArgumentParser())
    assert sorted(taken) == sorted(names)


def test_gateway_batch_refuses_tables_of_one_name(capsys):
    given = [
        "a/height.tsv",
        "b/height.tsv",
        "--gateway",
        "http://127.0.0.1:1",
        "--genotypes",
        "g",
        "--results",
        "r",
    ]
    with pytest.raises(SystemExit) as stopped:
        example("gateway_batch").main([*given, "--gateway", "http://127.0.0.1:1"])
    assert stopped.value.code == 2
    assert "several tables are named height" in capsys.readouterr().err


def test_gateway_batch_goes_on_after_a_table_whose_files_cannot_be_written(tmp_path, monkeypatch):
    ds = dasklmm.simulate(40, 40, n_contigs=2, seed=4)
    write_genotypes(ds, tmp_path / "g.zarr")
    tables(ds, tmp_path)
    module, out = example("gateway_batch"), tmp_path / "out"

    def write(results, folder):
        if folder.name == "height":
            raise OSError(28, "No space left on device")
        folder.mkdir(parents=True)

    monkeypatch.setattr(module, "write_outputs", write)
    options = argparse.Namespace(genotypes=str(tmp_path / "g.zarr"), results=str(tmp_path), out=out)
    done = {}
    asked = [tmp_path / f"{name}.tsv" for name in ("height", "none", "weight")]
    module.scan_all(asked, options, done)
    assert [told.startswith("failed: ") for told in done.values()] == [True, True, False]


# What a test adds to the gateway of the page: ports and folders of its own.
LOOPBACK = """
c.DaskGateway.address = "127.0.0.1:{api}"
c.Proxy.address = "127.0.0.1:{public}"
c.UnsafeLocalBackend.clusters_directory = {clusters!r}
c.UnsafeLocalBackend.inherited_environment = ["PATH", "PYTHONPATH", "{mark}"]
c.SimpleAuthenticator.password = {password!r}
"""


@pytest.mark.slow
def test_the_first_command_of_the_page_runs_on_its_gateway(tmp_path):
    """As it stands there, but for the paths; --out is relative, and the workers were started elsewhere."""
    pytest.importorskip("dask_gateway_server", reason="dask-gateway-server is not installed")
    from gateway_server import gateway_server

    write_genotypes(ds := dasklmm.simulate(80, 300, n_contigs=2, seed=4), tmp_path / "cohort.zarr")
    tables(ds, tmp_path)
    page = (ROOT / "docs" / "cloud_batch.md").read_text(encoding="utf-8")
    command = re.search(r"^dasklmm gwas .*?[^\\]$", page, flags=re.M | re.S)[0].replace("\\\n", " ").split()
    assert command[2].startswith("cohort")
    config = (ROOT / "examples" / "dask_gateway_config.py").read_text(encoding="utf-8")
    config = config.replace("{", "{{").replace("}", "}}")
    (tmp_path / "server").mkdir()
    with gateway_server(tmp_path / "server", config + LOOPBACK) as server:
        given = ["cohort.zarr" if w.startswith("cohort") else w for w in command[1:]]
        given[given.index("--pheno") + 1] = "height.tsv"
        given[given.index("--gateway") + 1] = server.address
        done = subprocess.run(
            [sys.executable, "-m", "dasklmm.cli", *given],
            cwd=tmp_path, capture_output=True, text=True, check=False, env=server.environment(),
        )  # fmt: skip
        server.nothing_left()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "workers run without" not in done.stderr
    assert (tmp_path / given[given.index("--out") + 1] / "results.zarr").is_dir()


@pytest.mark.slow
def test_gateway_batch(tmp_path):
    """Two tables on one cluster; a third that is constant is told, and does not end them."""
    pytest.importorskip("dask_gateway_server", reason="dask-gateway-server is not installed")
    from gateway_server import gateway_server

    ds = dasklmm.simulate(80, 300, n_contigs=2, seed=4)
    write_genotypes(ds, tmp_path / "genotypes.zarr")
    tables(ds, tmp_path)
    (tmp_path / "server").mkdir()
    with gateway_server(tmp_path / "server") as server:
        done = subprocess.run(
            [
                sys.executable, "-W", "error", ROOT / "examples" / "gateway_batch.py", "--gateway", server.address,
                "--workers", "1", "--option", "worker_cores=1", "--genotypes", tmp_path / "genotypes.zarr",
                "--results", tmp_path, "--out", tmp_path / "out",
                *(tmp_path / f"{name}.tsv" for name in ("height", "flat", "weight")),
            ],
            capture_output=True, text=True, check=False, env=server.environment(),
        )  # fmt: skip
        server.nothing_left()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "flat: failed: " in done.stdout
    assert done.stdout.count("the gateway makes the cluster") == 1
    for name in ("height", "weight"):
        assert (tmp_path / "out" / name / "report.html").exists()
        got = open_results(tmp_path / f"{name}.zarr")
        want = dasklmm.gwas(tmp_path / "genotypes.zarr", tmp_path / f"{name}.tsv")
        np.testing.assert_allclose(got["neg_log10_p_value"], want["neg_log10_p_value"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_gateway_batch_goes_on_with_another_cluster_where_one_is_lost(tmp_path):
    """The scheduler is killed once a scan of many blocks has some done: another cluster keeps them."""
    pytest.importorskip("dask_gateway_server", reason="dask-gateway-server is not installed")
    from gateway_server import gateway_server

    ds = dasklmm.simulate(300, 40_000, n_contigs=20, seed=4)
    write_genotypes(ds, tmp_path / "genotypes.zarr")
    tables(ds, tmp_path)
    (tmp_path / "server").mkdir()
    store = tmp_path / "height.zarr"
    with gateway_server(tmp_path / "server") as server:
        process = subprocess.Popen(
            [
                sys.executable, "-W", "error", ROOT / "examples" / "gateway_batch.py", "--gateway", server.address,
                "--workers", "1", "--option", "worker_cores=1", "--genotypes", tmp_path / "genotypes.zarr",
                "--results", tmp_path, "--out", tmp_path / "out", tmp_path / "height.tsv",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=server.environment(),
        )  # fmt: skip
        try:
            while not list(tmp_path.glob("height.zarr.work/test/00002/*")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            (scheduler,) = [one for one in server.alive() if "scheduler" in " ".join(one.cmdline())]
            scheduler.kill()
            out, err = process.communicate(timeout=240)
        finally:
            process.kill()
        server.nothing_left()
    assert process.returncode == 0, out + err
    assert "cluster 1 of at most 3: " in out
    assert out.count("the gateway makes the cluster") == 2
    kept, computed = map(int, re.search(r"\((\d+) blocks kept, (\d+) computed\)", out).groups())
    assert kept >= 2
    assert computed >= 1
    want = dasklmm.gwas(tmp_path / "genotypes.zarr", tmp_path / "height.tsv")
    got = open_results(store)
    np.testing.assert_allclose(got["neg_log10_p_value"], want["neg_log10_p_value"], rtol=1e-3, atol=1e-4)


@pytest.fixture
def s3(tmp_path):
    """Environment in which s3:// is moto's server on loopback, and a file system for this process."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-c", f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.1)
        fs = fsspec.filesystem(
            "s3", endpoint_url=url, key="test", secret="test", skip_instance_cache=True, use_listings_cache=False
        )  # fmt: skip
        fs.mkdir("cohorts")
        environment = {
            **os.environ,
            "FSSPEC_S3_ENDPOINT_URL": url,
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield fs, environment
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.mark.slow
def test_s3_batch_interrupted_and_taken_up_elsewhere(s3, tmp_path):
    fs, environment = s3
    ds = dasklmm.simulate(600, 400, n_contigs=8, seed=4)
    write_genotypes(ds, tmp_path / "genotypes.zarr")
    tables(ds, tmp_path)
    fs.put(str(tmp_path / "genotypes.zarr"), "cohorts/genotypes.zarr", recursive=True)
    for name in ("height", "weight"):
        fs.put_file(str(tmp_path / f"{name}.tsv"), f"cohorts/traits/{name}.tsv")
    command = [
        sys.executable, "-W", "error", ROOT / "examples" / "s3_batch.py", "--workers", "1",
        "--genotypes", "s3://cohorts/genotypes.zarr", "--results", "s3://cohorts/results",
        "s3://cohorts/traits/weight.tsv", "s3://cohorts/traits/height.tsv", "--parts", "2",
    ]  # fmt: skip
    environment["AWS_BATCH_JOB_ARRAY_INDEX"] = "1"  # height's
    first = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        for line in first.stdout:
            if "null model 1/8" in line:
                break
        first.send_signal(signal.SIGTERM)
        _, err = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 143, err
    assert not fs.exists("cohorts/results/height/results.zarr/_SUCCESS")
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "height: kinship kept 8, computed 0" in again.stdout
    assert "weight" not in again.stdout
    kept = int(re.search(r"height: null model kept (\d+)", again.stdout)[1])
    assert 1 <= kept < 8
    left = {Path(p).name for p in fs.ls("cohorts/results/height", detail=False)}
    assert {"results.zarr", "results.tsv.gz", "manhattan.png", "qq.png", "report.html", "run.json"} <= left
    fs.get_file("cohorts/results/height/results.tsv.gz", str(tmp_path / "results.tsv.gz"))
    table = pd.read_csv(tmp_path / "results.tsv.gz", sep="\t", na_values="#NA")
    want = dasklmm.gwas(tmp_path / "genotypes.zarr", tmp_path / "height.tsv")
    np.testing.assert_allclose(table["beta"], want["beta"], rtol=1e-4, atol=1e-6)
