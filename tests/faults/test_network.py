"""Faults 18 and 19: an encrypted cluster, one without workers, and reads that fail for a moment."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster, Security
from fault_tools import FailingRows, contents, environment

import dasklmm
from dasklmm import cli, errors
from dasklmm.lazy import run
from dasklmm.lazy.budget import Room


def test_tls_cluster(cohort, wanted, tmp_path):
    """Fault 18: on a cluster with TLS the scan works, and a client without the certificate is refused."""
    security = Security.temporary()
    with (
        dasklmm.local_cluster(
            n_workers=2, memory_limit="1GB", security=security, protocol="tls://"
        ) as cluster,
        cluster.get_client(),
    ):
        assert cluster.scheduler_address.startswith("tls://127.0.0.1:")
        cohort.scan(tmp_path / "r.zarr")
        for address in (cluster.scheduler_address, cluster.scheduler_address.replace("tls", "tcp")):
            with pytest.raises((OSError, TypeError)):
                Client(address, timeout=2, set_as_default=False)
    assert contents(tmp_path / "r.zarr") == wanted


def test_tls_of_the_command(cohort, tmp_path):
    """With certificates in Dask's configuration it works; without, one line says what to set."""
    security = Security.temporary()
    (tmp_path / "ca.pem").write_text(security.tls_ca_file)
    (tmp_path / "key.pem").write_text(security.tls_client_key)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    files = {f"{tls}CA_FILE": "ca", f"{tls}CLIENT__CERT": "ca", f"{tls}CLIENT__KEY": "key"}
    files = {name: str(tmp_path / f"{file}.pem") for name, file in files.items()}
    with dasklmm.local_cluster(
        n_workers=1, memory_limit="1GB", security=security, protocol="tls://"
    ) as cluster:

        def kinship(given):
            command = [sys.executable, "-m", "dasklmm.cli", "kinship", str(cohort.folder / "g.zarr")]
            command += ["--out", str(tmp_path / "k.zarr"), "--scheduler", cluster.scheduler_address]
            return subprocess.run(command, env={**environment(), **given}, capture_output=True, text=True)

        refused, done = kinship({}), kinship(files)
    assert refused.returncode == 1
    assert refused.stderr.strip().count("\n") == 0
    assert f"{tls}CA_FILE, {tls}CLIENT__CERT and {tls}CLIENT__KEY" in refused.stderr
    assert done.returncode == 0, done.stderr


def test_scheduler_without_workers(cohort, tmp_path, caplog):
    """The command waits as long as it is told and says so; from Python, an adaptive cluster gets its worker."""
    options = {"threads_per_worker": 1, "memory_limit": "700MB", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=0, host="127.0.0.1", **options) as cluster, cluster.get_client() as client:
        for name in ("gwas", "kinship"):
            command = [name, str(cohort.folder / "g.zarr"), "--out", str(tmp_path / name)]
            command += ["--pheno", str(cohort.folder / "y.tsv")] if name == "gwas" else []
            command += ["--scheduler", cluster.scheduler_address, "--worker-timeout", "0.5"]
            done = CliRunner().invoke(cli.main, command)
            assert done.exit_code == 1
            assert done.stderr.startswith("waiting for workers: 0 of 1 after 0 s\nError: the scheduler at")
            assert "no workers, and none came in 0.5 s" in done.stderr
        with pytest.raises(errors.ClusterError, match="no workers"):
            run.need_workers(client, 0.5)
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        room = Room.of(client)  # not of this machine
        assert room.threads == 1
        assert room.limit <= 700e6
    assert "waiting for workers: 0 of 1" in caplog.text


def test_transient_read_errors(cohort, wanted, tmp_path, caplog):
    """Fault 19: every block cannot be read once; it is read again, and that is said."""
    (tmp_path / "failed").mkdir()
    cohort.scan(tmp_path / "r.zarr", FailingRows(cohort.npy, str(tmp_path / "failed"), 1))
    assert contents(tmp_path / "r.zarr") == wanted
    failed = len(list((tmp_path / "failed").iterdir()))
    assert failed == 21
    assert caplog.text.count("Input/output error") == failed


def test_read_errors_that_stay(cohort, wanted, tmp_path):
    """Fault 19: a block that cannot be read at all ends the run with nothing published; then it resumes."""
    (tmp_path / "failed").mkdir()
    with pytest.raises(errors.GenotypeReadError, match=r"Input/output error.*run the same command again"):
        cohort.scan(tmp_path / "r.zarr", FailingRows(cohort.npy, str(tmp_path / "failed"), 9))
    assert not (tmp_path / "r.zarr").exists()
    cohort.scan(tmp_path / "r.zarr")
    assert contents(tmp_path / "r.zarr") == wanted
