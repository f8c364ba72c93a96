"""Faults 18 and 19: an encrypted cluster, and reads that fail for a moment."""

from __future__ import annotations

import pytest
from distributed import Client, Security
from fault_tools import FailingRows, contents

import dasklmm
from dasklmm import errors


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
