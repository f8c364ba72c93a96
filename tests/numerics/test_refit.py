"""Refitted variance ratios against searches on the exact curves and dense generalised least squares."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats
from threadpoolctl import threadpool_limits

from dasklmm.errors import CovariateError, OptionError, RankError, ShapeError
from dasklmm.numerics import chebyshev, design, refit, refit_grid, refit_scan, reml, spectrum
from dasklmm.numerics.records import RefitStats, Status

BOUNDS = (-8.0, 8.0)
KINDS = ("structured", "few pairs", "flat", "boundary", "two scales")
NAMES = tuple(field.name for field in fields(RefitStats))


def random_problem(kind, seed, m=3, n=None):
    """y, x, k and alternatives (m, n): in turn without effect, with a large one, and rare."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    n = n or int(rng.integers(20, 81))
    f = int(rng.integers(1, 4))
    z = rng.standard_normal((n, int(rng.integers(n // 2, 3 * n))))
    k = z @ z.T / z.shape[1]
    if kind == "flat":
        k = np.eye(n) + 1e-3 * rng.random() * k
    elif kind == "few pairs":
        families = rng.integers(0, int(rng.integers(3, 8)), n)
        k = (families[:, None] == families).astype(float)
    elif kind == "two scales":
        k += 300.0 * np.outer(z[:, 0] > 0, z[:, 0] > 0) + 1e-3 * np.diag(np.exp(3 * rng.standard_normal(n)))
    share = {"boundary": float(seed % 2), "flat": 0.5}.get(kind, rng.random())
    g = np.linalg.cholesky(k + 1e-10 * np.eye(n)) @ rng.standard_normal(n)
    x = np.column_stack([np.ones(n), rng.standard_normal((n, f - 1))])
    a = rng.integers(0, 3, (m, n)).astype(float)
    a[2::3] = rng.random((len(a[2::3]), n)) < 0.1
    a[2::3, 0] = 1.0
    y = x @ rng.standard_normal(f) + np.sqrt(share) * g + np.sqrt(1 - share) * rng.standard_normal(n)
    return y + 1.5 * y.std() * (a[1] - 1), x, k, a


def rotated(y, x, k, a, r=None):
    """Rotated data, rotated alternatives and, for a low rank, the plain ones."""
    s, u = np.linalg.eigh(k)
    p, s = u[:, ::-1].T[:r], np.maximum(s[::-1], 0.0)[:r]
    if r is None:
        return design.rotated_data(p @ y, p @ x, s), a @ p.T, None
    return design.rotated_data(p @ y, p @ x, s, y, x), a @ p.T, a


def prepared(data, test="lrt", **options):
    return refit.refit_test(data, reml.fit_null(data, on_boundary="clamp"), test, **options)


def with_alternative(data, pa, a=None):
    """The same data with an alternative among the fixed effects."""
    x = None if a is None else np.column_stack([data.x, a])
    return design.rotated_data(data.py, np.column_stack([data.px, pa]), data.s, data.y, x)


def searched(data, criterion):
    """Lowest value and place of the exact curve, by bounded searches from the valleys of a grid; and the curve."""

    def value(u):
        return reml.neg_log_likelihood(data, reml.evaluate(data, float(u)), criterion)

    def slope(u):
        return reml.derivative(data, reml.evaluate(data, float(u)), criterion)

    grid = np.linspace(*BOUNDS, 129)
    values = np.r_[np.inf, reml.grid_values(data, grid, criterion), np.inf]
    middle = values[1:-1]
    found = []
    for i in np.flatnonzero((middle <= values[:-2]) & (middle <= values[2:]) & (middle < middle.min() + 1.0)):
        low, high = grid[max(i - 1, 0)], grid[min(i + 1, grid.size - 1)]
        if not slope(low) < 0.0 < slope(high):  # at a bound, or two valleys in one
            options = {"xatol": 1e-8}
            x = optimize.minimize_scalar(value, bounds=(low, high), method="bounded", options=options).x
            low, high = max(x - 1e-3, low), min(x + 1e-3, high)
        if slope(low) < 0.0 < slope(high):  # values tell x only to the root of rounding, slopes to rounding
            x = optimize.brentq(slope, low, high, xtol=1e-13)
        for end in BOUNDS:
            x = end if abs(x - end) < reml.BOUNDARY_DISTANCE else x
        found.append((value(x), x))
    return *min(found), value


@pytest.fixture(params=[True, False], ids=["whole range where flat", "window"])
def windows(request, monkeypatch):
    """Both ways in which optima are sought where the null's likelihood is flat, as that of few samples is."""
    if not request.param:
        monkeypatch.setattr(refit, "_flat", lambda window: False)


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("kind", KINDS)
def test_optima_are_those_of_searches_on_the_exact_curve(kind):
    at_boundary = 0
    for seed in range(40):
        y, x, k, alternatives = random_problem(kind, seed)
        data, pa, a = rotated(y, x, k, alternatives, y.size // 2 if seed % 4 >= 2 else None)
        got = refit.refit_block(prepared(data), pa, a)
        assert (got.status == Status.OK).all()
        for j in (seed % 3,):
            both = with_alternative(data, pa[j], None if a is None else a[j])
            bound = []
            for criterion, found in (("reml", got.log_gamma[j]), ("ml", got.log_gamma_ml[j])):
                lowest, place, value = searched(both, criterion)
                excess = value(found) - lowest
                agree = abs(found - place) < 1e-6 or abs(excess) < 1e-10 * max(1.0, abs(lowest))
                assert agree, (seed, j, criterion, found, place, excess)
                bound.append(found in BOUNDS)
            assert got.at_boundary[j] == any(bound)
            full = -(value(got.log_gamma_ml[j]) + reml.constant(both, "ml"))
            assert got.log_likelihood[j] == pytest.approx(full, rel=1e-11, abs=1e-9)
            at_boundary += any(bound)
    assert at_boundary > 0


def levels_problem(rng):
    """Eigenvalues of a few levels, and alternatives that follow the response on some of them: several valleys."""
    levels = int(rng.integers(3, 6))
    n = int(rng.choice([400, 1000, 3000]))
    sizes = rng.multinomial(n - 4 * levels, rng.dirichlet(np.full(levels, 0.7))) + 4
    s = np.repeat(np.sort(np.exp(rng.uniform(-9, 9, levels)))[::-1], sizes)
    scale = np.repeat(np.exp(rng.normal(0, rng.choice([1, 3, 5]), levels)), sizes)
    py = rng.standard_normal(n) * np.sqrt(scale)
    follows = rng.random((16, levels)) < 0.5
    noise = rng.standard_normal((16, n)) * np.sqrt(scale) * 10.0 ** rng.uniform(-2.8, -0.5, (16, 1))
    data, _ = design.orthogonal(design.rotated_data(py, rng.standard_normal((n, 1)), s))
    return data, py * np.repeat(follows, sizes, axis=1) + noise


@pytest.mark.usefixtures("windows")
def test_valleys_between_sentinels_are_found():
    """What a window and its sentinels find is what the whole range finds, for large samples and effects too."""
    rng = np.random.default_rng(39)
    outside = 0
    for _ in range(12):
        data, pa = levels_problem(rng)
        null = prepared(data)
        got = refit.refit_block(null, pa)
        want = refit.refit_block(replace(null, window=replace(null.whole, tile=null.window.tile)), pa)
        np.testing.assert_array_equal(got.status, want.status)
        ok = got.status == Status.OK
        for name in ("log_gamma", "log_gamma_ml"):
            gap = np.abs(getattr(got, name) - getattr(want, name))[ok]
            flat = np.abs(got.log_likelihood - want.log_likelihood)[ok] < 1e-8
            assert ((gap < 1e-5) | flat).all()
        low, high = null.window.log_gamma[[0, null.window.n_series - 1]]
        outside += int(((got.log_gamma_ml[ok] < low) | (got.log_gamma_ml[ok] > high)).sum())
    assert outside > 0


@pytest.mark.usefixtures("windows")
def test_a_variant_that_explains_nearly_all_keeps_its_test():
    """Rounding of what is left of y is allowed for, as that of what is left of the variant is."""
    y, x, k, _ = random_problem("structured", 5, n=300)
    noise = np.random.default_rng(1).standard_normal(300)
    a = np.stack([y + noise * eps for eps in (1e-2, 1e-3, 3e-4, 1e-4)])
    data, pa, _ = rotated(y, x, k, a)
    got = refit.refit_block(prepared(data), pa)
    assert (got.status == Status.OK).all()
    assert (np.diff(got.log_p) < 0).all()
    for j in range(4):
        lowest, _, value = searched(with_alternative(data, pa[j]), "ml")
        assert value(got.log_gamma_ml[j]) - lowest < 1e-6 * abs(lowest)


def dense(y, x, k, a, log_gamma):
    """Effect, error and variance scale by generalised least squares with the covariance matrix itself."""
    n, f = x.shape
    hi = np.linalg.inv(k + np.exp(-log_gamma) * np.eye(n))
    both = np.column_stack([x, a])
    beta = np.linalg.solve(both.T @ hi @ both, both.T @ hi @ y)
    e = y - both @ beta
    sigma_sq = e @ hi @ e / (n - f - 1)
    return beta[-1], np.sqrt(sigma_sq * np.linalg.inv(both.T @ hi @ both)[-1, -1]), sigma_sq


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("test", ["lrt", "wald"])
@pytest.mark.parametrize("r", [None, 25])
def test_estimates_equal_dense_least_squares_at_the_optimum(test, r):
    y, x, k, alternatives = random_problem("structured", 5, m=12, n=60)
    data, pa, a = rotated(y, x, k, alternatives, r)
    if r is not None:
        s, u = np.linalg.eigh(k)
        k = (u[:, ::-1][:, :r] * s[::-1][:r]) @ u[:, ::-1][:, :r].T
    got = refit.refit_block(prepared(data, test), pa, a)
    null = reml.fit_null(data, criterion="ml", on_boundary="clamp")
    for j in range(len(pa)):
        want = dense(y, x, k, alternatives[j], got.log_gamma[j])
        np.testing.assert_allclose((got.beta[j], got.standard_error[j], got.sigma_sq[j]), want, rtol=1e-8)
        if test == "wald":
            chi_sq = (want[0] / want[1]) ** 2
            log_p = stats.f.logsf(chi_sq, 1, data.n - data.f - 1)
        else:
            both = with_alternative(data, pa[j], None if a is None else a[j])
            at = reml.evaluate(both, got.log_gamma_ml[j])
            full = -reml.neg_log_likelihood(both, at, "ml") - reml.constant(both, "ml")
            chi_sq = 2.0 * (full - null.log_likelihood)
            log_p = stats.chi2.logsf(chi_sq, 1)
        assert got.chi_sq[j] == pytest.approx(chi_sq, rel=1e-7, abs=1e-9)
        assert got.log_p[j] == pytest.approx(log_p, rel=1e-7, abs=1e-9)


def test_all_pairs_of_a_low_rank_model_are_the_full_rank_model():
    problem = random_problem("structured", 3, m=9, n=60)
    full, pa, _ = rotated(*problem)
    low, _, a = rotated(*problem, r=60)
    one, two = refit.refit_block(prepared(full), pa), refit.refit_block(prepared(low), pa, a)
    for name in NAMES:
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("r", [None, 60])
def test_a_variant_s_bits_do_not_depend_on_its_block(r):
    y, x, k, alternatives = random_problem("structured", 1, m=600, n=200)
    alternatives[::7] += 2.0 * y / y.std()  # optima elsewhere
    data, pa, a = rotated(y, x, k, alternatives, r)
    null = prepared(data)
    whole = refit.refit_block(null, pa, a)
    outside = np.abs(whole.log_gamma - reml.fit_null(data).log_gamma) > 3.0
    assert 0 < outside.sum() < 600
    for rows in (slice(0, 1), slice(3, 260), slice(255, 600), slice(None, None, -1)):
        part = refit.refit_block(null, pa[rows], None if a is None else a[rows])
        for name in NAMES:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("r", [None, 20])
def test_sums_may_come_from_blocks_of_eigenvectors(r, monkeypatch):
    data, pa, a = rotated(*random_problem("structured", 2, m=30, n=70), r)
    null = prepared(data, "wald")
    want = refit.refit_block(null, pa, a)
    monkeypatch.setattr(refit, "TILE_EIGEN", 13)
    sums = refit.node_sums(null, null.window, len(pa))
    for start in range(0, data.r, 16):
        eigen = slice(start, start + 16)
        weights = refit.node_weights(null, null.window, eigen)
        for part in (slice(0, 11), slice(11, 30)):
            refit.add_rotated_nodes(weights, pa[part, eigen], sums[part])
    if a is not None:
        refit.add_plain_nodes(null, null.window, a, sums)
    stats_, redo = refit.refit_stats(null, null.window, sums, 1e-11)
    for name in NAMES:
        np.testing.assert_allclose(
            getattr(stats_, name)[~redo], getattr(want, name)[~redo], rtol=1e-8, atol=1e-10
        )


def test_an_optimum_outside_the_window_is_found(monkeypatch):
    """A null at high heritability that is one variant's effect: with it in the model, none is left."""
    rng = np.random.default_rng(4)
    n = 400
    group = np.repeat([0.0, 1.0], n // 2)
    z = rng.standard_normal((n, 2 * n))
    k = 50.0 * np.outer(group - 0.5, group - 0.5) + z @ z.T / (2 * n)
    y = 3.0 * group + rng.standard_normal(n)
    alternatives = np.vstack([rng.integers(0, 3, (5, n)), group])
    data, pa, _ = rotated(y, np.ones((n, 1)), k, alternatives)
    monkeypatch.setattr(refit, "_flat", lambda window: False)
    null = prepared(data)
    sums = refit.node_sums(null, null.window, 6)
    refit.add_rotated_nodes(refit.node_weights(null, null.window, slice(None)), pa, sums)
    alone, redo = refit.refit_stats(null, null.window, sums, 1e-11)
    assert redo[5]
    got = refit.refit_block(null, pa)
    lowest, place, value = searched(with_alternative(data, pa[5]), "reml")
    assert abs(alone.log_gamma[5] - place) > 0.1
    assert got.log_gamma[5] == pytest.approx(place, abs=1e-6) or value(got.log_gamma[5]) - lowest < 1e-10


def test_an_optimum_beyond_the_window_s_edge_is_found_without_sentinels(monkeypatch):
    data, pa, _ = rotated(*random_problem("structured", 6, m=30, n=200))
    want = refit.refit_block(prepared(data), pa)
    for name in ("WINDOW_ERRORS", "NARROWEST"):
        monkeypatch.setattr(refit, name, 0.01)
    monkeypatch.setattr(refit_grid, "LARGEST_MARGIN", -np.inf)
    null = prepared(data)  # which is not flat by that margin
    window = null.window.log_gamma[: null.window.n_series]
    assert ((want.log_gamma < window.min()) | (want.log_gamma > window.max())).sum() > 3
    got = refit.refit_block(null, pa)
    np.testing.assert_allclose(got.log_gamma, want.log_gamma, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got.log_gamma_ml, want.log_gamma_ml, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("windows")
def test_an_optimum_just_inside_a_bound_is_taken_to_it():
    data, pa, _ = rotated(*random_problem("structured", 5, n=60))
    free = refit.refit_block(prepared(data), pa)
    assert not free.at_boundary[0]
    for side in (-1.0, 1.0):
        bounds = sorted((free.log_gamma[0] + side * 0.6 * reml.BOUNDARY_DISTANCE, -side * 7.0))
        got = refit.refit_block(prepared(data, bounds=tuple(bounds)), pa)
        assert got.at_boundary[0]
        assert got.log_gamma[0] == pytest.approx(bounds[0 if side < 0 else 1], abs=1e-12)


def lowest(functions):
    """Places of the minima of functions on [-1, 1], one a variant, by the search that curves go through."""
    series = chebyshev.series(33)
    values = np.array([[f(x) for f in functions] for x in chebyshev.lobatto(33)])
    slopes = np.stack([series.first @ values, series.second @ values], axis=1)[:, :, None]
    return refit._lowest(series.points, (series.at_points @ values)[None], slopes, 1.0)[0]


def test_the_deeper_of_two_valleys_is_chosen_between_the_points_that_are_looked_at():
    points = chebyshev.series(33).points
    on, between = points[12], 0.5 * (points[45] + points[46])
    tilt = 1e-4

    def curve(x):
        return (x - on) ** 2 * (x - between) ** 2 - tilt * x

    assert curve(points[45]) > curve(on)
    assert curve(between) < curve(on)
    want = optimize.minimize_scalar(
        curve, bounds=(between - 0.01, between + 0.01), options={"xatol": 1e-12}
    ).x
    assert lowest([curve])[0] == pytest.approx(want, abs=1e-7)


def test_a_curve_that_takes_many_steps_leaves_its_neighbour():
    def easy(x):
        return np.cosh(x - 0.3137)

    def hard(x):
        return (x - 0.01) ** 8

    alone, beside = lowest([easy, easy]), lowest([easy, hard])
    assert alone[0] == pytest.approx(0.3137, abs=1e-9)
    assert beside[0] == alone[0]


@pytest.mark.usefixtures("windows")
def test_a_row_without_a_test_is_nan_and_leaves_its_neighbours():
    y, x, k, a = random_problem("structured", 8, m=25, n=60)
    data, pa, _ = rotated(y, x, k, a)
    null = prepared(data, "wald")
    clean = refit.refit_block(null, pa)
    p = np.linalg.eigh(k)[1][:, ::-1].T
    a[3], a[7] = 2.0, x @ np.arange(1.0, 1.0 + x.shape[1])
    a[14] = y
    pa = a @ p.T
    pa[11, 4], pa[12, 0], pa[13], pa[15] = np.nan, np.inf, 0.0, 1e200
    got = refit.refit_block(null, pa)
    bad = {3: Status.COLLINEAR_WITH_COVARIATES, 7: Status.COLLINEAR_WITH_COVARIATES, 13: Status.CONSTANT}
    bad |= dict.fromkeys((11, 12, 15), Status.NOT_FINITE)
    bad[14] = Status.PERFECT_FIT
    assert got.status.tolist() == [bad.get(j, Status.OK) for j in range(len(a))]
    rest = [j for j in range(len(a)) if j not in bad]
    for name in set(NAMES) - {"status"}:
        values = getattr(got, name)
        assert (np.isnan(values[list(bad)]) if values.dtype == float else ~values[list(bad)]).all()
        np.testing.assert_array_equal(values[rest], getattr(clean, name)[rest])


def test_float32_keeps_a_constant_out_and_gives_the_same_tests():
    y, x, k, a = random_problem("structured", 8, m=25, n=60)
    data, pa, _ = rotated(y, x, k, a)
    null = prepared(data)
    want = refit.refit_block(null, pa)
    pa[3] = np.linalg.eigh(k)[1][:, ::-1].T @ np.full(60, 2.0)
    got = refit.refit_block(null, pa.astype(np.float32))
    assert got.status[3] == Status.COLLINEAR_WITH_COVARIATES
    np.testing.assert_allclose(np.delete(got.chi_sq, 3), np.delete(want.chi_sq, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("windows")
def test_scale_of_the_response_changes_no_test():
    y, x, k, a = random_problem("structured", 9, m=9, n=60)
    want = None
    for scale in (1.0, 1e-6, 1e7):
        data, pa, _ = rotated(scale * y, x, k, a)
        got = refit.refit_block(prepared(data), pa)
        want = want or got
        np.testing.assert_allclose(got.log_gamma, want.log_gamma, rtol=0, atol=1e-8)
        np.testing.assert_allclose(got.chi_sq, want.chi_sq, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(got.beta, scale * want.beta, rtol=1e-7, atol=1e-10 * scale)


def test_no_variant_is_done_twice_where_the_null_is_flat():
    """Few samples tell little of the variance ratio: the whole range is summed at once."""
    data, _, _ = rotated(*random_problem("structured", 0, m=30, n=80))
    null = prepared(data)
    assert null.window.n_series == null.whole.n_series == null.window.log_gamma.size
    assert null.window.tile > null.whole.tile
    s = np.geomspace(20.0, 0.01, 3000)  # of many samples, whose likelihood is far lower at any sentinel
    y = np.random.default_rng(1).standard_normal(3000) * np.sqrt(1.0 + s)
    grid = prepared(design.rotated_data(y, np.ones((3000, 1)), s)).window
    assert grid.log_gamma.size > grid.n_series


def test_the_test_travels_small_and_an_empty_block_is_one():
    data, pa, _ = rotated(*random_problem("structured", 0, n=80))
    null = prepared(data)
    assert len(pickle.dumps(null)) < 60_000
    again = pickle.loads(pickle.dumps(null))
    np.testing.assert_array_equal(refit.refit_block(again, pa).chi_sq, refit.refit_block(null, pa).chi_sq)
    assert all(getattr(refit.refit_block(null, pa[:0]), name).shape == (0,) for name in NAMES)


def test_a_series_that_did_not_decay_is_not_trusted(monkeypatch):
    """Too few nodes, as a fault would leave them, send a variant to the whole range; there it has no numbers."""
    data, pa, _ = rotated(*random_problem("structured", 0, n=80))
    monkeypatch.setattr(refit, "_flat", lambda window: False)
    null = prepared(data)
    coarse = replace(prepared(data, tolerance=1e-4), tolerance=1e-10)
    weights = refit.node_weights(coarse, coarse.whole, slice(None))
    sums = refit.node_sums(coarse, coarse.whole, len(pa))
    refit.add_rotated_nodes(weights, pa, sums)
    lost, _ = refit.refit_stats(coarse, coarse.whole, sums, 1e-11)
    assert (lost.status == Status.NOT_FINITE).all()
    assert np.isnan(lost.chi_sq).all()
    assert (refit.refit_block(replace(coarse, whole=null.whole), pa).status == Status.OK).all()


def test_wrong_options_and_blocks_are_refused():
    problem = random_problem("structured", 0, n=60)
    full, pa, _ = rotated(*problem)
    low, pl, a = rotated(*problem, r=12)
    null, null_low = prepared(full), prepared(low)
    with pytest.raises(RankError, match="full rank, so a must not be given"):
        refit.refit_block(null, pa, problem[3])
    with pytest.raises(RankError, match="low rank, so the unrotated"):
        refit.refit_block(null_low, pl)
    with pytest.raises(ShapeError, match=r"shape \(m, 60\) is needed"):
        refit.refit_block(null, pa[:, :-1])
    with pytest.raises(ShapeError, match=r"\(3, 60\) is needed"):
        refit.refit_block(null_low, pl, a[:-1])
    with pytest.raises(OptionError, match="The score test needs none"):
        prepared(full, "score")
    with pytest.raises(OptionError, match=r"in \(0, 1e-4\]"):
        prepared(full, tolerance=0.0)
    with pytest.raises(OptionError, match="too wide for a tolerance of 1e-16"):
        prepared(full, tolerance=1e-16, bounds=(-12.0, 12.0))
    with pytest.raises(OptionError, match="in rising order"):
        prepared(full, bounds=(1.0, -1.0))
    rng = np.random.default_rng(0)
    tiny = design.rotated_data(rng.standard_normal(4), rng.standard_normal((4, 3)), np.ones(4))
    with pytest.raises(CovariateError, match="at least 5 samples"):
        prepared(tiny)


@pytest.mark.parametrize("k", [6, 12, 33, 68])
def test_the_matrices_of_a_series(k):
    """They invert the polynomials' values, and have the same bits whatever the threads of BLAS."""
    made = []
    for threads in (1, 2):
        chebyshev.series.cache_clear()
        with threadpool_limits(threads):
            made.append(chebyshev.series(k))
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)
    polynomials = np.polynomial.chebyshev.chebvander(chebyshev.lobatto(k), k - 1)
    np.testing.assert_allclose(made[0].values @ polynomials, np.eye(k), atol=1e-13)


@pytest.mark.parametrize("offset", [1, 4, 8])
def test_bits_do_not_depend_on_where_p_lies(offset):
    """What a cluster hands over, or a record, begins at any byte."""
    y, x, k, _ = random_problem("structured", 1, n=90)
    p = spectrum.eigendecompose(k, 25).p
    s = spectrum.eigendecompose(k, 25).s
    null = prepared(design.rotated_data(p @ y, p @ x, s, y, x))
    block = np.random.default_rng(0).integers(0, 3, (40, 90), dtype=np.int8)
    memory = np.empty(p.nbytes + offset + 64, dtype=np.uint8)
    start = -memory.ctypes.data % 64 + offset
    moved = memory[start : start + p.nbytes].view(p.dtype).reshape(p.shape)
    moved[...] = p
    here, there = (refit_scan.refit_scan_block([null], each, block).tests for each in (p, moved))
    for name in NAMES:
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6, 33, 68, 256])
def test_polynomials_are_cosines(k):
    angles = np.linspace(0.0, np.pi, 41).reshape(1, 41)
    found = chebyshev.polynomials(np.cos(angles), k)
    assert found.shape == (k, 1, 41)
    np.testing.assert_allclose(found, np.cos(np.arange(k)[:, None, None] * angles), atol=k**2 * 1e-15)


@settings(max_examples=50)
@given(hnp.arrays(np.float64, (2, 7, 5), elements=st.integers(0, 3)))
def test_the_first_of_equally_low_points_is_taken(values):
    assert (refit._first_lowest(values) == values.argmin(axis=1)).all()


def test_a_block_without_variants_has_no_rows():
    y, x, k, _ = random_problem("structured", 1)
    pairs = spectrum.eigendecompose(k)
    data = design.rotated_data(pairs.p @ y, pairs.p @ x, pairs.s)
    null = refit.refit_test(data, reml.fit_null(data, on_boundary="clamp"))
    nothing = np.empty((0, y.size), dtype=np.int8)
    for p in (pairs.p, pairs.p.astype(np.float32)):
        assert refit_scan.refit_scan_block((null,), p, nothing).tests.beta.shape == (0,)


@pytest.mark.parametrize(("n", "rows"), [(400, 512), (2048, 512), (2049, 256)])
def test_a_tile_of_many_samples_has_fewer_rows(n, rows):
    assert refit.tile_rows(n) == rows
