"""The files that a run leaves in its directory."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from dasklmm.association import phenotype_results
from dasklmm.clumps import INDEX_P_VALUE, clump
from dasklmm.errors import MissingExtraError, StoreError
from dasklmm.export import check_complete, directories, summary, top_hits, write_tsv
from dasklmm.formats_out import FORMATS, check_formats, check_parquet, is_our_parquet, write_format
from dasklmm.plots import save_plots
from dasklmm.report import write_report
from dasklmm.versions import versions

# Phenotypes beyond which plots and reports are left out: drawing takes some two seconds each.
MOST_DRAWN = 20

# Attributes of results that are what a run found, not what it was asked.
_FOUND = ("phenotypes", "n", "n_covariates", "counts", "null", "lambda_gc")
_OF_THE_RUN = ("resumed", "seconds", "created")

# Files of one phenotype, by the name under which they are told.
_FILES = {
    "table": FORMATS["tsv"],
    **{name: file for name, file in FORMATS.items() if name != "tsv"},
    "ssf_metadata": f"{FORMATS['ssf']}-meta.yaml",
    "clumps": "clumps.tsv",
    "manhattan": "manhattan.png",
    "qq": "qq.png",
    "report": "report.html",
}


def check_outputs(directory: str | Path, phenotypes: Sequence[str], formats: Sequence[str] = ()) -> None:
    """See that the files of a run can be written into a directory, before the work that they tell of. Eager.

    Parameters
    ----------
    directory : path
    phenotypes : sequence of str
        Of several, each of which has a directory of its name; of one, none.
    formats : sequence of str

    Raises
    ------
    OptionError, MissingExtraError
        A format that is not known, or whose library is not installed.
    StoreError
        Something else lies where a file or directory of the run belongs.
    """
    check_formats(formats)
    folder = Path(directory)
    folders = [folder]
    if phenotypes:
        folders = [folder / place for place in directories(list(phenotypes))]
        table = folder / "phenotypes.tsv"
        if table.is_file() and _directories_told(table) is None:
            raise StoreError(
                f"{str(table)!r} is there, where the table of what was found of each phenotype belongs, and is "
                "another table. Give another directory."
            )
    for place in folders:
        if place.exists() and not place.is_dir():
            raise StoreError(
                f"{str(place)!r} is a file, where a directory of this run belongs. Move it away, or give another "
                "directory."
            )
        if "parquet" in formats:
            check_parquet(place / FORMATS["parquet"])
    files = [place / file for place in folders for name, file in _FILES.items() if name != "parquet"]
    for path in (*files, folder / "run.json", folder / "phenotypes.tsv"):
        if path.is_dir():
            raise StoreError(
                f"{str(path)!r} is a directory, where a file of this run belongs. Move it away, or give another "
                "directory."
            )


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
        reports are left out. Files that a former run of other results left there are removed.
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
    check_complete(results)
    check_outputs(
        directory, results.attrs.get("phenotype", ()) if "phenotypes" in results.attrs else (), formats
    )
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    told, former = _told(results), _former(folder)
    same = former == told
    if former is not None and not same:
        _remove_files(folder)
    if "phenotypes" in results.attrs:
        written, found = _of_each(results, folder, genotypes, formats, drawn)
    else:
        written, found = _of_one(results, folder, genotypes, formats, drawn), summary(results)
    written["run"] = folder / "run.json"
    if "created" not in results.attrs and same:
        return written  # results of a former run, which told more of it than can be told now
    write_json(
        written["run"],
        {
            "command": command or sys.argv,
            "versions": versions(),
            "options": told["options"],
            "results": told["results"] | {k: v for k, v in results.attrs.items() if k == "created"},
            "summary": found,
            **{k: results.attrs.get(k, {}) for k in ("resumed", "seconds")},
        },
    )
    return written


def _told(results: xr.Dataset) -> dict[str, Any]:
    """What run.json tells of results: what was asked, and what was found."""
    attrs = results.attrs
    return {
        "options": _plain({k: v for k, v in attrs.items() if k not in (*_FOUND, *_OF_THE_RUN)}),
        "results": _plain({k: attrs[k] for k in _FOUND if k in attrs}),
    }


def _former(folder: Path) -> dict[str, Any] | None:
    """What run.json tells of the results that a former run left in a directory; None where there are none."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        record["versions"]["dasklmm"]  # which other programs' files do not tell
        found = {k: v for k, v in record["results"].items() if k != "created"}
        return {"options": record["options"], "results": found}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _remove_files(folder: Path) -> None:
    """Remove the files of a former run, and the directories of its phenotypes where they hold nothing else."""
    own = _directories_told(folder / "phenotypes.tsv")
    if own is not None:
        (folder / "phenotypes.tsv").unlink()
    for place in (folder, *(folder / name for name in own or ())):
        for path in (place / file for file in _FILES.values()):
            if path.is_file():
                path.unlink()
        with suppress(OSError, MissingExtraError):
            if is_our_parquet(place / FORMATS["parquet"]):
                shutil.rmtree(place / FORMATS["parquet"])
        if place != folder:
            with suppress(OSError):
                place.rmdir()


def _directories_told(path: Path) -> list[str] | None:
    """Directories of the phenotypes that a run's phenotypes.tsv tells of; None where it is no such table."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return None
    if list(table.columns[:2]) != ["phenotype", "directory"]:
        return None
    return [name for name in table["directory"] if name.strip(".") and Path(name).name == name]


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
