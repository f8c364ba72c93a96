"""What lies at a path, in a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

import dasklmm
from dasklmm.errors import StoreError
from dasklmm.numerics import html
from dasklmm.outputs import versions
from dasklmm.store.results import open_results


def describe(path: str | None) -> Iterator[str]:
    """Lines about genotypes, a table, results or the folder of them at `path`; without one, the versions."""
    if path is None:
        yield from (f"{name} {version}" for name, version in versions().items())
        return
    if (Path(path) / "results.zarr").exists():
        yield from _results(open_results(Path(path) / "results.zarr"))
        return
    if (Path(path) / "genotypes.zarr").exists():
        path = str(Path(path) / "genotypes.zarr")
    try:
        results = open_results(path)
    except (StoreError, ValueError):
        pass
    else:
        yield from _results(results)
        return
    if Path(path).is_file() and Path(path).suffix not in (".bed", ".vcf", ".bgen"):
        table = dasklmm.read_table(path)
        yield f"table of {len(table):,} samples"
        for name in table.columns:
            column = table[name]
            yield f"  {name}: {column.dtype}, {int(column.isna().sum()):,} missing"
        return
    yield from _genotypes(dasklmm.open_genotypes(path))


class Summary:
    """A few lines about results, as text or HTML; made by :func:`summary`."""

    def __init__(self, results: xr.Dataset) -> None:
        self.lines = list(_results(results))

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        title, *rest = self.lines
        rows = {}
        for line in rest:
            for part in [line] if ": " in line else line.split(", "):
                name, _, value = part.strip().partition(": " if ": " in part else " ")
                rows[name] = value
        return html.table(title, rows)


def summary(results: xr.Dataset) -> Summary:
    """What results hold, in a few lines that a notebook shows as a table. Eager, from attributes alone.

    Parameters
    ----------
    results : Dataset
        Of `gwas` or `open_results`.

    Returns
    -------
    Summary
        Its text is that of ``dasklmm info``; all of it is escaped in HTML.
    """
    return Summary(results)


def _results(results: xr.Dataset) -> Iterator[str]:
    attrs = results.attrs
    if "phenotypes" in attrs:
        yield f"results of {results.sizes['phenotype']:,} phenotypes: {results.sizes['variant']:,} variants"
        yield "  " + ", ".join(f"{k} {attrs[k]}" for k in ("test", "kinship", "loco", "precision"))
        for name, each in attrs["phenotypes"].items():
            if "error" in each:
                yield f"  {name}: {each['error']}"
            else:
                yield f"  {name}: {each['n']:,} samples, lambda_GC {each['lambda_gc']:.3f}"
        return
    yield f"results of {attrs['phenotype']}: {results.sizes['variant']:,} variants, {attrs['n']:,} samples"
    yield "  " + ", ".join(f"{k} {attrs[k]}" for k in ("test", "kinship", "loco", "precision"))
    yield f"  lambda_GC {attrs['lambda_gc']:.3f}, made by dasklmm {attrs['dasklmm_version']}"
    for name, count in attrs["counts"].items():
        yield f"  {name}: {count:,}"


def _genotypes(ds: xr.Dataset) -> Iterator[str]:
    dosage = ds["dosage"]
    yield f"genotypes: {ds.sizes['variant']:,} variants, {ds.sizes['sample']:,} samples ({dosage.dtype})"
    yield f"  {dosage.data.numblocks[0]:,} blocks of up to {dosage.data.chunksize[0]:,} variants"
    names, counts = np.unique(ds["variant_contig"].values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:8]
    shown = ", ".join(f"{names[i]} ({counts[i]:,})" for i in order)
    yield f"  {names.size} contigs: {shown}{' …' if names.size > 8 else ''}"
