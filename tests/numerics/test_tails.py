import mpmath
import numpy as np
import pytest
from scipy import stats

from dasklmm.numerics.tails import (
    chi_sq_from_log_p,
    lambda_gc,
    log_sf_chi2_1,
    log_sf_f1,
    neg_log10,
    p_value,
    qq_quantiles,
)

EXPONENTS = (1, 2, 5, 10, 50, 100, 300, 320, 1000, 2000, 5000)
NEAR_ONE = (1e-12, 1e-6, 1e-3, 0.1, 0.7)
DOFS = (5.0, 50.0, 1400.0, 1e5)


def mp_log_sf_chi2_1(x):
    return mpmath.log(mpmath.erfc(mpmath.sqrt(mpmath.mpf(x) / 2)))


def mp_log_sf_f1(x, dof):
    """log P by quadrature of the Student density, tail or body, in 50 digits."""
    x, a = mpmath.mpf(x), mpmath.mpf(dof) / 2
    log_beta = mpmath.loggamma(a) + mpmath.loggamma(0.5) - mpmath.loggamma(a + 0.5)
    h, z_sq = a + mpmath.mpf(0.5), x / mpmath.mpf(dof)
    if x < 1:
        points = [0, mpmath.sqrt(z_sq) / 2, mpmath.sqrt(z_sq)]
        body = 2 * mpmath.quad(lambda u: mpmath.exp(-h * mpmath.log1p(u * u)), points)
        return mpmath.log1p(-body * mpmath.exp(-log_beta))
    # u^2 = expm1(v/h + start): the integrand becomes exp(-v) times a slow function
    start = mpmath.log1p(z_sq)
    integral = mpmath.quad(
        lambda v: mpmath.exp(-v + v / h + start) / (h * mpmath.sqrt(mpmath.expm1(v / h + start))),
        [0, 1, 4, 16, 64, 256, 1024],
    )
    return -h * start + mpmath.log(integral) - log_beta


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def relative_error(value, reference):
    return abs(float((mpmath.mpf(float(value)) - reference) / reference))


def chi_sq_near(exponent):
    """A statistic whose p is about 10**-exponent."""
    return float(chi_sq_from_log_p(-exponent * np.log(10.0)))


def f_near(exponent, dof):
    log_p, low, high = -exponent * np.log(10.0), 0.0, 700.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if log_sf_f1(np.exp(middle), dof) > log_p else (low, middle)
    return float(np.exp(low))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_chi2_tail_agrees_with_mpmath(exponent):
    x = chi_sq_near(exponent)
    reference = mp_log_sf_chi2_1(x)
    assert float(-reference / mpmath.log(10)) == pytest.approx(exponent, rel=1e-9)
    assert relative_error(log_sf_chi2_1(x), reference) < 1e-14


@pytest.mark.parametrize("x", NEAR_ONE)
def test_chi2_near_one_agrees_with_mpmath(x):
    assert relative_error(log_sf_chi2_1(x), mp_log_sf_chi2_1(x)) < 1e-14


@pytest.mark.parametrize(
    # with 5 degrees of freedom p = 1e-1000 needs a statistic of 1e400
    ("exponent", "dof"),
    [(e, d) for e in EXPONENTS for d in DOFS if 2 * e / d < 290],
)
def test_f_tail_agrees_with_mpmath(exponent, dof):
    x = f_near(exponent, dof)
    reference = mp_log_sf_f1(x, dof)
    assert float(-reference / mpmath.log(10)) == pytest.approx(exponent, rel=1e-9)
    assert relative_error(log_sf_f1(x, dof), reference) < 1e-13


@pytest.mark.parametrize("dof", [*DOFS, 1e7])
@pytest.mark.parametrize("x", NEAR_ONE)
def test_f_near_one_agrees_with_mpmath(x, dof):
    assert relative_error(log_sf_f1(x, dof), mp_log_sf_f1(x, dof)) < 1e-13


@pytest.mark.parametrize("dof", [1.0, 2.0, 3.0, 39.0, 40.0, 41.0, 1e4, 1e7])
@pytest.mark.parametrize("x", [1.2, 2.0, 3.9, 4.0, 4.1, 10.0, 300.0])
def test_f_agrees_with_mpmath_around_the_switches(x, dof):
    assert relative_error(log_sf_f1(x, dof), mp_log_sf_f1(x, dof)) < 1e-13


def test_agree_with_scipy_over_a_grid():
    x = np.linspace(0.0, 60.0, 601)
    np.testing.assert_allclose(log_sf_chi2_1(x), stats.chi2.logsf(x, 1), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(log_sf_f1(x, 30.0), np.log(stats.f.sf(x, 1, 30.0)), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("function", [log_sf_chi2_1, lambda x: log_sf_f1(x, 7.0)])
def test_edges(function):
    np.testing.assert_array_equal(function([0.0, -3.0, np.inf]), [0.0, 0.0, -np.inf])
    assert np.isnan(function(np.nan))
    assert function(np.empty((0, 3))).shape == (0, 3)
    assert function(1.0).shape == ()
    assert np.isfinite(function(1e300))


def test_f_broadcasts_and_rejects_dof():
    x = np.array([[0.5], [30.0]])
    dof = np.array([5.0, 50.0, np.nan, 0.0, -1.0])
    out = log_sf_f1(x, dof)
    assert out.shape == (2, 5)
    assert out[1, 1] == log_sf_f1(30.0, 50.0)
    assert np.isnan(out[:, 2:]).all()


def test_f_is_decreasing_and_tends_to_chi2():
    x = np.geomspace(1e-6, 1e4, 2001)
    for dof in (1.0, 4.0, 40.0, 1e6):
        assert (np.diff(log_sf_f1(x, dof)) < 0).all()
    np.testing.assert_allclose(log_sf_f1(x[:1500], 1e12), log_sf_chi2_1(x[:1500]), rtol=1e-9)


def test_inputs_are_not_changed():
    x = np.array([-1.0, 1.0, np.nan])
    x.flags.writeable = False
    log_sf_chi2_1(x), log_sf_f1(x, 5.0), lambda_gc(x), qq_quantiles(x)


def test_p_value_underflows_where_neg_log10_does_not():
    log_p = log_sf_chi2_1([1.0, 5000.0])
    assert p_value(log_p)[1] == 0.0
    assert neg_log10(log_p)[1] > 1000
    assert p_value(log_p)[0] == pytest.approx(0.31731050786291415, rel=1e-14)
    assert not np.signbit(neg_log10(0.0))


def test_chi_sq_from_log_p_is_the_inverse():
    x = np.geomspace(1e-20, 2e4, 500)
    np.testing.assert_allclose(chi_sq_from_log_p(log_sf_chi2_1(x)), x, rtol=1e-12)
    np.testing.assert_array_equal(chi_sq_from_log_p([0.0, -np.inf]), [0.0, np.inf])
    assert np.isnan(chi_sq_from_log_p([np.nan, 0.1])).all()


@pytest.mark.parametrize("size", [1, 2, 999, 1000])
def test_lambda_gc_is_the_ratio_of_medians(size):
    chi_sq = 1.3 * np.random.default_rng(size).chisquare(1, size)
    values = np.append(neg_log10(log_sf_chi2_1(chi_sq)), np.nan)
    assert lambda_gc(values) == pytest.approx(np.median(chi_sq) / stats.chi2.median(1), rel=1e-12)


def test_lambda_gc_of_uniform_p_is_one_and_of_none_is_nan():
    p = (np.arange(100001) + 0.5) / 100001
    assert lambda_gc(-np.log10(p)) == pytest.approx(1.0, abs=1e-9)
    assert np.isnan(lambda_gc([np.nan]))


def test_qq_quantiles_of_all_points():
    p = np.random.default_rng(3).uniform(size=1000)
    values = np.append(-np.log10(p), [np.nan, np.nan])
    pairs = qq_quantiles(values)
    assert pairs.n == pairs.observed.size == 1000
    np.testing.assert_array_equal(pairs.observed, np.sort(-np.log10(p))[::-1])
    np.testing.assert_allclose(10**-pairs.expected, np.arange(1, 1001) / 1001, rtol=1e-12)
    np.testing.assert_allclose(10 ** -pairs.upper[0], stats.beta.ppf(0.025, 1, 1000), rtol=1e-9)
    np.testing.assert_allclose(10 ** -pairs.lower[9], stats.beta.ppf(0.975, 10, 991), rtol=1e-9)


def test_qq_band_covers_as_often_as_it_says():
    rng = np.random.default_rng(11)
    inside = [
        ((q.lower <= q.observed) & (q.observed <= q.upper)).mean()
        for q in (qq_quantiles(rng.exponential(1 / np.log(10), 200)) for _ in range(300))
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_qq_thinning_keeps_the_ends_and_a_subset():
    values = np.random.default_rng(5).exponential(1 / np.log(10), 100_000)
    thin, full = qq_quantiles(values, max_points=500), qq_quantiles(values)
    assert thin.observed.size <= 500
    assert thin.n == full.n == 100_000
    np.testing.assert_array_equal(thin.observed[:10], full.observed[:10])
    assert thin.observed[-1] == full.observed[-1]
    assert np.isin(thin.expected, full.expected).all()
    assert np.diff(-thin.expected).max() < 0.31
    assert qq_quantiles([np.nan]).observed.size == 0
