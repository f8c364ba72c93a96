"""Frozen records that travel between the steps of an analysis: from the rotated data to a block's tests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklmm.numerics.html import table

Float = NDArray[np.float64]


class Status(IntEnum):
    """Why an alternative has, or has not, a test; stored as int8, shown by its lower-case name."""

    OK = 0
    CONSTANT = 1
    ALL_MISSING = 2
    COLLINEAR_WITH_COVARIATES = 3
    MISSING_DOSAGE = 4
    NOT_FINITE = 5
    NO_NULL_MODEL = 6
    LOW_ALLELE_COUNT = 7
    LOW_ALLELE_FREQUENCY = 8
    HIGH_MISSINGNESS = 9
    PERFECT_FIT = 10

    @property
    def label(self) -> str:
        """Name shown to people, for example ``"all_missing"``."""
        return self.name.lower()


STATUS_LABELS: tuple[str, ...] = tuple(status.label for status in Status)


@dataclass(frozen=True)
class Filters:
    """Which variants are left out of the tests by what the analysed samples hold; each is off at its default.

    Attributes
    ----------
    min_allele_count : float
        Of the rarer allele.
    min_allele_frequency : float
        Of the rarer allele, in [0, 0.5].
    max_missing : float
        Share of samples without a call, in [0, 1].
    """

    min_allele_count: float = 0.0
    min_allele_frequency: float = 0.0
    max_missing: float = 1.0


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenpairs of a kinship matrix K, eigenvalues descending.

    Attributes
    ----------
    p : ndarray (eigen, sample), float64
        Eigenvectors as rows; ``p @ z`` rotates the columns of z.
    s : ndarray (eigen), float64
        Eigenvalues of K.
    n_dropped : int
        Pairs left out by truncation or for their condition.
    largest_dropped : float
        The largest eigenvalue left out, NaN if none was.
    """

    p: Float
    s: Float
    n_dropped: int = 0
    largest_dropped: float = float("nan")


@dataclass(frozen=True, eq=False)
class RotatedData:
    """Response and design of one null model, rotated by the eigenvectors of its kinship.

    Built by :func:`dasklmm.numerics.design.rotated_data`, which checks it.

    Attributes
    ----------
    py : ndarray (eigen)
    px : ndarray (eigen, covariate)
    s : ndarray (eigen)
        Eigenvalues of the kinship, not negative.
    y, x : ndarray (sample), (sample, covariate), or None
        The unrotated data, present exactly in a low-rank model.
    xtx, xty, yty : ndarray (covariate, covariate), (covariate), float
        Plain cross products; in a full-rank model P is orthogonal and the rotated data give them.
    n : int
        Number of samples.
    """

    py: Float
    px: Float
    s: Float
    y: Float | None
    x: Float | None
    xtx: Float
    xty: Float
    yty: float
    n: int

    @property
    def low_rank(self) -> bool:
        """Whether only the leading eigenpairs are kept, so that y, X and A are needed unrotated."""
        return self.y is not None

    @property
    def f(self) -> int:
        """Number of fixed effects (columns of X)."""
        return int(self.px.shape[1])

    @property
    def r(self) -> int:
        """Number of eigenpairs."""
        return int(self.s.shape[0])


@dataclass(frozen=True, eq=False, repr=False)
class NullFit:
    """The fitted null model; never changed after it is made.

    Attributes
    ----------
    beta : ndarray (covariate)
        Fixed effects, in units of y per unit of x.
    sigma_sq, tau_sq : float
        Variance of the random effect's scale and of the noise: V = sigma_sq K + tau_sq I.
    log_gamma : float
        Natural logarithm of the variance ratio gamma = sigma_sq / tau_sq.
    h_sq, h_sq_standard_error : float
        gamma / (1 + gamma), and its standard error (NaN where gamma was given or is at a bound).
    log_likelihood : float
        The criterion's log likelihood at the fit, constants included.
    criterion : str
        ``"reml"`` or ``"ml"``.
    estimated : bool
        False where gamma was given.
    at_boundary : bool
        The optimum lies at a bound of the search.
    optimize_result : scipy.optimize.OptimizeResult or None
    """

    beta: Float
    sigma_sq: float
    tau_sq: float
    log_gamma: float
    h_sq: float
    h_sq_standard_error: float
    log_likelihood: float
    criterion: str
    estimated: bool
    at_boundary: bool
    optimize_result: Any

    @property
    def gamma(self) -> float:
        """Variance ratio sigma_sq / tau_sq."""
        return float(np.exp(self.log_gamma))

    def figures(self) -> dict[str, str]:
        """The numbers of the fit, as text."""
        error = self.h_sq_standard_error
        shown = {
            "h_sq": f"{self.h_sq:.4g}" + ("" if np.isnan(error) else f" ± {error:.4g}"),
            "sigma_sq": f"{self.sigma_sq:.4g}",
            "tau_sq": f"{self.tau_sq:.4g}",
            "gamma": f"{self.gamma:.4g}",
            "log_gamma": f"{self.log_gamma:.4g}" + ("" if self.estimated else " (given)"),
            "beta": ", ".join(f"{b:.4g}" for b in self.beta[:6]) + (" …" if self.beta.size > 6 else ""),
            f"log likelihood ({self.criterion})": f"{self.log_likelihood:.6g}",
        }
        if self.at_boundary:
            shown["at a bound"] = "the likelihood still rises at the end of the range searched for gamma"
        return shown

    def __repr__(self) -> str:
        return "NullFit\n" + "\n".join(f"  {name}: {value}" for name, value in self.figures().items())

    def _repr_html_(self) -> str:
        return table("Null model", self.figures())


@dataclass(frozen=True, eq=False)
class AlternativeTest:
    """What a block of alternatives needs from the null model to be tested at its variance ratio.

    Built by :func:`dasklmm.numerics.alternatives.alternative_test`; a few columns, whatever the number of
    alternatives.

    Attributes
    ----------
    test : str
        ``"lrt"``, ``"wald"`` or ``"score"``.
    weights : ndarray (eigen, 1 + covariate)
        diag(d - gamma l) [Py, PX L^-T].
    direct : ndarray (sample, 1 + covariate) or None
        gamma [y, X L^-T]; None in a full-rank model.
    square_weights : ndarray (eigen)
        d - gamma l.
    identity : float
        gamma l: the weight of plain inner products, 0 in a full-rank model.
    z : ndarray (covariate)
        L^-1 <X, y>.
    rss : float
        Weighted residual sum of squares of the null.
    n, f : int
        Samples and fixed effects of the null.
    triangular : bool
        Whether alternatives are rotated by an upper triangular matrix, which whitens them
        (:mod:`dasklmm.numerics.whitening`), and not by eigenvectors.
    condition : float
        Largest over smallest variance in the covariance that it whitens; 1 of eigenvectors.
    """

    test: str
    weights: Float
    direct: Float | None
    square_weights: Float
    identity: float
    z: Float
    rss: float
    n: int
    f: int
    triangular: bool = False
    condition: float = 1.0

    @property
    def low_rank(self) -> bool:
        """Whether the unrotated alternatives are needed beside the rotated ones."""
        return self.direct is not None


@dataclass(frozen=True, eq=False)
class StackedTests:
    """Tests of several phenotypes of the same samples and covariates, side by side for one product.

    Built by :func:`dasklmm.numerics.alternatives.stacked_tests`.

    Attributes
    ----------
    tests : tuple of AlternativeTest
        One a phenotype.
    weights : ndarray (eigen, column), direct : ndarray (sample, column) or None
        Those of the tests, 1 + covariate columns each, and columns of zeros to a multiple of eight.
    square_weights : ndarray (eigen, column), identity : ndarray (column)
        One column a test, and zeros to a multiple of eight.
    """

    tests: tuple[AlternativeTest, ...]
    weights: Float
    direct: Float | None
    square_weights: Float
    identity: Float


@dataclass(frozen=True, eq=False)
class AlternativeStats:
    """Estimates and tests of a block of alternatives; each array has shape (variant).

    Attributes
    ----------
    beta, standard_error : ndarray, float64
        Effect of one unit of the alternative, and its standard error, in units of y.
    sigma_sq : ndarray, float64
        Variance scale refitted under the alternative.
    chi_sq : ndarray, float64
        The test's statistic: likelihood ratio, Wald F, or score F.
    log_p : ndarray, float64
        Natural logarithm of the p-value; does not underflow.
    status : ndarray, int8
        :class:`Status`; wherever it is not OK every estimate is NaN.
    """

    beta: Float
    standard_error: Float
    sigma_sq: Float
    chi_sq: Float
    log_p: Float
    status: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class InteractionStats:
    """Interactions of a block of variants with one covariate e; each array has shape (variant).

    The model of a variant a is y ~ X + a + a e, e among the columns of X.

    Attributes
    ----------
    n : ndarray, int64
        Samples with a call.
    effect_allele_frequency : ndarray, float64
        Mean dosage of those samples over the ploidy.
    beta, standard_error : ndarray, float64
        Change of the effect of one allele with one unit of e, in units of y per unit of e.
    sigma_sq : ndarray, float64
        Variance scale refitted with the variant and its interaction.
    chi_sq : ndarray, float64
        The interaction's statistic beside X and a: likelihood ratio, Wald F, or score F.
    log_p : ndarray, float64
        Natural logarithm of its p-value; does not underflow.
    beta_main, standard_error_main : ndarray, float64
        Effect of one allele where e is 0, in units of y; center e for the effect at its mean.
    status : ndarray, int8
        :class:`Status`; wherever it is not OK every estimate is NaN.
    """

    n: NDArray[np.int64]
    effect_allele_frequency: Float
    beta: Float
    standard_error: Float
    sigma_sq: Float
    chi_sq: Float
    log_p: Float
    beta_main: Float
    standard_error_main: Float
    status: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class RefitGrid:
    """The null model at the values of log gamma where the inner products of alternatives are summed.

    The first `n_series` nodes are Chebyshev-Lobatto points of a range, ascending, and carry a series; the
    others (sentinels) only show whether a curve is lower outside. Everything is scaled: inner products are
    multiplied by gamma^(-1/2), so that their size varies by half as many digits over the range.

    Attributes
    ----------
    log_gamma : ndarray (node)
    n_series : int
    transform : ndarray (1 + covariate, 1 + covariate, node)
        Right factor that turns [y, X] into [y - X beta, X L^-T] of the node.
    identity : ndarray (node)
        Scaled weight of plain inner products, 0 in a full-rank model.
    rss : ndarray (node)
        Scaled residual sum of squares of the null.
    base : ndarray (2, node)
        What REML and ML with an alternative owe to the null, less its value at the null's optimum.
    at_bounds : (bool, bool)
        Whether the range begins, and ends, at the bounds of the search.
    tile : int
        Rows of a product; fixed, so that a variant's numbers do not depend on its neighbours.
    margin : float
        A sentinel above a window's lowest value by less than this calls for a second look.
    """

    log_gamma: Float
    n_series: int
    transform: Float
    identity: Float
    rss: Float
    base: Float
    at_bounds: tuple[bool, bool]
    tile: int
    margin: float


@dataclass(frozen=True, eq=False)
class RefitTest:
    """What a block of alternatives needs to be tested, each at its own variance ratio.

    Built by :func:`dasklmm.numerics.refit.refit_test`; of the size of the rotated data.

    Attributes
    ----------
    fixed : AlternativeTest
        The likelihood ratio or Wald test at the null's variance ratio.
    data : RotatedData
    window : RefitGrid
        Around the null's optimum, with sentinels outside.
    whole : RefitGrid
        All of the bounds.
    log_likelihood : float
        Plain log likelihood of the null at its own optimum within the bounds, constants included.
    tolerance : float
        Relative error of inner products between nodes, at most.
    """

    fixed: AlternativeTest
    data: RotatedData
    window: RefitGrid
    whole: RefitGrid
    log_likelihood: float
    tolerance: float


@dataclass(frozen=True, eq=False)
class NodeWeights:
    """Weights of some eigenvectors in the inner products at every node of a grid.

    Attributes
    ----------
    squares : ndarray (eigen, node)
    products : ndarray (eigen, (1 + covariate) node)
        Of both, columns of zeros follow to a multiple of eight.
    tile : int
        Rows of a product, as in the grid.
    """

    squares: Float
    products: Float
    tile: int


@dataclass(frozen=True, eq=False)
class RefitStats:
    """Estimates and tests of alternatives, each at its own variance ratio; each array has shape (variant).

    Attributes
    ----------
    beta, standard_error : ndarray, float64
        Effect of one unit of the alternative, and its standard error, in units of y; at the REML optimum.
    sigma_sq : ndarray, float64
        Variance scale at the REML optimum.
    chi_sq : ndarray, float64
        Likelihood ratio of the two ML optima, or Wald F at the REML optimum.
    log_p : ndarray, float64
        Natural logarithm of the p-value; does not underflow.
    log_gamma, log_gamma_ml : ndarray, float64
        Logarithm of the variance ratio at the REML and at the ML optimum.
    log_likelihood : ndarray, float64
        Plain log likelihood at the ML optimum, constants included.
    at_boundary : ndarray, bool
        Either optimum lies at a bound of the search, and the bound was taken.
    status : ndarray, int8
        :class:`Status`; wherever it is not OK every estimate is NaN.
    """

    beta: Float
    standard_error: Float
    sigma_sq: Float
    chi_sq: Float
    log_p: Float
    log_gamma: Float
    log_gamma_ml: Float
    log_likelihood: Float
    at_boundary: NDArray[np.bool_]
    status: NDArray[np.int8]
