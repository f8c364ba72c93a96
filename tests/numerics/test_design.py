"""Bad input is named before any work."""

from __future__ import annotations

import numpy as np
import pytest

from dasklmm import errors
from dasklmm.numerics import design

RNG = np.random.default_rng(0)
N = 20
Y = RNG.standard_normal(N)
X = np.column_stack([np.ones(N), RNG.standard_normal((N, 2))])
S = np.linspace(3, 0, N)


def test_every_error_is_catchable_by_the_built_in_class():
    for name in dir(errors):
        error = getattr(errors, name)
        if isinstance(error, type) and issubclass(error, errors.DaskLMMError):
            assert error is errors.DaskLMMError or issubclass(error, (ValueError, RuntimeError))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Y[:-1], X, S), errors.ShapeError, "py has 19 rows, px 20, s 20"),
        ((Y, X[:, 0], S), errors.ShapeError, r"px has shape \(20,\).*reshape\(-1, 1\)"),
        ((Y[:, None], X, S), errors.ShapeError, r"py has shape \(20, 1\)"),
        ((np.where(Y > 1, np.nan, Y), X, S), errors.NotFiniteError, r"py has \d+ values that are not"),
        ((Y, np.where(X > 1, np.inf, X), S), errors.NotFiniteError, r"px has .*first at index \("),
        ((Y, X, S - 1), errors.RankError, "negative eigenvalues, the lowest -1"),
        ((Y, X[:, :0], S), errors.CovariateError, "at least one fixed effect"),
        ((Y, X, S, Y), errors.RankError, "y was given without x|x was given without y|needs both"),
        ((Y, X, S, Y, X[:, :2]), errors.ShapeError, r"x needs shape \(20, 3\)"),
        ((Y, X, S, Y[:15], X[:15]), errors.RankError, "20 eigenvalues for 15 samples"),
        ((X[:, 0] * 3, X, S), errors.PhenotypeError, "constant, or a linear combination"),
        ((Y[:3], X[:3], S[:3]), errors.CovariateError, "3 columns for 3 samples"),
    ],
)
def test_rotated_data_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        design.rotated_data(*arguments)


def test_collinear_covariates_are_named():
    x = np.column_stack([X, X[:, 1] - 2 * X[:, 2], np.full(N, 3.0), np.zeros(N)])
    names = ["intercept", "age", "weight", "index", "batch", "empty"]
    with pytest.raises(errors.CovariateError) as caught:
        design.check_design(x, N, names, "the covariates")
    text = str(caught.value)
    assert "'index' is a linear combination of 'age', 'weight'" in text
    assert "'batch' is constant, and so is 'intercept'" in text
    assert "'empty' is zero throughout" in text


def test_scale_of_a_covariate_is_no_collinearity():
    design.check_design(X * [1.0, 1e-9, 1e9], N)


def test_intercept_is_found_in_the_span():
    assert design.has_intercept(X)
    assert not design.has_intercept(X[:, 1:])
    groups = np.repeat(np.eye(2), N // 2, axis=0)  # a dummy for each of two groups
    assert design.has_intercept(groups)


def test_inputs_are_neither_changed_nor_kept():
    y, x, s = Y.copy(), X.copy(), S.copy()
    data = design.rotated_data(y, x, s)
    y[0] = x[0, 0] = s[0] = 99.0
    assert data.py[0] == Y[0]
    assert data.px[0, 0] == X[0, 0]
    assert data.s[0] == S[0]
    with pytest.raises(ValueError, match="read-only"):
        data.py[0] = 1.0


def test_intercept_beside_a_large_covariate():
    """Whether a constant is in the span does not depend on the units of the covariates."""
    assert design.has_intercept(X * [1.0, 1e15, 1e-15])
    assert not design.has_intercept(X[:, 1:] * 1e15)


@pytest.mark.parametrize("low_rank", [False, True])
def test_orthogonal_covariates(low_rank):
    """Orthogonal to each other and to the response, of the same span and determinant."""
    x = X + np.array([0.0, 100.0, -3.0])
    p = np.linalg.qr(RNG.standard_normal((N, N)))[0].T[: 8 if low_rank else N]
    given = design.rotated_data(p @ Y, p @ x, S[: len(p)], *((Y, x) if low_rank else ()))
    made, back = design.orthogonal(given)
    np.testing.assert_allclose(made.xtx, np.diag(np.diag(made.xtx)), atol=1e-11)
    np.testing.assert_allclose(made.xty, 0.0, atol=1e-12)
    assert np.linalg.slogdet(made.xtx)[1] == pytest.approx(np.linalg.slogdet(given.xtx)[1], rel=1e-9)
    weights = np.linspace(0.5, 2.0, len(p))
    beta = [np.linalg.lstsq(weights[:, None] * d.px, weights * d.py, rcond=None)[0] for d in (given, made)]
    np.testing.assert_allclose(back(beta[1]), beta[0], rtol=1e-8)
    if low_rank:
        np.testing.assert_allclose(p @ made.x, made.px, atol=1e-10)
        np.testing.assert_allclose(p @ made.y, made.py, atol=1e-10)
