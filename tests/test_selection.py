"""Conditional and interaction tests against dense least squares, and which variants and samples are taken."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import dasklmm
from dasklmm import errors
from dasklmm.store.results import open_results

N, M = 100, 240


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(N, M, n_contigs=3, seed=21)
    return ds.assign(dosage=ds["dosage"].chunk({"variant": 50}))


@pytest.fixture(scope="module")
def tables(cohort):
    ids = cohort["sample_id"].values
    y = pd.DataFrame({"trait": cohort["phenotype"].values}, index=ids)
    x = pd.DataFrame(cohort["covariates"].values, index=ids, columns=["age", "sex"])
    return y, x


def dosages(ds):
    g = ds["dosage"].values.astype(float)
    g[g < 0] = np.nan
    return np.where(np.isnan(g), np.nanmean(g, axis=1)[:, None], g)


def dense(y, design, k, extra):
    """Estimates and the likelihood ratio of the last column of `extra` beside `design` and its other columns.

    V = gamma K + I with gamma by REML of `design` alone; each element from matrices written out.
    """
    n = y.size

    def inverse(gamma):
        return np.linalg.inv(gamma * k + np.eye(n))

    def slope(log_gamma):
        vi = inverse(np.exp(log_gamma))
        vx = vi @ design
        q = vi - vx @ np.linalg.solve(design.T @ vx, vx.T)
        return (n - design.shape[1]) * (y @ q @ k @ q @ y) / (y @ q @ y) - np.trace(q @ k)

    vi = inverse(np.exp(optimize.brentq(slope, -7.9, 7.9, xtol=1e-13)))

    def fit(z):
        normal = z.T @ vi @ z
        beta = np.linalg.solve(normal, z.T @ vi @ y)
        rss = (y - z @ beta) @ vi @ (y - z @ beta)
        return beta, rss, np.linalg.inv(normal)

    full = np.column_stack([design, extra])
    beta, rss, inverted = fit(full)
    _, before, _ = fit(full[:, :-1])
    error = np.sqrt(rss / (n - full.shape[1]) * np.diag(inverted))
    return beta, error, n * np.log(before / rss)


def test_conditional_test_equals_dense_least_squares(cohort, tables):
    y, x = tables
    named = [str(v) for v in cohort["variant_id"].values[[7, 120]]]
    got = dasklmm.gwas(cohort, y, x, condition=named, loco=False, precision="double")
    assert got.attrs["covariates"] == ["intercept", "age", "sex", *(f"variant[{v}]" for v in named)]
    assert got["status"].values[[7, 120]].tolist() == ["collinear_with_covariates"] * 2
    g, k = dosages(cohort), dasklmm.kinship(cohort).values
    design = np.column_stack([np.ones(N), x.to_numpy(), g[7], g[120]])
    for j in range(3, M, 29):
        beta, error, chi_sq = dense(y["trait"].to_numpy(), design, k, g[[j]].T)
        np.testing.assert_allclose(got["beta"].values[j] / error[-1], beta[-1] / error[-1], atol=1e-8)
        np.testing.assert_allclose(got["standard_error"].values[j], error[-1], rtol=1e-8)
        np.testing.assert_allclose(got["chi_sq"].values[j], chi_sq, rtol=1e-7, atol=1e-8)


def test_interaction_test_equals_dense_least_squares(cohort, tables):
    y, x = tables
    got = dasklmm.gwas(cohort, y, x, interaction="age", loco=False, precision="double")
    g, k = dosages(cohort), dasklmm.kinship(cohort).values
    design = np.column_stack([np.ones(N), x.to_numpy()])
    for j in range(3, M, 29):
        beta, error, chi_sq = dense(
            y["trait"].to_numpy(), design, k, np.column_stack([g[j], g[j] * x["age"].to_numpy()])
        )
        np.testing.assert_allclose(got["beta"].values[j] / error[-1], beta[-1] / error[-1], atol=1e-8)
        np.testing.assert_allclose(got["standard_error"].values[j], error[-1], rtol=1e-8)
        np.testing.assert_allclose(got["chi_sq"].values[j], chi_sq, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(got["beta_main"].values[j] / error[-2], beta[-2] / error[-2], atol=1e-8)
        np.testing.assert_allclose(got["standard_error_main"].values[j], error[-2], rtol=1e-8)


def test_interaction_of_several_phenotypes_with_loco(cohort, tables):
    y, x = tables
    two = y.assign(other=y["trait"].where(np.arange(N) > 10))
    got = dasklmm.gwas(cohort, two, x, interaction="sex")
    for name in two:
        alone = dasklmm.gwas(cohort, two[[name]], x, interaction="sex")
        assert dasklmm.phenotype_results(got, name).drop_attrs().identical(alone.drop_attrs())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interaction": "bmi"}, r"not among the covariates \(age, sex\)"),
        ({"interaction": "age", "variance_ratio": "per_variant"}, "at the null's variance ratio"),
        ({"condition": ["nix"]}, "'nix'"),
        ({"min_allele_frequency": 0.7}, "from 0 .off. to 0.5"),
        ({"min_allele_count": -1}, "0 .off. or more"),
        ({"max_missing": 2}, "a share from 0 to 1"),
        ({"contigs": ["9"]}, "contig '9' has no variant; the contigs are '1', '2', '3'"),
        ({"contigs": ["2,3"]}, "To give several, repeat"),
        ({"regions": ["1:a-b"]}, "contig:start-end"),
        ({"regions": ["1:9-2"]}, "the smaller first"),
        ({"regions": ["1:5-"]}, "contig:start-end"),
        ({"regions": ["1:1-2"]}, "holds no variant; those of contig '1' lie from"),
        (
            {"regions": ["chr1:1-2"]},
            "contig of region 'chr1:1-2', 'chr1' has no variant; the contigs are '1'",
        ),
        ({"regions": ["2-3"]}, "region '2-3' has no variant"),
        ({"contigs": ["1"], "regions": ["2"]}, "all of the chosen contigs and regions"),
        ({"variants": ["a", "b"]}, "2 of 2 ids .*'a', 'b'"),
        ({"variants": []}, "empty"),
    ],
)
def test_bad_choices_are_refused_before_any_work(cohort, tables, options, message, no_compute):
    y, x = tables
    with pytest.raises(errors.OptionError, match=message):
        dasklmm.gwas(cohort, y, x, **options)


def test_chosen_variants_have_the_numbers_of_a_whole_scan(cohort, tables):
    """The kinship is of all variants, whatever is tested; contigs without a chosen variant cost nothing."""
    y, x = tables
    seen = []
    whole = dasklmm.gwas(cohort, y, x, precision="double")
    ids, position = whole["variant_id"].values, whole["variant_position"].values
    contig = whole["variant_contig"].values
    second = np.flatnonzero(contig == "2")
    low, high = position[second[3]], position[second[30]]
    got = dasklmm.gwas(
        cohort, y, x, regions=[f"2:{low}-{high}"], precision="double", progress=lambda *a: seen.append(a)
    )
    assert got["variant_id"].values.tolist() == ids[second[3:31]].tolist()
    for name in ("beta", "standard_error", "neg_log10_p_value"):
        np.testing.assert_allclose(got[name], whole[name][second[3:31]], rtol=1e-9)
    assert len([s for s in seen if s[0] == "null model"]) == 1
    assert got.attrs["counts"]["variants_in_genotypes"] == M
    assert [null["contig"] for null in got.attrs["null"]] == ["2"]
    some = dasklmm.gwas(
        cohort, y, x, variants=ids[[200, 5, 90]].tolist(), contigs=["1", "2", "3"], precision="double"
    )
    assert some["variant_id"].values.tolist() == ids[[5, 90, 200]].tolist()
    np.testing.assert_allclose(some["beta"], whole["beta"][[5, 90, 200]], rtol=1e-9)


def test_names_of_regions_and_repeated_ids(cohort, tables):
    """A position, a whole contig, a contig with a colon in its name; an id twice is one variant."""
    y, x = tables
    contig = cohort["variant_contig"].values.astype(object)
    contig[contig == "3"] = "HLA:3"
    ds = cohort.assign_coords(variant_contig=("variant", contig.astype(str)))
    ids, position = ds["variant_id"].values, ds["variant_position"].values
    got = dasklmm.gwas(ds, y, x, regions=["HLA:3", f"1:{position[0]}"])
    assert got["variant_id"].values.tolist() == [ids[0], *ids[contig == "HLA:3"]]
    assert got.attrs["selection"] == {"regions": ["HLA:3", f"1:{position[0]}"]}
    got = dasklmm.gwas(ds, y, x, variants=[ids[7], ids[3], ids[7]], contigs="1")
    assert got["variant_id"].values.tolist() == [ids[3], ids[7]]
    assert got.attrs["selection"] == {"variants": 2, "contigs": ["1"]}


def test_samples_that_are_not_there_are_counted(cohort, tables, caplog):
    y, x = tables
    ids = cohort["sample_id"].values[:80].tolist()
    got = dasklmm.gwas(cohort, y, x, samples=[*ids, ids[0], "nobody", "none"], loco=False)
    assert got.attrs["n"] == 80
    assert "1 of the 83 chosen samples stand twice" in caplog.text
    assert "2 of the 82 chosen samples are not among the genotypes: 'nobody', 'none'" in caplog.text


@pytest.mark.parametrize(
    ("count", "message"), [(0, "no sample is in all of"), (3, "only 3 samples are in all")]
)
def test_too_few_samples_are_said_before_any_covariate(cohort, tables, count, message):
    y, x = tables
    ids = cohort["sample_id"].values[:count].tolist() or ["nobody"]
    with pytest.raises(errors.SampleError, match=message) as caught:
        dasklmm.gwas(cohort, y, x, samples=ids)
    assert "such as )" not in str(caught.value)
    assert ("more than 3 are needed for 3 covariates, an intercept" in str(caught.value)) == bool(count)


def test_chosen_samples(cohort, tables):
    y, x = tables
    ids = cohort["sample_id"].values[5:80].tolist()
    got = dasklmm.gwas(cohort, y, x, samples=ids, loco=False)
    want = dasklmm.gwas(cohort, y.loc[ids], x, loco=False)
    np.testing.assert_array_equal(got["beta"], want["beta"])
    assert got.attrs["counts"]["samples_chosen"] == 75 == got.attrs["n"]


def test_filters_leave_a_status_and_change_no_other_number(cohort, tables):
    y, x = tables
    dosage = cohort["dosage"].values.copy()
    dosage[0, :30] = -1
    rare = np.zeros(N, np.int8)
    rare[:3] = 1
    dosage[1] = rare
    dosage[2] = 2 - rare
    ds = cohort.assign(dosage=(("variant", "sample"), dosage))
    plain = dasklmm.gwas(ds, y, x, loco=False)
    n, frequency = plain["n"].values, plain["effect_allele_frequency"].values
    rarer = np.minimum(frequency, 1 - frequency)
    for options, status, out in (
        ({"max_missing": 0.2}, "high_missingness", n < 0.8 * N),
        ({"min_allele_frequency": 0.05}, "low_allele_frequency", rarer < 0.05),
        ({"min_allele_count": 4}, "low_allele_count", np.rint(rarer * 2 * n) < 4),
        ({"min_allele_count": 3}, "low_allele_count", np.rint(rarer * 2 * n) < 3),
    ):
        got = dasklmm.gwas(ds, y, x, loco=False, **options)
        assert np.array_equal(got["status"].values == status, out), options
        assert got.attrs["counts"].get(f"status_{status}", 0) == out.sum()
        np.testing.assert_array_equal(got["beta"].values[~out], plain["beta"].values[~out])
        assert np.isnan(got["beta"].values[out]).all()
        np.testing.assert_array_equal(got["effect_allele_frequency"], frequency)
    assert (rarer < 0.05).any()
    assert (
        "low_allele_count" in dasklmm.gwas(ds, y, x, loco=False, min_allele_count=4)["status"].values[[1, 2]]
    )
    kept = dasklmm.gwas(ds, y, x, loco=False, variance_ratio="per_variant", min_allele_count=4)
    assert (kept["status"].values[[1, 2]] == "low_allele_count").all()
    crossed = dasklmm.gwas(ds, y, x, loco=False, interaction="age", min_allele_count=4)
    assert (crossed["status"].values[[1, 2]] == "low_allele_count").all()


def test_another_choice_is_another_run(cohort, tables, tmp_path):
    y, x = tables
    store = tmp_path / "r.zarr"
    dasklmm.gwas(cohort, y, x, store=store, contigs=["1"])
    assert set(open_results(store)["variant_contig"].values) == {"1"}
    with pytest.raises(errors.StoreError, match="chosen variants"):
        dasklmm.gwas(cohort, y, x, store=store, contigs=["2"])
    with pytest.raises(errors.StoreError, match="min_allele_count"):
        dasklmm.gwas(cohort, y, x, store=store, contigs=["1"], min_allele_count=5)


def test_conditioning_takes_means_of_the_analysed_samples(cohort, tables):
    """Calls of the named variant that are missing are the mean over those who have the phenotype."""
    y, x = tables
    y, dosage = y.copy(), cohort["dosage"].values.copy()
    y.iloc[:15] = np.nan
    dosage[7, :15], dosage[7, 20:30] = 2, -1
    ds = cohort.assign(dosage=(("variant", "sample"), dosage))
    named = str(ds["variant_id"].values[7])
    got = dasklmm.gwas(ds, y, x, condition=[named], loco=False, precision="double")
    kept = ds.isel(sample=slice(15, None))
    g, k = dosages(kept), dasklmm.kinship(kept).values
    design = np.column_stack([np.ones(N - 15), x.to_numpy()[15:], g[7]])
    for j in (3, 90, 200):
        beta, error, _ = dense(y["trait"].to_numpy()[15:], design, k, g[[j]].T)
        np.testing.assert_allclose(got["beta"].values[j] / error[-1], beta[-1] / error[-1], atol=1e-8)


def test_filters_count_calls_and_take_in_their_limits(cohort, tables):
    """A count is of the called samples; a variant at a limit stays; a filter that is off passes everything."""
    y, x = tables
    dosage = cohort["dosage"].values.astype(float)
    dosage[0] = 0.0
    dosage[0, :2], dosage[0, 50:] = 2.0, np.nan  # four copies among fifty calls
    dosage[1] = np.random.default_rng(0).standard_normal(N) - 1.0  # no genotype
    dosage[2, :25] = np.nan
    ds = cohort.assign(dosage=(("variant", "sample"), dosage))

    def status(**filters):
        return dasklmm.gwas(ds, y, x, loco=False, **filters)["status"].values[:3].tolist()

    assert status(min_allele_count=4, max_missing=0.5)[0] == "ok"
    assert status(min_allele_count=5)[0] == "low_allele_count"
    assert status(max_missing=0.49)[0] == "high_missingness"
    assert status(max_missing=0.25)[1:] == ["ok", "ok"]
