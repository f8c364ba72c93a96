"""The analysed samples: genotypes, phenotypes and covariates joined by sample id."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pandas.api import types

from dasklmm import schema
from dasklmm.errors import (
    CovariateError,
    DaskLMMError,
    NotFiniteError,
    PhenotypeError,
    SampleError,
    some,
)
from dasklmm.numerics import design, transforms
from dasklmm.readers.tables import read_table
from dasklmm.selection import variant_positions

logger = logging.getLogger(__name__)

# Sites, batches and chips are tens; beyond that a column of text is an identifier.
MOST_LEVELS = 50


@dataclass(frozen=True, eq=False)
class Cohort:
    """The analysed samples: response and design, and where each sample stands among the genotypes.

    Attributes
    ----------
    sample_id : ndarray (sample) of str
    y : ndarray (sample)
    x : ndarray (sample, covariate)
    phenotype : str
    covariates : list of str
        Names of the columns of x.
    columns : ndarray (sample) of int
        Position of each sample among the genotypes.
    counts : dict
        What matched.
    categories : dict of str to dict
        Of each covariate that became 0/1 columns: "reference", the level without a column, and "levels", all
        that occur, the reference first.
    transform : str or None
        How y was transformed.
    """

    sample_id: np.ndarray
    y: np.ndarray
    x: np.ndarray
    phenotype: str
    covariates: list[str]
    columns: np.ndarray
    counts: dict[str, int]
    categories: dict[str, dict[str, Any]] = field(default_factory=dict)
    transform: str | None = None

    @property
    def selected(self) -> np.ndarray | None:
        """`columns`, or None where they are all of the genotypes in order: a copy of each block is spared."""
        everyone = np.arange(self.counts["samples_in_genotypes"])
        return None if np.array_equal(self.columns, everyone) else self.columns


def join(
    ds: xr.Dataset,
    phenotypes: Any,
    covariates: Any = None,
    *,
    phenotype: str | None = None,
    intercept: bool = True,
    transform: transforms.Transform | None = None,
    samples: Sequence[str] | None = None,
) -> Cohort:
    """Join genotypes, phenotypes and covariates by sample id, in the genotypes' order.

    Parameters
    ----------
    ds : Dataset (variant, sample) with sample_id
    phenotypes, covariates
        As of :func:`dasklmm.gwas`. A covariate of text, categories or truth values becomes a 0/1 column
        ``name[level]`` for every level among the analysed samples but the first, the reference (R's
        treatment contrasts), with an intercept or without: first in sorted order, or in the order of a pandas
        Categorical. Numbers stay one column, also where they stand for groups.
    phenotype : str, optional
    intercept : bool
        Put a column of ones first.
    transform : {None, "inverse_normal", "standardise"}
        Of the analysed samples' phenotypes: rank-based inverse normal transformation (Blom; REGENIE's
        ``--apply-rint``), or mean 0 and standard deviation 1.
    samples : sequence of str, optional
        Ids; no others are analysed.

    Raises
    ------
    SampleError
        Duplicate ids, or no sample in common; with counts.
    PhenotypeError, CovariateError, NotFiniteError
        Values that cannot be analysed, named.
    OptionError
        An unknown transform.
    """
    transforms.check_transform(transform)
    ids = schema.sample_ids(ds)
    if ids is None:
        raise SampleError(
            "the genotypes carry no sample_id, so phenotypes cannot be joined to them. Assign the "
            "coordinate sample_id over the dim sample."
        )
    response = _phenotype(phenotypes, phenotype)
    table = _covariates(covariates)
    known = response.dropna()
    if known.empty:
        raise PhenotypeError(
            f"phenotype {response.name!r} has no value: all {response.size} samples are missing. Check the column."
        )
    counts = {
        "samples_in_genotypes": int(ids.size),
        "samples_in_phenotypes": int(response.size),
        "samples_with_phenotype": int(known.size),
    }
    used = np.isin(ids, known.index.to_numpy(dtype=str))
    counts["samples_with_genotypes_and_phenotype"] = int(used.sum())
    if table is not None:
        complete = table.dropna()
        counts["samples_in_covariates"] = len(table)
        counts["samples_with_covariates"] = len(complete)
        used &= np.isin(ids, complete.index.to_numpy(dtype=str))
    if samples is not None:
        used &= np.isin(ids, np.asarray(samples, dtype=str))
        counts["samples_chosen"] = len(samples)
    counts["samples_used"] = int(used.sum())
    parameters = int(intercept) + (0 if table is None else table.shape[1])
    if used.sum() <= parameters and (used.sum() < ids.size or not ids.size):
        seen: list[tuple[str, Any]] = [("genotypes", ids), (f"phenotype {response.name!r}", known.index)]
        if table is not None:
            seen.append(("covariates, without a gap,", complete.index))
        if samples is not None:
            seen.append(("chosen samples", samples))
        raise SampleError(_too_few(int(used.sum()), parameters, intercept, seen))
    sample_id = ids[used]
    y = known.loc[sample_id].to_numpy(dtype=np.float64)
    what = f"phenotype {response.name!r}"
    design.check_finite(y, what)
    x, names, categories = _design(None if table is None else table.loc[sample_id], y.size, intercept)
    design.check_response(y, x, what)
    if transform is not None:
        y = transforms.TRANSFORMS[transform](y, what=what)
        design.check_response(y, x, f"{what} after {transform}")
    if not design.has_intercept(x):
        logger.warning("no intercept: no constant lies in the span of the covariates")
    return Cohort(
        sample_id, y, x, str(response.name), names, np.flatnonzero(used), counts, categories, transform
    )


def _too_few(found: int, parameters: int, intercept: bool, seen: list[tuple[str, Any]]) -> str:
    listed = [
        f"the {name} ({len(ids):,} samples{f', such as {some(ids[:2])}' if len(ids) else ''})"
        for name, ids in seen
    ]
    text = f"only {found:,}" if found else "no"
    text += f" sample{'s are' if found > 1 else ' is'} in all of {', '.join(listed)}"
    if found:
        among = ", an intercept among them" if intercept else ""
        text += f"; more than {parameters} are needed for {parameters} covariates{among}"
    joined = any(":" in str(i) for i in seen[0][1][:1])
    return f"{text}. Check that the files use the same sample ids" + (
        " (those of the genotypes are FID:IID, as their IIDs repeat)." if joined else "."
    )


@dataclass(frozen=True, eq=False)
class Cohorts:
    """The cohorts of several phenotypes, each joined as if it were the only one.

    Attributes
    ----------
    names : list of str
        All phenotypes, in the order they were asked for.
    groups : list of list of Cohort
        Those that can be analysed; of the same samples and covariates in each group.
    failed : dict of str to str
        Why the others cannot.
    several : bool
        Whether results have the dim phenotype.
    """

    names: list[str]
    groups: list[list[Cohort]]
    failed: dict[str, str]
    several: bool

    @property
    def all(self) -> list[Cohort]:
        """Every cohort, group by group."""
        return [cohort for group in self.groups for cohort in group]

    def checked(self, check: Callable[[Cohort], None]) -> Cohorts:
        """Those that pass a check of their samples and covariates; the others have its error as their reason.

        Raises
        ------
        DaskLMMError
            The check's own, where there is one phenotype, or none passes.
        """
        groups, failed = [], dict(self.failed)
        last: DaskLMMError | None = None
        for group in self.groups:
            try:
                check(group[0])
            except DaskLMMError as error:
                last = error
                failed |= {cohort.phenotype: str(error) for cohort in group}
            else:
                groups.append(group)
        if last is not None and (not self.several or not groups):
            raise last
        return Cohorts(self.names, groups, failed, self.several)


def join_each(
    ds: xr.Dataset,
    phenotypes: Any,
    covariates: Any = None,
    *,
    phenotype: str | Sequence[str] | None = None,
    intercept: bool = True,
    transform: transforms.Transform | None = None,
    samples: Sequence[str] | None = None,
    condition: Sequence[str] = (),
) -> Cohorts:
    """Join each phenotype by sample id and group them by the samples that have it; see :func:`join`.

    Parameters
    ----------
    phenotype : str, or sequence of str, optional
        One column, or several. Default: all (of a .fam, the sixth column).
    condition : sequence of str
        Ids of variants whose dosages, missing ones imputed by the mean, join the covariates.

    Raises
    ------
    The errors of :func:`join` for a single phenotype, or where no phenotype can be analysed. Among several
    the others are analysed, and `failed` says why one was not.
    """
    transforms.check_transform(transform)
    frame, own = _frame_of(phenotypes)
    known = [str(name) for name in frame.columns]
    if phenotype is None:
        wanted = known if own is None else [own]
    else:
        wanted = [phenotype] if isinstance(phenotype, str) else [str(name) for name in phenotype]
    if not wanted or len(set(wanted)) < len(wanted):
        raise PhenotypeError(f"phenotypes are {wanted}; at least one is needed, and each name once.")
    absent = [name for name in wanted if name not in known]
    if absent:
        raise PhenotypeError(
            f"there is no phenotype {', '.join(map(repr, absent))}; the columns are {', '.join(known)}."
        )
    several = len(wanted) > 1 or not (phenotype is None or isinstance(phenotype, str))
    table = _covariates(covariates)
    if samples is not None:
        samples = _known_samples(ds, [samples] if isinstance(samples, str) else list(map(str, samples)))
    dosage = _dosages_of(ds, condition) if condition else np.empty((0, 0))
    joined: list[Cohort] = []
    failed: dict[str, str] = {}
    first: DaskLMMError | None = None
    for name in wanted:
        try:
            cohort = join(
                ds,
                frame,
                table,
                phenotype=name,
                intercept=intercept,
                transform=transform,
                samples=samples,
            )
            joined.append(_conditioned(cohort, condition, dosage) if condition else cohort)
        except DaskLMMError as error:
            if not several:
                raise
            first = first or error
            failed[name] = str(error)
            logger.warning("phenotype %r is left out: %s", name, error)
    if not joined:
        raise PhenotypeError(
            f"none of {len(wanted)} phenotypes can be analysed; the first: {first}"
        ) from first
    groups: dict[Any, list[Cohort]] = {}
    for cohort in joined:
        groups.setdefault((cohort.columns.tobytes(), cohort.x.tobytes()), []).append(cohort)
    return Cohorts(wanted, list(groups.values()), failed, several)


def _known_samples(ds: xr.Dataset, samples: list[str]) -> list[str]:
    """The chosen samples, each once; a warning says which are not among the genotypes."""
    once = list(dict.fromkeys(samples))
    if len(once) < len(samples):
        logger.warning("%d of the %d chosen samples stand twice", len(samples) - len(once), len(samples))
    ids = schema.sample_ids(ds)
    absent = [] if ids is None else np.asarray(once)[~np.isin(once, ids)].tolist()
    if absent:
        logger.warning(
            "%d of the %d chosen samples are not among the genotypes: %s",
            len(absent),
            len(once),
            some(absent),
        )
    return once


def _dosages_of(ds: xr.Dataset, variants: Sequence[str]) -> np.ndarray:
    """Dosages (variant, sample) of some variants, NaN where missing. Eager."""
    rows = variant_positions(ds, variants, "the variants to condition on")
    block = np.asarray(ds["dosage"].isel({schema.VARIANT: rows}).transpose(schema.VARIANT, ...).values)
    dosage = block.astype(np.float64)
    if block.dtype.kind != "f":
        dosage[block < 0] = np.nan
    return dosage


def _conditioned(cohort: Cohort, variants: Sequence[str], dosage: np.ndarray) -> Cohort:
    """The cohort with variants among its covariates."""
    own = dosage[:, cohort.columns]
    called = ~np.isnan(own)
    if not called.any(axis=1).all():
        missing = [str(v) for v, some in zip(variants, called.any(axis=1), strict=True) if not some]
        raise CovariateError(f"no analysed sample has a call of {some(missing)}, to condition on.")
    infinite = np.isinf(own).any(axis=1)
    if infinite.any():
        names = [str(v) for v, odd in zip(variants, infinite, strict=True) if odd]
        raise NotFiniteError(
            f"{some(names)}, to condition on, has infinite dosages. Set them to missing (NaN), or mend them."
        )
    mean = np.nansum(own, axis=1) / called.sum(axis=1)
    filled = np.where(called, own, mean[:, None])
    x = np.column_stack([cohort.x, filled.T])
    names = [*cohort.covariates, *(f"variant[{v}]" for v in variants)]
    design.check_design(x, cohort.y.size, names, "the covariates and the variants to condition on")
    design.check_response(cohort.y, x, f"phenotype {cohort.phenotype!r}")
    return replace(cohort, x=x, covariates=names)


def _design(
    table: pd.DataFrame | None, n: int, intercept: bool
) -> tuple[np.ndarray, list[str], dict[str, dict[str, Any]]]:
    """Design matrix of the analysed samples, the names of its columns, and what became of categories."""
    columns = [np.ones(n)] if intercept else []
    names = ["intercept"] if intercept else []
    categories: dict[str, dict[str, Any]] = {}
    for name, column in () if table is None else table.items():
        if types.is_float_dtype(column.dtype):
            columns.append(column.to_numpy())
            names.append(str(name))
            continue
        levels, codes = _levels(column)
        categories[str(name)] = {"reference": levels[0], "levels": levels}
        columns += [(codes == j).astype(np.float64) for j in range(1, len(levels))]
        names += [f"{name}[{level}]" for level in levels[1:]]
        logger.info(
            "covariate %r is categorical: %d levels (%s) as %d 0/1 columns, the reference is %r",
            str(name), len(levels), some(levels), len(levels) - 1, levels[0],
        )  # fmt: skip
    if not columns:
        raise CovariateError("no covariate and intercept=False; at least one fixed effect is needed.")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise CovariateError(
            f"several covariates are named {', '.join(map(repr, repeated))}. Rename or drop the columns."
        )
    x = np.column_stack(columns)
    for j, name in enumerate(names):
        design.check_finite(x[:, j], f"covariate {name!r}")
    design.check_design(x, n, names, "the covariates")
    return x, names, categories


def _levels(column: pd.Series) -> tuple[list[str], np.ndarray]:
    """Levels that occur in a column without gaps, the reference first, and each sample's position there."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_unused_categories()
        ordered = list(dict.fromkeys(map(str, column.cat.categories)))
    else:
        ordered = sorted(set(map(str, column)))
    what = f"covariate {str(column.name)!r} is categorical"
    if len(ordered) == 1:
        raise CovariateError(
            f"{what} with one level only among the {column.size} analysed samples, {ordered[0]!r}, so it explains "
            "nothing. Leave it out."
        )
    numbers = pd.to_numeric(pd.Series(ordered), errors="coerce").notna().to_numpy()
    odd = [level for level, number in zip(ordered, numbers, strict=True) if not number]
    if len(ordered) > MOST_LEVELS or len(ordered) == column.size:
        advice = "Leave it out, or group its levels."
        if numbers.mean() > 0.5:
            rest = f", and these are not: {some(odd)}" if odd else ", as text"
            advice = f"Most are numbers{rest}. Give numbers, with NA for missing."
        raise CovariateError(
            f"{what} with {len(ordered)} levels among {column.size} analysed samples ({some(ordered)}); it looks "
            f"like an identifier. At most {MOST_LEVELS} levels, and fewer than samples, are taken. {advice}"
        )
    if odd and numbers.any():
        logger.warning("%s, as it holds numbers and text (%s). Missing? Write NA.", what, some(odd))
    place = {level: j for j, level in enumerate(ordered)}
    return ordered, np.array([place[str(value)] for value in column])


def _frame_of(phenotypes: Any) -> tuple[pd.DataFrame, str | None]:
    """Phenotypes as a table, and the one of a .fam that PLINK itself knows."""
    own = None
    if isinstance(phenotypes, (str, Path)):
        path = str(phenotypes)
        phenotypes = read_table(phenotypes)
        own = str(phenotypes.columns[0]) if path.endswith(".fam") else None
    if isinstance(phenotypes, xr.DataArray):
        phenotypes = _frame(phenotypes, "phenotype", PhenotypeError)
    frame = phenotypes.to_frame() if isinstance(phenotypes, pd.Series) else phenotypes
    if not isinstance(frame, pd.DataFrame):
        raise PhenotypeError(
            f"phenotypes are a {type(phenotypes).__name__}; a path, a pandas DataFrame or Series indexed by "
            "sample id, or a DataArray (sample) or (sample, phenotype) with sample_id is needed."
        )
    if not frame.shape[1]:
        raise PhenotypeError("the phenotypes have no column. Give a table with one column or more.")
    return frame, own


def _phenotype(phenotypes: Any, name: str | None) -> pd.Series:
    frame, own = _frame_of(phenotypes)
    name = own if name is None else name
    names = [str(c) for c in frame.columns]
    if name is None:
        if len(names) != 1:
            raise PhenotypeError(
                f"phenotypes have {len(names)} columns ({', '.join(names[:8])}); name one: phenotype='…' "
                "(--pheno-col on the command line)."
            )
        name = names[0]
    if name not in names:
        raise PhenotypeError(f"there is no phenotype {name!r}; the columns are {', '.join(names)}.")
    column = frame.iloc[:, names.index(name)]
    if column.isna().all():
        column = column.astype(np.float64)
    if not types.is_numeric_dtype(column.dtype):
        raise PhenotypeError(
            f"phenotype {name!r} is not numeric (for example {column.dropna().iloc[0]!r}); numbers are "
            "needed, with NA for missing."
        )
    column = pd.Series(column.to_numpy(dtype=np.float64), index=_index(frame), name=name)
    schema.check_unique(column.index.to_numpy(dtype=str), "the phenotypes")
    if np.isinf(column).any():
        raise NotFiniteError(
            f"phenotype {name!r} has {int(np.isinf(column).sum())} infinite values. Set them to NA or mend them."
        )
    return column


def _covariates(covariates: Any) -> pd.DataFrame | None:
    if covariates is None:
        return None
    table = read_table(covariates) if isinstance(covariates, (str, Path)) else covariates
    if isinstance(table, xr.DataArray):
        table = _frame(table, "covariate", CovariateError)
    if isinstance(table, pd.Series):
        table = table.to_frame()
    if not isinstance(table, pd.DataFrame):
        raise CovariateError(
            f"covariates are a {type(covariates).__name__}; a path, a pandas DataFrame indexed by sample id, or a "
            "DataArray (sample, covariate) with sample_id is needed."
        )
    table = table.set_axis(_index(table), axis=0)
    schema.check_unique(table.index.to_numpy(dtype=str), "the covariates")
    names = [str(c) for c in table.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise CovariateError(
            f"several covariates are named {', '.join(map(repr, repeated))}. Rename or drop the columns."
        )
    return pd.DataFrame({name: _column(table.iloc[:, j], name) for j, name in enumerate(names)}, table.index)


def _column(column: pd.Series, name: str) -> pd.Series:
    """A covariate as float64, or as it is where it holds categories: Categorical, text or truth values."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return column
    kind = types.infer_dtype(column, skipna=True) if types.is_object_dtype(dtype) else ""
    text = types.is_string_dtype(dtype) and not types.is_object_dtype(dtype)
    if text or types.is_bool_dtype(dtype) or kind in ("string", "boolean", "mixed", "mixed-integer"):
        return column.astype(object)
    number = types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)
    if number or kind in ("integer", "floating", "mixed-integer-float", "decimal", "empty"):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), column.index)
    raise CovariateError(
        f"covariate {name!r} holds {kind or dtype} values; numbers, text, categories or truth values are needed. "
        "Make numbers of it (years, say, of dates)."
    )


def _frame(array: xr.DataArray, kind: str, error: type[DaskLMMError]) -> pd.DataFrame:
    """Table of a DataArray (sample) or (sample, covariate or phenotype) with sample_id."""
    if "sample_id" not in array.coords or schema.SAMPLE not in array.dims or array.ndim > 2:
        raise error(
            f"{kind}s as a DataArray have dims {array.dims}; (sample) or (sample, {kind}) with the coordinate "
            "sample_id are needed."
        )
    array = array.transpose(schema.SAMPLE, ...)
    values = array.values.reshape(array.sizes[schema.SAMPLE], -1)
    other = [d for d in array.dims if d != schema.SAMPLE]
    names = array[other[0]].values if other else [array.name or kind]
    return pd.DataFrame(values, index=array["sample_id"].values, columns=[str(n) for n in names])


def _index(frame: pd.DataFrame) -> pd.Index:
    return pd.Index(frame.index.astype(str).to_numpy(dtype=object), name="sample_id", dtype=object)
