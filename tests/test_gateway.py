"""Scans on clusters of a real dask-gateway server, which end with the run however it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dasklmm
from dasklmm import cli, cluster_options
from dasklmm.errors import ClusterError, OptionError, StoreError
from dasklmm.store.results import open_results

pytest.importorskip("dask_gateway", reason="dask-gateway is not installed: pip install 'dasklmm[gateway]'")
pytest.importorskip(
    "dask_gateway_server", reason="dask-gateway-server is not installed (its wheel is for Linux on x86-64)"
)

from bokeh.client import pull_session
from gateway_server import PASSWORD, gateway_server

from dasklmm.gateway import ENVIRONMENT, gateway_client
from dasklmm.live import page_url
from dasklmm.preflight import check_paths


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with gateway_server(tmp_path_factory.mktemp("gateway")) as server:
        yield server
        assert server.processes() == []


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write(dasklmm.simulate(100, 600, n_contigs=2, seed=8), tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A cohort whose six decompositions last long enough to be hit."""
    folder = tmp_path_factory.mktemp("long")
    return write(dasklmm.simulate(500, 600, n_contigs=6, seed=9), folder)


def write(ds, folder):
    from dasklmm.store.genotypes import write_genotypes

    write_genotypes(ds, folder / "genotypes.zarr")
    table = pd.DataFrame({"sample_id": ds["sample_id"].values, "trait": ds["phenotype"].values})
    table.to_csv(folder / "traits.tsv", sep="\t", index=False)
    return folder


def command(server, genotypes, out, *more):
    return [
        sys.executable, "-W", "error", "-m", "dasklmm.cli", "gwas", str(genotypes), "--pheno",
        str(Path(genotypes).parent / "traits.tsv"), "--out", str(out), "--gateway", server.address,
        *map(str, more),
    ]  # fmt: skip


def run(server, *arguments, expect=0, cwd=None, **environment):
    done = subprocess.run(
        command(server, *arguments),
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=server.environment(**environment),
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.slow
def test_a_scan_has_the_numbers_of_threads_and_leaves_nothing(server, cohort, tmp_path):
    done = run(server, cohort / "genotypes.zarr", tmp_path / "g", "--workers", 2, "--precision", "double")
    assert "the gateway makes the cluster" in done.stderr
    assert "waiting for workers: 0 of 2" in done.stderr
    assert "2 workers" in done.stderr
    assert "workers run without" not in done.stderr
    assert f"the scan, live: {server.address}/clusters/" in done.stderr
    server.nothing_left()
    got = open_results(tmp_path / "g" / "results.zarr")
    want = dasklmm.gwas(cohort / "genotypes.zarr", cohort / "traits.tsv", precision="double")
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-9)
    assert (got["status"] == want["status"]).all()


@pytest.mark.slow
def test_a_task_that_fails_on_a_gateway_says_why_as_here_and_leaves_nothing(server, cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "c")
    chunk = sorted((tmp_path / "c" / "genotypes.zarr" / "dosage" / "c").rglob("0"))[-1]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    done = run(server, tmp_path / "c" / "genotypes.zarr", tmp_path / "g", "--workers", 1, expect=1)
    with pytest.raises(StoreError) as here:
        dasklmm.gwas(tmp_path / "c" / "genotypes.zarr", tmp_path / "c" / "traits.tsv")
    # which rows a block has follows from the memory there
    assert re.sub(r"rows \d+ to \d+", "rows", str(here.value)) in re.sub(
        r"rows \d+ to \d+", "rows", done.stderr
    )
    assert not (tmp_path / "g" / "results.zarr").exists()
    server.nothing_left()


def test_adaptive_options_environment_paths_and_encryption(server, cohort, tmp_path, monkeypatch):
    """What one cluster shows: bounds, options of every type, settings of workers, TLS, and paths."""
    told = []
    with (
        dask.config.set(server.configuration()),
        gateway_client(
            server.address,
            adapt=(1, 2),
            options={"worker_cores": "2", "environment": "{OWN: kept, OMP_NUM_THREADS: 2}"},
            tell=told.append,
        ) as client,
    ):
        assert any("waiting for workers: 0 of 1" in line for line in told)
        assert list(client.nthreads().values()) == [2]
        [seen] = client.run(lambda: dict(os.environ)).values()
        assert seen["OWN"] == "kept"
        assert {k: seen[k] for k in ENVIRONMENT} == {**ENVIRONMENT, "OMP_NUM_THREADS": "2"}
        assert "workers run without OMP_NUM_THREADS=1, which costs time" in " ".join(told)
        [pause] = client.run(lambda dask_worker: dask_worker.memory_manager.memory_pause_fraction).values()
        assert pause is False
        assert client.security.get_connection_args("client")["require_encryption"] is True
        assert all(address.startswith("tls://") for address in client.nthreads())

        genotypes = str(cohort / "genotypes.zarr")
        check_paths(client, [genotypes, str(cohort / "traits.tsv")], [str(tmp_path / "results.zarr")])
        assert list(tmp_path.iterdir()) == []
        # of each process its own: a folder here, and another on the worker
        (tmp_path / "genotypes.zarr").mkdir()
        (tmp_path / ".certs").mkdir()
        (tmp_path / ".certs" / "dask.crt").write_text("three")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            ClusterError, match=r"1 of 1 workers do not see '/proc/self/cwd.*nothing is there"
        ):
            check_paths(client, ["/proc/self/cwd/genotypes.zarr"])
        with pytest.raises(ClusterError, match="bytes, where this process sees 5"):
            check_paths(client, ["/proc/self/cwd/.certs/dask.crt"])
        with pytest.raises(StoreError, match="what it writes is not there for this process"):
            check_paths(client, write=["/proc/self/cwd/results.zarr"])
        (tmp_path / "only").mkdir()
        with pytest.raises(StoreError, match=r"results\.zarr' .*the folder is not there"):
            check_paths(client, write=["/proc/self/cwd/only/results.zarr"])
        check_paths(client, write=[str(tmp_path / "none" / "results.zarr")])
        assert not (tmp_path / "none").exists()

        # the live page, and its WebSocket, through the gateway's proxy
        url = page_url(client)
        assert url is not None
        assert url.startswith(f"{server.address}/clusters/")
        session = pull_session(url=url)
        try:
            assert session.document.roots
        finally:
            session.close()
    server.nothing_left()


def test_genotypes_that_workers_do_not_see_are_refused_before_any_task(server, cohort, tmp_path):
    done = run(
        server, "/proc/self/cwd/genotypes.zarr", tmp_path / "g", "--adapt", "1:1",
        "--pheno", cohort / "traits.tsv", expect=1, cwd=cohort,
    )  # fmt: skip
    assert "1 of 1 workers do not see '/proc/self/cwd/genotypes.zarr'" in done.stderr
    assert "kinship" not in done.stderr
    server.nothing_left()


@pytest.mark.parametrize(
    ("number", "when", "code"),
    [
        pytest.param(signal.SIGINT, "null model: started", 130, marks=pytest.mark.slow),
        (signal.SIGTERM, "waiting for workers", 128 + signal.SIGTERM),
        (signal.SIGINT, "the gateway makes the cluster", 130),
    ],
)
def test_an_interrupted_scan_leaves_no_cluster(server, long, tmp_path, number, when, code):
    process = subprocess.Popen(
        command(server, long / "genotypes.zarr", tmp_path / "g", "--workers", 1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=server.environment(),
        # a shell that runs the tests in the background has them, and their children, ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in process.stderr:
            if when in line:
                break
        assert len(server.clusters()) == 1
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, out + err
    assert "Traceback" not in err, err
    server.nothing_left()
    if when == "null model: started":
        assert "interrupted; the same command goes on from here" in err
        results = dasklmm.gwas(
            long / "genotypes.zarr", long / "traits.tsv", store=tmp_path / "g" / "results.zarr"
        )
        assert results.attrs["resumed"]["kinship"] == {"kept": 6, "computed": 0}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cores": "2"}, OptionError, "no option 'cores'. It offers, with defaults: worker_cores=1"),
        ({"worker_cores": "5"}, OptionError, "'worker_cores' is not 5: worker_cores must be <= 2"),
        ({"scheduler": "false"}, ClusterError, 'scheduler_cmd = ["dask", "scheduler"]'),
        # on a busy machine the scheduler is not there by then either
        ({"worker": "never"}, ClusterError, "Where nodes are slow to come, give"),
        ({"worker": "fails"}, ClusterError, "while its workers started. A worker's command fails at once"),
        ({"n_workers": 4}, OptionError, "Scale request of 4 workers would exceed resource limit of 3"),
    ],
)
def test_refusals_teach_and_leave_no_cluster(server, options, error, message):
    n_workers = options.pop("n_workers", 1)
    with (
        dask.config.set(server.configuration()),
        pytest.raises(error, match=re.escape(message)),
        gateway_client(server.address, n_workers=n_workers, options=options, timeout=3),
    ):
        raise AssertionError
    server.nothing_left()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gateway", "g", "--workers", "1", "--gateway-option", "cores"], "--gateway-option is KEY=VALUE"),
        (["--gateway", "g", "--workers", "1", "--adapt", "1:2"], "give --workers N or --adapt MIN:MAX"),
        (["--gateway", "g"], "give --workers N or --adapt MIN:MAX"),
        (["--gateway", "g", "--scheduler", "s"], "give --gateway or --scheduler, not both"),
        (["--adapt", "1:2"], "are for --gateway"),
        (["--gateway", "g", "--adapt", "2"], "is not MIN:MAX"),
        (["--gateway", "g", "--adapt", "0:2"], "MIN is 1 or more"),
    ],
)
def test_options_that_do_not_go_together(cohort, tmp_path, more, message):
    arguments = [cohort / "genotypes.zarr", "--pheno", cohort / "traits.tsv", "--out", tmp_path / "o", *more]
    done = CliRunner().invoke(cli.main, ["gwas", *map(str, arguments)])
    assert done.exit_code == 2
    assert message in done.output


def test_who_is_not_known_is_told_where_to_say_it(server):
    wrong = {
        **server.configuration(),
        "gateway.auth.kwargs": {"username": "ada", "password": f"not {PASSWORD}"},
    }
    with (
        dask.config.set(wrong),
        pytest.raises(ClusterError, match=r"refuses this user \(401\)(.|\n)*gateway.auth.kwargs"),
        gateway_client(server.address, n_workers=1),
    ):
        raise AssertionError


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:1", "no gateway answers at 'http://127.0.0.1:1'"),
        ("gateway", "'gateway' is no address of a gateway: it has the form http://host:port"),
    ],
)
def test_a_gateway_that_is_not_there(server, address, message):
    with (
        dask.config.set(server.configuration()),
        pytest.raises(ClusterError, match=message),
        gateway_client(address, n_workers=1),
    ):
        raise AssertionError


@pytest.mark.parametrize(
    "options",
    [{"cores": "2", "environment": "{A: hidden}"}, {"environment": "[hidden"}, {"environment": "hidden"}],
)
def test_values_of_the_environment_are_not_shown(server, options):
    """Neither the configuration's, nor the option's."""
    mine = {**server.configuration(), "gateway.cluster.options": {"environment": {"KEY": "hidden"}}}
    with (
        dask.config.set(mine),
        pytest.raises(OptionError) as raised,
        gateway_client(server.address, n_workers=1, options=options),
    ):
        raise AssertionError
    assert "hidden" not in str(raised.value)


def test_values_of_options_are_not_in_a_report():
    given = ("environment={KEY: hidden}", "worker_cores=1")
    arguments = ["gwas", "--gateway-option", given[0], f"--gateway_option={given[1]}", "--quiet"]
    assert cluster_options.Cluster(gateway_option=given).shown(arguments) == [
        "gwas", "--gateway-option", "environment=…", "--gateway_option=worker_cores=…", "--quiet",
    ]  # fmt: skip


def test_an_address_with_a_password_is_refused_and_not_shown():
    with (
        pytest.raises(OptionError, match="holds a name or password") as raised,
        gateway_client("http://ada:hidden@127.0.0.1:1", n_workers=1),
    ):
        raise AssertionError
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    "numbers", [{}, {"n_workers": 0}, {"n_workers": 1, "adapt": (1, 2)}, {"adapt": (0, 2)}, {"adapt": (3, 2)}]
)
def test_numbers_of_workers_are_checked_before_the_gateway_is_asked(numbers):
    with pytest.raises(OptionError), gateway_client("http://127.0.0.1:1", **numbers):
        raise AssertionError


def test_other_versions_are_named(server, tmp_path):
    """Scheduler and worker run where the metadata of another dask comes first on the path."""
    folder = tmp_path / "dask-2025.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: dask\nVersion: 2025.1.0\n")
    told = f"dask is {dask.__version__} here, 2025.1.0 on the scheduler and 2025.1.0 on 1 of 1 workers"
    with (
        dask.config.set(server.configuration()),
        pytest.raises(ClusterError, match=re.escape(told)),
        gateway_client(server.address, n_workers=1, options={"environment": {"PYTHONPATH": str(tmp_path)}}),
    ):
        raise AssertionError
    server.nothing_left()


def test_without_the_package_the_command_names_the_extra(cohort, tmp_path):
    (tmp_path / "dask_gateway.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [
            sys.executable, "-m", "dasklmm.cli", "gwas", str(cohort / "genotypes.zarr"), "--workers", "1",
            "--pheno", str(cohort / "traits.tsv"), "--out", str(tmp_path / "g"), "--gateway", "http://127.0.0.1:1",
        ],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'dasklmm[gateway]'" in done.stderr
