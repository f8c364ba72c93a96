"""Ctrl-C, as a terminal sends it: to the command and its workers alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest
from fault_tools import environment, records_of, wait_until

import dasklmm
from dasklmm.datasets import write_cohort


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    cohort = dasklmm.simulate(300, 20_000, n_contigs=22, seed=3)
    return write_cohort(cohort, tmp_path_factory.mktemp("cohort"))


def command(files, out):
    scan = [sys.executable, "-m", "dasklmm.cli", "gwas", files["genotypes"], "--pheno", files["phenotypes"]]
    return [*map(str, scan), "--workers", "2", "--out", str(out)]


# What is there when Ctrl-C comes, and what is said of it
MOMENTS = {
    "the cluster starts": (lambda store, process: len(process.children()) >= 2, 1, "Aborted!"),
    "the kinship is summed": (lambda store, process: records_of(store, "gram/00003"), 130, "interrupted;"),
    "variants are tested": (lambda store, process: records_of(store, "test/00002"), 130, "interrupted;"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted(files, tmp_path, moment):
    """One line says it, no process is left, no traceback of a worker is shown, and what is finished is kept."""
    reached, code, said = MOMENTS[moment]
    store = tmp_path / "out" / "results.zarr"
    process = subprocess.Popen(
        command(files, tmp_path / "out"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        children: list[psutil.Process] = []

        def now():
            children[:] = psutil.Process(process.pid).children(recursive=True)
            return reached(store, psutil.Process(process.pid))

        wait_until(now)
        os.killpg(process.pid, signal.SIGINT)
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code, text
    assert said in text
    assert "Traceback" not in text
    assert "distributed" not in text
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not store.exists()
    if code == 130:
        done = subprocess.run(
            command(files, tmp_path / "out"), capture_output=True, text=True, env=environment(), timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "kept from a former run: kinship" in done.stdout
