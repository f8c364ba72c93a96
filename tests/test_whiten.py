"""The scan of whitened genotypes: the numbers of eigenvectors, by half of the product, for one phenotype."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm import errors
from dasklmm.lazy import budget
from dasklmm.numerics import scan
from dasklmm.scanning import Scan
from dasklmm.store.results import open_results

N, M = 150, 500
NUMBERS = ["standard_error", "sigma_sq", "chi_sq", "neg_log10_p_value"]


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(N, M, n_contigs=3, seed=12)
    dosage = ds["dosage"].values.copy()
    dosage[3], dosage[4] = 1, -1
    ds = ds.assign(dosage=(("variant", "sample"), dosage))
    return ds.assign(dosage=ds["dosage"].chunk(variant=64))


@pytest.fixture(scope="module")
def tables(cohort):
    ids = cohort["sample_id"].values
    y = pd.DataFrame({"trait": 1e4 + cohort["phenotype"].values}, ids)
    x = pd.DataFrame(cohort["covariates"].values, index=ids, columns=["age", "sex"])
    return y.drop(ids[5:9]), x.assign(age=x["age"] + 1e5)


def check_equal(got, want, rtol, main=()):
    assert got["status"].values.tolist() == want["status"].values.tolist()
    for beta, error in (("beta", "standard_error"), *main):
        scale = want[error].values  # a beta beside zero is a difference of larger terms
        np.testing.assert_allclose(got[beta] / scale, want[beta] / scale, atol=10 * rtol, err_msg=beta)
    for name in NUMBERS:
        np.testing.assert_allclose(got[name], want[name], rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize("loco", [True, False])
@pytest.mark.parametrize("test", ["lrt", "wald", "score"])
def test_numbers_are_those_of_eigenvectors(cohort, tables, loco, test):
    want = dasklmm.gwas(cohort, *tables, loco=loco, test=test, precision="double")
    got = dasklmm.gwas(cohort, *tables, loco=loco, test=test, precision="double", whiten=True)
    check_equal(got, want, 1e-8)
    assert (got["status"] == "ok").sum() == M - 2
    assert got.attrs["null"] == want.attrs["null"]
    assert (got.attrs["whiten"], want.attrs["whiten"]) == (True, False)
    single = dasklmm.gwas(cohort, *tables, loco=loco, test=test, whiten=True)
    check_equal(single, want, 2e-4)


def test_interaction(cohort, tables):
    options = {"interaction": "age", "precision": "double"}
    want = dasklmm.gwas(cohort, *tables, **options)
    got = dasklmm.gwas(cohort, *tables, whiten=True, **options)
    check_equal(got, want, 1e-7, [("beta_main", "standard_error_main")])


@pytest.mark.parametrize("pairs", [True, False])
def test_kinship_that_is_given(cohort, tables, pairs):
    y, x = tables
    ids = list(y.index)
    k = dasklmm.kinship(cohort.isel(sample=np.isin(cohort["sample_id"], ids)))
    given = dasklmm.eigendecompose(k) if pairs else k
    options = {"kinship": given, "loco": False, "precision": "double"}
    before = given.copy(deep=True)
    check_equal(
        dasklmm.gwas(cohort, y, x, whiten=True, **options), dasklmm.gwas(cohort, y, x, **options), 1e-8
    )
    assert given.equals(before)


def test_only_the_triangle_is_multiplied(tmp_path, monkeypatch):
    """On threads, in float32, with W whole and in pieces."""
    ds = dasklmm.simulate(600, 300, n_contigs=1, seed=1)
    y = pd.Series(ds["phenotype"].values, ds["sample_id"].values, name="trait")
    multiplied, product = [], scan._multiply

    def counted(rows, p, first, out):
        assert first is not None
        assert not np.tril(p, first - 1).any()
        multiplied.append((p.shape[0], first))
        product(rows, p, first, out)

    monkeypatch.setattr(scan, "_multiply", counted)
    whole = dasklmm.gwas(ds, y, loco=False, whiten=True)
    assert set(multiplied) == {(600, 0)}
    multiplied.clear()
    monkeypatch.setattr(budget, "STREAM_BYTES", 600 * 4 * 100)
    monkeypatch.setattr(budget.Shape, "fitting_rows", lambda *a, **k: (256, True))
    pieces = dasklmm.gwas(ds, y, loco=False, whiten=True, store=tmp_path / "r.zarr")
    assert {first for _, first in multiplied} == set(range(0, 600, 100))
    check_equal(pieces, whole, 1e-4)


def test_single_precision_is_left_where_it_would_not_do(cohort, tables, monkeypatch):
    """A kinship with a large eigenvalue, and a phenotype that follows it."""
    kept, product = set(), scan._multiply
    monkeypatch.setattr(
        scan, "_multiply", lambda rows, p, *a: (kept.add(p.dtype.name), product(rows, p, *a))[1]
    )
    y, x = tables
    ids = np.asarray(y.index)
    k = dasklmm.kinship(cohort.isel(sample=np.isin(cohort["sample_id"], ids)))
    rng = np.random.default_rng(0)
    u = rng.standard_normal(ids.size)
    large = k * 1e-3 + 300 * np.outer(u, u)
    factor = np.linalg.cholesky(large.values + 1e-6 * np.eye(ids.size))
    near = y.assign(trait=factor @ rng.standard_normal(ids.size))
    options = {"kinship": large, "loco": False}
    got = dasklmm.gwas(cohort, near, x, whiten=True, **options)
    assert kept == {"float64"}
    check_equal(got, dasklmm.gwas(cohort, near, x, precision="double", **options), 1e-4)
    dasklmm.gwas(cohort, y, x, whiten=True, loco=False)
    assert kept == {"float32", "float64"}


def test_kept_results_know_it(cohort, tables, tmp_path):
    store = tmp_path / "r.zarr"
    dasklmm.gwas(cohort, *tables, whiten=True, store=store)
    assert open_results(store).attrs["whiten"] is True
    assert "whitened: tests by a triangular factor" in str(dasklmm.summary(open_results(store)))
    with pytest.raises(errors.StoreError, match=r"differs in: whiten \(True there, False now\)"):
        dasklmm.gwas(cohort, *tables, store=store)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variance_ratio": "per_variant"}, errors.OptionError, "each variant's own"),
        ({"rank": 20}, errors.OptionError, "low rank keeps a part of it"),
        ({"rank": 20, "truncated": True}, errors.OptionError, "low rank keeps a part of it"),
        (
            {"phenotype": ["trait", "other"]},
            errors.OptionError,
            "one phenotype, and these are 'trait', 'other'",
        ),
    ],
)
def test_refusals_come_before_any_work(cohort, tables, options, error, message, no_compute):
    y, x = tables
    y = y.assign(other=np.arange(len(y)) % 7.0)
    options = {"phenotype": "trait", "whiten": True, **options}
    with no_compute(), pytest.raises(error, match=message):
        dasklmm.gwas(cohort, y, x, **options)


def test_one_of_several_columns_may_be_whitened(cohort, tables):
    y, x = tables
    got = dasklmm.gwas(cohort, y.assign(other=1.0), x, phenotype=["trait"], whiten=True, precision="double")
    want = dasklmm.gwas(cohort, y, x, precision="double", whiten=True)
    np.testing.assert_array_equal(got["beta"].values[:, 0], want["beta"])


def test_kinship_too_large_to_be_whitened_says_so(cohort, tables):
    y, x = tables
    ids = np.asarray(y.index)
    k = dasklmm.kinship(cohort.isel(sample=np.isin(cohort["sample_id"], ids))) * 1e15
    with pytest.raises(errors.KinshipError, match=r"condition number .* whiten=False"):
        dasklmm.gwas(cohort, y, x, kinship=k, loco=False, whiten=True)


def test_covariates_that_are_nearly_one_beside_a_large_eigenvalue():
    """Whitening shortens what tells them apart 3,000 times more than what they share."""
    ds = dasklmm.simulate(150, 200, n_contigs=1, seed=3)
    ids, rng = ds["sample_id"].values, np.random.default_rng(0)
    u = rng.standard_normal(150)
    u -= u.mean()
    k = dasklmm.kinship(ds) * 1e-3 + 300 * np.outer(u, u)
    factor = np.linalg.cholesky(k.values + 1e-4 * np.eye(150))
    y = pd.Series(factor @ rng.standard_normal(150), ids, name="t")
    a = rng.standard_normal(150)
    x = pd.DataFrame({"a": a, "c": a + 1e-5 * u}, ids)
    options = {"kinship": k, "loco": False, "precision": "double"}
    want, got = (dasklmm.gwas(ds, y, x, whiten=w, **options) for w in (False, True))
    np.testing.assert_allclose(got["neg_log10_p_value"], want["neg_log10_p_value"], atol=1e-6)


@pytest.mark.parametrize("break_pairs", [lambda p, s: p[3:4].fill(np.nan), lambda p, s: s[-1:].fill(-1.0)])
def test_null_model_that_fails_ends_its_phenotype_alone(cohort, tables, break_pairs):
    y, x = tables
    pairs = dasklmm.eigendecompose(dasklmm.kinship(cohort.isel(sample=np.isin(cohort["sample_id"], y.index))))
    p, s = pairs["p"].values.copy(), pairs["s"].values.copy()
    break_pairs(p, s)
    pairs = pairs.assign(p=(pairs["p"].dims, p), s=(pairs["s"].dims, s))
    got = dasklmm.gwas(cohort, y, x, phenotype=["trait"], kinship=pairs, loco=False, whiten=True)
    assert set(got["status"].values.ravel()) == {"no_null_model"}
    with pytest.raises(errors.DaskLMMError, match=r"not finite|negative"):
        dasklmm.gwas(cohort, y, x, kinship=pairs, loco=False, whiten=True)


def test_memory_of_the_factor_is_asked_for_first(cohort, tables, monkeypatch, no_compute):
    y, x = tables
    pairs = dasklmm.eigendecompose(dasklmm.kinship(cohort.isel(sample=np.isin(cohort["sample_id"], y.index))))
    monkeypatch.setattr(budget, "available_memory", lambda: 26 * len(y) ** 2 - 1)
    monkeypatch.setattr(budget, "check_results", lambda *a: None)
    with no_compute(), pytest.raises(errors.MemoryBudgetError, match="whiten=False"):
        dasklmm.gwas(cohort, y, x, kinship=pairs, loco=False, whiten=True)


def test_memory_and_disk_are_planned_for_double_precision(cohort, tables, monkeypatch, tmp_path):
    planned, fits, kept = [], budget.Shape.fitting_rows, Scan.bytes_kept
    monkeypatch.setattr(
        budget.Shape,
        "fitting_rows",
        lambda self, *a, **k: (planned.append(self.p_bytes), fits(self, *a, **k))[1],
    )
    monkeypatch.setattr(Scan, "bytes_kept", lambda self: (planned.append(kept(self)), kept(self))[1])
    for name, options in {"w": {"whiten": True}, "d": {"precision": "double"}, "s": {}}.items():
        dasklmm.gwas(cohort, *tables, loco=False, store=tmp_path / name, **options)
    assert planned[:2] == planned[2:4]
    assert all(single < white for single, white in zip(planned[4:], planned[:2], strict=True))
