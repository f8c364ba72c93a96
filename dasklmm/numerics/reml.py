"""The restricted (and plain) likelihood of the variance ratio, and the fit of the null model.

Sources: Harville 1974 (the REML constant); Lippert et al. 2011 (nmeth.1681); the documented algebra of
Hail 0.2.93's ``LinearMixedModel``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg, optimize

from dasklmm.errors import BoundaryError, NotFiniteError, OptimisationError, OptionError
from dasklmm.numerics.moments import Metric, inner, metric, metric_derivative
from dasklmm.numerics.records import Float, NullFit, RotatedData

Criterion = Literal["reml", "ml"]

# An optimum this close to a bound of log gamma counts as lying at it (as in Hail).
BOUNDARY_DISTANCE = 0.001

# Points at which a search begins. Half a unit apart over the usual bounds: the curve's singularities lie at
# distance pi from the real axis, so it has no narrower features.
GRID = 33


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The model at one variance ratio: everything the likelihood and the tests read.

    Attributes
    ----------
    log_gamma : float
    metric : Metric
    cholesky : ndarray (covariate, covariate)
        Lower factor L of <X, X>.
    z : ndarray (covariate)
        L^-1 <X, y>.
    beta : ndarray (covariate)
    rss : float
        <y, y> - z^T z.
    """

    log_gamma: float
    metric: Metric
    cholesky: Float
    z: Float
    beta: Float
    rss: float


def evaluate(data: RotatedData, log_gamma: float) -> Evaluation:
    """Solve the generalised least squares problem at one variance ratio.

    Cost O(eigen covariate^2), whatever the number of samples.
    """
    weights = metric(data.s, log_gamma, data.n, data.low_rank)
    cholesky = linalg.cholesky(inner(weights, data.px, data.px, data.xtx), lower=True)
    z = linalg.solve_triangular(cholesky, inner(weights, data.px, data.py, data.xty), lower=True)
    rss = float(inner(weights, data.py, data.py, data.yty)) - float(z @ z)
    beta = linalg.solve_triangular(cholesky, z, lower=True, trans="T")
    return Evaluation(log_gamma, weights, cholesky, z, beta, rss)


def neg_log_likelihood(data: RotatedData, at: Evaluation, criterion: Criterion = "reml") -> float:
    """Negative log likelihood, maximised over beta and sigma_sq, up to a constant.

    Returns
    -------
    float
        REML: (log det <X, X> - L + (n - f) log sigma_sq) / 2; add :func:`constant` for the full value.
        ML: (n log sigma_sq - L) / 2, with sigma_sq = rss / n.
    """
    if criterion == "ml":
        return 0.5 * (data.n * float(np.log(at.rss / data.n)) - at.metric.log_det)
    dof = data.n - data.f
    log_det_xx = 2.0 * float(np.sum(np.log(np.diag(at.cholesky))))
    return 0.5 * (log_det_xx - at.metric.log_det + dof * float(np.log(at.rss / dof)))


def derivative(data: RotatedData, at: Evaluation, criterion: Criterion = "reml") -> float:
    """Derivative of :func:`neg_log_likelihood` in log gamma.

    With d' = dd / dlog gamma = d^2 / gamma, and ' for inner products under d':
    RSS' = <y, y>' - 2 beta^T <X, y>' + beta^T <X, X>' beta;
    REML: (tr(<X, X>^-1 <X, X>') - L' + (n - f) RSS' / RSS) / 2.  ML: (n RSS' / RSS - L') / 2.
    """
    slope = metric_derivative(data.s, at.log_gamma, data.n, data.low_rank)
    xx = inner(slope, data.px, data.px, data.xtx)
    xy = inner(slope, data.px, data.py, data.xty)
    yy = float(inner(slope, data.py, data.py, data.yty))
    rss = yy - 2.0 * float(at.beta @ xy) + float(at.beta @ xx @ at.beta)
    if criterion == "ml":
        return 0.5 * (data.n * rss / at.rss - slope.log_det)
    trace = float(np.trace(linalg.cho_solve((at.cholesky, True), xx)))
    return 0.5 * (trace - slope.log_det + (data.n - data.f) * rss / at.rss)


def constant(data: RotatedData, criterion: Criterion = "reml") -> float:
    """What :func:`neg_log_likelihood` leaves out: terms without gamma (Harville 1974)."""
    if criterion == "ml":
        return 0.5 * data.n * float(1.0 + np.log(2.0 * np.pi))
    _, log_det_xtx = np.linalg.slogdet(data.xtx)
    return 0.5 * float((data.n - data.f) * (1.0 + np.log(2.0 * np.pi)) - log_det_xtx)


def fit_null(
    data: RotatedData,
    log_gamma: float | None = None,
    bounds: tuple[float, float] = (-8.0, 8.0),
    tol: float = 1e-8,
    maxiter: int = 500,
    *,
    criterion: Criterion = "reml",
    on_boundary: Literal["raise", "clamp"] = "raise",
) -> NullFit:
    """Fit the null model: find the variance ratio, or take the one given.

    Parameters
    ----------
    data : RotatedData
    log_gamma : float, optional
        Fixed logarithm of the variance ratio; 0.0 is a legal value. Default: estimated.
    bounds : (float, float)
        Range of log gamma that is searched.
    tol : float
        Absolute tolerance of log gamma.
    maxiter : int
        Limit of the optimiser's iterations.
    criterion : {"reml", "ml"}
    on_boundary : {"raise", "clamp"}
        What to do with an optimum within 0.001 of a bound: raise, or take the bound and flag it.

    Returns
    -------
    NullFit
        Cost: some 30 to 70 evaluations, each O(eigen covariate^2).

    Raises
    ------
    OptionError, NotFiniteError
        Options outside their range.
    BoundaryError
        The optimum lies at a bound and `on_boundary` is "raise".
    OptimisationError
        The optimiser did not converge in `maxiter` iterations.
    """
    if on_boundary not in ("raise", "clamp"):
        raise OptionError(f"on_boundary is {on_boundary!r}; it is 'raise' or 'clamp'.")
    if log_gamma is not None:
        if not np.isfinite(log_gamma):
            raise NotFiniteError(f"log_gamma is {log_gamma}; a finite number is needed.")
        return _fit_at(data, float(log_gamma), criterion)

    lower, upper = float(bounds[0]), float(bounds[1])
    if not (np.isfinite(lower) and np.isfinite(upper) and upper - lower > 4 * BOUNDARY_DISTANCE):
        raise OptionError(
            f"bounds is ({lower}, {upper}); two finite values of log gamma in rising order are needed, "
            "for example (-8, 8)."
        )

    result = _optimum(data, criterion, lower, upper, tol, maxiter)
    optimum = float(result.x)
    at_lower, at_upper = optimum - lower < BOUNDARY_DISTANCE, upper - optimum < BOUNDARY_DISTANCE
    if not (at_lower or at_upper):
        return _fit_at(data, optimum, criterion, result)
    if on_boundary == "raise":
        side, value, reading = (
            ("lower", lower, "the data show no variance along this kinship (h_sq near 0)")
            if at_lower
            else ("upper", upper, "the data show no noise beside this kinship (h_sq near 1)")
        )
        raise BoundaryError(
            f"log_gamma's optimum {optimum:.6g} lies at the {side} bound {value:g}: {reading}. Look at the "
            "profile (h_sq_normalized_lkhd()); widen bounds=, fix log_gamma=, or take the bound with "
            "on_boundary='clamp'."
        )
    return _fit_at(data, lower if at_lower else upper, criterion, result, at_boundary=True)


def _optimum(
    data: RotatedData, criterion: Criterion, lower: float, upper: float, tol: float, maxiter: int
) -> optimize.OptimizeResult:
    """Lowest point of the curve: the best of a grid, then the root of the derivative beside it.

    Values of the likelihood cannot tell log gamma better than some 1e-7, the square root of rounding; its
    derivative does, so that equal data give equal fits whatever the order of their sums. The curve can have
    more than one minimum, which the grid shows.
    """
    grid = np.linspace(lower, upper, GRID)
    values = grid_values(data, grid, criterion)
    best = int(np.argmin(values))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, GRID - 1)])
    calls = 0

    def slope(value: float) -> float:
        nonlocal calls
        calls += 1
        return derivative(data, evaluate(data, value), criterion)

    def value_at(x: float) -> float:
        return neg_log_likelihood(data, evaluate(data, x), criterion)

    def found(x: float, iterations: int) -> optimize.OptimizeResult:
        result = optimize.OptimizeResult()
        result.update(
            x=x, fun=value_at(x), nfev=GRID + calls, nit=iterations, success=True, status=0,
            message="Solution found.",
        )  # fmt: skip
        return result

    if best == 0 and slope(low) >= 0.0:
        return found(lower, 0)
    if best == GRID - 1 and slope(high) <= 0.0:
        return found(upper, 0)
    if not slope(low) < 0.0 < slope(high):
        # a second minimum between the grid's points: the lower of the two is left to a search by values
        search = optimize.minimize_scalar(
            value_at, method="bounded", bounds=(low, high), options={"xatol": tol, "maxiter": maxiter}
        )
        if not search.success:
            raise _not_converged(search.x, tol, maxiter)
        low, high = max(float(search.x) - 1e-4, lower), min(float(search.x) + 1e-4, upper)
        if not slope(low) < 0.0 < slope(high):
            return search
    # the root is found to rounding, so that tol only bounds the work that is asked for at least
    x, root = optimize.brentq(
        slope, low, high, xtol=min(tol, 1e-14), rtol=1e-14, maxiter=maxiter, full_output=True, disp=False
    )
    if not root.converged:
        raise _not_converged(x, tol, maxiter)
    return found(float(x), root.iterations)


def _not_converged(x: float, tol: float, maxiter: int) -> OptimisationError:
    return OptimisationError(
        f"log_gamma did not converge in {maxiter} iterations (last value {x:.6g}, tolerance {tol:g}). Raise "
        "maxiter= or tol=."
    )


def grid_values(data: RotatedData, grid: Float, criterion: Criterion = "reml") -> Float:
    """:func:`neg_log_likelihood` at several values of log gamma, by one matrix product. Shape of `grid`.

    Cost O(grid eigen covariate^2).
    """
    f, n = data.f, data.n
    gamma = np.exp(grid)[:, None]
    d = 1.0 / (data.s + 1.0 / gamma)
    log_det = np.sum(np.log(d), axis=1) + (n - data.r) * grid
    columns = np.column_stack([data.px, data.py])
    i, j = np.triu_indices(f + 1)
    products = (-gamma * data.s * d if data.low_rank else d) @ (columns[:, i] * columns[:, j])
    if data.low_rank:
        plain = np.block([[data.xtx, data.xty[:, None]], [data.xty[None], np.array([[data.yty]])]])
        products += gamma * plain[i, j]
    all_products = np.empty((grid.size, f + 1, f + 1))
    all_products[:, i, j] = all_products[:, j, i] = products
    cholesky = np.linalg.cholesky(all_products[:, :f, :f])
    z = np.linalg.solve(cholesky, all_products[:, :f, f:])[..., 0]
    rss = all_products[:, f, f] - np.sum(z * z, axis=1)
    if criterion == "ml":
        return np.asarray(0.5 * (n * np.log(rss / n) - log_det))
    log_det_xx = 2.0 * np.sum(np.log(np.diagonal(cholesky, axis1=1, axis2=2)), axis=1)
    return np.asarray(0.5 * (log_det_xx - log_det + (n - f) * np.log(rss / (n - f))))


def _fit_at(
    data: RotatedData,
    log_gamma: float,
    criterion: Criterion,
    result: optimize.OptimizeResult | None = None,
    at_boundary: bool = False,
) -> NullFit:
    at = evaluate(data, log_gamma)
    at.beta.setflags(write=False)
    sigma_sq = at.rss / (data.n - data.f if criterion == "reml" else data.n)
    estimated = result is not None
    error = h_sq_standard_error(data, log_gamma, criterion) if estimated and not at_boundary else float("nan")
    return NullFit(
        beta=at.beta,
        sigma_sq=sigma_sq,
        tau_sq=sigma_sq / float(np.exp(log_gamma)),
        log_gamma=log_gamma,
        h_sq=float(1.0 / (1.0 + np.exp(-log_gamma))),
        h_sq_standard_error=error,
        log_likelihood=-(neg_log_likelihood(data, at, criterion) + constant(data, criterion)),
        criterion=criterion,
        estimated=estimated,
        at_boundary=at_boundary,
        optimize_result=result,
    )


def h_sq_standard_error(data: RotatedData, log_gamma: float, criterion: Criterion = "reml") -> float:
    """Standard error of h_sq from the curvature of the likelihood in h_sq.

    Near the optimum the negative log likelihood is a h_sq^2 + … with a = 1 / (2 SE^2) (the parabola of
    Hail's documentation), so SE = h_sq (1 - h_sq) / sqrt(second derivative in log gamma). The second
    derivative is a difference of first ones over 2e-4: values alone would leave 1e-5 of rounding. NaN where
    the curve does not open upwards.
    """
    high, low = (derivative(data, evaluate(data, log_gamma + e), criterion) for e in (1e-4, -1e-4))
    curvature = (high - low) / 2e-4
    h = 1.0 / (1.0 + float(np.exp(-log_gamma)))
    return h * (1.0 - h) / float(np.sqrt(curvature)) if curvature > 0.0 else float("nan")


def h_sq_profile(data: RotatedData) -> Float:
    """Restricted likelihood at h_sq = 1 %, 2 %, … 99 %, normalised to sum 1.

    Returns
    -------
    ndarray (101)
        NaN at 0 and 100 %.
    """
    h = np.arange(1, 100) / 100.0
    values = [neg_log_likelihood(data, evaluate(data, float(g))) for g in np.log(h / (1.0 - h))]
    likelihood = np.exp(np.min(values) - np.array(values))
    out = np.full(101, np.nan)
    out[1:100] = likelihood / likelihood.sum()
    return out


def proportion_of_variance(fit: NullFit, mean_diagonal: float) -> float:
    """PVE as GEMMA defines it: t sigma_sq / (t sigma_sq + tau_sq).

    Parameters
    ----------
    fit : NullFit
    mean_diagonal : float
        t = trace(K) / n of the kinship, centred over the analysed samples.
    """
    explained = mean_diagonal * fit.sigma_sq
    return explained / (explained + fit.tau_sq)
