"""Lazy tests of alternatives: a Dataset over `variant`, one task a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from dasklmm import schema
from dasklmm.errors import ShapeError
from dasklmm.lazy import blocks
from dasklmm.numerics.alternatives import Rows, check_block, test_block
from dasklmm.numerics.interaction import interaction_block
from dasklmm.numerics.records import (
    STATUS_LABELS,
    AlternativeStats,
    AlternativeTest,
    Filters,
    InteractionStats,
    RefitStats,
    RefitTest,
    StackedTests,
)
from dasklmm.numerics.refit_scan import refit_scan_block
from dasklmm.numerics.scan import scan_block
from dasklmm.numerics.tails import neg_log10, p_value
from dasklmm.store.arrays import EIGENVECTORS

TEST_COLUMNS = ("beta", "standard_error", "sigma_sq", "chi_sq", "p_value", "neg_log10_p_value")
SCAN_COLUMNS = ("n", "effect_allele_frequency", *TEST_COLUMNS)
REFIT_COLUMNS = ("log_gamma", "log_gamma_ml", "log_likelihood", "at_boundary")
VARIANCE_RATIOS: Mapping[str, tuple[str, ...]] = {
    "null": SCAN_COLUMNS,
    "per_variant": (*SCAN_COLUMNS, *REFIT_COLUMNS),
}
INTERACTION_COLUMNS = ("beta_main", "standard_error_main")
INTEGERS, TRUTH_VALUES = ("n",), ("at_boundary",)

# Blocks whose results are one block of each column, where the blocks are ours to choose. A column's block is a
# task, which costs a cluster as much as the sums of 5 MB: 98,304 x 2,000 float32 in 16 blocks took 0.45 s on one
# worker and 0.31 on two with columns of as many blocks, and 0.34 and 0.22 with columns of one.
RESULTS_OF_BLOCKS = 16

ATTRIBUTES: Mapping[str, dict[str, str]] = {
    "n": {"long_name": "samples with a call"},
    "effect_allele_frequency": {"long_name": "frequency of the effect allele"},
    "beta": {"long_name": "effect of one unit of the alternative (one copy of the effect allele)"},
    "standard_error": {"long_name": "standard error of beta"},
    "sigma_sq": {"long_name": "variance scale under the alternative"},
    "chi_sq": {"long_name": "statistic of the test"},
    "p_value": {"long_name": "p-value; 0 where it underflows"},
    "neg_log10_p_value": {"long_name": "-log10 of the p-value; does not underflow"},
    "log_gamma": {"long_name": "logarithm of the variance ratio with the variant, by REML"},
    "log_gamma_ml": {"long_name": "logarithm of the variance ratio with the variant, by maximum likelihood"},
    "log_likelihood": {"long_name": "log likelihood with the variant at log_gamma_ml"},
    "at_boundary": {"long_name": "whether a variance ratio lies at a bound of the search"},
    "beta_main": {"long_name": "effect of one copy of the effect allele where the covariate is 0"},
    "standard_error_main": {"long_name": "standard error of beta_main"},
    "status": {"long_name": "'ok', or why the row has no test"},
}


def columns_of(stats: AlternativeStats | RefitStats | InteractionStats) -> np.ndarray:
    """TEST_COLUMNS, those of a refit or interaction, and status of a block, (variant, column) float64."""
    more: tuple[str, ...] = ()
    if isinstance(stats, RefitStats):
        more = REFIT_COLUMNS
    elif isinstance(stats, InteractionStats):
        more = INTERACTION_COLUMNS
    return np.column_stack(
        [
            stats.beta,
            stats.standard_error,
            stats.sigma_sq,
            stats.chi_sq,
            p_value(stats.log_p),
            neg_log10(stats.log_p),
            *(getattr(stats, name) for name in more),
            stats.status,
        ]
    )


def _test_block(pa: Rows, a: Rows | None = None, *, null: AlternativeTest) -> np.ndarray:
    return columns_of(test_block(null, pa, a))


@dataclass(frozen=True, eq=False)
class Interaction:
    """Tests of variants' products with a covariate, one a phenotype.

    Attributes
    ----------
    tests : tuple of AlternativeTest
    covariate : ndarray (sample)
    """

    tests: tuple[AlternativeTest, ...]
    covariate: np.ndarray


Null = StackedTests | tuple[RefitTest, ...] | Interaction


@dataclass(frozen=True, eq=False)
class Group:
    """Phenotypes of the same samples and covariates, as a block finds them.

    Attributes
    ----------
    null : StackedTests, tuple of RefitTest, or Interaction
        One test a phenotype.
    p : ndarray, handle or future
        P (eigen, sample).
    samples : ndarray of int or None
        Columns of the genotypes.
    intercept : bool
        Whether a constant lies in the span of the covariates.
    """

    null: Null
    p: Any
    samples: np.ndarray | None
    intercept: bool


def _scan_block(
    block: np.ndarray,
    *,
    nulls: list[Null],
    samples: list[np.ndarray | None],
    intercepts: list[bool],
    mean_impute: bool,
    ploidy: int,
    filters: Filters | None,
    **rotations: np.ndarray,
) -> np.ndarray:
    columns: list[np.ndarray] = []
    for g, null in enumerate(nulls):
        options: dict[str, Any] = {
            "samples": samples[g],
            "intercept": intercepts[g],
            "mean_impute": mean_impute,
            "ploidy": ploidy,
        }
        p = rotations[f"p{g}"]
        if isinstance(null, Interaction):
            tests: Sequence[Any] = [
                interaction_block(test, p, block, null.covariate, filters=filters, **options)
                for test in null.tests
            ]
            counted: Any = tests[0]
        else:
            scanned = (
                scan_block(null, p, block, filters=filters, **options)
                if isinstance(null, StackedTests)
                else refit_scan_block(null, p, block, filters=filters, **options)
            )
            tests, counted = scanned.by_phenotype, scanned
        for each in tests:
            columns += [counted.n, counted.effect_allele_frequency, columns_of(each)]
    return np.column_stack(columns)


def test_alternatives(
    null: AlternativeTest,
    pa: Any,
    a: Any = None,
    *,
    dims: tuple[str, ...] | None = None,
    partition_size: int | None = None,
    check_vectors: Callable[[str], None] | None = None,
) -> xr.Dataset:
    """Test rotated alternatives at the null's variance ratio. Lazy.

    See :meth:`dasklmm.LinearMixedModel.fit_alternatives` for the arguments and the result. `check_vectors` is
    called with the digest of the eigenvectors that a stored `pa` says it was rotated by.
    """
    r = null.weights.shape[0]
    rows = schema.as_rows(
        pa, "pa", (schema.VARIANT, schema.EIGEN), r, given=dims, partition_size=partition_size, in_pieces=True
    )
    if check_vectors is not None and EIGENVECTORS in rows.attrs:
        check_vectors(rows.attrs[EIGENVECTORS])
    plain = None
    if a is not None:
        given = None
        if dims is not None:
            given = tuple(schema.SAMPLE if d == schema.EIGEN else d for d in dims)
        plain = schema.as_rows(
            a,
            "a",
            (schema.VARIANT, schema.SAMPLE),
            null.n,
            given=given,
            partition_size=partition_size,
            in_pieces=True,
        )
        if plain.shape[0] != rows.shape[0]:
            raise ShapeError(
                f"pa has {rows.shape[0]} variants and a has {plain.shape[0]}; both must be the same "
                "alternatives, rotated and not."
            )
    check_block(null, rows.shape, None if plain is None else plain.shape)
    arrays = [rows.data] if plain is None else [rows.data, plain.data]
    data = blocks.map_variants(
        _test_block, *arrays, label=f"test-{null.test}", width=len(TEST_COLUMNS) + 1, null=null
    )
    if partition_size is None and not isinstance(getattr(pa, "data", pa), da.Array):
        data = blocks.joined(data, RESULTS_OF_BLOCKS)
    return dataset(data, TEST_COLUMNS, rows.coords, test=null.test)


test_alternatives.__test__ = False  # type: ignore[attr-defined]  # not a test of this package


def scan(
    groups: Sequence[Group],
    dosage: da.Array,
    *,
    label: str,
    columns: tuple[str, ...] = SCAN_COLUMNS,
    mean_impute: bool = True,
    ploidy: int = 2,
    filters: Filters | None = None,
) -> da.Array:
    """Rotate and test genotypes for all phenotypes in one task a block. Lazy.

    Returns
    -------
    dask.array.Array (variant, column)
        `columns` and status of each phenotype, group by group.
    """
    phenotypes = sum(
        len(group.null if isinstance(group.null, tuple) else group.null.tests) for group in groups
    )
    return blocks.map_variants(
        _scan_block,
        dosage,
        label=label,
        width=phenotypes * (len(columns) + 1),
        nulls=[group.null for group in groups],
        samples=[group.samples for group in groups],
        intercepts=[group.intercept for group in groups],
        mean_impute=mean_impute,
        ploidy=ploidy,
        filters=blocks.shared(filters),
        **{f"p{g}": group.p for g, group in enumerate(groups)},
    )


def dataset(data: Any, columns: tuple[str, ...], coords: Mapping[Any, Any], **attributes: Any) -> xr.Dataset:
    """Dataset over variant (and phenotype) of results: one variable a column, the last one the status."""
    variables: dict[str, Any] = {}
    dims = (schema.VARIANT, schema.PHENOTYPE)[: data.ndim - 1]
    for j, name in enumerate(columns):
        column = data[..., j]
        if name in INTEGERS or name in TRUTH_VALUES:
            column = column.astype(np.int64 if name in INTEGERS else np.bool_)
        variables[name] = (dims, column)
    codes = data[..., len(columns)]
    status = (
        codes.map_blocks(labels, dtype=labels(np.zeros(0)).dtype, token="status")
        if isinstance(codes, da.Array)
        else labels(codes)
    )
    variables["status"] = (dims, status)
    out = xr.Dataset(variables, attrs=attributes)
    for name, variable in out.data_vars.items():
        variable.attrs.update(ATTRIBUTES[str(name)])
    kept = {k: getattr(v, "variable", v) for k, v in coords.items()}
    return out.assign_coords(kept)


def labels(codes: np.ndarray) -> np.ndarray:
    """Names of status codes."""
    return np.array(STATUS_LABELS)[codes.astype(np.int8)]
