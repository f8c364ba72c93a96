"""Timing of alternating steps, the facts of the machine, and the JSON that keeps both."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import threadpoolctl

LIBRARIES = ("dasklmm", "numpy", "scipy", "dask", "distributed", "zarr", "xarray")

Step = Callable[[], float | None]


@dataclass(frozen=True)
class Spread:
    """Repeats of one measurement."""

    runs: tuple[float, ...]

    @classmethod
    def of(cls, runs: Sequence[float]) -> Spread:
        return cls(tuple(float(value) for value in runs))

    @property
    def least(self) -> float:
        return min(self.runs)

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def most(self) -> float:
        return max(self.runs)

    def as_json(self) -> dict[str, Any]:
        return {"min": self.least, "median": self.median, "max": self.most, "runs": list(self.runs)}


def seconds(step: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def alternate(steps: Mapping[str, Step], rounds: int) -> dict[str, Spread]:
    """Run every step once a round, so that what else the machine does meets all alike.

    A step returns the seconds that count, or None where all of its call does.
    """
    runs: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            counted = step()
            whole = time.perf_counter() - start
            runs[name].append(whole if counted is None else counted)
    return {name: Spread.of(values) for name, values in runs.items()}


def machine() -> dict[str, Any]:
    """What a figure depends on: cores, memory, processor, BLAS and versions."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text(encoding="utf-8").splitlines() if "model name" in line]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": [round(v, 2) for v in os.getloadavg()],
        "blas": [
            {key: lib.get(key) for key in ("internal_api", "version", "architecture")}
            for lib in threadpoolctl.threadpool_info()
            if lib.get("user_api") == "blas"
        ],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def write_json(path: str | Path | None, content: dict[str, Any]) -> None:
    """Keep what was measured, if a path is given. What could not be (NaN) is null."""
    if path is not None:
        text = json.dumps(_without_nan(content), indent=1, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
