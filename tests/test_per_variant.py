"""The scan with each variant's own variance ratio."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm import errors
from dasklmm.lazy.budget import Shape
from dasklmm.numerics import design, reml, spectrum
from dasklmm.store.results import open_results

N, M = 90, 180
NUMBERS = ["beta", "standard_error", "sigma_sq", "chi_sq", "neg_log10_p_value", "log_gamma", "log_gamma_ml"]


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(N, M, n_contigs=2, seed=12)
    dosage = ds["dosage"].values.copy()
    dosage[3], dosage[4] = 1, -1
    return ds.assign(dosage=(("variant", "sample"), dosage)).chunk({"variant": 64})


@pytest.fixture(scope="module")
def tables(cohort):
    ids = cohort["sample_id"].values
    rng = np.random.default_rng(4)
    y = pd.DataFrame(
        {f"t{k}": cohort["phenotype"].values + k * rng.standard_normal(N) for k in range(3)}, ids
    )
    y.iloc[:7, 1] = np.nan
    return y, pd.DataFrame(cohort["covariates"].values, index=ids, columns=["age", "sex"])


def alone(y, x, k, a, criterion):
    """The null fit of one model whose covariates hold the variant."""
    pairs = spectrum.eigendecompose(k)
    full = np.column_stack([x, a])
    data = design.rotated_data(pairs.p @ y, pairs.p @ full, pairs.s)
    return reml.fit_null(data, criterion=criterion, on_boundary="clamp")


@pytest.mark.parametrize("test", ["wald", "lrt"])
def test_each_variant_is_fitted_as_if_it_were_a_covariate(cohort, tables, test):
    y, x = tables
    got = dasklmm.gwas(
        cohort, y[["t0"]], x, loco=False, test=test, variance_ratio="per_variant", precision="double"
    )
    assert got["status"].values[[3, 4]].tolist() == ["constant", "all_missing"]
    assert np.isnan(got["log_gamma"].values[[3, 4]]).all()
    assert got["at_boundary"].dtype == bool
    k = spectrum.double_centered(dasklmm.kinship(cohort).values)
    full = np.column_stack([np.ones(N), x.to_numpy()])
    g = cohort["dosage"].values.astype(float)
    g[g < 0] = np.nan
    for j in range(5, M, 17):
        a = np.where(np.isnan(g[j]), np.nanmean(g[j]), g[j])
        ml, fit = (alone(y["t0"].to_numpy(), full, k, a, c) for c in ("ml", "reml"))
        assert got["at_boundary"].values[j] == (fit.at_boundary or ml.at_boundary)
        np.testing.assert_allclose(got["beta"].values[j], fit.beta[-1], rtol=1e-6)
        np.testing.assert_allclose(got["sigma_sq"].values[j], fit.sigma_sq, rtol=1e-6)
        np.testing.assert_allclose(got["log_gamma"].values[j], fit.log_gamma, atol=1e-6)
        np.testing.assert_allclose(got["log_gamma_ml"].values[j], ml.log_gamma, atol=1e-6)
        np.testing.assert_allclose(got["log_likelihood"].values[j], ml.log_likelihood, rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"rank": 25}], ids=["full rank", "low rank"])
def test_together_alone_stored_and_on_a_cluster(cohort, tables, options, tmp_path):
    """The same bits for a phenotype alone and among others, in memory, from a store, and on processes."""
    y, x = tables
    options = {"variance_ratio": "per_variant", "test": "wald", **options}
    want = dasklmm.gwas(cohort, y, x, **options)
    for name in y.columns:
        one = dasklmm.gwas(cohort, y[[name]], x, **options)
        assert dasklmm.phenotype_results(want, name).drop_attrs().identical(one.drop_attrs())
    stored = dasklmm.gwas(cohort, y, x, store=tmp_path / "r.zarr", **options)
    assert stored.drop_attrs().identical(want.drop_attrs())
    assert open_results(tmp_path / "r.zarr").drop_attrs().identical(want.drop_attrs())
    with dasklmm.local_cluster(n_workers=2, memory_limit="1GB") as cluster, cluster.get_client():
        got = dasklmm.gwas(cohort, y, x, **options)
    assert got.drop_attrs().identical(want.drop_attrs())


def test_p_in_row_blocks(cohort, tables, tmp_path, monkeypatch):
    """P that does not fit is read piece by piece, with the same numbers."""
    y, x = tables
    options = {"variance_ratio": "per_variant", "precision": "double", "loco": False}
    want = dasklmm.gwas(cohort, y[["t0"]], x, **options)
    monkeypatch.setattr(Shape, "fitting_rows", lambda self, room, kinship: (64, True))
    monkeypatch.setattr("dasklmm.lazy.budget.STREAM_BYTES", 8 * N * 20)
    got = dasklmm.gwas(cohort, y[["t0"]], x, store=tmp_path / "r.zarr", **options)
    for name in NUMBERS:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-7, atol=1e-7, err_msg=name)


def test_the_score_test_has_nothing_to_refit(cohort, tables):
    y, _ = tables
    with pytest.raises(errors.OptionError, match="nothing to refit"):
        dasklmm.gwas(cohort, y[["t0"]], variance_ratio="per_variant", test="score")
    with pytest.raises(errors.OptionError, match="'per_variant'"):
        dasklmm.gwas(cohort, y[["t0"]], variance_ratio="each")
