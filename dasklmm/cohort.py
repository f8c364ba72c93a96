"""The analysed samples: genotypes, phenotypes and covariates joined by sample id, and groups of variants."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasklmm import schema
from dasklmm.errors import CovariateError, LocoError, NotFiniteError, PhenotypeError, SampleError
from dasklmm.numerics import design
from dasklmm.readers.tables import read_table

logger = logging.getLogger(__name__)

ALL = "all"


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
    """

    sample_id: np.ndarray
    y: np.ndarray
    x: np.ndarray
    phenotype: str
    covariates: list[str]
    columns: np.ndarray
    counts: dict[str, int]


def join(
    ds: xr.Dataset,
    phenotypes: Any,
    covariates: Any = None,
    *,
    phenotype: str | None = None,
    intercept: bool = True,
) -> Cohort:
    """Join genotypes, phenotypes and covariates by sample id, in the genotypes' order.

    Raises
    ------
    SampleError
        Duplicate ids, or no sample in common; with counts.
    PhenotypeError, CovariateError, NotFiniteError
        Values that cannot be analysed, named.
    """
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
    counts["samples_used"] = int(used.sum())
    if not used.any():
        seen = [("genotypes", ids), ("phenotypes", known.index)]
        if table is not None:
            seen.append(("covariates", table.index))
        raise SampleError(
            "no sample is in all of "
            + ", ".join(f"the {name} ({len(v)} samples, such as {', '.join(map(repr, map(str, v[:2])))})"
                        for name, v in seen)
            + ". Check that the files use the same sample ids"
            + (" (those of the genotypes are FID:IID, as their IIDs repeat)." if ":" in ids[0] else ".")
        )  # fmt: skip
    sample_id = ids[used]
    y = known.loc[sample_id].to_numpy(dtype=np.float64)
    design.check_finite(y, f"phenotype {response.name!r}")
    columns = [np.ones((y.size, 1))] if intercept else []
    names = ["intercept"] if intercept else []
    if table is not None:
        columns.append(table.loc[sample_id].to_numpy(dtype=np.float64))
        names += [str(c) for c in table.columns]
    if not columns:
        raise CovariateError("no covariate and intercept=False; at least one fixed effect is needed.")
    x = np.column_stack(columns)
    for j, name in enumerate(names):
        design.check_finite(x[:, j], f"covariate {name!r}")
    design.check_design(x, y.size, names, "the covariates")
    design.check_response(y, x, f"phenotype {response.name!r}")
    if not design.has_intercept(x):
        logger.warning("no intercept: no constant lies in the span of the covariates")
    return Cohort(sample_id, y, x, str(response.name), names, np.flatnonzero(used), counts)


def _phenotype(phenotypes: Any, name: str | None) -> pd.Series:
    if isinstance(phenotypes, (str, Path)):
        own_column = str(phenotypes).endswith(".fam")
        phenotypes = read_table(phenotypes)
        if own_column and name is None:
            name = str(phenotypes.columns[0])  # the phenotype that PLINK itself knows
    if isinstance(phenotypes, xr.DataArray):
        phenotypes = pd.Series(phenotypes.values, index=phenotypes["sample_id"].values, name=phenotypes.name)
    frame = phenotypes.to_frame() if isinstance(phenotypes, pd.Series) else phenotypes
    if not isinstance(frame, pd.DataFrame):
        raise PhenotypeError(
            f"phenotypes are a {type(phenotypes).__name__}; a path, or a pandas DataFrame or Series indexed "
            "by sample id is needed."
        )
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
    if not pd.api.types.is_numeric_dtype(column.dtype):
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
        table = _frame(table)
    if isinstance(table, pd.Series):
        table = table.to_frame()
    if not isinstance(table, pd.DataFrame):
        raise CovariateError(
            f"covariates are a {type(covariates).__name__}; a path, a pandas DataFrame indexed by sample id, or a "
            "DataArray (sample, covariate) with sample_id is needed."
        )
    table = table.set_axis(_index(table), axis=0)
    schema.check_unique(table.index.to_numpy(dtype=str), "the covariates")
    wrong = [str(c) for c in table.columns if not pd.api.types.is_numeric_dtype(table[c].dtype)]
    if wrong:
        raise CovariateError(
            f"covariates {', '.join(map(repr, wrong))} are not numeric; numbers are needed. Code categories "
            "as 0/1 columns."
        )
    return table.astype(np.float64)


def _frame(array: xr.DataArray) -> pd.DataFrame:
    """Table of a DataArray (sample, covariate) with sample_id."""
    if "sample_id" not in array.coords or schema.SAMPLE not in array.dims:
        raise CovariateError("covariates as a DataArray need the dim sample and the coordinate sample_id.")
    array = array.transpose(schema.SAMPLE, ...)
    values = array.values.reshape(array.sizes[schema.SAMPLE], -1)
    other = [d for d in array.dims if d != schema.SAMPLE]
    names = array[other[0]].values if other else [array.name or "covariate"]
    return pd.DataFrame(values, index=array["sample_id"].values, columns=[str(n) for n in names])


def _index(frame: pd.DataFrame) -> pd.Index:
    return pd.Index(frame.index.astype(str).to_numpy(dtype=object), name="sample_id", dtype=object)


def contig_ranges(ds: xr.Dataset, loco: bool) -> dict[str, np.ndarray]:
    """Variants of each group that is scanned with one null model: of each contig with LOCO, or all.

    Raises
    ------
    LocoError
        Fewer than two contigs.
    """
    if not loco:
        return {ALL: np.arange(ds.sizes[schema.VARIANT])}
    if "variant_contig" not in ds.coords and "variant_contig" not in ds:
        raise LocoError(
            "the genotypes carry no variant_contig, which leaving a contig out needs. Assign it over the dim "
            "variant, or give loco=False (--no-loco)."
        )
    names = np.asarray(ds["variant_contig"].values, dtype=str)
    contigs = list(dict.fromkeys(names.tolist()))
    if len(contigs) < 2:
        raise LocoError(
            f"leave-one-contig-out needs variants on at least two contigs; all {names.size} are on "
            f"{contigs[0]!r}. Give loco=False (--no-loco), or a kinship from other variants."
        )
    return {contig: np.flatnonzero(names == contig) for contig in contigs}
