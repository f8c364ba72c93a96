"""Log survival functions of the tests' null laws, genomic inflation and quantile-quantile data.

A p-value below 1e-308 has no float64, so the natural logarithm of p is computed first and p, where
it can be represented, from it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

__all__ = [
    "QuantilePairs",
    "chi_sq_from_log_p",
    "chi_sq_median_ratio",
    "lambda_gc",
    "log_sf_chi2_1",
    "log_sf_f1",
    "neg_log10",
    "p_value",
    "qq_quantiles",
]

FloatArray = NDArray[np.float64]

_LOG_10 = float(np.log(10.0))
_HALF_LOG_PI = 0.5 * float(np.log(np.pi))
# Median of chi-square with 1 degree of freedom, 2 erfinv(1/2)^2.
_CHI_SQ_1_MEDIAN = float(2.0 * special.erfinv(0.5) ** 2)
# At the smallest F the continued fraction is asked for, 48 terms leave less than 1e-16.
_FRACTION_TERMS = 48


def log_sf_chi2_1(x: ArrayLike) -> FloatArray:
    """Natural log of the survival function of chi-square with 1 degree of freedom.

    log P(X > x) = log erfc(sqrt(x / 2)).

    Parameters
    ----------
    x : array_like
        Statistic, any shape. NaN gives NaN; x <= 0 gives 0.

    Returns
    -------
    ndarray, float64, shape of `x`
        log p, to about 1e-15 relative over the whole range of float64, near p = 1 as well.
    """
    x = np.maximum(np.asarray(x, dtype=np.float64), 0.0)
    half = 0.5 * x
    z = np.sqrt(half)
    with np.errstate(divide="ignore"):
        # log erfc loses its digits near p = 1, log1p(-erf) near p = 0.
        return np.asarray(
            np.where(
                x < 1.0,
                np.log1p(-special.erf(np.minimum(z, 1.0))),
                np.log(special.erfcx(z)) - half,
            )
        )


def log_sf_f1(x: ArrayLike, dof: ArrayLike) -> FloatArray:
    """Natural log of the survival function of F(1, dof), the square of a Student t.

    With a = dof/2 and w = dof/(dof + x), p is the regularised incomplete beta I_w(a, 1/2). Small
    statistics use its complement; beyond, the prefactor w^a (1-w)^(1/2) / B(a, 1/2) is taken in
    logarithms and multiplied by the continued fraction of Didonato & Morris (1992, eq. 9),
    evaluated from its tail at a fixed depth.

    Parameters
    ----------
    x : array_like
        Statistic, any shape. NaN gives NaN; x <= 0 gives 0.
    dof : array_like
        Denominator degrees of freedom, > 0, broadcast against `x`. NaN gives NaN.

    Returns
    -------
    ndarray, float64, broadcast shape
        log p, to about 1e-13 relative for dof from 1 to 1e7, p = 1 to beyond 1e-5000. A dof that is
        not positive gives NaN.

    Notes
    -----
    Cost: about 1 microsecond an element on one core.
    """
    x, dof = np.broadcast_arrays(
        np.maximum(np.asarray(x, dtype=np.float64), 0.0), np.asarray(dof, dtype=np.float64)
    )
    shape = x.shape
    x, dof = x.ravel(), dof.ravel()
    out = np.full(x.shape, np.nan)
    valid = ~np.isnan(x) & (dof > 0.0)
    out[valid & np.isinf(x)] = -np.inf
    a = 0.5 * dof
    with np.errstate(over="ignore", invalid="ignore"):
        total = dof + x
        # 1 - w computed without subtraction; the split keeps the fraction inside fast convergence.
        body = valid & (x / total <= 2.0 / (a + 3.0))
    tail = valid & ~body & np.isfinite(x)
    out[body] = np.log1p(-special.betainc(0.5, a[body], x[body] / total[body]))
    out[tail] = _log_sf_f1_tail(x[tail], dof[tail])
    return out.reshape(shape)


def _log_sf_f1_tail(x: FloatArray, dof: FloatArray) -> FloatArray:
    """log I_w(a, 1/2) for statistics well above 1: log prefactor + log continued fraction."""
    a = 0.5 * dof
    ratio = x / dof
    y = ratio / (1.0 + ratio)
    w = 1.0 / (1.0 + ratio)
    # beta_{m+1} = m + m(1/2 - m) w/(a+2m-1) + (a+m)(a y - w/2 + 1 + m(1 + y))/(a+2m+1)
    excess = a * y - 0.5 * w + 1.0
    step = 1.0 + y
    rest = np.zeros_like(x)
    for m in range(_FRACTION_TERMS, 0, -1):
        low = a + (2.0 * m - 1.0)
        pull = m * (0.5 - m) * w
        beta = m + pull / low + (a + m) * (excess + m * step) / (low + 2.0)
        alpha = (a + (m - 1.0)) * (a + (m - 0.5)) * pull * w / (low * low)
        rest = alpha / (beta + rest)
    fraction = 1.0 / (a * excess / (a + 1.0) + rest)
    log_prefactor = -a * np.log1p(ratio) + 0.5 * np.log(y) - _log_beta_half(a)
    return np.asarray(log_prefactor + np.log(fraction))


def _log_beta_half(a: FloatArray) -> FloatArray:
    """log B(a, 1/2) without the cancellation of two large log-gammas (1e-9 at a = 5e6)."""
    inverse = 1.0 / np.maximum(a, 20.0)
    square = inverse * inverse
    series = inverse * (1 / 8 - square * (1 / 192 - square * (1 / 640 - square * (17 / 14336))))
    small = np.minimum(a, 20.0)
    log_ratio = np.where(
        a >= 20.0,
        0.5 * np.log(np.maximum(a, 20.0)) - series,
        special.gammaln(small + 0.5) - special.gammaln(small),
    )
    return np.asarray(_HALF_LOG_PI - log_ratio)


def neg_log10(log_p: ArrayLike) -> FloatArray:
    """-log10 p from the natural log of p; any shape, float64."""
    # The sum turns -0.0 into 0.0.
    return np.asarray(np.asarray(log_p, dtype=np.float64) / -_LOG_10 + 0.0)


def p_value(log_p: ArrayLike) -> FloatArray:
    """p from its natural log; any shape, float64. Below about 1e-323 it is 0: see `neg_log10`."""
    with np.errstate(under="ignore"):
        return np.asarray(np.exp(np.asarray(log_p, dtype=np.float64)))


def chi_sq_from_log_p(log_p: ArrayLike) -> FloatArray:
    """Chi-square (1 degree of freedom) whose survival function has this natural log.

    The inverse of `log_sf_chi2_1`; any shape, float64. log p = 0 gives 0, -inf gives inf, NaN or a
    positive value gives NaN. Holds below the smallest float64 p as well.
    """
    log_p = np.asarray(log_p, dtype=np.float64)
    log_p = np.where(log_p > 0.0, np.nan, log_p)
    body = special.erfinv(-np.expm1(np.maximum(log_p, -1.0)))
    tail = special.ndtri_exp(np.minimum(log_p, -1.0) - np.log(2.0))
    return np.asarray(np.where(log_p > -1.0, 2.0 * body * body, tail * tail))


def lambda_gc(neg_log10_p: ArrayLike) -> float:
    """Genomic inflation: median chi-square of the p-values over the median of chi-square(1).

    Parameters
    ----------
    neg_log10_p : array_like (variant)
        -log10 p-values; NaN (no test) is left out.

    Returns
    -------
    float
        1 for uniform p-values; NaN where there is no p-value.

    Notes
    -----
    Devlin & Roeder 1999. Taken from p, so that tests with an F law are comparable with chi-square.
    """
    values = np.asarray(neg_log10_p, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    if values.size == 0:
        return float("nan")
    middle = [(values.size - 1) // 2, values.size // 2]
    chi_sq = chi_sq_from_log_p(-_LOG_10 * np.partition(values, middle)[middle])
    return float(chi_sq.mean() / _CHI_SQ_1_MEDIAN)


def chi_sq_median_ratio(neg_log10_p: float) -> float:
    """Genomic inflation of tests whose median -log10 p is this; see :func:`lambda_gc`."""
    return float(chi_sq_from_log_p(-_LOG_10 * neg_log10_p) / _CHI_SQ_1_MEDIAN)


@dataclass(frozen=True)
class QuantilePairs:
    """Points of a quantile-quantile plot, from the smallest p-value to the largest.

    Attributes
    ----------
    expected, observed, lower, upper : ndarray (point), float64
        -log10 p: of the mean of the order statistic under uniform p-values, as observed, and the
        pointwise band around the expectation (`lower` <= `upper`).
    n : int
        Number of p-values, thinned points included.
    """

    expected: FloatArray
    observed: FloatArray
    lower: FloatArray
    upper: FloatArray
    n: int


def qq_quantiles(
    neg_log10_p: ArrayLike, *, max_points: int | None = None, confidence: float = 0.95
) -> QuantilePairs:
    """Expected and observed -log10 p with a pointwise band, for a quantile-quantile plot.

    The i-th smallest of n uniform p-values is Beta(i, n + 1 - i): its mean i/(n + 1) is the
    expectation, its quantiles the band.

    Parameters
    ----------
    neg_log10_p : array_like (variant)
        -log10 p-values; NaN (no test) is left out.
    max_points : int, optional
        Keep at most this many points: the smallest p-values all, the dense ones thinned so that the
        rest is even on the -log10 scale. Without it all points are kept.
    confidence : float
        Coverage of the band at each point.

    Returns
    -------
    QuantilePairs
    """
    values = np.asarray(neg_log10_p, dtype=np.float64).ravel()
    observed = np.sort(values[~np.isnan(values)])[::-1]
    n = observed.size
    rank = np.arange(1, n + 1)
    if max_points is not None and n > max_points:
        rank = np.unique(np.rint(np.geomspace(1, n, max(max_points, 1))).astype(np.int64))
    half = 0.5 * (1.0 - confidence)
    return QuantilePairs(
        expected=-np.log10(rank / (n + 1.0)),
        observed=observed[rank - 1],
        lower=-np.log10(special.betaincinv(rank, n + 1.0 - rank, 1.0 - half)),
        upper=-np.log10(special.betaincinv(rank, n + 1.0 - rank, half)),
        n=int(n),
    )
