"""Checks of a cluster on other machines, before it works: versions, and paths that its workers must see."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import fsspec

from dasklmm.errors import ClusterError, StoreError
from dasklmm.store.places import is_local, put, remove

# Tasks and results are pickles of these: other versions fail in a task, or give other numbers unseen.
SAME = ("dask", "distributed", "dasklmm")
# Results of these agree between releases, so that a difference is worth a word and no more.
TOLD = ("numpy", "scipy", "xarray", "zarr")


def check_versions(client: Any) -> list[str]:
    """Compare what the scheduler and each worker have installed with this process. Eager.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    list of str
        A line for each of NumPy, SciPy, xarray and Zarr that differs.

    Raises
    ------
    ClusterError
        Python (3.x), dask, distributed or dasklmm differ; with who has which, and what to do.
    """
    found = client.get_versions(packages=[*SAME, *TOLD])
    here = {"python": found["client"]["packages"]["python"], **{k: _installed(k) for k in (*SAME, *TOLD)}}
    refused = []
    for name in ("python", *SAME):
        told = _difference(name, here[name], found)
        if told:
            refused.append(told)
    if refused:
        raise ClusterError(
            f"{'; '.join(refused)}. Tasks travel as pickles, which need the same versions everywhere: give the "
            "cluster an image with those of this machine (dasklmm info lists them), or install here those of "
            "the cluster."
        )
    return [told for name in TOLD if (told := _difference(name, here[name], found))]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _version(name: str, packages: dict[str, Any]) -> str:
    value = packages.get(name)
    if value is None:
        return "not installed"
    return ".".join(str(value).split(".")[:2]) if name == "python" else str(value)


def _difference(name: str, own: str | None, found: dict[str, Any]) -> str | None:
    """Who has another version of a package, in words; None where nobody has."""
    here = _version(name, {name: own})
    others = []
    scheduler = _version(name, found["scheduler"]["packages"])
    if scheduler != here:
        others.append(f"{scheduler} on the scheduler")
    workers = Counter(_version(name, of["packages"]) for of in found["workers"].values())
    total = sum(workers.values())
    others += [f"{v} on {n} of {total} workers" for v, n in sorted(workers.items()) if v != here]
    return f"{name} is {here} here, {' and '.join(others)}" if others else None


def check_paths(client: Any, read: Iterable[str] = (), write: Iterable[str] = ()) -> None:
    """See that every worker reads the same files as this process, and writes where this process reads. Eager.

    Parameters
    ----------
    client : distributed.Client
    read : iterable of str
        Paths or URLs that are there.
    write : iterable of str
        Paths or URLs that will be written: each worker leaves an empty file beside it for a moment.

    Raises
    ------
    ClusterError
        A path that a worker does not see, or sees otherwise; with the worker and what to do.
    StoreError
        A place that a worker cannot write, or that is another place there.
    """
    for path in read:
        path = _whole(path)
        own, total = _sight(path), 0
        bad = []
        for worker, seen in client.run(_sight, path).items():
            total += 1
            if seen != own:
                bad.append((worker, seen))
        if bad:
            worker, seen = bad[0]
            other = seen if isinstance(seen, str) else f"{seen:,} bytes, where this process sees {own:,}"
            raise ClusterError(
                f"{len(bad)} of {total} workers do not see {path!r} as this process does ({worker}: {other}). "
                "Workers read the genotypes themselves: give a path on a disk that all of them mount, or a "
                "URL such as s3://bucket/cohort.zarr (with its file system and credentials on the workers)."
            )
    for path in write:
        _check_written(client, str(Path(path).absolute()) if is_local(path) else path)


def _check_written(client: Any, path: str) -> None:
    folder = path.rstrip("/").rpartition("/")[0]
    while is_local(folder) and not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)  # what is missing will be made
    probe = f"{folder.rstrip('/')}/.dasklmm-{uuid.uuid4().hex}"
    failed = {}
    places = {}
    try:
        for worker, answer in client.run(_leave, probe).items():
            places[worker] = answer["place"]
            if answer["error"]:
                failed[worker] = answer["error"]
            elif not isinstance(_sight(answer["place"]), int):
                failed[worker] = "what it writes is not there for this process"
        if failed:
            worker, reason = next(iter(failed.items()))
            raise StoreError(
                f"{len(failed)} of {len(places)} workers do not write at {path!r} ({worker}: {reason}). Workers "
                "write results and unfinished work themselves: give a place on a disk that all of them mount, "
                "or a URL such as s3://bucket/results.zarr (--store, store=)."
            )
    finally:
        client.run(_take_away, probe)


def _whole(path: str) -> str:
    """An absolute path, and of a PLINK prefix the .bed."""
    if not is_local(path):
        return path
    place = Path(path).absolute()
    return str(place.with_name(f"{place.name}.bed") if not place.exists() else place)


# on the workers ----------------------------------------------------------------------------------


def _sight(path: str) -> int | str:
    """Bytes of what is at a path (0 of a directory), or why it cannot be read."""
    try:
        if is_local(path):
            if not os.path.exists(path):
                return "nothing is there"
            if not os.access(path, os.R_OK):
                return "it may not be read"
            return os.path.getsize(path) if os.path.isfile(path) else 0
        fs, root = fsspec.core.url_to_fs(path)
        fs.invalidate_cache()
        return 0 if fs.exists(root) else "nothing is there"
    except Exception as error:  # noqa: BLE001  (whatever a file system raises is told)
        return f"{type(error).__name__}: {error}"


def _leave(probe: str, dask_worker: Any) -> dict[str, str]:
    """Write an empty file of this worker; where it is, and why it could not be written."""
    place = _own(probe, dask_worker)
    error = ""
    try:
        # not made: a folder that is missing here is another one there
        if is_local(probe) and not os.path.isdir(os.path.dirname(probe)):
            error = "the folder is not there"
        else:
            put(place, b"")
    except Exception as raised:  # noqa: BLE001
        error = f"{type(raised).__name__}: {raised}"
    return {"place": place, "error": error}


def _take_away(probe: str, dask_worker: Any) -> None:
    with suppress(Exception):
        remove(_own(probe, dask_worker))


def _own(probe: str, dask_worker: Any) -> str:
    return f"{probe}-{dask_worker.id}"
