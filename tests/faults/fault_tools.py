"""What the tests of faults share, importable by worker processes: slow and failing sources, watching, killing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import dasklmm
from dasklmm.readers.dataset import genotype_dataset
from dasklmm.store.genotypes import write_genotypes

FOLDER = Path(__file__).resolve().parent
CHUNKS = 64
LIMIT = 30.0


class Rows:
    """Rows of an .npy file, read as slowly as asked, so that a stage lasts long enough to be hit."""

    ndim = 2
    dtype = np.dtype(np.int8)

    def __init__(self, path: str, delay: float = 0.0) -> None:
        self.path, self.delay = path, delay
        self.shape = np.load(path, mmap_mode="r").shape

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        time.sleep(self.delay)
        return np.array(np.load(self.path, mmap_mode="r")[index])


def edit_rows(path: str, calls: np.ndarray) -> None:
    """Put another file of rows in place; a mapped one that shrinks would end the process that reads it."""
    np.save(f"{path}.new.npy", calls)
    os.replace(f"{path}.new.npy", path)


class DeadlyRows(Rows):
    """Rows whose last block kills the process that reads it, as long as the file `flag` is there.

    It waits for the first Gram matrix of the run `store` to be kept: workers that die sooner may leave nothing.
    """

    def __init__(self, path: str, flag: str, store: str) -> None:
        super().__init__(path, 0.01)
        self.flag, self.store = flag, store

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        if index[0].stop == self.shape[0] and os.path.exists(self.flag):
            wait_until(lambda: records_of(Path(self.store), "gram/0"))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class FailingRows(Rows):
    """Rows each of whose blocks cannot be read the first `times` times."""

    def __init__(self, path: str, folder: str, times: int) -> None:
        super().__init__(path)
        self.folder, self.times = folder, times

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        for i in range(self.times):
            place = f"{self.folder}/{index[0].start}-{i}"
            if not os.path.exists(place):
                Path(place).touch()
                raise OSError(5, "Input/output error")
        return super().__getitem__(index)


class Cohort:
    """A cohort in a folder: genotypes as .npy and as Zarr, and a phenotype."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.npy = str(self.folder / "calls.npy")

    @classmethod
    def make(cls, folder: Path, n: int, m: int, contigs: int, seed: int = 5) -> Cohort:
        ds = dasklmm.simulate(n, m, n_contigs=contigs, seed=seed)
        write_genotypes(ds, folder / "g.zarr")
        np.save(folder / "calls.npy", ds["dosage"].values)
        pd.DataFrame({"sample_id": ds["sample_id"].values, "trait": ds["phenotype"].values}).to_csv(
            folder / "y.tsv", sep="\t", index=False
        )
        return cls(folder)

    @property
    def y(self) -> pd.DataFrame:
        table = pd.read_csv(self.folder / "y.tsv", sep="\t", dtype={"sample_id": str})
        return table.set_index("sample_id")

    def genotypes(self, source: Any = None, chunks: int = CHUNKS) -> xr.Dataset:
        """Dataset over a source of rows; equal for every source, so that runs are of equal inputs."""
        ds = dasklmm.open_genotypes(self.folder / "g.zarr", chunks=chunks)
        return genotype_dataset(
            Rows(self.npy) if source is None else source,
            chunks=chunks,
            stored_chunk=1,
            sample_id=ds["sample_id"].values,
            contig=ds["variant_contig"].values,
            position=ds["variant_position"].values,
            variant_id=ds["variant_id"].values,
            effect_allele=ds["variant_effect_allele"].values,
            other_allele=ds["variant_other_allele"].values,
            path=self.npy,
            file_format="npy",
        )

    def scan(self, store: Path, source: Any = None, chunks: int = CHUNKS, **options: Any) -> xr.Dataset:
        return dasklmm.gwas(self.genotypes(source, chunks), self.y, store=store, **options)


def contents(store: Path) -> dict[str, bytes]:
    """Every file under a path."""
    store = Path(store)
    found = {str(f.relative_to(store)): f.read_bytes() for f in sorted(store.rglob("*")) if f.is_file()}
    assert "_SUCCESS" in found
    return found


def records_of(store: Path, stage: str = "") -> list[str]:
    """Records of unfinished work that are whole by their name."""
    work = Path(f"{store}.work")
    # os.walk passes over a folder that the run removes meanwhile, where Path.rglob raises
    found = (os.path.relpath(os.path.join(d, f), work) for d, _, names in os.walk(work) for f in names)
    return sorted(f for f in found if f.startswith(stage) and not f.endswith((".partial", "lock")))


def wait_until(condition: Callable[[], Any], seconds: float = LIMIT, every: float = 0.002) -> Any:
    """The first true value of a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(every)
    raise AssertionError(f"nothing came of {condition} in {seconds} s")


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Run an action in a thread beside the body; what it raises is raised here."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    yield
    thread.join(LIMIT)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


killed: set[int] = set()


def kill_worker(cluster: Any, prefix: str = "") -> int:
    """SIGKILL a worker process that is at work (on a task of that name); its pid."""

    def busy() -> int | None:
        for nanny in cluster.workers.values():
            state = cluster.scheduler.workers.get(nanny.worker_address)
            # read once each: the nanny's own thread forgets them when the process ends
            process = nanny.process
            pid = process.pid if process is not None else None
            # one that is just starting is let be: its nanny would give it up
            running = pid is not None and process.status.name == "running"
            if state is not None and running and pid not in killed:
                keys = [str(task.key) for task in list(state.processing)]
                if any(key.startswith(prefix) for key in keys):
                    return int(pid)
        return None

    pid = wait_until(busy, every=0.001)
    killed.add(pid)
    os.kill(pid, signal.SIGKILL)
    return pid


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")])),
        "OPENBLAS_NUM_THREADS": "1",
        # how long a client looks for a scheduler that is gone: 30 s without it
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s",
    }


class Scheduler:
    """dask scheduler and two dask workers, processes on loopback."""

    def __init__(self, folder):
        self.file = folder / "scheduler.json"
        self.file.unlink(missing_ok=True)
        listen = ["--host", "127.0.0.1"]
        options = [f"--scheduler-file={self.file}", "--no-dashboard", *listen]
        self.scheduler = self.start("scheduler", "--port=0", *options)
        wait_until(lambda: self.file.exists() and self.file.stat().st_size)
        options += ["--nthreads=1", "--no-nanny", "--death-timeout=2"]
        self.workers = [self.start("worker", *options) for _ in range(2)]

    def start(self, *command):
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def address(self):
        return json.loads(self.file.read_text())["address"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait(timeout=20)


def start_client(cohort: Cohort, store: Path, address: str = "", delay: float = 0.02) -> subprocess.Popen:
    """A process of its own that scans; it prints what it resumed, or the error's class."""
    options = {"folder": str(cohort.folder), "store": str(store), "address": address, "delay": delay}
    return subprocess.Popen(
        [sys.executable, str(FOLDER / "client.py"), json.dumps(options)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen) -> None:
    """SIGKILL a process and wait for it."""
    process.kill()
    process.communicate(timeout=LIMIT)


def answer(process: subprocess.Popen, seconds: float = LIMIT) -> Any:
    """What a client printed."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(process)
        raise
    assert out, err
    return json.loads(out.splitlines()[-1])
