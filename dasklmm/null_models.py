"""The null model of one phenotype and one kinship: its fits, and the test that is prepared of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dasklmm.cohort import Cohort
from dasklmm.lazy import associate
from dasklmm.numerics import alternatives, design, refit, reml, whitening
from dasklmm.numerics.records import AlternativeTest, Float, NullFit, RefitTest, RotatedData

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Null:
    """Null model of one group of variants: its fits by REML and ML, the one that the test uses, and the test.

    `data` and the fits are of orthogonal covariates; `beta` are the fixed effects of the given ones.
    """

    data: RotatedData
    fit: NullFit
    beta: np.ndarray
    plain: NullFit
    tested: NullFit
    pve: float
    test: AlternativeTest | RefitTest

    def summary(self) -> dict[str, Any]:
        """What is kept of it with the results."""
        fit = self.fit
        return {
            "h_sq": fit.h_sq,
            "h_sq_standard_error": fit.h_sq_standard_error,
            "pve": self.pve,
            "log_gamma": fit.log_gamma,
            "gamma": fit.gamma,
            "sigma_sq": fit.sigma_sq,
            "tau_sq": fit.tau_sq,
            "beta": [float(b) for b in self.beta],
            "log_likelihood": fit.log_likelihood,
            "log_likelihood_ml": self.plain.log_likelihood,
            "log_gamma_ml": self.plain.log_gamma,
            "n": self.data.n,
            "rank": self.data.r,
            "log_gamma_tested": self.tested.log_gamma,
            "at_boundary": fit.at_boundary or self.tested.at_boundary,
        }


def _data(table: np.ndarray, t: int, cohort: Cohort) -> tuple[RotatedData, Callable[[Float], Float]]:
    """Data of a phenotype with orthogonal covariates, and what takes their fixed effects to the given ones'."""
    y, x = cohort.y, cohort.x
    unrotated = (y, x) if table.shape[0] < y.size else (None, None)
    px = table[:, -x.shape[1] :]
    given = design.rotated_data(table[:, 1 + t], px, table[:, 0], *unrotated, cohort.covariates)
    return design.orthogonal(given)


def tested_variance_ratio(table: np.ndarray, cohort: Cohort, test: alternatives.Test) -> float:
    """Logarithm of the variance ratio at which the only phenotype of a table is tested."""
    data, _ = _data(table, 0, cohort)
    criterion: reml.Criterion = "ml" if test == "score" else "reml"  # as `tested` of fitted_null
    return reml.fit_null(data, criterion=criterion, on_boundary="clamp").log_gamma


def fitted_null(
    table: np.ndarray, t: int, mean_diagonal: float, cohort: Cohort, options: dict[str, Any]
) -> Null:
    """Null model of phenotype t of a table (eigen, 1 + phenotype + covariate), or of the one that is whitened."""
    test, white = options["test"], None
    if options["whiten"]:
        table, white = np.hsplit(table, 2)  # s, PY, PX; 0, WY, WX
    data, as_given = _data(table, t, cohort)
    fit = reml.fit_null(data, on_boundary="clamp")
    if fit.at_boundary:
        logger.warning(
            "phenotype %r: the variance ratio lies at a bound: log_gamma %.3g",
            cohort.phenotype,
            fit.log_gamma,
        )
    plain = reml.fit_null(data, criterion="ml", on_boundary="clamp")
    if plain.at_boundary and test == "score":
        logger.warning(
            "phenotype %r: the ML variance ratio lies at a bound: log_gamma %.3g",
            cohort.phenotype,
            plain.log_gamma,
        )
    tested = plain if test == "score" else fit
    pve = reml.proportion_of_variance(fit, mean_diagonal)
    if options["variance_ratio"] == "per_variant":
        refitted = refit.refit_test(data, fit, test)
        return Null(data, fit, as_given(fit.beta), plain, tested, pve, refitted)
    if white is None:
        fixed = alternatives.alternative_test(data, tested.log_gamma, test)
    else:
        fixed = whitening.whitened_test(white[:, 1], white[:, 2:], data.s, tested.log_gamma, test)
    return Null(data, fit, as_given(fit.beta), plain, tested, pve, fixed)


def tested_together(
    tests: Sequence[AlternativeTest | RefitTest], cohort: Cohort, interaction: str
) -> associate.Null:
    """Tests of the phenotypes of a group, as one pass over a block takes them."""
    fixed = tuple(test for test in tests if isinstance(test, AlternativeTest))
    if interaction:
        return associate.Interaction(fixed, cohort.x[:, cohort.covariates.index(interaction)])
    return alternatives.stacked_tests(fixed) if fixed else tuple(t for t in tests if isinstance(t, RefitTest))
