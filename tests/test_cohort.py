"""Covariates that are categories, and transforms of the phenotype, through the join."""

from __future__ import annotations

import logging
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import dasklmm
from dasklmm import errors
from dasklmm.cohort import join

N = 40
RNG = np.random.default_rng(11)
IDS = np.array([f"s{i:02d}" for i in range(N)])
SITE = np.array(["Oslo", "Bergen", "Tromsø", "Ås"])[np.arange(N) % 4]
AGE = RNG.normal(50, 9, N)
Y = pd.Series(RNG.gamma(2, size=N), IDS, name="bmi")


def genotypes(ids=IDS):
    return xr.Dataset(
        {"dosage": (("variant", "sample"), np.zeros((1, len(ids)), np.int8))},
        coords={"sample_id": ("sample", ids)},
    )


def table(**columns):
    return pd.DataFrame(columns, index=IDS)


def test_text_equals_pandas_dummies(caplog):
    x = table(age=AGE, site=SITE, smoker=np.arange(N) % 3 == 0)
    with caplog.at_level(logging.INFO, "dasklmm"):
        got = join(genotypes(), Y, x)
    want = pd.get_dummies(x.astype({"smoker": str}), drop_first=True, prefix_sep="[")
    assert got.covariates == ["intercept", "age", *(f"{name}]" for name in want.columns[1:])]
    assert got.covariates[2:] == ["site[Oslo]", "site[Tromsø]", "site[Ås]", "smoker[True]"]
    np.testing.assert_array_equal(got.x[:, 1:], want.to_numpy(dtype=float))
    assert got.categories == {
        "site": {"reference": "Bergen", "levels": ["Bergen", "Oslo", "Tromsø", "Ås"]},
        "smoker": {"reference": "False", "levels": ["False", "True"]},
    }
    assert "'site' is categorical: 4 levels" in caplog.text
    assert "the reference is 'Bergen'" in caplog.text


def test_columns_are_selected_unless_all_are_taken_in_order():
    for ids in (IDS, IDS[::-1]):
        assert join(genotypes(ids), Y).selected is None
    for ids, y in ((np.append(IDS, "other"), Y), (np.append("other", IDS), Y), (IDS, Y.iloc[1:])):
        got = join(genotypes(ids), y)
        assert got.selected is got.columns
        assert (ids[got.selected] == got.sample_id).all()


@given(st.lists(st.sampled_from("abcde"), min_size=N, max_size=N).filter(lambda v: len(set(v)) > 1))
def test_any_column_of_text_equals_pandas_dummies(levels):
    got = join(genotypes(), Y, table(site=levels))
    want = pd.get_dummies(pd.Series(levels), drop_first=True)
    assert got.covariates[1:] == [f"site[{level}]" for level in want.columns]
    np.testing.assert_array_equal(got.x[:, 1:], want.to_numpy(dtype=float))


@pytest.mark.parametrize("dtype", [object, "str", "string", "category"])
def test_every_dtype_of_text(dtype):
    want = join(genotypes(), Y, table(site=SITE.astype(object)))
    got = join(genotypes(), Y, table(site=SITE).astype({"site": dtype}))
    np.testing.assert_array_equal(got.x, want.x)
    assert (got.covariates, got.categories) == (want.covariates, want.categories)


def test_a_categorical_keeps_its_own_order():
    sizes = pd.Categorical(np.array(["small", "large", "medium"])[np.arange(N) % 3],
                           ["tiny", "small", "medium", "large"], ordered=True)  # fmt: skip
    got = join(genotypes(), Y, table(size=sizes))
    assert got.covariates == ["intercept", "size[medium]", "size[large]"]
    assert got.categories["size"] == {"reference": "small", "levels": ["small", "medium", "large"]}
    coded = join(genotypes(), Y, table(batch=pd.Categorical(np.arange(N) % 3)))
    assert coded.covariates == ["intercept", "batch[1]", "batch[2]"]


@pytest.mark.parametrize("dtype", [bool, "boolean", object])
def test_truth_values(dtype):
    got = join(genotypes(), Y, table(case=np.arange(N) % 2 == 1).astype({"case": dtype}))
    assert got.covariates == ["intercept", "case[True]"]
    np.testing.assert_array_equal(got.x[:, 1], np.arange(N) % 2)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(N) % 3,
        (np.arange(N) % 3).astype(np.int8),
        (np.arange(N) % 3).astype(np.float32),
        pd.array(np.arange(N) % 3, dtype="Int64"),
        (np.arange(N) % 3).astype(object),
        [Decimal(v) for v in (np.arange(N) % 3).tolist()],
    ],
    ids=["int", "int8", "float32", "Int64", "object", "decimal"],
)
def test_numbers_stay_one_column(values):
    got = join(genotypes(), Y, table(batch=values))
    assert (got.covariates, got.categories) == (["intercept", "batch"], {})
    np.testing.assert_array_equal(got.x[:, 1], np.arange(N) % 3)


def test_numbers_of_an_array_of_objects_stay_numbers():
    values = np.column_stack([AGE.astype(object), SITE.astype(object)])
    coords = {"sample_id": ("sample", IDS), "covariate": ["age", "site"]}
    got = join(genotypes(), Y, xr.DataArray(values, dims=("sample", "covariate"), coords=coords))
    np.testing.assert_array_equal(got.x, join(genotypes(), Y, table(age=AGE, site=SITE)).x)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("dtype", [object, "category", "string"])
def test_a_missing_level_leaves_the_sample_out(dtype, missing):
    site = pd.Series(SITE.astype(object), IDS)
    site.iloc[[3, 8]] = missing
    got = join(genotypes(), Y, site.astype(dtype).to_frame("site"))
    assert got.counts["samples_with_covariates"] == N - 2
    assert set(IDS) - set(got.sample_id) == {"s03", "s08"}
    assert got.covariates == ["intercept", "site[Oslo]", "site[Tromsø]", "site[Ås]"]
    assert got.x.shape == (N - 2, 4)


@pytest.mark.parametrize("dtype", ["Int64", "boolean", object])
def test_missing_values_of_other_columns(dtype):
    values = pd.Series(np.arange(N) % 2, IDS).astype(dtype)
    values.iloc[5] = pd.NA
    assert join(genotypes(), Y, values.to_frame("case")).x.shape == (N - 1, 2)


def test_levels_of_samples_that_are_not_analysed_make_no_column():
    y = Y.copy()
    y[SITE == "Bergen"] = np.nan
    present = IDS[SITE != "Tromsø"]
    got = join(genotypes(present), y, table(site=SITE).astype("category"))
    assert got.covariates == ["intercept", "site[Ås]"]
    assert got.categories == {"site": {"reference": "Oslo", "levels": ["Oslo", "Ås"]}}
    assert set(got.x[:, 1]) == {0.0, 1.0}


def test_rows_are_joined_by_id():
    order = RNG.permutation(N)
    x = table(age=AGE, site=SITE)
    got = join(genotypes(IDS[order]), Y, x)
    want = join(genotypes(), Y, x)
    np.testing.assert_array_equal(got.x, want.x[order])
    np.testing.assert_array_equal(join(genotypes(), Y, x.iloc[order]).x, want.x)


def test_a_table_from_a_file(tmp_path):
    path = tmp_path / "covariates.tsv"
    frame = table(age=AGE, site=SITE, batch=np.arange(N) % 3, case=np.arange(N) % 5 == 0)
    frame.loc["s04", "site"] = None
    frame.rename_axis("sample_id").to_csv(path, sep="\t", na_rep="NA")
    read = dasklmm.read_table(path)
    assert [str(read[c].dtype) for c in read] == ["float64", "str", "float64", "str"]
    got, want = join(genotypes(), Y, path), join(genotypes(), Y, frame)
    assert got.covariates == want.covariates
    assert got.categories == want.categories
    np.testing.assert_allclose(got.x, want.x)
    assert got.sample_id.size == N - 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": "u"}, "'a' is categorical with one level only among the 40 analysed samples, 'u'"),
        ({"a": [True] * N}, "one level only.*'True'"),
        ({"a": IDS}, "40 levels among 40 analysed samples.*looks like an identifier.*group its levels"),
        ({"a": [str(v) for v in AGE]}, "identifier.*Most are numbers, as text. Give numbers"),
        ({"a": [*map(str, AGE[1:]), "52y"]}, "Most are numbers, and these are not: '52y'"),
        ({"a": SITE, "b": np.char.upper(SITE)}, r"'b\[OSLO\]' is a linear combination of 'a\[Oslo\]'"),
        ({"a": SITE, "a[Oslo]": AGE}, r"several covariates are named 'a\[Oslo\]'"),
        ({"a": [date(2000, 1, 1 + i % 20) for i in range(N)]}, "'a' holds date values; numbers, text"),
        ({"a": pd.date_range("2000-01-01", periods=N)}, "'a' holds datetime64.* values"),
        ({"a": AGE + 1j}, "'a' holds complex128 values"),
    ],
)
def test_what_is_no_category_is_refused(columns, message):
    with pytest.raises(errors.CovariateError, match=message):
        join(genotypes(), Y, table(**columns))


@pytest.mark.parametrize(("levels", "refused"), [(50, False), (51, True)])
def test_the_most_levels(levels, refused):
    ids = np.array([f"s{i:03d}" for i in range(200)])
    y = pd.Series(RNG.standard_normal(200), ids)
    x = pd.DataFrame({"chip": [f"c{i % levels:02d}" for i in range(200)]}, ids)
    if refused:
        with pytest.raises(errors.CovariateError, match=r"'chip' is categorical with 51 levels.*At most 50"):
            join(genotypes(ids), y, x)
    else:
        assert join(genotypes(ids), y, x).x.shape == (200, 50)


def test_two_columns_of_one_name_are_refused():
    x = pd.DataFrame(np.column_stack([AGE, AGE**2]), IDS, ["age", "age"])
    with pytest.raises(errors.CovariateError, match="several covariates are named 'age'"):
        join(genotypes(), Y, x)


def test_numbers_among_text_are_said(caplog):
    values = np.array(["1", "2", "unknown"], dtype=object)[np.arange(N) % 3]
    got = join(genotypes(), Y, table(stage=values))
    assert got.covariates == ["intercept", "stage[2]", "stage[unknown]"]
    assert "'stage' is categorical, as it holds numbers and text ('unknown')" in caplog.text


def test_inverse_normal_of_the_analysed_samples():
    y = Y.copy()
    y.iloc[[0, 7]] = np.nan
    present = np.delete(IDS, 20)
    got = join(genotypes(present), y, table(age=AGE), transform="inverse_normal")
    used = y[got.sample_id].to_numpy()
    assert used.size == N - 3
    want = stats.norm.ppf((stats.rankdata(used) - 0.375) / (used.size + 0.25))
    np.testing.assert_allclose(got.y, want, rtol=1e-12, atol=1e-14)
    assert got.transform == "inverse_normal"


def test_standardised_and_plain():
    plain = join(genotypes(), Y)
    assert plain.transform is None
    np.testing.assert_array_equal(plain.y, Y)
    got = join(genotypes(), Y, transform="standardise")
    assert got.transform == "standardise"
    np.testing.assert_allclose(got.y, stats.zscore(Y, ddof=1), atol=1e-12)


def test_transforms_that_cannot_be_are_refused():
    with pytest.raises(errors.OptionError, match="transform is 'log'"):
        join(genotypes(), Y, transform="log")
    for transform in ("inverse_normal", "standardise"):
        with pytest.raises(errors.PhenotypeError, match="'bmi' is constant"):
            join(genotypes(), Y * 0 + 3, transform=transform)
    # e^x is no multiple of x, but its ranks are those of x
    x = stats.norm.ppf((np.arange(1, N + 1) - 0.375) / (N + 0.25))
    with pytest.raises(errors.PhenotypeError, match="'bmi' after inverse_normal is constant, or a linear"):
        join(genotypes(), pd.Series(np.exp(x), IDS, name="bmi"), table(x=x), transform="inverse_normal")
