"""What the results of a scan are: their variables, and attributes known before any work and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

import dasklmm
from dasklmm import schema
from dasklmm.cohort import Cohort, Cohorts
from dasklmm.lazy import associate
from dasklmm.numerics import design
from dasklmm.numerics.records import STATUS_LABELS
from dasklmm.numerics.tails import lambda_gc
from dasklmm.selection import Selection


@dataclass(frozen=True, eq=False)
class ScanResults:
    """Makes the Dataset of a scan's results.

    Attributes
    ----------
    ds : Dataset
        Genotypes and the coordinates of their variants.
    cohorts : Cohorts
    ranks : list of int
        Eigenpairs of each group of phenotypes.
    options : dict
        Common to all phenotypes.
    columns : tuple of str
        Names of the numbers of a variant, to which the status comes last.
    selection : Selection, or None
        Which variants are tested; None: all.
    """

    ds: xr.Dataset
    cohorts: Cohorts
    ranks: list[int]
    options: dict[str, Any]
    columns: tuple[str, ...]
    selection: Selection | None

    def said_of_each(self) -> dict[str, dict[str, Any]]:
        """What is known of each phenotype before any work."""
        return {
            cohort.phenotype: _said_of(cohort, rank)
            for group, rank in zip(self.cohorts.groups, self.ranks, strict=True)
            for cohort in group
        }

    def coords(self) -> xr.Dataset:
        """Coordinates of the variants that are tested."""
        known = self.ds.drop_vars("dosage")
        if self.selection is not None and self.selection.chosen is not None:
            known = known.isel({schema.VARIANT: self.selection.chosen})
        return xr.Dataset(
            coords={n: known[n].variable for n in schema.VARIANT_COORDS if n in known.variables}
        )

    def empty(self) -> xr.Dataset:
        """Results of no variant, with the attributes that are known before any work."""
        return self._table(np.empty((0, len(self.cohorts.names), len(self.columns) + 1)), {})

    def complete(
        self,
        columns: np.ndarray,
        summaries: Mapping[str, list[dict[str, Any]]],
        variants_in_kinship: list[int] | None,
    ) -> xr.Dataset:
        """Results of all variants.

        Parameters
        ----------
        columns : ndarray (variant, phenotype, column)
            Of all variants of the genotypes; the last column is the code of the status.
        summaries : mapping
            Name of a phenotype → its null models.
        variants_in_kinship : list of int, or None
            Of each group; None where the kinship was given.
        """
        chosen = None if self.selection is None else self.selection.chosen
        if chosen is not None:
            columns = columns[chosen]
        out = self._table(columns, self.coords().coords)
        log_p = out["neg_log10_p_value"].values.reshape(len(columns), -1)
        for g, group in enumerate(self.cohorts.groups):
            for cohort in group:
                k = self.cohorts.names.index(cohort.phenotype)
                codes = columns[:, k, -1].astype(np.int64)
                counts = dict(cohort.counts, variants=int(codes.size))
                if chosen is not None:
                    counts["variants_in_genotypes"] = int(chosen.size)
                if variants_in_kinship is not None:
                    counts["variants_in_kinship"] = variants_in_kinship[g]
                for code, label in enumerate(STATUS_LABELS):
                    if (codes == code).any():
                        counts[f"status_{label}"] = int((codes == code).sum())
                own = out.attrs["phenotypes"][cohort.phenotype] if self.cohorts.several else out.attrs
                own.update(lambda_gc=lambda_gc(log_p[:, k]), counts=counts, null=summaries[cohort.phenotype])
        return out

    def _table(self, columns: np.ndarray, coords: Mapping[Any, Any]) -> xr.Dataset:
        names, several = self.cohorts.names, self.cohorts.several
        if several:
            coords = {**coords, "phenotype": (schema.PHENOTYPE, np.array(names, dtype=str))}
        out = associate.dataset(columns if several else columns[:, 0], self.columns, coords)
        each = self.said_of_each()
        for cohort in self.cohorts.all:
            if cohort.categories:
                each[cohort.phenotype]["categories"] = cohort.categories
        for name, reason in self.cohorts.failed.items():
            each[name] = {"error": reason}
        out.attrs = {
            **self.options,
            "selection": {} if self.selection is None else self.selection.said,
            **(
                {"phenotype": names, "phenotypes": each}
                if several
                else {"phenotype": names[0], **each[names[0]]}
            ),
            "dasklmm_version": dasklmm.__version__,
        }
        return out


def _said_of(cohort: Cohort, rank: int) -> dict[str, Any]:
    return {
        "intercept": bool(design.has_intercept(cohort.x)),
        "covariates": cohort.covariates,
        "n": int(cohort.y.size),
        "n_covariates": int(cohort.x.shape[1]),
        "rank": rank,
    }
