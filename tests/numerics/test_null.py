"""The null fit against dense linear algebra: likelihood, optimum, standard error, profile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasklmm.errors import BoundaryError, NotFiniteError, OptimisationError, OptionError
from dasklmm.numerics import design, reml
from dasklmm.numerics.moments import metric, metric_derivative


def dense_reml(y, x, k, log_gamma):
    """Harville's restricted likelihood from the covariance matrix itself, maximised over sigma_sq."""
    n, f = x.shape
    h = k + np.exp(-log_gamma) * np.eye(n)
    hi = np.linalg.inv(h)
    beta = np.linalg.solve(x.T @ hi @ x, x.T @ hi @ y)
    e = y - x @ beta
    sigma_sq = e @ hi @ e / (n - f)
    v = sigma_sq * h
    value = 0.5 * (
        np.linalg.slogdet(v)[1]
        + np.linalg.slogdet(x.T @ np.linalg.inv(v) @ x)[1]
        - np.linalg.slogdet(x.T @ x)[1]
        + (n - f) * (1 + np.log(2 * np.pi))
    )
    return value, beta, sigma_sq


def dense_ml(y, x, k, log_gamma):
    n = y.size
    h = k + np.exp(-log_gamma) * np.eye(n)
    hi = np.linalg.inv(h)
    e = y - x @ np.linalg.solve(x.T @ hi @ x, x.T @ hi @ y)
    v = e @ hi @ e / n * h
    return 0.5 * (np.linalg.slogdet(v)[1] + n * (1 + np.log(2 * np.pi)))


@pytest.fixture(params=["full rank", "low rank"])
def case(request, problem):
    """Rotated data of the small problem and the kinship that they stand for."""
    q = problem
    if request.param == "full rank":
        return design.rotated_data(q.p @ q.y, q.p @ q.x, q.s), q.k
    p, s = q.p[:15], q.s[:15]
    return design.rotated_data(p @ q.y, p @ q.x, s, q.y, q.x), (p.T * s) @ p


@pytest.mark.parametrize("log_gamma", [-7.5, -1.0, 0.0, 2.0, 7.5])
def test_likelihood_equals_dense(case, problem, log_gamma):
    data, k = case
    at = reml.evaluate(data, log_gamma)
    value, beta, sigma_sq = dense_reml(problem.y, problem.x, k, log_gamma)
    assert reml.neg_log_likelihood(data, at) + reml.constant(data) == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(at.beta, beta, rtol=1e-7)
    assert at.rss / (data.n - data.f) == pytest.approx(sigma_sq, rel=1e-8)
    ml = reml.neg_log_likelihood(data, at, "ml") + reml.constant(data, "ml")
    assert ml == pytest.approx(dense_ml(problem.y, problem.x, k, log_gamma), rel=1e-9)


@pytest.mark.parametrize("criterion", ["reml", "ml"])
@pytest.mark.parametrize("log_gamma", [-6.0, 0.3, 6.0])
def test_derivative_is_the_slope_of_the_likelihood(case, criterion, log_gamma):
    data, _ = case

    def value(g):
        return reml.neg_log_likelihood(data, reml.evaluate(data, g), criterion)

    slope = (value(log_gamma + 1e-5) - value(log_gamma - 1e-5)) / 2e-5
    exact = reml.derivative(data, reml.evaluate(data, log_gamma), criterion)
    assert exact == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("low_rank", [False, True])
def test_metric_derivative(problem, low_rank):
    s = problem.s[:15] if low_rank else problem.s
    up, down = (metric(s, 0.4 + e, problem.n, low_rank) for e in (1e-6, -1e-6))
    exact = metric_derivative(s, 0.4, problem.n, low_rank)
    np.testing.assert_allclose(exact.rotated, (up.rotated - down.rotated) / 2e-6, rtol=1e-6, atol=1e-8)
    assert exact.identity == pytest.approx((up.identity - down.identity) / 2e-6, abs=1e-8)
    assert exact.log_det == pytest.approx((up.log_det - down.log_det) / 2e-6, rel=1e-6)


def test_optimum_has_no_slope_and_is_the_lowest_of_a_grid(case):
    data, _ = case
    fit = reml.fit_null(data)
    assert abs(reml.derivative(data, reml.evaluate(data, fit.log_gamma))) < 1e-9
    grid = [reml.neg_log_likelihood(data, reml.evaluate(data, g)) for g in np.linspace(-8, 8, 400)]
    assert fit.optimize_result.fun <= min(grid) + 1e-12
    assert fit.optimize_result.x == fit.log_gamma
    assert fit.h_sq == pytest.approx(fit.sigma_sq / (fit.sigma_sq + fit.tau_sq), rel=1e-12)
    assert fit.estimated
    assert not fit.at_boundary


def test_standard_error_is_the_curvature_in_h_sq(case):
    """A parabola through values at h_sq and 0.001 to either side opens by 1 / (2 SE^2)."""
    data, _ = case
    fit = reml.fit_null(data)
    h = fit.h_sq + np.array([-1e-3, 0.0, 1e-3])
    values = [reml.neg_log_likelihood(data, reml.evaluate(data, g)) for g in np.log(h / (1 - h))]
    a = (values[0] - 2 * values[1] + values[2]) / (2 * 1e-6)
    assert fit.h_sq_standard_error == pytest.approx(1 / np.sqrt(2 * a), rel=1e-3)


def test_log_gamma_zero_is_a_value_and_not_absence(case):
    data, _ = case
    fit = reml.fit_null(data, log_gamma=0.0)
    assert fit.gamma == 1.0
    assert fit.h_sq == 0.5
    assert fit.sigma_sq == fit.tau_sq
    assert fit.optimize_result is None
    assert np.isnan(fit.h_sq_standard_error)


def test_profile(case):
    data, _ = case
    profile = reml.h_sq_profile(data)
    assert profile.shape == (101,)
    assert np.isnan(profile[[0, 100]]).all()
    assert profile[1:100].sum() == pytest.approx(1.0)
    fit = reml.fit_null(data)
    assert abs(np.nanargmax(profile) - 100 * fit.h_sq) <= 1.0
    ratio = profile[30] / profile[60]
    values = [reml.neg_log_likelihood(data, reml.evaluate(data, np.log(h / (1 - h)))) for h in (0.3, 0.6)]
    assert np.log(ratio) == pytest.approx(values[1] - values[0])


def test_boundary_raises_or_clamps():
    rng = np.random.default_rng(3)
    n = 50
    s = np.linspace(3, 0.01, n)
    noise = rng.standard_normal(n)  # no variance along the eigenvalues: gamma runs to zero
    noise *= np.where(s > 1, 0.3, 1.0)
    data = design.rotated_data(noise, rng.standard_normal((n, 1)), s)
    with pytest.raises(BoundaryError, match=r"lower bound -8.*h_sq_normalized_lkhd.*on_boundary='clamp'"):
        reml.fit_null(data)
    fit = reml.fit_null(data, on_boundary="clamp")
    assert fit.at_boundary
    assert fit.log_gamma == -8.0
    assert np.isnan(fit.h_sq_standard_error)
    pure = design.rotated_data(np.sqrt(s) * rng.standard_normal(n), rng.standard_normal((n, 1)), s)
    with pytest.raises(BoundaryError, match="upper bound"):
        reml.fit_null(pure, bounds=(-8.0, -2.0))


def test_options_are_checked(case):
    data, _ = case
    with pytest.raises(OptionError, match="rising order"):
        reml.fit_null(data, bounds=(3.0, 1.0))
    with pytest.raises(OptionError, match="on_boundary"):
        reml.fit_null(data, on_boundary="ignore")
    with pytest.raises(NotFiniteError, match="log_gamma"):
        reml.fit_null(data, log_gamma=np.inf)
    with pytest.raises(OptimisationError, match="maxiter"):
        reml.fit_null(data, maxiter=2)


@pytest.mark.parametrize("criterion", ["reml", "ml"])
def test_the_lowest_minimum_is_found(criterion):
    """Small problems, some of whose curves have two minima or none inside: as low as a fine grid anywhere."""
    several = at_bounds = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(6, 20))
        s = np.sort(rng.gamma(0.3, 3, n))[::-1]
        py = rng.standard_normal(n) * rng.choice([0.1, 1.0, 4.0], n)
        data = design.rotated_data(py, rng.standard_normal((n, 1)), s)
        values = reml.grid_values(data, np.linspace(-8, 8, 2001), criterion)
        inside = values[1:-1]
        several += np.sum((inside < values[:-2]) & (inside < values[2:])) > 1
        fit = reml.fit_null(data, on_boundary="clamp", criterion=criterion)
        at_bounds += fit.at_boundary
        found = reml.neg_log_likelihood(data, reml.evaluate(data, fit.log_gamma), criterion)
        assert found <= values.min() + 1e-9
    assert several
    assert at_bounds


@pytest.mark.parametrize("rank", [None, 9])
@pytest.mark.parametrize("criterion", ["reml", "ml"])
def test_the_grid_has_the_values_of_its_points(criterion, rank):
    rng = np.random.default_rng(4)
    n = 24
    s = np.sort(rng.gamma(1.0, 1.0, n))[::-1][:rank]
    p = np.linalg.qr(rng.standard_normal((n, n)))[0][:rank]
    y, x = rng.standard_normal(n), rng.standard_normal((n, 3))
    data = design.rotated_data(p @ y, p @ x, s, *(() if rank is None else (y, x)))
    grid = np.linspace(-8, 8, 9)
    want = [reml.neg_log_likelihood(data, reml.evaluate(data, g), criterion) for g in grid]
    np.testing.assert_allclose(reml.grid_values(data, grid, criterion), want, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([1e-6, 0.5, 3.0, 1e6]))
def test_scaling_y_scales_variances_and_leaves_the_ratio(seed, scale):
    rng = np.random.default_rng(seed)
    n = 40
    s = np.sort(rng.gamma(1.0, 1.0, n))[::-1]
    py = rng.standard_normal(n) * np.sqrt(s + 1)
    px = rng.standard_normal((n, 2))
    one = reml.fit_null(design.rotated_data(py, px, s), on_boundary="clamp")
    two = reml.fit_null(design.rotated_data(scale * py, px, s), on_boundary="clamp")
    assert two.log_gamma == pytest.approx(one.log_gamma, abs=1e-6)
    assert two.sigma_sq == pytest.approx(scale**2 * one.sigma_sq, rel=1e-5)
