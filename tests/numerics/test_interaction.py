"""Interactions with a covariate against dense generalised least squares, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dasklmm.errors import CovariateError, NotFiniteError, ShapeError
from dasklmm.numerics import alternatives, design
from dasklmm.numerics.interaction import interaction_block
from dasklmm.numerics.records import Status
from dasklmm.numerics.scan import scan_block

LOG_GAMMA = 0.3
NAMES = ("beta", "standard_error", "sigma_sq", "chi_sq", "log_p", "beta_main", "standard_error_main")


def dense(y, x, k, a, e, test, log_gamma=LOG_GAMMA):
    """One variant and its product with e by generalised least squares, the columns as they are given."""
    n, f = x.shape
    hi = np.linalg.inv(k + np.exp(-log_gamma) * np.eye(n))

    def fitted(columns):
        inverse = np.linalg.inv(columns.T @ hi @ columns)
        beta = inverse @ (columns.T @ hi @ y)
        left = y - columns @ beta
        return beta, left @ hi @ left, inverse

    with_main = np.column_stack([x, a])
    both = np.column_stack([with_main, a * e])
    _, rss0, _ = fitted(with_main)
    beta, rss1, inverse = fitted(both)
    dof = n - f - 2
    sigma_sq = rss1 / dof
    main_error, error = np.sqrt(sigma_sq * np.diag(inverse)[-2:])
    if test == "lrt":
        chi_sq = n * np.log(rss0 / rss1)
        log_p = stats.chi2.logsf(chi_sq, 1)
    else:
        chi_sq = (beta[-1] / error) ** 2 if test == "wald" else n * (rss0 - rss1) / rss0
        log_p = stats.f.logsf(chi_sq, 1, dof)
    return beta[-1], error, sigma_sq, chi_sq, log_p, beta[-2], main_error


def null_of(problem, r=None, test="lrt", x=None, y=None):
    """Test at a fixed ratio, P and kinship of a full-rank model, or of one with r pairs."""
    x = problem.x if x is None else x
    y = problem.y if y is None else y
    if r is None:
        data, p, k = design.rotated_data(problem.p @ y, problem.p @ x, problem.s), problem.p, problem.k
    else:
        p, s = problem.p[:r], problem.s[:r]
        data, k = design.rotated_data(p @ y, p @ x, s, y, x), (p.T * s) @ p
    return alternatives.alternative_test(data, LOG_GAMMA, test), p, k


def calls_of(problem):
    """Genotypes (variant, sample) with missing calls, and their mean-imputed dosages."""
    calls = problem.a.T.astype(np.int8)
    calls[2, [1, 5]] = -1
    calls[9, ::4] = -1
    dosage = np.where(calls < 0, np.nan, calls)
    return calls, np.where(calls < 0, np.nanmean(dosage, axis=1)[:, None], dosage)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("test", alternatives.TESTS)
@pytest.mark.parametrize("r", [None, 12, 60])
def test_interaction_equals_dense_least_squares(problem, r, test, intercept):
    null, p, k = null_of(problem, r, test)
    calls, dosage = calls_of(problem)
    e = problem.x[:, 1]
    got = interaction_block(null, p, calls, e, intercept=intercept)
    assert (got.status == Status.OK).all()
    for j, a in enumerate(dosage):
        want = dense(problem.y, problem.x, k, a, e, test)
        np.testing.assert_allclose([getattr(got, v)[j] for v in NAMES], want, rtol=1e-9, atol=1e-11)
    assert got.n[[0, 2, 9]].tolist() == [60, 58, 45]
    np.testing.assert_allclose(got.effect_allele_frequency, dosage.mean(axis=1) / 2)


def test_without_an_intercept_in_the_design(problem):
    x = problem.x[:, 1:] + [3.0, -1.0]
    null, p, k = null_of(problem, 12, x=x)
    calls, dosage = calls_of(problem)
    got = interaction_block(null, p, calls, x[:, 0], intercept=False)
    for j, a in enumerate(dosage):
        want = dense(problem.y, x, k, a, x[:, 0], "lrt")
        np.testing.assert_allclose([getattr(got, v)[j] for v in NAMES], want, rtol=1e-9, atol=1e-11)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    e_scale=st.sampled_from([-1e-6, -1.0, 0.3, 1e6]),
    e_shift=st.sampled_from([0.0, -7.0, 300.0]),
    y_scale=st.sampled_from([1e-5, 1.0, -3.0, 1e5]),
    swap=st.booleans(),
    r=st.sampled_from([None, 9]),
    log_gamma=st.sampled_from([-6.0, 0.0, 6.0]),
)
def test_units_of_e_and_y_and_the_counted_allele(seed, e_scale, e_shift, y_scale, swap, r, log_gamma):
    """At a given ratio p is unchanged, the effects follow the units, the main effect where e is 0."""
    rng = np.random.default_rng(seed)
    n, m = 30, 5
    z = rng.standard_normal((n, 50))
    s, u = np.linalg.eigh(z @ z.T / 50)
    s, p = s[::-1][:r], u[:, ::-1].T[:r]
    x = np.column_stack([np.ones(n), rng.standard_normal((n, 2))])
    calls = rng.integers(-1, 3, (m, n)).astype(np.int8)
    y = z[:, 0] + rng.standard_normal(n)

    def tested(y, x, calls):
        low = (y, x) if r else ()
        data = design.rotated_data(p @ y, p @ x, s, *low)
        return interaction_block(alternatives.alternative_test(data, log_gamma), p, calls, x[:, 1])

    one = tested(y, x, calls)
    other = x.copy()
    other[:, 1] = e_scale * (x[:, 1] + e_shift)
    two = tested(y_scale * y, other, np.where(calls < 0, calls, 2 - calls) if swap else calls)
    assert (one.status == Status.OK).all()
    close = {"rtol": 1e-6, "atol": 1e-9}
    np.testing.assert_array_equal(two.status, one.status)
    np.testing.assert_allclose(two.log_p, one.log_p, **close)
    np.testing.assert_allclose(two.chi_sq, one.chi_sq, **close)
    unit = y_scale * (-1.0 if swap else 1.0)
    np.testing.assert_allclose(two.beta * e_scale / unit, one.beta, **close)
    np.testing.assert_allclose(two.standard_error * abs(e_scale / unit), one.standard_error, rtol=1e-6)
    main = one.beta_main - e_shift * one.beta
    size = abs(e_shift) + 1.0
    np.testing.assert_allclose(two.beta_main / unit, main, rtol=1e-6, atol=1e-8 * size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("r", [None, 12])
def test_a_variant_without_a_test_is_nan_and_leaves_its_neighbours(problem, r, dtype):
    group = (np.arange(problem.n) % 2).astype(float)
    x = np.column_stack([problem.x, group])
    null, p, _ = null_of(problem, r, x=x)
    p = p.astype(dtype)
    dosage = problem.a.T.copy()
    clean = interaction_block(null, p, dosage, group)
    dosage[1] = 1.0
    dosage[4] = np.nan
    dosage[5, 3] = np.inf
    dosage[7] = 0.3 * group + 1.0  # in the span of the covariates
    dosage[8] *= group  # carriers in one group only
    dosage[9] = np.where(group == 0.0, dosage[9], 2.0)  # the same for the other allele and group
    dosage[10] = 0.0
    dosage[10, 6] = 1.0  # one carrier
    collinear = Status.COLLINEAR_WITH_COVARIATES
    bad = {1: Status.CONSTANT, 4: Status.ALL_MISSING, 5: Status.NOT_FINITE}
    bad |= dict.fromkeys((7, 8, 9, 10), collinear)
    got = interaction_block(null, p, dosage, group)
    rest = [j for j in range(problem.m) if j not in bad]
    assert got.status[list(bad)].tolist() == list(bad.values())
    assert (got.status[rest] == Status.OK).all()
    for name in NAMES:
        assert np.isnan(getattr(got, name)[list(bad)]).all()
        rtol = 1e-12 if dtype is np.float64 else 1e-3
        np.testing.assert_allclose(getattr(got, name)[rest], getattr(clean, name)[rest], rtol=rtol, atol=rtol)
    assert np.isnan(got.effect_allele_frequency[4])


def test_a_rare_allele_in_both_groups_is_tested_in_float32(problem):
    group = (np.arange(problem.n) % 2).astype(float)
    x = np.column_stack([problem.x, group])
    null, p, _ = null_of(problem, x=x)
    calls = np.zeros((1, problem.n), dtype=np.int8)
    calls[0, [4, 9]] = 1
    exact = interaction_block(null, p, calls, group)
    got = interaction_block(null, p.astype(np.float32), calls, group)
    assert exact.status[0] == got.status[0] == Status.OK
    assert got.beta[0] == pytest.approx(exact.beta[0], rel=1e-3)


def test_rounding_of_a_variant_explained_by_covariates_is_no_interaction(problem):
    """All but 1e-4 of the variant lies in the span of X, and its product is that remainder: no test."""
    e = np.arange(problem.n) % 3 - 1.0
    within = problem.x[:, 1] * (e == 0.0)
    x = np.column_stack([np.ones(problem.n), e, within])
    null, p, _ = null_of(problem, x=x)
    variant = 100.0 * within + 0.01 * problem.x[:, 2] * (e == 1.0)
    got = interaction_block(null, p.astype(np.float32), variant[None], e)
    assert got.status[0] == Status.COLLINEAR_WITH_COVARIATES


def test_a_variant_in_the_span_of_the_covariates_has_no_interaction(problem):
    """Its product with e is new, but it has no main effect of its own."""
    null, p, _ = null_of(problem)
    weights = np.random.default_rng(2).standard_normal((40, problem.f))
    got = interaction_block(null, p, weights @ problem.x.T, problem.x[:, 1])
    assert (got.status == Status.COLLINEAR_WITH_COVARIATES).all()


def test_a_dosage_that_overflows_single_precision_is_not_finite(problem):
    null, p, _ = null_of(problem)
    dosage = problem.a.T[:2].copy()
    dosage[1] = np.where(np.abs(problem.x[:, 1]) > 1.5, 3e38, 0.0)  # its product with e is infinite
    got = interaction_block(null, p.astype(np.float32), dosage, problem.x[:, 1])
    assert got.status.tolist() == [Status.OK, Status.NOT_FINITE]


def test_a_variant_that_leaves_nothing_of_y_has_no_interaction(problem):
    null, p, _ = null_of(problem)
    got = interaction_block(null, p, problem.y[None], problem.x[:, 1])
    assert got.status[0] == Status.PERFECT_FIT
    assert np.isnan(got.log_p[0])


class Rows:
    """P as blocks of its rows."""

    def __init__(self, p, size):
        self.p, self.size, self.dtype = p, size, p.dtype

    def __iter__(self):
        return (self.p[i : i + self.size] for i in range(0, len(self.p), self.size))


@pytest.mark.parametrize("r", [None, 12])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_p_may_come_in_blocks_of_rows(problem, r, size):
    null, p, _ = null_of(problem, r)
    calls, _ = calls_of(problem)
    want = interaction_block(null, p, calls, problem.x[:, 2])
    got = interaction_block(null, Rows(p, size), calls, problem.x[:, 2])
    for name in NAMES:
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-9, atol=1e-12)


def test_a_variant_s_numbers_do_not_depend_on_its_block(problem):
    null, p, _ = null_of(problem, 12)
    calls = np.random.default_rng(5).integers(-1, 3, (600, problem.n)).astype(np.int8)
    whole = interaction_block(null, p, calls, problem.x[:, 1])
    for start, stop in [(0, 1), (3, 260), (255, 600)]:
        part = interaction_block(null, p, calls[start:stop], problem.x[:, 1])
        for name in NAMES:
            want = getattr(whole, name)[start:stop]
            np.testing.assert_allclose(getattr(part, name), want, rtol=1e-10, atol=1e-12)


def test_samples_are_taken_in_the_order_asked(problem):
    null, p, _ = null_of(problem)
    calls, _ = calls_of(problem)
    order = np.random.default_rng(1).permutation(problem.n)
    wide = np.full((problem.m, problem.n + 5), 9, dtype=np.int8)
    wide[:, order] = calls
    want = interaction_block(null, p, calls, problem.x[:, 1]).log_p
    got = interaction_block(null, p, wide, problem.x[:, 1], samples=order).log_p
    np.testing.assert_array_equal(got, want)


def test_without_imputation_a_missing_dosage_is_named(problem):
    null, p, _ = null_of(problem)
    calls, _ = calls_of(problem)
    got = interaction_block(null, p, calls, problem.x[:, 1], mean_impute=False)
    assert np.flatnonzero(got.status).tolist() == [2, 9]
    assert (got.status[[2, 9]] == Status.MISSING_DOSAGE).all()
    np.testing.assert_array_equal(got.status, scan_block(null, p, calls, mean_impute=False).tests.status)
    assert np.isnan(got.beta_main[[2, 9]]).all()
    assert got.n[2] == 58


def test_ploidy_divides_the_frequency(problem):
    null, p, _ = null_of(problem)
    calls, dosage = calls_of(problem)
    got = interaction_block(null, p, calls, problem.x[:, 1], ploidy=4)
    np.testing.assert_allclose(got.effect_allele_frequency, dosage.mean(axis=1) / 4)


@pytest.mark.parametrize("r", [None, 12])
def test_a_covariate_that_cannot_be_used_is_refused(problem, r):
    null, p, _ = null_of(problem, r)
    calls, _ = calls_of(problem)
    e = problem.x[:, 1]
    with pytest.raises(CovariateError, match="span of the null model's covariates"):
        interaction_block(null, p, calls, np.arange(problem.n) ** 2)
    with pytest.raises(CovariateError, match="span of the null model's covariates"):
        interaction_block(null, p, calls, e[::-1])
    with pytest.raises(CovariateError, match="a covariate that varies"):
        interaction_block(null, p, calls, np.full(problem.n, 0.1))
    with pytest.raises(NotFiniteError, match="e has 1 values"):
        interaction_block(null, p, calls, np.where(np.arange(problem.n) == 3, np.nan, e))
    with pytest.raises(ShapeError, match="e has 59 samples and the genotypes 60"):
        interaction_block(null, p, calls, e[:-1])


def test_a_covariate_far_from_zero_is_recognised(problem):
    """Days since year 0: its mean is 1e4 deviations, in the design and in single precision alike."""
    x = problem.x.copy()
    x[:, 1] = 7e5 + 70.0 * x[:, 1]
    null, p, _ = null_of(problem, x=x)
    calls, _ = calls_of(problem)
    base = null_of(problem)[0]
    want = interaction_block(base, p, calls, problem.x[:, 1])
    for dtype, rtol in ((np.float64, 1e-6), (np.float32, 1e-3)):
        got = interaction_block(null, p.astype(dtype), calls, x[:, 1])
        np.testing.assert_allclose(got.log_p, want.log_p, rtol=rtol, atol=rtol)


def test_a_p_of_another_model_and_too_few_samples_are_refused(problem):
    null, p, _ = null_of(problem)
    calls, _ = calls_of(problem)
    e = problem.x[:, 1]
    with pytest.raises(ShapeError, match="59 eigenvectors and the model 60"):
        interaction_block(null, p[:-1], calls, e)
    with pytest.raises(ShapeError, match="p has 60 samples and the genotypes 59"):
        interaction_block(null, p, calls[:, :-1], e[:-1])
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3))
    few = alternatives.alternative_test(design.rotated_data(rng.standard_normal(5), x, np.ones(5)), 0.0)
    with pytest.raises(CovariateError, match="at least 6 samples"):
        interaction_block(few, np.eye(5), rng.random((2, 5)), x[:, 1])
