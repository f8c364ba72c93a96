"""Independent hits of a scan by clumping, with r² from the genotypes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from dasklmm import schema
from dasklmm.errors import GenotypeFormatError, OptionError, SampleError, ShapeError
from dasklmm.export import (
    GENOME_WIDE,
    check_complete,
    contig_codes,
    floats,
    positions,
    strings,
    variant_table,
)
from dasklmm.lazy import blocks, run
from dasklmm.numerics.clumping import (
    DISTANCE,
    R_SQUARED,
    SECONDARY_P_VALUE,
    clump_variants,
    squared_correlations,
)
from dasklmm.readers.genotypes import open_genotypes

__all__ = ["clump"]

# PLINK's --clump-p1.
INDEX_P_VALUE = 1e-4

# Genotypes that a task reads. Small, since the neighbours of most hits are a few hundred variants.
_PIECE_BYTES = 16 * 1024**2
# Unneeded variants between two needed ones that are read along rather than asked for twice.
_GAP = 256


def clump(
    results: xr.Dataset,
    genotypes: Any = None,
    *,
    p_value: float = GENOME_WIDE,
    secondary_p_value: float | None = None,
    r_squared: float = R_SQUARED,
    distance: int = DISTANCE,
    samples: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Clump a scan's associations under their most significant variants, as PLINK's --clump. Eager.

    The most significant variant that is in no clump becomes an index. Variants in no clump that are near it
    and, where genotypes are given, correlated with it join its clump. Repeat while an index is left.

    Parameters
    ----------
    results : Dataset (variant)
        From :func:`dasklmm.gwas`, with variant_contig and variant_position.
    genotypes : Dataset of `open_genotypes`, its dosage as a DataArray, path or URL, optional
        Of the same variants in the same order. Default: distance alone decides.
    p_value : float
        An index has at most this p-value (PLINK: --clump-p1, there 1e-4).
    secondary_p_value : float, optional
        Members of a clump have at most this (--clump-p2). Default: 0.01, or `p_value` where that is larger.
    r_squared : float
        Members have at least this r² with the index (--clump-r2). Without genotypes it is not used.
    distance : int
        Base pairs, inclusive, on the contig of the index (--clump-kb).
    samples : sequence of str, optional
        Sample ids over which r² is computed, such as those of the scan. Default: all of the genotypes.

    Returns
    -------
    DataFrame
        A row for each index, most significant first: variant_contig, variant_position (0: unknown),
        variant_id, variant_effect_allele, variant_other_allele, effect_allele_frequency, beta,
        standard_error, p_value, neg_log10_p_value; n_clumped (members beside the index), clump_start and
        clump_end (base pairs of the first and last, index included; 0: unknown), clumped_id (list of the
        members' ids, in order of position). The index is the row in `results`. Without a variant that reaches
        `p_value`: no rows, the same columns. attrs: p_value, secondary_p_value, distance, r_squared (None
        without genotypes).

    Raises
    ------
    OptionError
        A threshold out of its range, or results without p-values, contigs or positions, or of several
        phenotypes.
    ShapeError, GenotypeFormatError
        The genotypes have another number of variants, or other variants.
    SampleError
        `samples` are not all in the genotypes, or stand twice.

    Notes
    -----
    r² is the squared correlation of dosages over the samples that have both (complete pairs), in float64; 0
    where one is constant over them. A variant joins the most significant index that takes it. Equally
    significant variants come in order of contig, position and row. On a contig, variants of unknown position
    count as one place: near each other and no others.

    Cost: a sort of the variants that reach `secondary_p_value`, and for each index one reading of those near
    it (with what lies between them in the file), in tasks of 16 MB: 10 to 20 ms, and 20 ns a genotype. Runs
    on the active Dask client, or on threads.

    Source: Purcell et al. 2007, doi:10.1086/519795 (PLINK, --clump).

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> hits = dasklmm.clump(results, cohort, p_value=1e-4)
    >>> bool(hits["p_value"].is_monotonic_increasing), len(hits) > 0
    (True, True)
    """
    secondary = _check_options(p_value, secondary_p_value, r_squared, distance)
    _check_results(results)
    reader = None
    if genotypes is not None:
        ds = genotypes.to_dataset(name="dosage") if isinstance(genotypes, xr.DataArray) else genotypes
        ds = ds if isinstance(ds, xr.Dataset) else open_genotypes(ds)
        check_same_variants(results, ds)
        reader = correlations_with(ds, samples)
    elif samples is not None:
        raise OptionError("samples are those over which r² is computed, which needs genotypes. Give both.")
    position = positions(results)
    clumps = clump_variants(
        contig_codes(results),
        position,
        floats(results, "neg_log10_p_value"),
        threshold=-math.log10(p_value),
        secondary=-math.log10(secondary),
        distance=int(distance),
        r2=float(r_squared),
        r_squared=reader,
    )
    table = variant_table(results, clumps.index)
    ids = strings(results, "variant_id")
    members = _members(clumps.member_of, clumps.index.size, position)
    table["n_clumped"] = np.array([rows.size - 1 for rows in members], dtype=np.int64)
    table["clump_start"] = np.array([position[rows].min() for rows in members], dtype=np.int64)
    table["clump_end"] = np.array([position[rows].max() for rows in members], dtype=np.int64)
    table["clumped_id"] = pd.Series(
        [
            [""] * (rows.size - 1) if ids is None else ids[rows[rows != index]].tolist()
            for index, rows in zip(clumps.index.tolist(), members, strict=True)
        ],
        index=table.index,
        dtype=object,
    )
    table.attrs = {
        "p_value": float(p_value),
        "secondary_p_value": secondary,
        "distance": int(distance),
        "r_squared": None if reader is None else float(r_squared),
    }
    return table


def _members(member_of: np.ndarray, n_clumps: int, position: np.ndarray) -> list[np.ndarray]:
    """Rows of each clump in order of position, its index among them."""
    rows = np.flatnonzero(member_of >= 0)
    rows = rows[np.lexsort((position[rows], member_of[rows]))]
    bounds = np.searchsorted(member_of[rows], np.arange(n_clumps + 1))
    return [rows[a:b] for a, b in itertools.pairwise(bounds)]


# checks -----------------------------------------------------------------------------------------


def _check_options(p_value: Any, secondary: Any, r_squared: Any, distance: Any) -> float:
    """The secondary threshold."""
    if not (_is_number(p_value) and 0 < p_value <= 1):
        raise OptionError(f"p_value is {p_value!r}; a number above 0 and up to 1 is needed, such as 5e-8.")
    if secondary is None:
        secondary = max(float(p_value), SECONDARY_P_VALUE)
    if not (_is_number(secondary) and p_value <= secondary <= 1):
        raise OptionError(
            f"secondary_p_value is {secondary!r}; a number from p_value ({p_value:g}) to 1 is needed, since the "
            "members of a clump are no more significant than its index."
        )
    if not (_is_number(r_squared) and 0 <= r_squared <= 1):
        raise OptionError(f"r_squared is {r_squared!r}; a number from 0 to 1 is needed.")
    if not (isinstance(distance, Integral) and not isinstance(distance, bool) and distance >= 0):
        raise OptionError(
            f"distance is {distance!r}; a whole number of base pairs is needed, such as 250_000 (250 kb)."
        )
    return float(secondary)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_results(results: Any) -> None:
    needed = ("neg_log10_p_value", "variant_contig", "variant_position")
    if not isinstance(results, xr.Dataset):
        raise OptionError(
            f"results are a {type(results).__name__}; the Dataset of dasklmm.gwas is needed, with "
            f"{', '.join(needed)} over the dim variant."
        )
    check_complete(results)
    absent = [name for name in needed if name not in results.variables]
    if absent:
        raise OptionError(
            f"the results have no {', '.join(absent)}, which clumping needs. Give the results of dasklmm.gwas, "
            "from genotypes with contigs and positions."
        )
    dims = results["neg_log10_p_value"].dims
    if dims != (schema.VARIANT,):
        raise OptionError(
            f"neg_log10_p_value has the dims {dims}; ('variant',) is needed. Give one phenotype at a time: "
            "dasklmm.phenotype_results(results, name)."
        )


def check_same_variants(results: xr.Dataset, ds: xr.Dataset) -> None:
    """Refuse genotypes whose rows are not those of the results."""
    if "dosage" not in ds:
        raise GenotypeFormatError(
            f"the genotypes hold {', '.join(map(str, ds.data_vars)) or 'nothing'}; a Dataset with dosage "
            "(variant, sample) is needed, as open_genotypes returns it."
        )
    m, found = results.sizes["variant"], ds.sizes.get(schema.VARIANT)
    if m != found:
        raise ShapeError(
            f"the results have {m} variants and the genotypes {found}; r² is taken from the same row of both. "
            "Give the genotypes of the scan, with the same variants selected."
        )
    for name in ("variant_id", "variant_contig", "variant_position"):
        if name not in results.variables or name not in ds.variables:
            continue
        here, there = (
            positions(side) if name == "variant_position" else np.asarray(strings(side, name))
            for side in (results, ds)
        )
        differ = np.flatnonzero(here != there)
        if differ.size:
            row = int(differ[0])
            raise GenotypeFormatError(
                f"the genotypes are of other variants than the results: {name} differs in {differ.size} of {m} "
                f"rows, first in row {row} ({str(here[row])!r} in the results, {str(there[row])!r} in the "
                "genotypes). Give the genotypes of the scan, in the same order."
            )


# reading ----------------------------------------------------------------------------------------


def correlations_with(
    ds: xr.Dataset, samples: Sequence[str] | None
) -> Callable[[int, np.ndarray], np.ndarray]:
    """r² of one variant with others, as a function of their rows; they are read piece by piece and not kept."""
    rows = schema.dosage_rows(ds)
    columns = None if samples is None else blocks.shared(_columns(ds, samples))
    most = max(1, _PIECE_BYTES // max(1, rows.shape[1] * rows.dtype.itemsize))
    call = blocks.delayed_call(_with_index, "r_squared")

    def r_squared(index: int, variants: np.ndarray) -> np.ndarray:
        order = np.argsort(variants, kind="stable")
        wanted = variants[order]
        one: da.Array = rows[index : index + 1]
        parts = [
            call(rows[int(piece[0]) : int(piece[-1]) + 1], one, piece - piece[0], columns)
            for piece in _pieces(wanted, most)
        ]
        out = np.empty(variants.size)
        out[order] = np.concatenate(run.run_blocks(parts))
        return out

    return r_squared


def _columns(ds: xr.Dataset, samples: Sequence[str]) -> np.ndarray:
    wanted = np.asarray(samples, dtype=str)
    available = schema.sample_ids(ds)
    if available is None:
        raise SampleError(
            "the genotypes carry no sample_id, so samples cannot be chosen. Assign the coordinate sample_id over "
            "the dim sample, or leave samples out to use all."
        )
    schema.check_unique(wanted, "samples")
    return schema.positions(wanted, available, "the genotypes")


def _pieces(rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Rising rows in runs that span at most `most` rows and have no gap of more than `_GAP`."""
    for near in np.split(rows, np.flatnonzero(np.diff(rows) > _GAP + 1) + 1):
        start = 0
        while start < near.size:
            stop = int(np.searchsorted(near, near[start] + most))
            yield near[start:stop]
            start = stop


def _with_index(
    block: np.ndarray, index: np.ndarray, wanted: np.ndarray, columns: np.ndarray | None
) -> np.ndarray:
    return squared_correlations(index[0], block[wanted], columns)
