"""The files that a run leaves in its directory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from dasklmm.association import phenotype_results
from dasklmm.clumps import INDEX_P_VALUE, clump
from dasklmm.errors import MissingExtraError
from dasklmm.export import directories, summary, top_hits, write_tsv
from dasklmm.formats_out import check_formats, write_format
from dasklmm.plots import save_plots
from dasklmm.report import write_report
from dasklmm.versions import versions

# Phenotypes beyond which plots and reports are left out: drawing takes some two seconds each.
MOST_DRAWN = 20

# Attributes of results that are what a run found, not what it was asked.
_FOUND = ("phenotypes", "n", "n_covariates", "counts", "null", "lambda_gc", "created")
_OF_THE_RUN = ("resumed", "seconds")


def write_outputs(
    results: xr.Dataset,
    directory: str | Path,
    command: list[str] | None = None,
    genotypes: xr.Dataset | None = None,
    formats: Sequence[str] = (),
    drawn: bool = True,
) -> dict[str, Path]:
    """Write results.tsv.gz, manhattan.png, qq.png, report.html and run.json. Eager.

    Parameters
    ----------
    results : Dataset (variant), or (variant, phenotype)
        From :func:`dasklmm.gwas`.
    directory : path
        Made if absent. Each file is written whole and renamed into place. Of several phenotypes each has a
        directory of its name, and phenotypes.tsv has a row for each; beyond 20 phenotypes the plots and
        reports are left out.
    command : list of str, optional
        The command line, for run.json.
    genotypes : Dataset, optional
        Those of the scan: associations of p <= 1e-4 are then clumped by r² as well (:func:`dasklmm.clump`, with
        PLINK's thresholds) in clumps.tsv, and the report shows these.
    formats : sequence of str
        Further formats of the table, of :data:`dasklmm.formats_out.FORMATS`.
    drawn : bool
        Whether there are plots and reports.

    Returns
    -------
    dict
        Name → path of what was written. Without matplotlib there are no plots, and the report says so.
    """
    check_formats(formats)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    if "phenotypes" in results.attrs:
        written, found = _of_each(results, folder, genotypes, formats, drawn)
    else:
        written, found = _of_one(results, folder, genotypes, formats, drawn), summary(results)
    written["run"] = folder / "run.json"
    if "created" not in results.attrs and written["run"].exists():
        return written  # results of a former run, which told more of it than can be told now
    write_json(
        written["run"],
        {
            "command": command or sys.argv,
            "versions": versions(),
            "options": {k: v for k, v in results.attrs.items() if k not in (*_FOUND, *_OF_THE_RUN)},
            "results": {k: results.attrs[k] for k in _FOUND if k in results.attrs},
            "summary": found,
            **{k: results.attrs.get(k, {}) for k in _OF_THE_RUN},
        },
    )
    return written


def _of_one(
    results: xr.Dataset,
    folder: Path,
    genotypes: xr.Dataset | None,
    formats: Sequence[str],
    drawn: bool,
) -> dict[str, Path]:
    """Table, plots and report of one phenotype."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {"table": folder / "results.tsv.gz"}
    write_tsv(results, written["table"])
    for name in dict.fromkeys(formats):
        if name != "tsv":
            written[name], _ = write_format(results, name, folder)
    hits = None
    if genotypes is not None:
        hits = clump(results, genotypes, p_value=INDEX_P_VALUE)
        written["clumps"] = folder / "clumps.tsv"
        _write_table(hits.assign(clumped_id=[",".join(ids) for ids in hits["clumped_id"]]), written["clumps"])
    if not drawn:
        return written
    try:
        save_plots(results, folder)
        plots: dict[str, Path] = {"manhattan": folder / "manhattan.png", "qq": folder / "qq.png"}
    except MissingExtraError:
        plots = {}
    written |= plots
    written["report"] = folder / "report.html"
    write_report(results, written["report"], plots=plots or None, hits=hits)
    return written


def _of_each(
    results: xr.Dataset,
    folder: Path,
    genotypes: xr.Dataset | None,
    formats: Sequence[str],
    drawn: bool,
) -> tuple[dict[str, Path], dict[str, Any]]:
    """The files of every phenotype in its own directory, a table of all, and their summaries."""
    names = [str(name) for name in results["phenotype"].values]
    written, found, rows = {"phenotypes": folder / "phenotypes.tsv"}, {}, []
    for name, place in zip(names, directories(names), strict=True):
        one = phenotype_results(results, name)
        rows.append({"phenotype": name, "directory": "" if "error" in one.attrs else place, **_row(one)})
        if "error" in one.attrs:
            continue
        found[name] = summary(one)
        _of_one(one, folder / place, genotypes, formats, drawn and len(names) <= MOST_DRAWN)
        written[name] = folder / place
    _write_table(pd.DataFrame(rows), written["phenotypes"])
    return written, found


def _write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a tab-separated table whole, by a rename."""
    partial = path.with_name(f"{path.name}.partial")
    table.to_csv(partial, sep="\t", index=False, na_rep="#NA", float_format="%.10g")
    os.replace(partial, path)


def _row(one: xr.Dataset) -> dict[str, Any]:
    """What phenotypes.tsv says of a phenotype."""
    attrs = one.attrs
    if "error" in attrs:
        return {"error": attrs["error"]}
    h = [null["h_sq"] for null in attrs["null"] if "h_sq" in null]
    best = top_hits(one, n=1).to_dict("records")
    return {
        "n": attrs["n"],
        "h_sq": sum(h) / len(h) if h else float("nan"),
        "at_boundary": any(null.get("at_boundary", False) for null in attrs["null"]),
        "lambda_gc": attrs["lambda_gc"],
        "tested": attrs["counts"].get("status_ok", 0),
        "top_variant_id": best[0]["variant_id"] if best else "",
        "top_neg_log10_p_value": best[0]["neg_log10_p_value"] if best else float("nan"),
        "error": "",
    }


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
