"""Faults 4 and 15: a disk that is full, and places that cannot be written."""

from __future__ import annotations

import errno
import http.server
import shutil
import subprocess
import threading

import dask
import pytest
from fault_tools import Rows, contents, records_of

from dasklmm import errors
from dasklmm.store import places


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mounting is not allowed here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path):
    """Take what is left of a disk."""
    with path.open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                if not file.write(bytes(size)):
                    break
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2


@pytest.mark.parametrize(("stage", "at"), [("kinship", 1), ("null model", 1), ("test", 3), ("test", 21)])
def test_disk_full(cohort, wanted, small_disk, stage, at):
    """Fault 4: the disk fills in each stage, and before the results are written; freed, the run goes on."""
    store, filler = small_disk / "r.zarr", small_disk / "filler"

    def watch(name, done, total):
        if (name, done) == (stage, at):
            fill(filler)

    # one task at a time: another thread's block could be written once there is room again
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(errors.StoreError, match=r"[Ff]ree space"),
    ):
        cohort.scan(store, Rows(cohort.npy, 0.01), progress=watch)
    assert not store.exists()
    kept = len(records_of(store, "gram/0")), len(records_of(store, "test"))
    filler.unlink()
    resumed = cohort.scan(store).attrs["resumed"]
    assert (resumed["kinship"]["kept"], resumed["test"]["kept"]) == kept
    assert contents(store) == wanted


def test_disk_full_from_the_start(cohort, wanted, small_disk):
    """Fault 4: not even the lock can be written."""
    fill(small_disk / "filler")
    with pytest.raises(errors.StoreError, match=r"[Ff]ree space"):
        cohort.scan(small_disk / "r.zarr")
    (small_disk / "filler").unlink()
    cohort.scan(small_disk / "r.zarr")
    assert contents(small_disk / "r.zarr") == wanted


def test_disk_that_is_too_small_is_refused_before_any_work(cohort, tmp_path, monkeypatch):
    """Fault 4, foretold: Gram matrices of all contigs, P and tests."""
    store, free = tmp_path / "r.zarr", [0]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[0]))
    n, contigs = len(cohort.y), 3
    free[0] = (contigs + 1) * 8 * n * n
    with pytest.raises(errors.StoreError, match=r"will need [\d.]+ GB, and [\d.]+ GB are free .*--store"):
        cohort.scan(store, Rows(cohort.npy, 0.01))
    assert not (tmp_path / "r.zarr.work").exists()
    free[0] *= 3
    cohort.scan(store)


def test_what_a_former_run_left_counts_as_room(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    work = tmp_path / "none yet" / "r.zarr.work"
    places.check_space(work, 1000)
    (work / "gram").mkdir(parents=True)
    (work / "gram" / "00000").write_bytes(bytes(500))
    places.check_space(work, 1500)
    with pytest.raises(errors.StoreError, match="Free space"):
        places.check_space(work, 1501)
    places.check_space("s3://bucket/r.zarr.work", 10**18)  # which does not tell
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=0, free=0))
    places.check_space(work, 10**18)  # nor does a file system without sizes


def test_store_that_raises(cohort, wanted, tmp_path, monkeypatch):
    """Fault 4, where nothing can be mounted: every write fails once the layout and the Gram matrices are there."""
    store, real, written = tmp_path / "r.zarr", places._put, []

    def put(path, *parts):
        if len(written) >= 17:
            raise OSError(errno.ENOSPC, "No space left on device")
        if not path.endswith(".partial"):  # whether anything can be written was asked before
            written.append(path)
        real(path, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(places, "_put", put)
        # one write at a time: another thread's might end after one has failed
        with (
            dask.config.set(scheduler="synchronous"),
            pytest.raises(errors.StoreError, match="No space left on device"),
        ):
            cohort.scan(store)
    assert not store.exists()
    assert len(records_of(store)) == 17
    resumed = cohort.scan(store).attrs["resumed"]
    assert resumed["kinship"]["computed"] == 0
    assert contents(store) == wanted


def test_output_that_cannot_be_written(cohort, tmp_path, no_compute):
    """Fault 15: a path under a file, refused before any work."""
    (tmp_path / "file").write_text("x")
    with no_compute(), pytest.raises(errors.StoreError, match=r"where you can write|cannot be written"):
        cohort.scan(tmp_path / "file" / "r.zarr")
    assert (tmp_path / "file").read_text() == "x"


def test_output_that_is_something_else(cohort, tmp_path, no_compute):
    """Fault 15: what is not this package's is never replaced, asked for or not."""
    (tmp_path / "r.zarr").mkdir()
    (tmp_path / "r.zarr" / "thesis.txt").write_text("x")
    for overwrite in (False, True):
        with no_compute(), pytest.raises(errors.StoreError):
            cohort.scan(tmp_path / "r.zarr", overwrite=overwrite)
    assert (tmp_path / "r.zarr" / "thesis.txt").read_text() == "x"


class Nothing(http.server.BaseHTTPRequestHandler):
    """A server that holds nothing and takes nothing."""

    def do_GET(self):
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_url_that_cannot_be_written(cohort, web, no_compute):
    """Fault 15: a URL whose file system takes no writing."""
    with no_compute(), pytest.raises(errors.StoreError, match="cannot be written"):
        cohort.scan(f"{web}/r.zarr")


def test_url_of_no_known_protocol(cohort, no_compute):
    """Fault 15: a URL that no file system knows."""
    with no_compute(), pytest.raises(errors.StoreError, match="nowhere://"):
        cohort.scan("nowhere://bucket/r.zarr")


def test_disk_full_on_workers(cohort, wanted, cluster, small_disk):
    """Fault 4: the error of a worker is the caller's."""
    store, filler = small_disk / "r.zarr", small_disk / "filler"

    def watch(name, done, total):
        if (name, done) == ("test", 1):
            fill(filler)

    with pytest.raises(errors.StoreError, match="No space left"):
        cohort.scan(store, Rows(cohort.npy, 0.05), progress=watch)
    assert not store.exists()
    filler.unlink()
    cohort.scan(store)
    assert contents(store) == wanted


def test_complete_results_where_nothing_can_be_written(cohort, wanted, tmp_path, monkeypatch):
    """Fault 7: results that are complete are opened again without a lock or a file being written."""
    store = tmp_path / "r.zarr"
    made = cohort.scan(store)

    def full(path):
        raise errors.StoreError(f"{path} cannot be made: Read-only file system")

    monkeypatch.setattr("dasklmm.kept_scan.one_writer", full)
    assert cohort.scan(store).drop_attrs().identical(made.drop_attrs())
    assert contents(store) == wanted
    with pytest.raises(errors.StoreError, match="Read-only"):
        cohort.scan(store, overwrite=True)
