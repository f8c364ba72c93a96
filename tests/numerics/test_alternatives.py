"""Tests of alternatives against dense generalised least squares, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dasklmm.errors import CovariateError, OptionError, RankError, ShapeError
from dasklmm.numerics import alternatives, design, reml
from dasklmm.numerics.records import Status
from dasklmm.numerics.scan import rotate, scan_block

NAMES = ("beta", "standard_error", "sigma_sq", "chi_sq", "log_p")


def dense(y, x, k, a, log_gamma, test):
    """One alternative by generalised least squares with the covariance matrix itself."""
    n, f = x.shape
    hi = np.linalg.inv(k + np.exp(-log_gamma) * np.eye(n))

    def rss(design_):
        beta = np.linalg.solve(design_.T @ hi @ design_, design_.T @ hi @ y)
        e = y - design_ @ beta
        return e @ hi @ e, beta

    both = np.column_stack([x, a])
    rss0, _ = rss(x)
    rss1, beta = rss(both)
    sigma_sq = rss1 / (n - f - 1)
    error = np.sqrt(sigma_sq * np.linalg.inv(both.T @ hi @ both)[-1, -1])
    if test == "lrt":
        chi_sq = n * np.log(rss0 / rss1)
        return beta[-1], error, sigma_sq, chi_sq, stats.chi2.logsf(chi_sq, 1)
    chi_sq = (beta[-1] / error) ** 2 if test == "wald" else n * (rss0 - rss1) / rss0
    return beta[-1], error, sigma_sq, chi_sq, stats.f.logsf(chi_sq, 1, n - f - 1)


def rotated(problem, r=None):
    q = problem
    if r is None:
        return design.rotated_data(q.p @ q.y, q.p @ q.x, q.s), q.p, q.k
    p, s = q.p[:r], q.s[:r]
    return design.rotated_data(p @ q.y, p @ q.x, s, q.y, q.x), p, (p.T * s) @ p


@pytest.mark.parametrize("test", alternatives.TESTS)
@pytest.mark.parametrize("r", [None, 12, 60])
def test_block_equals_dense_least_squares(problem, test, r):
    data, p, k = rotated(problem, r)
    log_gamma = 0.3
    null = alternatives.alternative_test(data, log_gamma, test)
    got = alternatives.test_block(null, (p @ problem.a).T, problem.a.T if r else None)
    for j in range(problem.m):
        want = dense(problem.y, problem.x, k, problem.a[:, j], log_gamma, test)
        np.testing.assert_allclose([getattr(got, v)[j] for v in NAMES], want, rtol=1e-7, atol=1e-10)
    assert (got.status == Status.OK).all()


def test_all_pairs_of_a_low_rank_model_are_the_full_rank_model(problem):
    full, p, _ = rotated(problem)
    low, _, _ = rotated(problem, problem.n)
    pa = (p @ problem.a).T
    one = alternatives.test_block(alternatives.alternative_test(full, -0.7), pa)
    two = alternatives.test_block(alternatives.alternative_test(low, -0.7), pa, problem.a.T)
    for name in NAMES:
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-8)


def test_a_row_without_a_test_is_nan_and_leaves_its_neighbours(problem):
    data, p, _ = rotated(problem)
    null = alternatives.alternative_test(data, 0.3)
    a = problem.a.T.copy()
    clean = alternatives.test_block(null, a @ p.T)
    a[3] = 2.0  # constant: in the span of the intercept
    a[7] = problem.x @ [0.3, -2.0, 1.0]
    pa = a @ p.T
    pa[11, 4] = np.nan
    pa[12, 0] = np.inf
    pa[13] = 0.0
    got = alternatives.test_block(null, pa)
    bad = {3: Status.COLLINEAR_WITH_COVARIATES, 7: Status.COLLINEAR_WITH_COVARIATES}
    bad |= {11: Status.NOT_FINITE, 12: Status.NOT_FINITE, 13: Status.CONSTANT}
    for j in range(problem.m):
        assert got.status[j] == bad.get(j, Status.OK)
    rest = [j for j in range(problem.m) if j not in bad]
    for name in NAMES:
        assert np.isnan(getattr(got, name)[list(bad)]).all()
        np.testing.assert_allclose(getattr(got, name)[rest], getattr(clean, name)[rest], rtol=1e-12)


def test_float32_keeps_a_constant_out_and_a_rare_allele_in(problem):
    """Rounding of a float32 rotation must not make a test of a constant, nor lose a singleton."""
    data, p, _ = rotated(problem)
    null = alternatives.alternative_test(data, 0.3)
    a = np.full((2, problem.n), 2.0)
    a[1, 5] = 1.0
    pa = a.astype(np.float32) @ p.T.astype(np.float32)
    got = alternatives.test_block(null, pa)
    assert got.status.tolist() == [Status.COLLINEAR_WITH_COVARIATES, Status.OK]
    exact = alternatives.test_block(null, a @ p.T)
    assert got.beta[1] == pytest.approx(exact.beta[1], rel=1e-4)


def test_tiles_do_not_change_the_numbers(problem, monkeypatch):
    data, p, _ = rotated(problem)
    null = alternatives.alternative_test(data, 0.3)
    pa = (p @ problem.a).T
    one = alternatives.test_block(null, pa)
    monkeypatch.setattr(alternatives, "TILE_BYTES", 1)
    two = alternatives.test_block(null, pa)
    for name in NAMES:
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-11)


@pytest.mark.parametrize(
    ("n", "f", "low"), [(504, 1, False), (504, 3, False), (1000, 1, False), (512, 2, True)]
)
def test_a_phenotype_has_its_bits_alone_and_among_many_and_a_variant_in_any_row(n, f, low):
    rng = np.random.default_rng(3)
    r = n // 2 if low else n
    s = np.sort(rng.exponential(size=r))[::-1]
    p, x = rng.standard_normal((r, n)) / np.sqrt(n), rng.standard_normal((n, f))
    nulls = []
    for y in rng.standard_normal((30, n)):
        data = design.rotated_data(p @ y, p @ x, s, *((y, x) if low else (None, None)))
        nulls.append(alternatives.alternative_test(data, 0.3))
    block = rng.integers(-1, 3, (600, n)).astype(np.int8)
    together = scan_block(alternatives.stacked_tests(nulls), p, block, intercept=False)
    turned = scan_block(alternatives.stacked_tests(nulls), p, block[::-1], intercept=False)
    for i in (0, 7, 29):
        alone = scan_block(nulls[i], p, block, intercept=False).tests
        for name in NAMES:
            want = getattr(alone, name).tolist()
            assert getattr(together.by_phenotype[i], name).tolist() == want
            assert getattr(turned.by_phenotype[i], name).tolist() == want[::-1]


def test_small_effects_do_not_cancel(problem):
    """n log(RSS0/RSS1) loses its digits where the effect is tiny; the log1p form keeps them."""
    data, p, _ = rotated(problem)
    null = alternatives.alternative_test(data, 0.0)
    # an alternative whose product with the residual is all but zero
    a = problem.a[:, 0].copy()
    h = np.linalg.inv(problem.k + np.eye(problem.n))
    x = problem.x
    beta = np.linalg.solve(x.T @ h @ x, x.T @ h @ problem.y)
    e = h @ (problem.y - x @ beta)
    a -= e * ((a @ e) / (e @ e)) * (1 - 1e-7)
    got = alternatives.test_block(null, (p @ a)[None])
    want = problem.n * (got.beta[0] / got.standard_error[0]) ** 2 / (problem.n - problem.f - 1)
    assert got.chi_sq[0] < 1e-10
    assert got.chi_sq[0] == pytest.approx(want, rel=1e-6)


def test_a_perfect_alternative_is_said(problem):
    """The response itself as alternative leaves nothing of it, and a test of what rounding left would be noise."""
    data, p, _ = rotated(problem)
    null = alternatives.alternative_test(data, 0.3)
    got = alternatives.test_block(null, (p @ problem.y)[None])
    assert got.status[0] == Status.PERFECT_FIT
    assert np.isnan([got.beta[0], got.standard_error[0], got.chi_sq[0], got.log_p[0]]).all()
    a = problem.y + 1e-5 * np.random.default_rng(0).standard_normal(problem.n)
    near = alternatives.test_block(null, (p @ a)[None])
    assert near.status[0] == Status.OK
    assert near.beta[0] == pytest.approx(1.0)
    assert near.log_p[0] < -500


def test_wrong_blocks_are_refused(problem):
    full, p, _ = rotated(problem)
    low, pl, _ = rotated(problem, 12)
    null, null_low = (alternatives.alternative_test(d, 0.0) for d in (full, low))
    pa, a = (p @ problem.a).T, problem.a.T
    with pytest.raises(RankError, match="full rank, so a must not be given"):
        alternatives.test_block(null, pa, a)
    with pytest.raises(RankError, match="low rank, so the unrotated"):
        alternatives.test_block(null_low, (pl @ problem.a).T)
    with pytest.raises(ShapeError, match=r"shape \(m, 60\) is needed"):
        alternatives.test_block(null, pa[:, :-1])
    with pytest.raises(ShapeError, match=r"\(25, 60\) is needed"):
        alternatives.test_block(null_low, (pl @ problem.a).T, a[:-1])
    with pytest.raises(OptionError, match="'lrt', 'wald', 'score'"):
        alternatives.alternative_test(full, 0.0, "t")


def test_no_degree_of_freedom_is_refused():
    rng = np.random.default_rng(0)
    data = design.rotated_data(rng.standard_normal(4), rng.standard_normal((4, 3)), np.ones(4))
    with pytest.raises(CovariateError, match="at least 5 samples"):
        alternatives.alternative_test(data, 0.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([1e-5, 7.0, 1e5]))
def test_p_is_unchanged_by_scale_basis_and_order(seed, scale):
    """Scaling y, another basis of X, and permuting samples leave every p-value as it is."""
    rng = np.random.default_rng(seed)
    n, m = 30, 6
    z = rng.standard_normal((n, 50))
    k = z @ z.T / 50
    x = np.column_stack([np.ones(n), rng.standard_normal((n, 2))])
    a = rng.integers(0, 3, (n, m)).astype(float)
    y = z[:, 0] + rng.standard_normal(n)

    def log_p(y, x, k, a):
        s, u = np.linalg.eigh(k)
        p = u[:, ::-1].T
        data = design.rotated_data(p @ y, p @ x, np.maximum(s[::-1], 0))
        fit = reml.fit_null(data, on_boundary="clamp")
        null = alternatives.alternative_test(data, fit.log_gamma)
        return alternatives.test_block(null, (p @ a).T).log_p

    want = log_p(y, x, k, a)
    np.testing.assert_allclose(log_p(scale * y, x, k, a), want, rtol=1e-6, atol=1e-9)
    basis = np.linalg.qr(rng.standard_normal((3, 3)))[0] * [1.0, 5.0, 0.1]
    np.testing.assert_allclose(log_p(y, x @ basis, k, a), want, rtol=1e-6, atol=1e-9)
    order = rng.permutation(n)
    permuted = log_p(y[order], x[order], k[np.ix_(order, order)], a[order])
    np.testing.assert_allclose(permuted, want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("r", [None, 12])
def test_scan_of_genotypes_equals_the_test_of_their_rotation(problem, r, intercept):
    data, p, _ = rotated(problem, r)
    null = alternatives.alternative_test(data, 0.3)
    calls = problem.a.T.astype(np.int8)
    calls[2, [1, 5]] = -1
    calls[4] = 1
    calls[6] = -1
    dosage = np.where(calls < 0, np.nan, calls)
    with np.errstate(invalid="ignore"):
        mean = np.array([np.nan if np.isnan(d).all() else np.nanmean(d) for d in dosage])
    filled = np.where(np.isnan(dosage), mean[:, None], dosage)
    want = alternatives.test_block(null, filled @ p.T, filled if r else None)
    got = scan_block(null, p, calls, intercept=intercept)
    tested = got.tests.status == Status.OK
    assert got.tests.status[[4, 6]].tolist() == [Status.CONSTANT, Status.ALL_MISSING]
    assert tested.sum() == problem.m - 2
    for name in NAMES:
        np.testing.assert_allclose(
            getattr(got.tests, name)[tested], getattr(want, name)[tested], rtol=1e-8, atol=1e-10
        )
        assert np.isnan(getattr(got.tests, name)[~tested]).all()
    assert got.n[[0, 2, 6]].tolist() == [60, 58, 0]
    np.testing.assert_allclose(got.effect_allele_frequency, mean / 2)


class Rows:
    """P as blocks of its rows."""

    def __init__(self, p, size):
        self.p, self.size, self.dtype = p, size, p.dtype

    def __iter__(self):
        return (self.p[i : i + self.size] for i in range(0, len(self.p), self.size))


@pytest.mark.parametrize("r", [None, 12])
@pytest.mark.parametrize("size", [1, 5, 7, 100])
def test_p_may_come_in_blocks_of_rows(problem, r, size):
    data, p, _ = rotated(problem, r)
    null = alternatives.alternative_test(data, 0.3)
    calls = problem.a.T.astype(np.int8)
    want = scan_block(null, p, calls).tests
    got = scan_block(null, Rows(p, size), calls).tests
    for name in NAMES:
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-9, atol=1e-12)


def test_a_p_of_another_model_is_refused(problem):
    data, p, _ = rotated(problem)
    null = alternatives.alternative_test(data, 0.3)
    calls = problem.a.T.astype(np.int8)
    with pytest.raises(ShapeError, match="59 eigenvectors and the model 60"):
        scan_block(null, p[:-1], calls)
    with pytest.raises(ShapeError, match="p has 60 samples and the genotypes 59"):
        scan_block(null, p, calls[:, :-1])


def test_scan_takes_samples_in_the_order_asked(problem):
    data, p, _ = rotated(problem)
    null = alternatives.alternative_test(data, 0.3)
    calls = problem.a.T.astype(np.int8)
    want = scan_block(null, p, calls).tests.log_p
    order = np.random.default_rng(1).permutation(problem.n)
    wide = np.full((problem.m, problem.n + 5), 9, dtype=np.int8)
    wide[:, order] = calls
    got = scan_block(null, p, wide, samples=order).tests.log_p
    np.testing.assert_array_equal(got, want)


def test_scan_without_imputation_names_the_variant(problem):
    data, p, _ = rotated(problem)
    null = alternatives.alternative_test(data, 0.3)
    calls = problem.a.T.astype(np.int8)
    calls[2, 1] = -1
    got = scan_block(null, p, calls, mean_impute=False).tests
    assert got.status[2] == Status.MISSING_DOSAGE
    assert np.isnan(got.beta[2])
    assert (np.delete(got.status, 2) == Status.OK).all()


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 2e-4), (np.float64, 0.0)])
def test_a_variant_s_numbers_do_not_depend_on_its_block(problem, dtype, rtol):
    """Products of one fixed shape: the same bits in double precision, wherever a variant stands."""
    data, p, _ = rotated(problem)
    p = p.astype(dtype)
    null = alternatives.alternative_test(data, 0.3)
    calls = np.random.default_rng(5).integers(0, 3, (700, problem.n)).astype(np.int8)
    want = rotate(calls, p)
    for start, stop in [(0, 1), (0, 300), (3, 260), (255, 700)]:
        np.testing.assert_allclose(rotate(calls[start:stop], p), want[start:stop], rtol=rtol, atol=rtol)
        stats = scan_block(null, p, calls[start:stop]).tests
        whole = scan_block(null, p, calls).tests
        np.testing.assert_allclose(stats.beta, whole.beta[start:stop], rtol=max(rtol, 1e-11), atol=rtol)
