"""The files that a run leaves in its directory."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import xarray as xr

import dasklmm
from dasklmm.errors import MissingExtraError
from dasklmm.export import summary, write_tsv
from dasklmm.plots import save_plots
from dasklmm.report import write_report

VERSIONS = ("dask", "distributed", "numpy", "scipy", "xarray", "zarr")


def versions() -> dict[str, str]:
    """Versions of dasklmm, of Python and of the libraries that decide the numbers."""
    return {
        "dasklmm": dasklmm.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONS},
    }


def write_outputs(
    results: xr.Dataset, directory: str | Path, command: list[str] | None = None
) -> dict[str, Path]:
    """Write results.tsv.gz, manhattan.png, qq.png, report.html and run.json. Eager.

    Parameters
    ----------
    results : Dataset (variant)
        From :func:`dasklmm.gwas`.
    directory : path
        Made if absent. Each file is written whole and renamed into place.
    command : list of str, optional
        The command line, for run.json.

    Returns
    -------
    dict
        Name → path of what was written. Without matplotlib there are no plots, and the report says so.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written = {"table": folder / "results.tsv.gz"}
    write_tsv(results, written["table"])
    try:
        save_plots(results, folder)
        plots: dict[str, Path] = {"manhattan": folder / "manhattan.png", "qq": folder / "qq.png"}
    except MissingExtraError:
        plots = {}
    written |= plots
    written["report"] = folder / "report.html"
    write_report(results, written["report"], plots=plots or None)
    written["run"] = folder / "run.json"
    if "created" not in results.attrs and written["run"].exists():
        return written  # results of a former run, which told more of it than can be told now
    write_json(
        written["run"],
        {
            "command": command or sys.argv,
            "versions": versions(),
            "options": {k: v for k, v in results.attrs.items() if k not in ("seconds", "resumed")},
            "resumed": results.attrs.get("resumed", {}),
            "summary": summary(results),
            "seconds": results.attrs.get("seconds", {}),
        },
    )
    return written


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole, by a rename; NaN is null."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(_plain(value), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
