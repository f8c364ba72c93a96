"""Results as a table of summary statistics, their strongest associations, and a summary."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasklmm.errors import OptionError
from dasklmm.numerics.clumping import SECONDARY_P_VALUE, clump_variants
from dasklmm.numerics.tails import lambda_gc

__all__ = ["GENOME_WIDE", "summary", "top_hits", "write_tsv"]

# The conventional genome-wide threshold: 0.05 over a million independent common variants.
GENOME_WIDE = 5e-8
# Base pairs between top hits.
WINDOW = 1_000_000
MISSING = "#NA"
# From here on a float64 p-value is at risk of underflow, and GWAS-SSF asks for its logarithm.
UNDERFLOW = 300.0
ROWS = 65_536
# Columns of variance_ratio="per_variant", and of an interaction.
_OWN = ("log_gamma", "log_gamma_ml", "log_likelihood", "beta_main", "standard_error_main")
# Digits compress badly: higher levels take thrice the time for a few per cent.
_GZIP_LEVEL = 4


def write_tsv(results: xr.Dataset, path: str | Path) -> None:
    """Write results as a gzipped table in the column order of GWAS-SSF 1.0. Eager.

    Parameters
    ----------
    results : Dataset (variant)
        From :func:`dasklmm.gwas`. Coordinates or variables that are absent are written as ``#NA``.
    path : path
        Written whole under another name and renamed into place.

    Notes
    -----
    Columns: chromosome, base_pair_location, effect_allele, other_allele, beta, standard_error,
    effect_allele_frequency, p_value, variant_id, n, chi_sq, sigma_sq, neg_log_10_p_value, those of a refit
    (log_gamma, log_gamma_ml, log_likelihood), those of an interaction (beta_main and standard_error_main of
    the variant itself, and interaction: the covariate, of whose product with the variant beta is), status.
    Where any p-value is below 1e-300, p_value and neg_log_10_p_value change places, as the format asks. Missing
    values and unknown positions (below 1) are ``#NA``. Floats have ten significant digits. The same results
    give the same bytes.

    Cost: about ten microseconds a variant; memory for 65,536 rows of text.

    Source: Hayhurst et al. 2022, GWAS-SSF (https://github.com/EBISPOT/gwas-summary-statistics-standard).

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> from dasklmm.export import write_tsv
    >>> write_tsv(results, "results.tsv.gz")
    """
    check_complete(results)
    columns = _columns(results)
    with whole_file(Path(path)) as write:
        write("\t".join(name for name, _, _ in columns) + "\n")
        for start in range(0, results.sizes["variant"], ROWS):
            rows = slice(start, start + ROWS)
            size = len(range(*rows.indices(results.sizes["variant"])))
            texts = [
                [MISSING] * size if values is None else text(np.asarray(values[rows]))
                for _, values, text in columns
            ]
            lines = map("\t".join, zip(*texts, strict=True))
            write("\n".join(lines) + "\n")


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[str], object]]:
    """Give a function that writes text to a file, which is there once all is written.

    Gzipped where its name says so; the same text gives the same bytes.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with ExitStack() as stack:
            file: Any = stack.enter_context(open(partial, "wb"))
            if path.suffix == ".gz":
                file = stack.enter_context(
                    gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0)
                )
            # compression is half of the time of a table, and leaves the interpreter to who makes the next text
            writer = stack.enter_context(ThreadPoolExecutor(1))
            last: Future[int] = writer.submit(int)

            def write(text: str) -> None:
                nonlocal last
                last.result()
                last = writer.submit(file.write, text.encode())

            yield write
            last.result()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def top_hits(results: xr.Dataset, n: int = 10, window: int = WINDOW) -> pd.DataFrame:
    """Strongest associations that are independent by distance. Eager.

    Parameters
    ----------
    results : Dataset (variant)
    n : int
        At most so many.
    window : int
        Base pairs. A variant no further than this from a stronger one of the list on its contig is clumped
        under it. On a contig, variants of unknown position are near each other and no others: one of them at
        most is in the list. Without a contig, a variant is near no other.

    Returns
    -------
    DataFrame
        Strongest first, whatever their p-values; the columns of :func:`variant_table`, and n_clumped: the
        variants of p <= 0.01 clumped under each. The index is the row in `results`. Ties go to the earlier
        contig, position and row.

    Notes
    -----
    Cost: a sort of the variants. :func:`dasklmm.clump` also takes r² into account.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> from dasklmm.export import top_hits
    >>> top_hits(results, 3).shape[0] <= 3
    True
    """
    score = floats(results, "neg_log10_p_value")
    clumps = clump_variants(
        contig_codes(results), positions(results), score, threshold=-np.inf, distance=window, at_most=n
    )
    members = score >= -math.log10(SECONDARY_P_VALUE)
    members[clumps.index] = False
    table = variant_table(results, clumps.index)
    table["n_clumped"] = np.bincount(
        clumps.member_of[members & (clumps.member_of >= 0)], minlength=clumps.index.size
    )
    return table


def variant_table(results: xr.Dataset, rows: np.ndarray) -> pd.DataFrame:
    """Some of the variants, as a table for people.

    Returns
    -------
    DataFrame
        variant_contig, variant_position (0: unknown), variant_id, variant_effect_allele,
        variant_other_allele, effect_allele_frequency, beta, standard_error, p_value, neg_log10_p_value; what
        is absent is empty or NaN. The index is the row in `results`.
    """
    text = {name: strings(results, name) for name in _TEXT}
    return pd.DataFrame(
        {
            "variant_contig": contigs(results)[rows],
            "variant_position": positions(results)[rows],
            **{name: np.full(rows.size, "") if v is None else v[rows] for name, v in text.items()},
            **{name: floats(results, name)[rows] for name in _NUMBERS},
        },
        index=pd.Index(rows, name="variant"),
    )


_TEXT = ("variant_id", "variant_effect_allele", "variant_other_allele")
_NUMBERS = ("effect_allele_frequency", "beta", "standard_error", "p_value", "neg_log10_p_value")


def summary(results: xr.Dataset) -> dict[str, Any]:
    """What a scan found, as plain values that JSON can hold. Eager.

    Returns
    -------
    dict
        variants, tested, status (name → count), lambda_gc (None without a test), genome_wide_significant
        (count of p < 5e-8), top_hits (list of the rows of :func:`top_hits`; a value that is missing or
        infinite is None).
    """
    values = floats(results, "neg_log10_p_value")
    return {
        "variants": int(results.sizes["variant"]),
        "tested": int(np.count_nonzero(~np.isnan(values))),
        "status": status_counts(results),
        "lambda_gc": _plain(lambda_gc(values)),
        "genome_wide_significant": int(np.count_nonzero(values > -math.log10(GENOME_WIDE))),
        "top_hits": [
            {str(name): _plain(value) for name, value in row.items()}
            for row in top_hits(results).to_dict("records")
        ],
    }


# columns, tolerant of what is absent ------------------------------------------------------------


def status_counts(results: xr.Dataset) -> dict[str, int]:
    """Variants of each status, most frequent first; empty without a status."""
    status = strings(results, "status")
    if status is None:
        return {}
    names, counts = np.unique(status, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(names[i]): int(counts[i]) for i in order}


def contigs(results: xr.Dataset) -> np.ndarray:
    """Contig names (variant); empty strings where they are absent. OptionError where damage took them."""
    _check_not_gone(results, "variant_contig")
    names = strings(results, "variant_contig")
    return np.full(results.sizes["variant"], "") if names is None else names


def contig_codes(results: xr.Dataset) -> np.ndarray:
    """Numbers of the contigs (variant) in order of appearance; -1 where the contig is unknown."""
    names = contigs(results)
    return np.where(names == "", -1, pd.factorize(names)[0])


def positions(results: xr.Dataset) -> np.ndarray:
    """Positions (variant) int64; 0 where they are absent or unknown. OptionError where damage took them."""
    _check_not_gone(results, "variant_position")
    if "variant_position" not in results.variables:
        return np.zeros(results.sizes["variant"], dtype=np.int64)
    values = np.asarray(results["variant_position"].values)
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, 0)
    return np.maximum(values.astype(np.int64), 0)


def _check_not_gone(results: xr.Dataset, name: str) -> None:
    """Refuse to go on as if what is gone of damaged results had never been there."""
    state = results.attrs.get("incomplete", {})
    if name in state.get("gone", ()):
        remedy = ": what is finished is kept" if "blocks" in state else " with --overwrite"
        raise OptionError(
            f"{name!r} of these results is gone or damaged, which this needs. Run the same command again{remedy}."
        )


def strings(results: xr.Dataset, name: str) -> np.ndarray | None:
    """A text variable (variant), or None where it is absent."""
    if name not in results.variables:
        return None
    values = np.asarray(results[name].values)
    return values if values.dtype.kind == "U" else values.astype(str)


def check_one_phenotype(results: xr.Dataset) -> None:
    """Raise OptionError where results hold several phenotypes."""
    if "phenotype" in results.dims:
        raise OptionError(
            f"the results hold {results.sizes['phenotype']} phenotypes; one is needed. Give "
            "dasklmm.phenotype_results(results, name)."
        )


def check_complete(results: xr.Dataset) -> None:
    """Raise OptionError where results are of an unfinished run, or damaged: they are to be looked at alone."""
    if "incomplete" in results.attrs:
        raise OptionError(
            "the results are incomplete (opened with allow_incomplete=True): they are to be looked at, not passed "
            "on. Finish the run by the same command (damaged results: with --overwrite), and open its results."
        )


def floats(results: xr.Dataset, name: str) -> np.ndarray:
    """A variable (variant) as float64; NaN where it is absent."""
    check_one_phenotype(results)
    if name not in results.variables:
        return np.full(results.sizes["variant"], np.nan)
    return np.asarray(results[name].values, dtype=np.float64)


def _columns(results: xr.Dataset) -> list[tuple[str, Any, Callable[[np.ndarray], list[str]]]]:
    """Name, values (None: absent) and formatter of each column of the table."""

    def column(name: str, text: Callable[[np.ndarray], list[str]]) -> tuple[Any, Any]:
        return (results[name].values if name in results.variables else None), text

    p = ("p_value", *column("p_value", _float_texts))
    log_p = ("neg_log_10_p_value", *column("neg_log10_p_value", _float_texts))
    if (floats(results, "neg_log10_p_value") > UNDERFLOW).any():
        p, log_p = log_p, p
    # beta is then of the product, which a reader of the table alone must see
    name = str(results.attrs.get("interaction") or "")
    interaction = [("interaction", np.full(results.sizes["variant"], name), _texts)] if name else []
    return [
        ("chromosome", *column("variant_contig", _texts)),
        ("base_pair_location", *column("variant_position", _position_texts)),
        ("effect_allele", *column("variant_effect_allele", _texts)),
        ("other_allele", *column("variant_other_allele", _texts)),
        ("beta", *column("beta", _float_texts)),
        ("standard_error", *column("standard_error", _float_texts)),
        ("effect_allele_frequency", *column("effect_allele_frequency", _float_texts)),
        p,
        ("variant_id", *column("variant_id", _texts)),
        ("n", *column("n", _count_texts)),
        ("chi_sq", *column("chi_sq", _float_texts)),
        ("sigma_sq", *column("sigma_sq", _float_texts)),
        log_p,
        *((name, *column(name, _float_texts)) for name in _OWN if name in results.variables),
        *interaction,
        ("status", *column("status", _texts)),
    ]


def _float_texts(values: np.ndarray) -> list[str]:
    values = values.astype(np.float64, copy=False)
    out = list(map("%.10g".__mod__, values.tolist()))
    for i in np.flatnonzero(np.isnan(values)).tolist():
        out[i] = MISSING
    return out


def _count_texts(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        return [MISSING if v != v else f"{v:.0f}" for v in values.tolist()]
    return list(map(str, values.tolist()))


def _position_texts(values: np.ndarray) -> list[str]:
    return [f"{v:.0f}" if v > 0 else MISSING for v in values.tolist()]


# A tab or a line end inside a name would shift every column after it.
_BREAKS = str.maketrans("\t\r\n", "   ")


def _texts(values: np.ndarray) -> list[str]:
    out = [str(v) or MISSING for v in values.tolist()]
    if any(c in "".join(out) for c in "\t\r\n"):
        out = [v.translate(_BREAKS) for v in out]
    return out


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Bytes of a directory's name: file systems take 255, and files that are named so have more around it.
_MOST_BYTES = 200
# Names that begin so are of files of the run itself, beside the directories.
_RESERVED = ("results.", "run.json", "phenotypes.tsv")


def directories(names: list[str]) -> list[str]:
    """A directory's name for each phenotype: its own where the file system takes it, and no two alike."""
    places: list[str] = []
    taken: set[str] = set()
    for name in names:
        place = re.sub(r"[^\w.+-]", "_", name).strip(".") or "phenotype"
        if place.lower().startswith(_RESERVED):
            place = f"_{place}"
        if len(place.encode()) > _MOST_BYTES:
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]  # names may differ in their ends alone
            place = f"{place.encode()[:_MOST_BYTES].decode(errors='ignore')}_{digest}"
        while place.lower() in taken:
            place += "_"
        taken.add(place.lower())
        places.append(place)
    return places
