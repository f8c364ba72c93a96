"""Ctrl-C, as a terminal sends it, and SIGTERM, as batch systems do: to the command and its workers alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest
from click.testing import CliRunner
from fault_tools import Scheduler, environment, records_of, wait_until

import dasklmm
import dasklmm.association
from dasklmm import cli
from dasklmm.datasets import write_cohort


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    cohort = dasklmm.simulate(300, 20_000, n_contigs=22, seed=3)
    return write_cohort(cohort, tmp_path_factory.mktemp("cohort"))


def command(files, out):
    scan = [sys.executable, "-m", "dasklmm.cli", "gwas", files["genotypes"], "--pheno", files["phenotypes"]]
    return [*map(str, scan), "--workers", "2", "--out", str(out)]


# What is there when the signal comes, and what is said of it
MOMENTS = {
    "the cluster starts": (lambda store, process: len(process.children()) >= 2, "interrupted\n"),
    "the kinship is summed": (
        lambda store, process: records_of(store, "gram/00003"),
        "interrupted; the same",
    ),
    "variants are tested": (lambda store, process: records_of(store, "test/00002"), "interrupted; the same"),
}


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *((moment, signal.SIGINT) for moment in MOMENTS),
        ("the cluster starts", signal.SIGTERM),
        ("variants are tested", signal.SIGTERM),
    ],
)
def test_interrupted(files, tmp_path, moment, number):
    """One line says it, no process is left, no traceback of a worker is shown, and what is finished is kept."""
    reached, said = MOMENTS[moment]
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
        os.killpg(process.pid, number)
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number, text
    assert said in text
    assert "Traceback" not in text
    assert "distributed" not in text
    assert "leaked" not in text
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not store.exists()
    if "the same" in said and number == signal.SIGINT:
        done = subprocess.run(
            command(files, tmp_path / "out"), capture_output=True, text=True, env=environment(), timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "kept from a former run: kinship" in done.stdout


def test_lost_scheduler_is_one_line(files, tmp_path):
    """The client's own traceback of it does not stand before what is to be done."""
    store = tmp_path / "out" / "results.zarr"
    with Scheduler(tmp_path) as cluster:
        scan = [*command(files, tmp_path / "out")[:-4], "--out", str(tmp_path / "out")]
        process = subprocess.Popen(
            [*scan, "--scheduler", cluster.address, "--quiet"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        try:
            wait_until(lambda: records_of(store, "gram/00000"))  # others are to come: it waits for blocks
            cluster.scheduler.kill()
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    said = [line for line in err.splitlines() if not line.startswith("the scan, live")]
    assert len(said) == 1, err
    assert said[0].startswith("Error: the cluster was lost")


LEAVES_A_LOCK = """
import multiprocessing, os, signal, dasklmm

def lock():
    import builtins, multiprocessing
    builtins.lock = multiprocessing.Lock()
    return os.getpid()

if __name__ == "__main__":
    with dasklmm.local_cluster(1, memory_limit="700MB") as cluster, cluster.get_client() as client:
        os.kill(client.submit(lock).result(), signal.SIGKILL)
        client.submit(os.getpid, pure=False).result()
"""


def test_a_killed_worker_leaves_no_semaphore(tmp_path):
    """Python would warn of it at the end of a run that went well."""
    script = tmp_path / "script.py"
    script.write_text(LEAVES_A_LOCK)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["gwas", "kinship", "simulate"])
def test_every_command_ends_alike(files, tmp_path, monkeypatch, name, number, code):
    """By threads of the process too; what is kept is said by those that keep something."""

    def interrupted(*given, **options):
        signal.raise_signal(number)

    monkeypatch.setattr(dasklmm.association.Prepared, "run", interrupted)
    monkeypatch.setattr(dasklmm, "kinship", interrupted)
    monkeypatch.setattr(dasklmm.datasets, "simulate", interrupted)
    arguments = {
        "gwas": ["gwas", files["genotypes"], "--pheno", files["phenotypes"]],
        "kinship": ["kinship", files["genotypes"]],
        "simulate": ["simulate"],
    }[name]
    done = CliRunner().invoke(cli.main, [*map(str, arguments), "--out", str(tmp_path / "out")])
    assert done.exit_code == code
    assert done.stderr.startswith("interrupted")
    assert ("the same command goes on from here" in done.stderr) == (name == "gwas")
    assert ("begins anew" in done.stderr) == (name == "kinship")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
