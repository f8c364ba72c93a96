"""A scan with a store: taken up where a former run ended, published when complete, opened where it is done."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import xarray as xr

from dasklmm.errors import DaskLMMError, GenotypeFormatError, GenotypeReadError, StoreError
from dasklmm.lazy import run
from dasklmm.scanning import Scan
from dasklmm.store.places import clear, get, present, put, remove
from dasklmm.store.records import Records, one_writer, vacant
from dasklmm.store.results import (
    differences,
    differing,
    fingerprint,
    open_results,
    unfinished,
    write_results,
)


def run_kept(scan: Scan, store: str, resume: bool, overwrite: bool) -> xr.Dataset:
    """Run a scan whose work and results are kept: taken up, published when complete, or opened as they are."""
    inputs = scan.inputs()
    found = differences(store, inputs)
    if found is None or overwrite:
        vacant(store, overwrite or unfinished(store), "results")
    work = _work_of(store)
    if found == [] and resume and not overwrite and not present(work):
        return open_results(store)  # also where nothing can be written
    with one_writer(work) as still_ours:
        done = _finished(store, inputs, resume, overwrite)
        if done is None:
            kept = _records(work, inputs, resume, overwrite)
            try:
                done = scan.run(kept)
            except Exception as error:
                # files that are written anew make readers raise what they like
                if isinstance(error, GenotypeReadError) or not isinstance(error, DaskLMMError):
                    with suppress(GenotypeFormatError, GenotypeReadError, OSError, ValueError):
                        _check_unchanged(scan, inputs, work)
                raise
            _check_unchanged(scan, inputs, work)
            still_ours()
            write_results(done, store, inputs, overwrite=overwrite)
        clear(work)
    return done


def _work_of(store: str) -> str:
    return f"{store}.work"


def unfinished_work(store: str) -> bool:
    """Whether a run into this store left work that the same run takes up."""
    return get(f"{_work_of(store)}/inputs.json") is not None


def _check_unchanged(scan: Scan, inputs: dict[str, Any], work: str) -> None:
    """Refuse what was made of genotypes that are others now, and drop the work."""
    changed = differing(scan.inputs(), inputs)
    if changed:
        clear(work)  # what was made of the one must not be taken for the other's
        raise StoreError(
            f"the {', '.join(changed)} changed while they were read, so nothing is published, and no work of this "
            "run is kept. Run the same command again when the files are at rest."
        )


def _finished(store: str | Path, inputs: dict[str, Any], resume: bool, overwrite: bool) -> xr.Dataset | None:
    """Results of the same inputs already in the store; StoreError where it holds others."""
    if overwrite:
        return None
    names = differences(store, inputs)
    if names is None:
        return None
    if names:
        raise StoreError(
            f"{str(store)!r} holds results of another run, which differs in: {', '.join(names)}. Give another "
            "store, or overwrite=True (--overwrite)."
        )
    if not resume:
        raise StoreError(f"{str(store)!r} holds results already, and resume is False. Give overwrite=True.")
    return open_results(store)


def _records(work: str, inputs: dict[str, Any], resume: bool, overwrite: bool) -> Records:
    """Records of the run at `work`, after a check that what is there is of the same inputs."""
    text = get(f"{work}/inputs.json")
    if text is None and Records(work, "").names():
        raise StoreError(
            f"{work!r} is where unfinished work is kept, and holds something else. Give another store."
        )
    try:
        held = None if text is None else json.loads(text)
    except ValueError:
        held = {}  # damaged: nothing there can be believed
    names = [] if held is None else differing(held, inputs)
    if held is not None and not overwrite:
        if names:
            raise StoreError(
                f"{work!r} holds the unfinished work of another run, which differs in: {', '.join(names)}. "
                "Give another store, or overwrite=True (--overwrite) to drop that work."
            )
        if not resume:
            raise StoreError(f"{work!r} holds unfinished work, and resume is False. Give overwrite=True.")
    kept = Records(work, fingerprint(inputs))
    if names:
        for name in kept.names():
            remove(f"{work}/{name}")
    put(f"{work}/inputs.json", json.dumps(inputs, sort_keys=True, indent=1).encode())
    client = run.active_client()
    if client is not None and not all(client.run(_sees, work).values()):
        raise StoreError(
            f"not every worker sees {work!r}. Give a store on a file system that all workers share, or a URL."
        )
    return kept


def _sees(work: str) -> bool:
    return get(f"{work}/inputs.json") is not None
