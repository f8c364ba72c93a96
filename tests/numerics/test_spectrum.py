"""Eigenpairs of kinships and factors, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from dasklmm.errors import KinshipError, OptionError, RankError
from dasklmm.numerics import spectrum


def test_pairs_are_descending_and_rebuild_the_kinship(problem):
    pairs = spectrum.eigendecompose(problem.k)
    assert (np.diff(pairs.s) <= 0).all()
    np.testing.assert_allclose((pairs.p.T * pairs.s) @ pairs.p, problem.k, atol=1e-12)
    np.testing.assert_allclose(pairs.p @ pairs.p.T, np.eye(problem.n), atol=1e-12)
    assert pairs.n_dropped == 0


@pytest.mark.parametrize("in_numpy", [True, False])
def test_a_kinship_in_single_precision_is_decomposed_in_double(problem, monkeypatch, in_numpy):
    monkeypatch.setattr(spectrum, "in_numpy", lambda n: in_numpy)
    single = problem.k.astype(np.float32)
    pairs = spectrum.eigendecompose(single)
    assert pairs.p.dtype == pairs.s.dtype == np.float64
    assert pairs.p.flags.c_contiguous
    np.testing.assert_allclose((pairs.p.T * pairs.s) @ pairs.p, single, atol=1e-12)
    assert (single == problem.k.astype(np.float32)).all()


def test_truncation_keeps_the_leading_pairs_and_counts_the_rest(problem):
    pairs = spectrum.eigendecompose(problem.k, rank=10)
    assert pairs.p.shape == (10, problem.n)
    np.testing.assert_allclose(pairs.s, problem.s[:10], rtol=1e-10)
    assert pairs.n_dropped == problem.n - 10
    assert pairs.largest_dropped == pytest.approx(problem.s[10])


def test_rounding_below_zero_becomes_zero():
    z = np.random.default_rng(0).standard_normal((30, 5))
    pairs = spectrum.eigendecompose(z @ z.T)
    assert (pairs.s >= 0).all()
    assert (pairs.s[5:] < 1e-12).all()


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (np.ones((3, 4)), r"shape \(3, 4\); a square"),
        (np.ones(3), r"shape \(3,\)"),
        (np.empty((0, 0)), "empty"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), r"1 elements that are not finite, the first at \[0, 1\]"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), r"\[0, 1\] is 0.5 and \[1, 0\] is 0.4"),
        (
            np.eye(600) + 0.1 * (np.arange(600) == 7)[:, None] * (np.arange(600) == 590),
            r"\[7, 590\] is 0.1 and \[590",
        ),
        (np.diag([1.0, -0.1, 2.0]), "lowest eigenvalue is -0.1, its largest 2"),
    ],
)
def test_a_kinship_that_is_none_is_refused_with_the_numbers(k, message):
    with pytest.raises(KinshipError, match=message):
        spectrum.eigendecompose(k)


@pytest.mark.parametrize("rank", [0, -1, 61])
def test_rank_outside_is_refused(problem, rank):
    with pytest.raises(RankError, match="from 1 to 60"):
        spectrum.eigendecompose(problem.k, rank)


@pytest.mark.parametrize(("n", "m"), [(20, 50), (20, 20), (50, 20)])
def test_factor_gives_the_pairs_of_its_kinship(n, m):
    z = np.random.default_rng(1).standard_normal((n, m))
    pairs = spectrum.factor_spectrum(z)
    assert pairs.p.shape == (min(n, m), n)
    np.testing.assert_allclose((pairs.p.T * pairs.s) @ pairs.p, z @ z.T, atol=1e-10)


def test_ill_conditioned_pairs_are_dropped_and_counted():
    rng = np.random.default_rng(2)
    z = rng.standard_normal((40, 6))
    z[:, 5] = z[:, 0] + 1e-7 * rng.standard_normal(40)
    pairs = spectrum.factor_spectrum(z)
    assert pairs.s.size == 5
    assert pairs.n_dropped == 1
    assert 0 <= pairs.largest_dropped <= 1e-10 * pairs.s[0]
    assert spectrum.factor_spectrum(z, max_condition_number=1e-16).s.size == 6
    with pytest.raises(OptionError, match="at least 1e-16"):
        spectrum.factor_spectrum(z, max_condition_number=1e-17)
    with pytest.raises(KinshipError, match="zero throughout"):
        spectrum.factor_spectrum(np.zeros((9, 2)))


def test_gram_route_equals_the_factor():
    z = np.random.default_rng(3).standard_normal((40, 6))
    want = spectrum.factor_spectrum(z)
    v, s, _ = spectrum.gram_pairs(z.T @ z, 1e-10)
    np.testing.assert_allclose(s, want.s, rtol=1e-12)
    p = spectrum.left_vectors(z, v, s)
    np.testing.assert_allclose((p.T * s) @ p, z @ z.T, atol=1e-12)


def test_double_centring():
    k = np.random.default_rng(4).standard_normal((7, 7))
    k = k @ k.T
    c = np.eye(7) - 1 / 7
    np.testing.assert_allclose(spectrum.double_centered(k), c @ k @ c, atol=1e-12)
