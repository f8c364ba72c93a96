"""Options of a scan and a kinship that is given to it, checked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dasklmm import schema
from dasklmm.cohort import Cohort, Cohorts
from dasklmm.errors import KinshipError, LocoError, OptionError, RankError, SampleError, StoreError
from dasklmm.lazy import associate
from dasklmm.lazy import kinship as lazy_kinship
from dasklmm.numerics import alternatives, spectrum
from dasklmm.numerics.interaction import check_covariate
from dasklmm.numerics.records import Filters
from dasklmm.store import arrays


def check_options(
    test: str, variance_ratio: str, kinship: Any, loco: bool, interaction: str | None, whiten: bool
) -> None:
    """Raise OptionError, StoreError or LocoError where options do not go together."""
    if test not in alternatives.TESTS:
        raise OptionError(f"test is {test!r}; it is one of {', '.join(map(repr, alternatives.TESTS))}.")
    if variance_ratio not in associate.VARIANCE_RATIOS:
        raise OptionError(
            f"variance_ratio is {variance_ratio!r}; it is 'null' (the null's ratio for every variant) or "
            "'per_variant' (each variant's own)."
        )
    if variance_ratio == "per_variant" and test == "score":
        raise OptionError(
            "the score test is taken at the null's variance ratio, so that there is nothing to refit. Give "
            "test='lrt' or 'wald' (--test), or variance_ratio='null' (--variance-ratio)."
        )
    if interaction is not None and variance_ratio != "null":
        raise OptionError(
            "an interaction is tested at the null's variance ratio. Give variance_ratio='null' (--variance-ratio)."
        )
    if whiten and variance_ratio != "null":
        raise OptionError(
            "genotypes are whitened at the null's variance ratio, and a refit takes each variant's own. Give "
            "variance_ratio='null' (--variance-ratio null), or whiten=False (no --whiten)."
        )
    if isinstance(kinship, (str, Path)) and not is_method(kinship) and not arrays.exists(kinship):
        wrong = OptionError if str(kinship).isidentifier() else StoreError
        raise wrong(
            f"kinship (--kinship) is {str(kinship)!r}: there is neither a kinship nor a decomposition at this "
            f"path, and the methods are {', '.join(map(repr, lazy_kinship.METHODS))}."
        )
    if loco and not is_method(kinship):
        raise LocoError(
            "loco=True with a kinship of your own: leaving a contig out needs the genotypes' own Gram "
            "matrices. Give loco=False (--no-loco), or a method (kinship='rrm', --kinship rrm)."
        )


def check_whitening(cohorts: Cohorts, low_rank: bool) -> None:
    """Raise OptionError unless there is one phenotype, whose own the whitening is, and all eigenpairs."""
    if len(cohorts.names) > 1:
        raise OptionError(
            f"genotypes are whitened for one phenotype, and these are {', '.join(map(repr, cohorts.names[:4]))}"
            f"{', …' if len(cohorts.names) > 4 else ''}. Phenotypes of the same samples share their eigenvectors, "
            "which is less work than to whiten for each: give whiten=False (no --whiten), or one phenotype "
            "(phenotype=, --pheno-col)."
        )
    if low_rank:
        raise OptionError(
            "genotypes are whitened by the whole kinship, and a low rank keeps a part of it (whose products are "
            "small already). Give whiten=False (no --whiten), or all eigenpairs: neither rank (--rank) nor "
            "truncated (--truncated), and no decomposition of fewer."
        )


def check_interaction(interaction: str, cohort: Cohort) -> None:
    """Raise OptionError unless the interaction is with a covariate of numbers that varies beside the others."""
    names = [name for name in cohort.covariates if name != "intercept"]
    if interaction in cohort.categories:
        levels = [name for name in names if name.startswith(f"{interaction}[")]
        raise OptionError(
            f"interaction is {interaction!r}, a category: it stands as {', '.join(levels)}, each against "
            f"{cohort.categories[interaction]['reference']!r}. Give one of these."
        )
    if interaction not in names:
        raise OptionError(
            f"interaction is {interaction!r}, which is not among the covariates ({', '.join(names) or 'none'}). "
            "Give it as one, so that its own effect is in the model."
        )
    e = cohort.x[:, cohort.covariates.index(interaction)]
    check_covariate(e, cohort.x.shape[1], f"the covariate {interaction!r}")


def chosen_filters(count: float, frequency: float, missing: float) -> Filters | None:
    """Filters on what is tested, or None where all are off; OptionError outside their range."""
    if not count >= 0:
        raise OptionError(f"min_allele_count is {count}; 0 (off) or more is needed.")
    if not 0.0 <= frequency <= 0.5:
        raise OptionError(
            f"min_allele_frequency is {frequency}; it is of the rarer allele, from 0 (off) to 0.5."
        )
    if not 0.0 <= missing <= 1.0:
        raise OptionError(f"max_missing is {missing}; a share from 0 to 1 (off) is needed.")
    filters = Filters(float(count), float(frequency), float(missing))
    return None if filters == Filters() else filters


def is_method(kinship: Any) -> bool:
    """Whether a kinship is computed here, by a method of this name."""
    return isinstance(kinship, str) and kinship in lazy_kinship.METHODS


def given_kinship(kinship: Any, cohort: Cohort) -> np.ndarray | xr.Dataset:
    """A kinship of the analysed samples, or the eigenpairs of one, in their order."""
    if isinstance(kinship, xr.Dataset):
        return _given_spectrum(kinship, cohort)
    if not isinstance(kinship, xr.DataArray):
        raise KinshipError(
            f"kinship is a {type(kinship).__name__}; a method ({', '.join(lazy_kinship.METHODS)}), a path, or "
            "an xarray.DataArray with coordinates sample_id_0 and sample_id_1 is needed, so that it can be "
            "joined by id."
        )
    if kinship.ndim != 2 or kinship.shape[0] != kinship.shape[1]:
        spectrum.check_kinship(np.empty(kinship.shape))
    ids = schema.kinship_ids(kinship)
    if ids is None:
        raise KinshipError(
            "the kinship carries no sample ids, so its order cannot be checked. Assign sample_id_0 over its "
            "first dim and sample_id_1 over its second."
        )
    index = schema.positions(cohort.sample_id, ids, "the kinship")
    k = np.asarray(kinship.data[index][:, index], dtype=np.float64)
    spectrum.check_kinship(k)
    return k


def leading(given: np.ndarray | xr.Dataset, rank: int | None) -> np.ndarray | xr.Dataset:
    """A given decomposition cut to its leading pairs; a kinship is decomposed to that rank later."""
    if rank is None or not isinstance(given, xr.Dataset):
        return given
    if rank > given.sizes[schema.EIGEN]:
        raise RankError(
            f"rank is {rank} and the decomposition holds {given.sizes[schema.EIGEN]} eigenpairs. Give a lower "
            "rank, or a decomposition of more."
        )
    return given.isel({schema.EIGEN: slice(rank)})


def _given_spectrum(pairs: xr.Dataset, cohort: Cohort) -> xr.Dataset:
    ids = schema.sample_ids(pairs)
    if ids is None or not {"p", "s"} <= set(pairs.variables):
        raise KinshipError(
            "a decomposition needs p (eigen, sample), s (eigen) and sample_id, as eigendecompose returns them."
        )
    if ids.size != cohort.sample_id.size or set(ids) != set(cohort.sample_id):
        raise SampleError(
            f"the decomposition is of {ids.size} samples and {cohort.sample_id.size} are analysed "
            f"({np.isin(cohort.sample_id, ids).sum()} in both). Eigenvectors cannot be restricted: decompose "
            "the kinship of the analysed samples, or give the kinship."
        )
    return pairs.isel(sample=schema.positions(cohort.sample_id, ids, "the decomposition"))
