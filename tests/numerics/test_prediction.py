"""Predictions of random effects against dense matrices and Henderson's mixed model equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasklmm import errors
from dasklmm.numerics import design, prediction, reml

RTOL = 1e-9


def relatives(seed=3, n=50, new=8, effects=120):
    """Model's samples first, then new ones, with one kinship."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n + new, effects)) / np.sqrt(effects)
    x = np.column_stack([np.ones(n), rng.standard_normal((n, 2))])
    y = x @ [2.0, 0.5, -0.5] + z[:n] @ rng.standard_normal(effects) + rng.standard_normal(n)
    return y, x, z @ z.T


def pairs_of(k, rank=None):
    s, u = np.linalg.eigh(k)
    return np.maximum(s[::-1][:rank], 0.0), u[:, ::-1][:, :rank].T


def predicted(y, x, s, p, log_gamma=None):
    unrotated = (y, x) if s.size < y.size else (None, None)
    data = design.rotated_data(p @ y, p @ x, s, *unrotated)
    null = reml.fit_null(data, log_gamma, on_boundary="clamp")
    weights = prediction.prediction_weights(data, null)
    return prediction.predict_block(p.T, weights=weights), null


@pytest.fixture(params=[None, 20], ids=["full rank", "low rank"])
def case(request):
    y, x, k_all = relatives()
    s, p = pairs_of(k_all[: y.size, : y.size], request.param)
    return y, x, s, p, (p.T * s) @ p, k_all


def generalised_least_squares(y, x, k, null):
    v = null.sigma_sq * k + null.tau_sq * np.eye(y.size)
    vi = np.linalg.inv(v)
    m = np.linalg.inv(x.T @ vi @ x)
    return v, vi, m, m @ x.T @ vi @ y


@pytest.mark.parametrize("log_gamma", [None, -7.0, 0.0, 6.0])
def test_predictions_equal_the_dense_formula(case, log_gamma):
    y, x, s, p, k, _ = case
    got, null = predicted(y, x, s, p, log_gamma)
    _, vi, m, beta = generalised_least_squares(y, x, k, null)
    np.testing.assert_allclose(null.beta, beta, rtol=1e-8)
    weight = null.sigma_sq * vi @ (y - x @ beta)
    want = k @ weight
    np.testing.assert_allclose(got[:, 0], want, rtol=RTOL, atol=RTOL * np.abs(want).max())
    q = vi - vi @ x @ m @ x.T @ vi
    error = np.diag(null.sigma_sq * k - null.sigma_sq**2 * k @ q @ k)
    np.testing.assert_allclose(got[:, 1], error, rtol=1e-8)
    rows = k[::3]
    np.testing.assert_allclose(rows @ got[:, 2], rows @ weight, rtol=RTOL, atol=RTOL * np.abs(want).max())


def test_predictions_solve_hendersons_equations():
    y, x, k_all = relatives()
    n, f = x.shape
    k = k_all[:n, :n]
    s, p = pairs_of(k)
    got, null = predicted(y, x, s, p)
    left = np.block([[x.T @ x, x.T], [x, np.eye(n) + np.linalg.inv(k) / null.gamma]])
    inverse = np.linalg.inv(left)
    solution = inverse @ np.concatenate([x.T @ y, y])
    np.testing.assert_allclose(null.beta, solution[:f], rtol=1e-8)
    np.testing.assert_allclose(got[:, 0], solution[f:], rtol=RTOL, atol=RTOL * np.abs(solution[f:]).max())
    np.testing.assert_allclose(got[:, 1], np.diag(inverse)[f:] * null.tau_sq, rtol=1e-8)


def test_new_samples_equal_the_dense_formula(case):
    y, x, s, p, k, k_all = case
    n = y.size
    got, null = predicted(y, x, s, p)
    _, vi, _, beta = generalised_least_squares(y, x, k, null)
    cross = k_all[n:, :n] @ p.T @ p  # of the kinship, what lies in the model's eigenvectors
    order = np.random.default_rng(1).permutation(n)
    back = np.argsort(order)
    found = prediction.predict_others(k_all[n:, :n][:, order], sample_weights=got[:, 2], samples=back)
    want = null.sigma_sq * cross @ vi @ (y - x @ beta)
    np.testing.assert_allclose(found[:, 0], want, rtol=RTOL, atol=RTOL * np.abs(want).max())
    np.testing.assert_allclose(found[:, 1], k_all[n:, :n].sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(found[:, 2], np.linalg.norm(k_all[n:, :n], axis=1), rtol=1e-12)


def test_a_sample_of_the_model_gets_its_own_prediction(case):
    y, x, s, p, _, k_all = case
    n = y.size
    got, _ = predicted(y, x, s, p)
    found = prediction.predict_others(k_all[:n, :n], sample_weights=got[:, 2], samples=np.arange(n))
    np.testing.assert_allclose(found[:, 0], got[:, 0], atol=1e-9 * np.abs(got[:, 0]).max())


def test_prediction_of_a_new_sample_is_that_of_a_sample_without_a_phenotype():
    """Henderson's equations with the new samples among the effects, and no record of theirs."""
    y, x, k_all = relatives()
    n, new = y.size, k_all.shape[0] - y.size
    s, p = pairs_of(k_all[:n, :n])
    got, null = predicted(y, x, s, p)
    seen = np.hstack([np.eye(n), np.zeros((n, new))])
    left = np.block([[x.T @ x, x.T @ seen], [seen.T @ x, seen.T @ seen + np.linalg.inv(k_all) / null.gamma]])
    solution = np.linalg.solve(left, np.concatenate([x.T @ y, seen.T @ y]))[x.shape[1] :]
    found = prediction.predict_others(k_all[n:, :n], sample_weights=got[:, 2], samples=np.arange(n))
    np.testing.assert_allclose(found[:, 0], solution[n:], atol=1e-9 * np.abs(solution).max())


@given(st.integers(0, 50), st.floats(-7, 7))
@settings(max_examples=20)
def test_centring_moves_all_predictions_by_one_constant(seed, log_gamma):
    y, x, k_all = relatives(seed)
    n = y.size
    centre = np.eye(n) - 1.0 / n
    plain, _ = predicted(y, x, *pairs_of(k_all[:n, :n]), log_gamma)
    centred, _ = predicted(y, x, *pairs_of(centre @ k_all[:n, :n] @ centre), log_gamma)
    np.testing.assert_allclose(centred[:, 0], plain[:, 0] - plain[:, 0].mean(), atol=1e-9)
    np.testing.assert_allclose(centred[:, 2], plain[:, 2], atol=1e-9 * np.abs(plain[:, 2]).max())
    # the constant of a row has no weight
    assert plain[:, 2].sum() == pytest.approx(0, abs=1e-9 * np.abs(plain[:, 2]).sum())


def test_samples_in_tiles_are_the_samples_at_once(monkeypatch):
    y, x, k_all = relatives()
    s, p = pairs_of(k_all[: y.size, : y.size])
    want, _ = predicted(y, x, s, p)
    other = prediction.predict_others(k_all, sample_weights=want[:, 2], samples=np.arange(y.size))
    monkeypatch.setattr(prediction, "TILE_ROWS", 7)
    np.testing.assert_allclose(predicted(y, x, s, p)[0], want, rtol=1e-10, atol=1e-13)
    tiled = prediction.predict_others(k_all, sample_weights=want[:, 2], samples=np.arange(y.size))
    np.testing.assert_allclose(tiled, other, rtol=1e-10, atol=1e-13)


def test_rows_that_do_not_belong_are_refused():
    y, _, k_all = relatives()
    n = y.size
    k, cross = k_all[:n, :n], k_all[n:, :n]
    centre = np.eye(n) - 1.0 / n

    def check(k, cross):
        s, p = pairs_of(k)
        prediction.check_rows(cross.sum(axis=1), np.linalg.norm(cross, axis=1), s, p.sum(axis=1), n)

    check(k, cross)
    check(centre @ k @ centre, (cross - k.mean(axis=0)) @ centre)
    check(centre @ k @ centre, np.zeros((2, n)))
    check((centre @ k @ centre).astype(np.float32).astype(float), (cross @ centre).astype(np.float32))
    with pytest.raises(errors.KinshipError, match="8 of 8 new samples is not: row 0 sums to"):
        check(centre @ k @ centre, cross)
    cross = cross.copy()
    cross[3, 4] = np.nan
    with pytest.raises(errors.KinshipError, match="1 of 8 new samples is not finite, the first in row 3"):
        check(k, cross)
