"""The tests alone, of many rotated variants in a store, beside Hail's: the case `rotated` of the peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import alternate, seconds
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
    """Least seconds of `fit_alternatives` on threads, by dtype of the store, and -log10 p of float64."""
    model = work.rotation_model()
    found: dict[str, Any] = {}

    def step(dtype: str) -> float:
        def run() -> None:
            found[dtype] = model.fit_alternatives(work.stored_rotation(dtype)).compute()

        return seconds(run)

    runs = alternate({dtype: lambda dtype=dtype: step(dtype) for dtype in DTYPES}, rounds)
    return {dtype: spread.least for dtype, spread in runs.items()}, found["float64"][
        "neg_log10_p_value"
    ].values


def line(
    shape: tuple[int, int], own: dict[str, float], theirs: float | None, difference: float | None
) -> str:
    """Line of the case: microseconds a variant, and Hail's time over ours of the same dtype."""
    m, r = shape
    mine = ", ".join(f"{1e6 * took / m:.2f} in {dtype}" for dtype, took in own.items())
    hail = ""
    if theirs is not None:
        times = f"{theirs / own['float64']:.1f} times in float64, {theirs / own['float32']:.1f} in float32"
        hail = f"; hail {1e6 * theirs / m:.1f} ({times}; log10 p within {difference:.1e})"
    return f"rotated: {m:,} x {r:,}, the tests alone, microseconds a variant: dasklmm {mine}{hail}"
