"""What lies at a path, in a few lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import dasklmm
from dasklmm import schema
from dasklmm.errors import KinshipError, StoreError
from dasklmm.export import GENOME_WIDE, top_hits
from dasklmm.numerics import html
from dasklmm.readers.genotypes import FILES
from dasklmm.readers.netcdf import SUFFIXES
from dasklmm.store.arrays import open_kinship_or_spectrum
from dasklmm.store.places import work_of
from dasklmm.store.results import NAME, open_results
from dasklmm.versions import versions
from dasklmm.wording import count_name, counted, listed, notes

# A .fam or .psam is told as the table of samples that it is.
_GENOTYPES = tuple(end for end in (*FILES, *SUFFIXES) if end not in (".fam", ".psam"))
_THRESHOLD = f"p < {GENOME_WIDE:.0e}".replace("e-0", "e-")
# Of so many independent variants the standard error of lambda_GC, 2.3 / sqrt(count), is 0.07.
FEW_VARIANTS = 1_000


def describe(path: str | None) -> Iterator[str]:
    """Lines about what lies at `path`, or in the folder there; without one, the versions."""
    if path is None:
        yield from (f"{name} {version}" for name, version in versions().items())
        return
    if any((Path(path) / name).exists() for name in (NAME, work_of(NAME))):
        yield from _results(_any_results(path))
        return
    if (Path(path) / "genotypes.zarr").exists():
        path = str(Path(path) / "genotypes.zarr")
    for opened, told in ((_any_results, _results), (open_kinship_or_spectrum, _kinship)):
        try:
            found = opened(path)
        except (StoreError, KinshipError, ValueError):
            continue
        yield from told(found)
        return
    if Path(path).is_file() and not path.lower().endswith(_GENOTYPES):
        table = dasklmm.read_table(path)
        yield f"table of {len(table):,} samples"
        for name in table.columns:
            column = table[name]
            yield f"  {name}: {column.dtype}, {int(column.isna().sum()):,} missing"
        return
    yield from _genotypes(dasklmm.open_genotypes(path))


def _any_results(path: str) -> xr.Dataset:
    return open_results(path, allow_incomplete=True)


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
            text = line.strip()
            if ": " not in text and text[0].isdigit():  # how many were analysed, as a sentence
                rows["analysed"] = text
                continue
            for part in [text] if ": " in text else text.split(", "):
                name, _, value = part.partition(": " if ": " in part else " ")
                rows[name] = value
        return html.table(title, rows)


def summary(results: xr.Dataset) -> Summary:
    """What results hold, in a few lines that a notebook shows as a table. Eager.

    Parameters
    ----------
    results : Dataset
        Of `gwas` or `open_results`.

    Returns
    -------
    Summary
        Its text is that of ``dasklmm info``; all of it is escaped in HTML.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> dasklmm.summary(results)
    results of trait: 400 variants, 100 samples
    ...
    """
    return Summary(results)


def _results(results: xr.Dataset) -> Iterator[str]:
    attrs = results.attrs
    if "incomplete" in attrs:
        yield from _incomplete(results)
        return
    if "phenotypes" in attrs:
        several = counted(results.sizes["phenotype"], "phenotype")
        yield f"results of {several}: {counted(results.sizes['variant'], 'variant')}"
        yield f"  {_asked(attrs)}"
        yield from (f"  {name}: {note}" for name, note in notes(attrs))
        yield from (f"  {line}" for line in each_phenotype(results))
        return
    sizes = f"{counted(results.sizes['variant'], 'variant')}, {counted(attrs['n'], 'sample')}"
    yield f"results of {attrs['phenotype']}: {sizes}"
    yield f"  {_asked(attrs)}"
    yield f"  made by: dasklmm {attrs['dasklmm_version']}"
    yield from (f"  {line}" for line in findings(attrs))
    yield f"  {significant(results)}"
    for line in strongest(results, n=1):
        yield f"  strongest: {line.strip()}"
    for name, count in attrs["counts"].items():
        yield f"  {count_name(name)}: {count:,}"


def _asked(attrs: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {attrs[k]}" for k in ("test", "kinship", "loco", "precision"))


def _incomplete(results: xr.Dataset) -> Iterator[str]:
    attrs, state = results.attrs, results.attrs["incomplete"]
    yield f"incomplete results of {listed(np.atleast_1d(attrs['phenotype']))}"
    if "blocks" not in state:
        yield f"  gone or damaged: {listed(state['gone'])}"
        yield "  run the scan again with --overwrite"
        return
    yield f"  {_asked(attrs)}"
    yield from (f"  {name}: {note}" for name, note in notes(attrs))
    yield (
        f"  done: {state['blocks_done']:,} of {counted(state['blocks'], 'block')} of tests, "
        f"{state['variants_done']:,} of {counted(state['variants'], 'variant')}"
    )
    if "gone" in state:
        yield f"  gone or damaged: {listed(state['gone'])}"
    yield "  the command that began it goes on from here"


def each_phenotype(results: xr.Dataset) -> Iterator[str]:
    """A line for each of several phenotypes: what was found, or why it was not analysed."""
    values = results["neg_log10_p_value"]
    for name, each in results.attrs["phenotypes"].items():
        if "error" in each:
            yield f"{name}: {each['error']}"
            continue
        h = [null["h_sq"] for null in each["null"] if "h_sq" in null]
        yield (
            f"{name}: {counted(each['n'], 'sample')}, {_h_sq(h)}, lambda_GC {each['lambda_gc']:.3f}, "
            f"{counted(_beyond(values.sel(phenotype=name).values), 'variant')} of {_THRESHOLD}"
        )


def significant(results: xr.Dataset) -> str:
    """How many variants are significant in a whole genome."""
    return f"{_THRESHOLD}: {counted(_beyond(results['neg_log10_p_value'].values), 'variant')}"


def _beyond(neg_log10_p_value: np.ndarray) -> int:
    return int(np.count_nonzero(neg_log10_p_value > -math.log10(GENOME_WIDE)))


def _h_sq(h: list[float]) -> str:
    if not h:
        return "h_sq unknown"
    return f"h_sq {h[0]:.4f}" if len(h) == 1 else f"h_sq {min(h):.4f} to {max(h):.4f}"


def findings(attrs: Mapping[str, Any]) -> Iterator[str]:
    """What a scan of one phenotype found, from the attributes of its results, and what to be careful with."""
    counts, nulls = attrs["counts"], attrs["null"]
    tested = counts.get("status_ok", 0)
    yield (
        f"{counts['samples_used']:,} of {counts['samples_in_genotypes']:,} samples, "
        f"{counts['variants']:,} variants ({tested:,} tested)"
    )
    for name, note in notes(attrs):
        yield f"{name}: {note}"
    h = [null["h_sq"] for null in nulls]
    if len(nulls) == 1:
        yield f"{_h_sq(h)}, standard error {nulls[0]['h_sq_standard_error']:.4f}"
    else:
        yield f"{_h_sq(h)} over {len(h)} contigs left out in turn"
    bound = [null["contig"] for null in nulls if null["at_boundary"]]
    if bound and len(nulls) > 1:
        yield f"variance ratio at a bound (contig left out: {', '.join(bound)})"
    elif bound:
        yield f"variance ratio at a bound: h_sq is near {int(h[0] > 0.5)}; look at the profile"
    if not attrs["intercept"]:
        yield "no intercept among the covariates"
    if attrs["n"] - attrs["n_covariates"] < 10:
        yield f"only {attrs['n']} samples for {attrs['n_covariates']} covariates: read every number with care"
    few = f" (of {tested:,} variants: it says little)" if tested < FEW_VARIANTS else ""
    yield f"lambda_GC {attrs['lambda_gc']:.3f}{few}"


def strongest(results: xr.Dataset, n: int = 3) -> Iterator[str]:
    """A line for each of the strongest independent hits."""
    for hit in top_hits(results, n=n).to_dict("records"):
        place = f"{hit['variant_contig']}:{hit['variant_position']}"
        if not hit["variant_position"] > 0:
            place = f"{hit['variant_contig']}, position unknown"
        yield (
            f"  {hit['variant_id']} at {place}: "
            f"-log10 p {hit['neg_log10_p_value']:.2f}, beta {hit['beta']:.4g}"
        )


def _kinship(found: xr.DataArray | xr.Dataset) -> Iterator[str]:
    ids = schema.kinship_ids(found) if isinstance(found, xr.DataArray) else schema.sample_ids(found)
    if isinstance(found, xr.DataArray):
        yield f"kinship of {found.shape[0]:,} samples ({found.dtype})"
    else:
        yield f"{found.sizes['eigen']:,} leading eigenpairs of a kinship of {found.sizes['sample']:,} samples"
        s = found["s"].values
        yield f"  eigenvalues {s.max():.4g} to {s.min():.4g}"
    if ids is not None:
        yield f"  samples {listed(ids)}"
    for name, value in found.attrs.items():
        if isinstance(value, (str, int, float)):
            yield f"  {name.replace('_', ' ')}: {value}"


def _genotypes(ds: xr.Dataset) -> Iterator[str]:
    dosage = ds["dosage"]
    sizes = f"{counted(ds.sizes['variant'], 'variant')}, {counted(ds.sizes['sample'], 'sample')}"
    yield f"genotypes: {sizes} ({dosage.dtype})"
    blocks = counted(dosage.data.numblocks[0], "block")
    yield f"  {blocks} of up to {counted(dosage.data.chunksize[0], 'variant')}"
    names, counts = np.unique(ds["variant_contig"].values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:8]
    shown = ", ".join(f"{names[i]} ({counts[i]:,})" for i in order)
    yield f"  {counted(names.size, 'contig')}: {shown}{' …' if names.size > 8 else ''}"
