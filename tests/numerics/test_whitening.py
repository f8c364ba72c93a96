"""Whitening of samples: its matrix, its tests beside those of eigenvectors, and what rounding does to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasklmm.errors import CovariateError, KinshipError, OptionError
from dasklmm.numerics import alternatives, design, scan, spectrum, whitening
from dasklmm.numerics.interaction import interaction_block
from dasklmm.numerics.records import Status

NAMES = ("beta", "standard_error", "sigma_sq", "chi_sq", "log_p")


def model(n, f=2, seed=0, markers=None):
    """Eigenpairs of a kinship of n samples, a response and covariates with an intercept."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, markers or 3 * n))
    pairs = spectrum.eigendecompose(spectrum.double_centered(z @ z.T / z.shape[1]))
    x = np.column_stack([np.ones(n), rng.standard_normal((n, f - 1))])
    return pairs.p, pairs.s, rng.standard_normal(n) + z[:, 0], x


def both(p, s, y, x, log_gamma, test="lrt"):
    """Tests at a variance ratio by eigenvectors and whitened, each with its matrix."""
    eigen = alternatives.alternative_test(design.rotated_data(p @ y, p @ x, s), log_gamma, test)
    w = whitening.whitening(p, s, log_gamma)
    return (eigen, p), (whitening.whitened_test(w @ y, w @ x, s, log_gamma, test), w)


def calls(m, n, seed=1):
    return np.random.default_rng(seed).integers(-1, 3, (m, n)).astype(np.int8)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(3, 60), log_gamma=st.floats(-8, 8), markers=st.integers(1, 90), seed=st.integers(0, 99))
def test_matrix_is_the_upper_factor_of_the_inverse_covariance(n, log_gamma, markers, seed):
    p, s, *_ = model(n, seed=seed, markers=markers)
    w = whitening.whitening(p, s, log_gamma)
    assert np.array_equal(w, np.triu(w))
    covariance = (p.T * s) @ p + np.exp(-log_gamma) * np.eye(n)
    np.testing.assert_allclose(w @ covariance @ w.T, np.eye(n), atol=1e-9)


@pytest.mark.parametrize("test", alternatives.TESTS)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(12, 300), f=st.integers(1, 3), log_gamma=st.floats(-6, 6), seed=st.integers(0, 99))
def test_whitened_tests_are_those_of_eigenvectors(test, n, f, log_gamma, seed):
    p, s, y, x = model(n, f, seed)
    (eigen, p), (white, w) = both(p, s, y, x, log_gamma, test)
    block = calls(40, n, seed)
    want, got = scan.scan_block(eigen, p, block).tests, scan.scan_block(white, w, block).tests
    assert got.status.tolist() == want.status.tolist()
    for name in NAMES:
        ours, theirs = getattr(got, name), getattr(want, name)
        scale = want.standard_error if name == "beta" else 1.0
        assert np.nanmax(np.abs(ours - theirs) / scale) <= 1e-8 * (1 + np.nanmax(np.abs(theirs))), name


@pytest.mark.parametrize("n", [5, 256, 257, 600])
@pytest.mark.parametrize("first", [0, 1, 200])
def test_triangular_product_is_the_whole_one(n, first, monkeypatch):
    rng = np.random.default_rng(n)
    u = np.triu(rng.standard_normal((n, n)))[first : first + 300]
    block = rng.standard_normal((300, n))
    np.testing.assert_allclose(scan.rotate(block, u, first), block @ u.T, atol=1e-11)
    multiplied = []
    whole = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: (multiplied.append(b.size), whole(a, b, out=out)))
    scan.rotate(block[:256], u, first)
    assert sum(multiplied) <= u.size - max(0, len(u) - 256) * 256 - first * len(u)


@pytest.mark.parametrize("piece", [1, 100, 300, 512, 1000])
def test_matrix_may_come_in_pieces_of_rows(piece, monkeypatch):
    p, s, y, x = model(600)
    _, (white, w) = both(p, s, y, x, 0.4)

    class Pieces:
        dtype = w.dtype

        def __iter__(self):
            return (w[start : start + piece] for start in range(0, 600, piece))

    block = calls(256, 600)
    want = scan.scan_block(white, w, block).tests
    multiplied, whole = [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: (multiplied.append(b.size), whole(a, b, out=out)))
    got = scan.scan_block(white, Pieces(), block).tests
    assert sum(multiplied) <= 600 * (600 + 256) / 2
    for name in NAMES:
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-9, err_msg=name)


def test_samples_in_another_order_give_the_same_tests():
    """The factor of a reordered covariance is another matrix; what it measures is the same."""
    p, s, y, x = model(90)
    order = np.random.default_rng(5).permutation(90)
    block = calls(50, 90)
    _, (white, w) = both(p, s, y, x, 1.0)
    want = scan.scan_block(white, w, block).tests
    _, (white, w) = both(p[:, order], s, y[order], x[order], 1.0)
    got = scan.scan_block(white, w, block[:, order]).tests
    for name in NAMES:
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-8, err_msg=name)


def test_interaction_is_that_of_eigenvectors(monkeypatch):
    p, s, y, x = model(280, f=3)
    (eigen, p), (white, w) = both(p, s, y, x, 0.7)
    block = calls(300, 280)
    want = interaction_block(eigen, p, block, x[:, 1])
    first, product = [], scan._multiply
    monkeypatch.setattr(scan, "_multiply", lambda *a: (first.append(a[2]), product(*a))[1])
    got = interaction_block(white, w, block, x[:, 1])
    assert set(first) == {0}
    for name in (*NAMES, "beta_main", "standard_error_main"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    ("largest", "log_gamma", "kept"),
    [
        (100.0, -2.0, np.float32),
        (100.0, 3.0, np.float32),
        (300.0, 8.0, np.float32),
        (5000.0, 8.0, np.float64),
    ],
)
def test_alternatives_in_the_span_of_the_covariates_are_told_from_others(largest, log_gamma, kept):
    """With one large eigenvalue, whose vector is the covariate: what rounding leaves of it is longest."""
    n, rng = 400, np.random.default_rng(0)
    e = rng.integers(0, 3, n).astype(np.float64)
    e -= e.mean()
    other = rng.integers(0, 3, (3, n)).astype(np.float64)
    u = np.linalg.qr(np.column_stack([np.ones(n), e, rng.standard_normal((n, n - 2))]))[0]
    s = np.sort(rng.exponential(size=n))[::-1]
    s[n // 4 :] = 0.0
    s[0], p = largest, u.T[np.r_[1:n, 0]]
    x = np.column_stack([np.ones(n), e + 3.0])
    (eigen, p), (white, w) = both(p, s, rng.standard_normal(n), x, log_gamma)
    block = np.vstack([e, 2.0 * e, other])
    w = w.astype(whitening.stored_dtype(np.float32, s, log_gamma))
    got = scan.scan_block(white, w, block).tests
    want = scan.scan_block(eigen, p, block).tests
    assert got.status.tolist() == [Status.COLLINEAR_WITH_COVARIATES] * 2 + [Status.OK] * 3
    np.testing.assert_allclose(got.standard_error[2:], want.standard_error[2:], rtol=1e-4)
    assert w.dtype == kept


def test_rows_that_are_not_finite_leave_their_neighbours():
    p, s, y, x = model(300)
    _, (white, w) = both(p, s, y, x, 0.0)
    block = calls(20, 300).astype(np.float64)
    block[block < 0] = np.nan
    want = scan.scan_block(white, w, block).tests
    block[4, 299], block[5, 0] = np.inf, -np.inf
    got = scan.scan_block(white, w, block).tests
    assert got.status[[4, 5]].tolist() == [Status.NOT_FINITE] * 2
    others = np.delete(np.arange(20), [4, 5])
    assert got.beta[others].tolist() == want.beta[others].tolist()


def test_refusals():
    p, s, y, x = model(30)
    with pytest.raises(KinshipError, match=r"condition number \d\.\de\+1\d .* whiten=False"):
        whitening.whitening(p, s * 1e9, 3.0)
    with pytest.raises(KinshipError, match="not orthogonal"):
        whitening.whitening(p[np.r_[0, : len(p) - 1]], s, 0.0)
    w = whitening.whitening(p, s, 0.0)
    with pytest.raises(OptionError, match="'f'; it is one of"):
        whitening.whitened_test(w @ y, w @ x, s, 0.0, "f")
    wide = np.column_stack([np.ones(30), np.random.default_rng(0).standard_normal((30, 28))])
    with pytest.raises(CovariateError, match="no degree of freedom"):
        whitening.whitened_test(w @ y, w @ wide, s, 0.0)
