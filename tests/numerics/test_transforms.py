"""Transformations of a response against scipy.stats, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from dasklmm import errors
from dasklmm.numerics.transforms import check_transform, inverse_normal, standardise

VALUES = hnp.arrays(np.float64, st.integers(3, 40), elements=st.integers(-6, 6).map(float)).filter(
    lambda v: np.ptp(v) > 0
)


@pytest.mark.parametrize("offset", [3 / 8, 0.5, 1 / 3, 0.0])
def test_quantiles_of_the_ranks(offset):
    y = np.random.default_rng(1).gamma(1.5, size=500)
    y[10:20] = y[0]
    want = stats.norm.ppf((stats.rankdata(y) - offset) / (y.size - 2 * offset + 1))
    np.testing.assert_allclose(inverse_normal(y, offset), want, rtol=1e-13, atol=1e-15)


def test_bloms_offset_is_the_default():
    got = inverse_normal([3.0, 1.0, 2.0, 10.0])
    want = stats.norm.ppf(np.array([2.625, 0.625, 1.625, 3.625]) / 4.25)
    np.testing.assert_allclose(got, want, rtol=1e-13)
    assert not np.allclose(got, inverse_normal([3.0, 1.0, 2.0, 10.0], 0.5))


def test_ties_share_their_mean_rank():
    got = inverse_normal([1.0, 5.0, 5.0, 9.0, 5.0])
    assert got[1] == got[2] == got[4] == 0.0
    assert got[0] == pytest.approx(-got[3])


@given(VALUES)
def test_order_is_kept_and_only_order_counts(y):
    got = inverse_normal(y)
    assert np.array_equal(stats.rankdata(got), stats.rankdata(y))
    np.testing.assert_array_equal(inverse_normal(np.exp(y) * 3), got)
    np.testing.assert_allclose(inverse_normal(-y), -got, atol=1e-13)


def test_result_is_normal():
    got = inverse_normal(np.random.default_rng(0).exponential(size=2000))
    assert stats.kstest(got, "norm").statistic < 1e-3
    assert abs(got.mean()) < 1e-12


@given(VALUES, st.data())
def test_missing_values_pass_through_and_change_nothing(y, data):
    where = data.draw(st.lists(st.integers(0, y.size), max_size=5))
    gaps = np.insert(y, where, np.nan)
    for function in (inverse_normal, standardise):
        got = function(gaps)
        assert np.array_equal(np.isnan(got), np.isnan(gaps))
        np.testing.assert_array_equal(got[~np.isnan(gaps)], function(y))


@given(VALUES, st.floats(0.1, 100), st.floats(-100, 100))
def test_standardised_values(y, scale, shift):
    got = standardise(y)
    np.testing.assert_allclose(got, stats.zscore(y, ddof=1), atol=1e-12)
    assert got.std(ddof=1) == pytest.approx(1)
    np.testing.assert_allclose(standardise(shift + scale * y), got, atol=1e-9)


def test_the_argument_is_left_alone():
    y = np.array([1.0, 2.0, np.nan])
    inverse_normal(y)
    standardise(y)
    np.testing.assert_array_equal(y, [1.0, 2.0, np.nan])


@pytest.mark.parametrize("function", [inverse_normal, standardise])
@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([2.0, 2.0, np.nan], errors.PhenotypeError, r"'bmi' is constant \(2 in all 2 samples\)"),
        ([1e9, 1e9 + 1e-6], errors.PhenotypeError, "'bmi' is constant"),
        ([5.0], errors.PhenotypeError, "constant"),
        ([0.0, 0.0], errors.PhenotypeError, "constant"),
        ([np.nan, np.nan], errors.PhenotypeError, "'bmi' has no value: all 2"),
        ([], errors.PhenotypeError, "no value"),
        ([1.0, np.inf, 2.0], errors.NotFiniteError, "1 infinite"),
    ],
)
def test_what_cannot_be_transformed_is_refused(function, values, error, message):
    with pytest.raises(error, match=message):
        function(values, what="'bmi'")


@pytest.mark.parametrize("offset", [-0.1, 1.0, np.nan])
def test_offset_that_leaves_no_quantile(offset):
    with pytest.raises(errors.OptionError, match="0 <= offset < 1"):
        inverse_normal([1.0, 2.0], offset)


def test_names_of_the_transforms():
    for name in (None, "inverse_normal", "standardise"):
        check_transform(name)
    with pytest.raises(
        errors.OptionError, match="transform is 'rint'; None, 'inverse_normal' or 'standardise'"
    ):
        check_transform("rint")
