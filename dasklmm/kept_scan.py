"""A scan with a store: taken up where a former run ended, published when complete, opened where it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xarray as xr

from dasklmm.errors import StoreError
from dasklmm.lazy import run
from dasklmm.scanning import Scan
from dasklmm.store.places import check_space, clear, get, present, put, work_of
from dasklmm.store.publish import differing, unchanged
from dasklmm.store.records import Records, one_writer, vacant
from dasklmm.store.results import (
    differences,
    fingerprint,
    inputs_of,
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
    work = work_of(store)
    if found == [] and resume and not overwrite and not present(work):
        return open_results(store)  # also where nothing can be written
    with one_writer(work) as still_ours:
        done = _finished(store, inputs, resume, overwrite)
        if done is None:
            check_space(work, scan.bytes_kept())
            kept = _records(work, inputs, resume, overwrite)
            with unchanged(scan.inputs, inputs, lambda: _drop(work)):
                done = scan.run(kept)
            still_ours()
            write_results(done, store, inputs, overwrite=overwrite)
        _drop(work)
    return done


def unfinished_work(store: str) -> bool:
    """Whether a run into this store left work that the same run takes up."""
    return get(f"{work_of(store)}/inputs.json") is not None


def _drop(work: str) -> None:
    """Remove the work of a run; what says whose it is goes first, so that no part of the rest is believed."""
    clear(work, keep="lock", first="inputs.json")


def _finished(store: str | Path, inputs: dict[str, Any], resume: bool, overwrite: bool) -> xr.Dataset | None:
    """Results of the same inputs already in the store; StoreError where it holds others."""
    if overwrite:
        return None
    names = differences(store, inputs)
    if names is None:
        return None
    if names:
        raise StoreError(
            f"{str(store)!r} holds results of another run, which differs in: {_said(names)}. Give another "
            "store (--out or --store), or overwrite=True (--overwrite)."
        )
    if not resume:
        raise StoreError(f"{str(store)!r} holds results already, and resume is False. Give overwrite=True.")
    return open_results(store)


def _said(names: list[str]) -> str:
    """Inputs that differ, and how one is given that has no argument of its own name."""
    remedy = {"blocks": "blocks (the same chunks=, or setting dasklmm.block-size, as before goes on)"}
    return ", ".join(remedy.get(name, name) for name in names)


def _records(work: str, inputs: dict[str, Any], resume: bool, overwrite: bool) -> Records:
    """Records of the run at `work`, after a check that what is there is of the same inputs."""
    text = get(f"{work}/inputs.json")
    kept = Records(work, fingerprint(inputs))
    if text is None:
        kept.check_own()
    try:
        held = None if text is None else inputs_of(text, work)
    except StoreError:
        if not overwrite:
            raise
        held = {}
    names = [] if held is None else differing(held, inputs)
    if held is not None and not overwrite:
        if names:
            raise StoreError(
                f"{work!r} holds the unfinished work of another run, which differs in: {_said(names)}. "
                "Give another store (--out or --store), or overwrite=True (--overwrite) to drop that work."
            )
        if not resume:
            raise StoreError(f"{work!r} holds unfinished work, and resume is False. Give overwrite=True.")
    if names or text is None:  # of another run, or left by one that was killed while it removed them
        _drop(work)
    put(f"{work}/inputs.json", json.dumps(inputs, sort_keys=True, indent=1).encode())
    client = run.active_client()
    if client is not None and not all(client.run(_sees, work).values()):
        raise StoreError(
            f"not every worker sees {work!r}. Give a store on a file system that all workers share, or a URL."
        )
    return kept


def _sees(work: str) -> bool:
    return get(f"{work}/inputs.json") is not None
