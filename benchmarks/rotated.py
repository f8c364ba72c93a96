"""The tests alone, of many rotated variants in a store, beside Hail's: the case `rotated` of the peers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks import limits
from benchmarks.measure import Step, alternate
from benchmarks.work import DTYPES, Work
from dasklmm.store.arrays import open_array


def prepare(folder: Path, variants: int, eigenvectors: int) -> Work:
    """Rotated variants and a model of noise: in stores for dasklmm, as data.bin and data.npz for Hail."""
    work = Work(folder, eigenvectors, variants, (variants, eigenvectors))
    for dtype in DTYPES:
        work.stored_rotation(dtype)
    model = work.rotation_model()
    np.savez(
        folder / "data.npz",
        py=model.data.py,
        px=model.data.px,
        s=model.data.s,
        log_gamma=model.null.log_gamma,
        variants=variants,
    )
    stored = open_array(work.stored_rotation("float64"))
    with (folder / "data.bin").open("wb") as file:
        for start in range(0, variants, stored.chunks[0]):
            np.asarray(stored[start : start + stored.chunks[0]]).tofile(file)
    return work


def ours(work: Work, rounds: int) -> tuple[dict[str, float], np.ndarray]:
    """Least seconds of `fit_alternatives` on threads, and of the limit, by dtype; -log10 p of float64."""
    model = work.rotation_model()
    null, log_p = model.alternative_test(), {}

    def test(dtype: str) -> None:
        found = model.fit_alternatives(work.stored_rotation(dtype)).compute()
        log_p[dtype] = found["neg_log10_p_value"].values

    with limits.Readers(os.cpu_count() or 1) as read_and_sum:

        def limit(dtype: str) -> None:
            path = work.stored_rotation(dtype)
            files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json")
            read_and_sum(files, open_array(path).chunks, dtype, null)

        steps: dict[str, Step] = {}
        for dtype in DTYPES:
            steps[dtype] = lambda dtype=dtype: test(dtype)
            steps[f"limit {dtype}"] = lambda dtype=dtype: limit(dtype)
        runs = alternate(steps, rounds)
    return {name: spread.least for name, spread in runs.items()}, log_p["float64"]


def line(
    shape: tuple[int, int], own: dict[str, float], theirs: float | None, difference: float | None
) -> str:
    """Microseconds a variant of dasklmm, of the limit here, and of Hail, with its time over ours by dtype."""
    m, r = shape
    us = {name: 1e6 * took / m for name, took in own.items()}
    mine = ", ".join(f"{us[dtype]:.2f} in {dtype} (limit {us[f'limit {dtype}']:.2f})" for dtype in DTYPES)
    hail = ""
    if theirs is not None:
        times = ", ".join(f"{theirs / own[dtype]:.1f} times in {dtype}" for dtype in DTYPES)
        hail = f"; hail {1e6 * theirs / m:.1f} ({times}; log10 p within {difference:.1e})"
    return f"rotated: {m:,} x {r:,}, the tests alone, microseconds a variant: dasklmm {mine}{hail}"
